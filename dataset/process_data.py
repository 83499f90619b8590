"""Step 1, any text -> one article a line: `{type}_one_article_per_line.txt`, a blank line after each article.

    python dataset/process_data.py -o processed --type wiki          -f enwiki-latest-pages-articles.xml.bz2
    python dataset/process_data.py -o processed --type wikiextractor -f extracted/
    python dataset/process_data.py -o processed --type bookcorpus    -f books/
    python dataset/process_data.py -o processed --type text          -f documents.txt.gz
    python dataset/process_data.py -o processed --type lines         -f dump.txt
    python dataset/process_data.py -o processed --type wikitext      -f wikitext-103/wiki.train.tokens
    python dataset/process_data.py -o processed --type jsonl         -f pile/00.jsonl.zst --field text
    python dataset/process_data.py -o processed --type datasets      -f saved_dataset/ --field text
    python dataset/process_data.py -o processed --type datasets      -f wikimedia/wikipedia --dataset_config 20231101.en

All white space becomes single spaces (Unicode's line separators too), titles are dropped, and articles without text are left out and
counted. Text files may be gzip, bzip2 or zstd (.gz, .bz2, .zst); the files of a folder are read in the plain order of their paths, hidden
ones not at all. One article is in memory at a time. Bytes that are no UTF-8 are an error with file and line, or U+FFFD with
`--errors replace`.
"""

import argparse
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

if not __package__:  # run by path: the project's root takes the place of this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from dataset.errors import UserError, run_script
from dataset.files import locked, reason, remove_partials, whole_file
from dataset.flags import parse, script_parser
from dataset.jobs import core_count
from dataset.readers import FILE, FOLDER, NAME, READERS
from dataset.readers.source import REPLACE, STRICT, Source

HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
PACKED = "files may be packed (.gz, .bz2, .zst), but for those of datasets, which its library unpacks itself"
OPTIONAL = ("errors", "field", "dataset_split", "dataset_config", "n_processes")
SPLIT_AT_ONCE = 1 << 22  # characters; a list of all words of a longer text would take ten times its size
WHITE_SPACE = re.compile(r"\s+")


@dataclass(frozen=True)
class Written:
    """What the output file holds: articles, bytes, and how many empty ones were left out."""

    articles: int
    n_bytes: int
    empty: int


def parse_flags(arguments: list[str] | None) -> argparse.Namespace:
    parser = script_parser("Any text to one article a line.")
    kinds = "; ".join(f"{name}: {reader.wants}" for name, reader in READERS.items())
    parser.add_argument("-f", "--file", type=Path, required=True, help=kinds)
    parser.add_argument("-o", "--output_dir", type=Path, required=True)
    parser.add_argument("--type", choices=list(READERS), required=True, help="how --file is laid out; " + PACKED)
    parser.add_argument("--errors", choices=[STRICT, REPLACE], help=f"invalid UTF-8: stop or go on with U+FFFD; default: {STRICT}")
    parser.add_argument("--field", help="jsonl, datasets: the field that holds the text; default: text")
    parser.add_argument("--dataset_split", help="datasets: default: train")
    parser.add_argument("--dataset_config", help="datasets: the configuration, where a set has several")
    parser.add_argument("--n_processes", type=int, help="wiki: processes of wikiextractor; default: one per core")
    flags = parse(parser, arguments, {})
    _check_file(flags.file, flags.type)
    return flags


def _check_file(file: Path, kind: str) -> None:
    reader = READERS[kind]
    if not file.exists():
        if NAME in reader.takes and HUB_NAME.fullmatch(str(file)):
            return
        raise UserError(f"--file {file} does not exist; {reader.wants} would work")
    if file.is_dir() and FOLDER not in reader.takes:
        raise UserError(f"--file {file} is a folder; --type {kind} needs {reader.wants}")
    if not file.is_dir() and FILE not in reader.takes:
        raise UserError(f"--file {file} is a file; --type {kind} needs {reader.wants}; --type text or lines reads a file of many articles")


def make_source(flags: argparse.Namespace) -> Source:
    """What the reader of `--type` is told; says which of the flags given have no effect on it."""
    given = {name: getattr(flags, name) for name in OPTIONAL if getattr(flags, name) is not None}
    for name in [name for name in given if name not in READERS[flags.type].flags]:
        users = ", ".join(kind for kind, reader in READERS.items() if name in reader.flags)
        print(f"no effect: --{name}: --type {flags.type} does not use it ({users} would)", file=sys.stderr)
    target = flags.output_dir / f"{flags.type}_one_article_per_line.txt"
    if target.exists() and flags.file.exists() and target.samefile(flags.file):
        raise UserError(f"--file {flags.file} is what would be written; another --output_dir would work")
    if flags.type == "datasets" and flags.file.is_dir() and target.resolve().is_relative_to(flags.file.resolve()):
        raise UserError(f"--output_dir {flags.output_dir} lies in --file {flags.file}, whose files are the data set; another would work")
    return Source(flags.file, target, **{"n_processes": core_count(), **given})


def main(arguments: list[str] | None = None) -> None:
    """Parse `arguments` (None: the command line), write the file and say what it holds."""
    flags = parse_flags(arguments)
    source = make_source(flags)
    reader = READERS[flags.type]
    if source.target.exists():
        print(f"{source.target} is there and will be replaced once the new one is whole", flush=True)
    with locked(source.target.parent, source.target.name):
        remove_partials(source.target.parent, {source.target.name})
        written = write_articles(source.target, reader.read(source), f"{flags.file}; {reader.wants} would work")
    tally = source.tally
    if tally.lines:
        print(f"{tally.characters} characters in {tally.lines} lines were no UTF-8 and became U+FFFD", file=sys.stderr)
    print(f"{source.target}: {written.articles} articles, {written.n_bytes / 1e6:.1f} MB, {written.empty} empty left out")


def write_articles(target: Path, articles: Iterator[str], origin: str) -> Written:
    """Write one article a line with a blank line after each, whole or not at all.

    UserError where `target` cannot be written (no space, no folder), and where no article has text; `origin` says where from.
    """
    count = n_bytes = empty = 0
    try:
        with whole_file(target) as partial:
            with partial.open("wb") as file:
                for article in articles:
                    text = one_line_text(article)
                    if text:
                        n_bytes += file.write(text.encode() + b"\n\n")
                        count += 1
                    else:
                        empty += 1
            if not count:
                raise UserError(f"no article found in {origin}" + (f" ({empty} empty left out)" if empty else ""))
    except OSError as error:
        raise UserError(f"cannot write {target}: {reason(error)}; a folder with space for the text would work") from error
    return Written(count, n_bytes, empty)


def one_line_text(article: str) -> str:
    """`article` with each run of white space, Unicode's included, as one space, and none at its ends."""
    if len(article) <= SPLIT_AT_ONCE:
        return " ".join(article.split())
    return WHITE_SPACE.sub(" ", article).strip()


if __name__ == "__main__":
    run_script(main)
