"""One text of documents with blank lines between them -> exactly N texts of about equal size.

    python dataset/split_text.py --read_file wiki.txt --split_number 8 --folder parts --name_base training

Writes `{folder}/{name_base}_{i}.txt`, i from 0. Documents stay whole and in order: a text ends with the document whose end comes nearest to
its share of the bytes, so one that is much larger than a share makes its text too large. Reads the file three times and holds a line.
"""

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

if not __package__:  # run by path: the project's root takes the place of this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from dataset.errors import UserError, run_script
from dataset.flags import parse, script_parser
from dataset.text_shards import BOM, append_text, check_space, is_blank, whole_set


def parse_flags(arguments: list[str] | None) -> argparse.Namespace:
    parser = script_parser("A text of documents to N texts.")
    parser.add_argument("--read_file", type=Path, required=True, help="text with blank lines between documents")
    parser.add_argument("--split_number", type=int, required=True, help="number of texts")
    parser.add_argument("--folder", type=Path, required=True, help="where the texts go")
    parser.add_argument("--name_base", required=True, help="first part of their names; 'training' is what generate_samples reads")
    parser.add_argument("--overwrite", action="store_true", help="replace the texts of that name in the folder")
    flags = parse(parser, arguments, {"split_number": (1, None)})
    if not flags.read_file.is_file():
        raise UserError(f"--read_file {flags.read_file} is no file")
    flags.name_base = flags.name_base.removesuffix("_")
    if not flags.name_base or "/" in flags.name_base or flags.name_base.startswith("."):
        raise UserError(f"--name_base {flags.name_base!r} begins no file name; training would work")
    if flags.folder.resolve() == flags.read_file.resolve().parent and output_names(flags).fullmatch(flags.read_file.name):
        raise UserError(f"--read_file {flags.read_file} has the name of an output; another --folder or --name_base would work")
    return flags


def output_names(flags: argparse.Namespace) -> re.Pattern:
    """What every output of these flags is called, whatever the number of texts."""
    return re.compile(rf"{re.escape(flags.name_base)}_\d+\.txt")


def main(arguments: list[str] | None = None) -> None:
    """Parse `arguments` (None: the command line), write the texts and say how large they are."""
    flags = parse_flags(arguments)
    from dataset.shard_format import split_of

    with whole_set(flags.folder, output_names(flags), flags.overwrite, "split_text") as folder:
        check_space(flags.folder, flags.read_file.stat().st_size)
        ranges = cut(flags.read_file, flags.split_number)
        for number, (start, end) in enumerate(ranges):
            with (folder / f"{flags.name_base}_{number}.txt").open("wb") as output:
                append_text(flags.read_file, start, end, output)
    sizes = [end - start for start, end in ranges]
    print(f"{flags.folder}: {len(ranges)} texts of {min(sizes)} to {max(sizes)} bytes")
    if split_of(flags.name_base) is None:
        print("generate_samples wants 'train' or 'test' in their names: --name_base training would give it", file=sys.stderr)


def cut(path: Path, texts: int) -> list[tuple[int, int]]:
    """[start, end) in the file of each of `texts` runs of documents. UserError where there are fewer documents."""
    documents = sum(1 for _ in list_documents(path))
    if documents < texts:
        found = f"{documents} documents (blank lines lie between documents)"
        advice = f"--split_number {documents}" if documents else "a file with text"
        raise UserError(f"--split_number {texts}: {path} has {found}; {advice} would work")
    size = path.stat().st_size
    ranges: list[tuple[int, int]] = []
    for number, (start, end) in enumerate(list_documents(path)):
        # Every text has a document: never skip one, and leave enough of them for the texts to come.
        wanted = (start + end) * texts // (2 * size)
        if len(ranges) <= wanted or texts - len(ranges) >= documents - number:
            ranges.append((start, end))
        else:
            ranges[-1] = (ranges[-1][0], end)
    return ranges


def list_documents(path: Path) -> Iterator[tuple[int, int]]:
    """[start, end) in the file of each run of lines that are not blank."""
    position, start = 0, None
    with path.open("rb") as file:
        for line in file:
            if is_blank(line if position else line.removeprefix(BOM)):
                if start is not None:
                    yield start, position
                start = None
            elif start is None:
                start = position
            position += len(line)
    if start is not None:
        yield start, position


if __name__ == "__main__":
    run_script(main)
