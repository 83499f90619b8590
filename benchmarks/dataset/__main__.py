"""Speed, memory, size and quality of the dataset pipeline, against plain references written from the published algorithms.

    python -m benchmarks.dataset                                          # after `make demo`, on the text it made
    python -m benchmarks.dataset --text articles.txt --vocab_file vocab.txt --rte RTE/dev.tsv --json measured.json
    python -m benchmarks.dataset --parts speed,sharding --rounds 7

Parts: `speed` (generate_samples on one core, and what the samples are like), `sharding` (shard_data on one core), `memory` (peaks at
--memory_sizes MB of repeated text; takes minutes and six times the largest size of disk), `size` (bytes on disk, reading), `opening`
(first batch of a shard of 10,000 samples), `sentences` (quality of the splitter; needs --rte). A number is the best of all rounds, in
which everything that is compared takes turns. Text for `speed` is never repeated, as words that were seen are tokenised faster.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from benchmarks.common import describe_processor
from benchmarks.dataset.commands import Row
from benchmarks.dataset.inputs import Inputs, read_articles
from benchmarks.dataset.memory import memory_rows
from benchmarks.dataset.sentences import sentences_rows
from benchmarks.dataset.shards import opening_rows, size_rows
from benchmarks.dataset.speed import samples_rows, sharding_rows
from dataset.errors import UserError, run_command
from dataset.files import write_json

DEMO_TEXT = Path(".demo/articles/wiki_one_article_per_line.txt")
DEMO_VOCABULARY = Path(".demo/teacher/vocab.txt")
PARTS = ("speed", "sharding", "memory", "size", "opening", "sentences")


def parse_flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("--text", type=Path, nargs="+", default=[DEMO_TEXT], help=f"one article a line; default: {DEMO_TEXT}")
    parser.add_argument("--vocab_file", type=Path, default=DEMO_VOCABULARY, help=f"BERT's word pieces; default: {DEMO_VOCABULARY}")
    parser.add_argument("--rte", type=Path, help="RTE's dev.tsv or train.tsv, for the part `sentences`")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"comma-separated; default: {','.join(PARTS)}")
    parser.add_argument("--sharding_megabytes", type=int, default=32, help="text is repeated to this for `sharding`; default: 32")
    parser.add_argument("--memory_sizes", default="100,1000", help="MB of text, comma-separated, ascending; default: 100,1000")
    parser.add_argument("--type", default="lines", help="how process_data reads the text in the part `memory`; default: lines")
    parser.add_argument("--rounds", type=int, default=5, help="turns of everything that is timed; default: 5")
    parser.add_argument("--work", type=Path, help="an existing folder for files that are made and removed; default: the current one")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    return parser.parse_args()


def check_flags(flags: argparse.Namespace) -> tuple[list[str], list[int]]:
    """(parts, sizes in MB); UserError for the first flag that cannot work."""
    parts = flags.parts.split(",")
    unknown = next((part for part in parts if part not in PARTS), None)
    if unknown is not None:
        raise UserError(f"--parts {unknown}: not a part; known: {', '.join(PARTS)}")
    if not flags.vocab_file.is_file():
        raise UserError(f"--vocab_file {flags.vocab_file} is no file; a WordPiece vocab.txt would work, such as `make demo` fetches")
    for name in ("rounds", "sharding_megabytes"):
        if getattr(flags, name) < 1:
            raise UserError(f"--{name} {getattr(flags, name)}; 1 or more would work")
    if flags.work is not None and not flags.work.is_dir():
        raise UserError(f"--work {flags.work} is no folder")
    try:
        sizes = sorted(int(size) for size in flags.memory_sizes.split(","))
    except ValueError:
        sizes = [0]
    if sizes[0] < 1:
        raise UserError(f"--memory_sizes {flags.memory_sizes}; whole numbers of MB such as 100,1000 would work")
    if "sentences" in parts and flags.rte is None:
        print("note: no --rte given, so the part `sentences` is left out", file=sys.stderr)
        parts.remove("sentences")
    return parts, sizes


def line_of(row: Row) -> str:
    ratio = "" if row.ratio is None else f"{row.ratio:.2f} x"
    asked = f"asked: {row.asked}" if row.asked else ""
    number = f"{row.value:.0f}" if abs(row.value) >= 1000 else f"{row.value:.3g}"
    return f"{row.what:<76} {number:>8} {row.unit:<16} {ratio:>9}  {'; '.join(text for text in (asked, row.note) if text)}".rstrip()


def main() -> None:
    flags = parse_flags()
    parts, sizes = check_flags(flags)
    articles = read_articles(flags.text)
    megabytes = sum(len(article.encode()) for article in articles) / 1e6
    machine = describe_processor()
    print(f"{machine}; {len(articles)} articles, {megabytes:.1f} MB; x: times the speed of the reference of the same kind")
    measured: list[Row] = []
    # On the disk that corpora are on, not in a memory file system.
    with tempfile.TemporaryDirectory(prefix="benchmark_", dir=flags.work or Path.cwd()) as folder:
        inputs = Inputs(articles, flags.vocab_file.resolve(), Path(folder).resolve(), flags.rounds)
        work: dict[str, Callable[[], list[Row]]] = {
            "speed": lambda: samples_rows(inputs), "sharding": lambda: sharding_rows(inputs, flags.sharding_megabytes),
            "memory": lambda: memory_rows(inputs, sizes, flags.type), "size": lambda: size_rows(inputs),
            "opening": lambda: opening_rows(inputs), "sentences": lambda: sentences_rows(inputs, flags.rte),
        }
        for part in parts:
            print(f"\n{part}", flush=True)
            rows = work[part]()
            print("\n".join(line_of(row) for row in rows), flush=True)
            measured += rows
    if flags.json is not None:
        write_json(flags.json, {"machine": machine, "articles": len(articles), "megabytes": megabytes, "rounds": flags.rounds,
                                "rows": [asdict(row) for row in measured]})


if __name__ == "__main__":
    run_command(main)
