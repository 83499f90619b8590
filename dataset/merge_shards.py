"""Fewer, larger text shards: `--ratio` shards at a time become one.

    python dataset/merge_shards.py --data shards --output_dir merged --ratio 4

Train shards are merged with train shards and test shards with test shards, in the natural order of their names, to `training{i}.txt` and
`test{i}.txt`. A number of shards that `--ratio` does not divide leaves a smaller last one, which is said.
"""

import argparse
import sys
from pathlib import Path

if not __package__:  # run by path: the project's root takes the place of this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from dataset.errors import UserError, run_script
from dataset.flags import parse, script_parser
from dataset.text_shards import BOM, SHARD_NAME, append_text, check_space, is_blank, text_files, whole_set

OUTPUT_NAMES = {"train": "training", "test": "test"}


def parse_flags(arguments: list[str] | None) -> argparse.Namespace:
    parser = script_parser("Text shards to fewer, larger ones, train and test kept apart.")
    parser.add_argument("--data", type=Path, required=True, help="folder of text shards, from shard_data")
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--ratio", type=int, default=1, help="shards that become one; default: 1")
    parser.add_argument("--grep", choices=["", *OUTPUT_NAMES], default="", help="merge this split only; default: both")
    parser.add_argument("--overwrite", action="store_true", help="replace the shards in the output folder")
    flags = parse(parser, arguments, {"ratio": (1, None)})
    if not flags.data.is_dir():
        raise UserError(f"--data {flags.data} is no folder; the output folder of shard_data would work")
    if flags.data.resolve() == flags.output_dir.resolve():
        raise UserError(f"--output_dir {flags.output_dir} is also --data; another folder would work")
    return flags


def main(arguments: list[str] | None = None) -> None:
    """Parse `arguments` (None: the command line), write the merged shards and say how many."""
    flags = parse_flags(arguments)
    wanted = [flags.grep] if flags.grep else list(OUTPUT_NAMES)
    splits = {split: leave_empty_out(paths) for split, paths in shards_of_splits(flags.data).items() if split in wanted}
    groups = {
        f"{OUTPUT_NAMES[split]}{number}.txt": paths[start : start + flags.ratio]
        for split, paths in splits.items()
        for number, start in enumerate(range(0, len(paths), flags.ratio))
    }
    if not groups:
        raise UserError(f"--data {flags.data} holds no text shard of {' or '.join(wanted)}; the output folder of shard_data would work")
    with whole_set(flags.output_dir, SHARD_NAME, flags.overwrite, "merge_shards") as folder:
        check_space(flags.output_dir, sum(path.stat().st_size for paths in groups.values() for path in paths))
        for name, paths in groups.items():
            with (folder / name).open("wb") as output:
                for path in paths:
                    append_text(path, 0, path.stat().st_size, output)
    for name, paths in groups.items():
        if len(paths) < flags.ratio:
            print(f"{flags.output_dir}: {name} is smaller, from {len(paths)} shards instead of {flags.ratio}", file=sys.stderr)
    counts = [f"{sum(name.startswith(OUTPUT_NAMES[split]) for name in groups)} {split} shards" for split in wanted]
    print(f"{flags.output_dir}: {' and '.join(counts)} from {sum(map(len, groups.values()))}")


def leave_empty_out(paths: list[Path]) -> list[Path]:
    """The text shards that hold text, of which generate_samples makes samples; a line for each of the others."""
    empty = [path for path in paths if not has_text(path)]
    for path in empty:
        print(f"left out: {path} holds no text", file=sys.stderr)
    return [path for path in paths if path not in empty]


def has_text(path: Path) -> bool:
    """Whether a line of the file is not blank; reading ends there."""
    with path.open("rb") as file:
        return not all(is_blank(line.removeprefix(BOM)) for line in file)


def shards_of_splits(folder: Path) -> dict[str, list[Path]]:
    """Split -> text shards of `folder` in natural order. UserError for a file whose name tells no split."""
    from dataset.shard_format import natural_key, split_of

    splits: dict[str, list[Path]] = {split: [] for split in OUTPUT_NAMES}
    for path in sorted(text_files(folder), key=natural_key):
        split = split_of(path.name)
        if split is None:
            raise UserError(f"{path} has neither 'train' nor 'test' in its name; names like training0.txt would work")
        splits[split].append(path)
    return splits


if __name__ == "__main__":
    run_script(main)
