"""Step 1, raw text -> one article a line: `{type}_one_article_per_line.txt`, a blank line between articles.

    python dataset/process_data.py -f enwiki-latest-pages-articles.xml.bz2 -o processed --type wiki
    python dataset/process_data.py -f books/ -o processed --type bookcorpus

A wiki dump goes through wikiextractor; titles and empty articles are dropped. For `bookcorpus` and `text` every *.txt
below the folder is one article, in the order of the paths. All white space becomes single spaces.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

if not __package__:  # run by path: the project's root takes the place of this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from dataset.errors import OneLineParser, UserError, run_command
from dataset.files import whole_file

WIKI, BOOKCORPUS, TEXT = "wiki", "bookcorpus", "text"


def parse_flags(arguments: list[str] | None) -> argparse.Namespace:
    parser = OneLineParser(description="Raw text to one article a line.", allow_abbrev=False)
    parser.add_argument("-f", "--file", type=Path, required=True, help="wiki: the dump; else a folder of *.txt files")
    parser.add_argument("-o", "--output_dir", type=Path, required=True)
    parser.add_argument("--type", choices=[WIKI, BOOKCORPUS, TEXT], required=True)
    parser.add_argument("--n_processes", type=int, help="wiki: processes of wikiextractor (default: number of cores)")
    flags = parser.parse_args(arguments)
    flags.file, flags.output_dir = flags.file.expanduser(), flags.output_dir.expanduser()
    if not flags.file.exists():
        raise UserError(f"--file {flags.file} does not exist")
    if flags.n_processes is not None and flags.n_processes < 1:
        raise UserError(f"--n_processes {flags.n_processes}; 1 or more would work")
    if flags.type == WIKI and flags.file.is_dir():
        raise UserError(f"--file {flags.file} is a folder; --type wiki needs a dump file")
    if flags.type != WIKI and not flags.file.is_dir():
        raise UserError(f"--file {flags.file} is a file; --type {flags.type} needs a folder of *.txt, one article each")
    return flags


def main(arguments: list[str] | None = None) -> None:
    """Parse `arguments` (None: the command line), write the file and say what it holds."""
    flags = parse_flags(arguments)
    target = flags.output_dir / f"{flags.type}_one_article_per_line.txt"
    if flags.type == WIKI:
        count = process_wiki(flags.file, target, flags.n_processes)
    else:
        if flags.n_processes is not None:
            print(f"no effect: --n_processes: --type {flags.type} is read by one process", file=sys.stderr)
        count = write_articles(target, read_text_files(flags.file, target))
    print(f"{target}: {count} articles")


def process_wiki(dump: Path, target: Path, n_processes: int | None) -> int:
    """Write the articles of a dump to `target`, one a line; returns their number."""
    from dataset.jobs import core_count
    from dataset.wiki_dump import check_dump, extract_dump, read_articles

    check_dump(dump)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".partial_wiki_", dir=target.parent) as folder:
        extract_dump(dump, Path(folder), n_processes or core_count())
        return write_articles(target, read_articles(Path(folder)))


def read_text_files(folder: Path, target: Path) -> Iterator[str]:
    """Every *.txt below `folder` (but `target`) as one line of text; files without text are left out."""
    from tqdm import tqdm

    files = [path for path in sorted(folder.rglob("*.txt")) if path.resolve() != target.resolve()]
    for path in tqdm(files, desc="files", disable=None):
        try:
            # utf-8-sig also takes away the mark that some editors put at the start of a file.
            text = " ".join(path.read_text(encoding="utf-8-sig").split())
        except UnicodeDecodeError as error:
            raise UserError(f"{path} is not UTF-8 ({error}); convert it, for example with iconv") from error
        if text:
            yield text


def write_articles(target: Path, articles: Iterator[str]) -> int:
    """Write one article a line with a blank line after each, whole or not at all; returns their number."""
    target.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with whole_file(target) as partial:
        with partial.open("w", encoding="utf-8", newline="\n") as file:
            for article in articles:
                file.write(f"{article}\n\n")
                count += 1
        if not count:
            raise UserError(f"no article found for {target.name}; a dump with articles or a folder of *.txt would work")
    return count


if __name__ == "__main__":
    run_command(main)
