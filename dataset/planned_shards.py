"""Which shards of a run are there already, and which are in the way: a second run makes only what is missing."""

import re
import sys
from collections.abc import Collection, Mapping
from pathlib import Path

from dataset.errors import UserError
from dataset.shard_format import BrokenShard, open_shard, read_info

OUR_SHARD = re.compile(r"(train|test)_shard_\d+\.hdf5")
ADVICE = "another --output_dir or --overwrite would work"
Attributes = Mapping[str, int | float | str]


def shards_there(folder: Path, planned: Collection[str], overwrite: bool) -> set[str]:
    """Names of the `planned` shards that are in `folder`, which need not exist; a line for each that is broken, which does not count.

    With `overwrite` all shards in it go first; else UserError where it holds some that are not planned.
    """
    there = {path.name for path in folder.glob("*.hdf5") if OUR_SHARD.fullmatch(path.name)}
    if overwrite:
        for name in there:
            (folder / name).unlink()
        return set()
    strangers = sorted(there - set(planned))
    if strangers:
        raise UserError(f"{folder / strangers[0]} is no shard of this run (there are {len(strangers)} such); {ADVICE}")
    return {name for name in sorted(there) if _is_whole(folder / name)}


def _is_whole(path: Path) -> bool:
    try:
        open_shard(path).close()
    except BrokenShard as error:
        print(f"made anew: {error}", file=sys.stderr)
        return False
    return True


def is_up_to_date(path: Path, expected: Attributes, source: str | None = None) -> bool:
    """Whether a shard has the attributes `expected`; False where only the one called `source` differs, its text having changed.

    UserError for any other difference.
    """
    found = read_info(path).attributes
    differing = [name for name in {**expected, **found} if found.get(name) != expected.get(name)]
    if differing and differing != [source]:
        name = differing[0]
        raise UserError(f"{path} was made with {name} {found.get(name)}, now it is {expected.get(name)}; {ADVICE}")
    return not differing


def missing_shards(folder: Path, planned: Mapping[str, Attributes], overwrite: bool) -> list[str]:
    """Names of `planned` shards that are not in `folder` yet; UserError as by `shards_there` and `is_up_to_date`."""
    there = shards_there(folder, planned, overwrite)
    for name in sorted(there):
        is_up_to_date(folder / name, planned[name])
    return [name for name in planned if name not in there]
