"""Step 2, articles -> text shards: one sentence a line, a blank line between articles, train and test kept apart.

    python dataset/shard_data.py --dir processed -o shards --num_train_shards 256 --num_test_shards 256 --frac_test 0.1

Reads every *.txt of `--dir` (one article a line, blank lines ignored) and writes `training{i}.txt` and `test{i}.txt`.
An article goes whole to one shard. The result depends on the text, the seed and the shard counts only, not on the
number of processes; articles keep the order of the input inside a shard.
"""

import argparse
import os
import re
import sys
import tempfile
from pathlib import Path

if not __package__:  # run by path: the project's root takes the place of this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from dataset.errors import OneLineParser, UserError, run_command
from dataset.files import fsync_tree
from dataset.jobs import core_count, run_jobs

SHARD_NAME = re.compile(r"(training|test)\d+\.txt")


def parse_flags(arguments: list[str] | None) -> argparse.Namespace:
    parser = OneLineParser(description="Articles to text shards of sentences.", allow_abbrev=False)
    parser.add_argument("--dir", type=Path, required=True, help="folder of *.txt files, one article a line")
    parser.add_argument("-o", "--output_dir", type=Path, required=True)
    parser.add_argument("--num_train_shards", type=int, default=256)
    parser.add_argument("--num_test_shards", type=int, default=256)
    parser.add_argument("--frac_test", type=float, default=0.1, help="share of the sentences that is held out")
    parser.add_argument("--seed", type=int, default=555)
    parser.add_argument("--language", default="en", help="ISO 639 code for splitting sentences (default: en)")
    parser.add_argument("--n_processes", type=int, default=core_count(), help="default: number of cores")
    parser.add_argument("--overwrite", action="store_true", help="replace the shards in the output folder")
    flags = parser.parse_args(arguments)
    flags.dir, flags.output_dir = flags.dir.expanduser(), flags.output_dir.expanduser()
    check_flags(flags)
    return flags


def check_flags(flags: argparse.Namespace) -> None:
    """UserError for the first flag that cannot work."""
    if not flags.dir.is_dir():
        raise UserError(f"--dir {flags.dir} is no folder; the output folder of process_data would work")
    if flags.dir.resolve() == flags.output_dir.resolve():
        raise UserError(f"--output_dir {flags.output_dir} is also --dir; another folder would work")
    if flags.num_train_shards < 1 or flags.num_test_shards < 0 or flags.n_processes < 1 or flags.seed < 0:
        raise UserError(
            f"--num_train_shards {flags.num_train_shards} --num_test_shards {flags.num_test_shards} --n_processes "
            f"{flags.n_processes} --seed {flags.seed}; at least 1, 0, 1 and 0 would work"
        )
    if not 0 <= flags.frac_test < 1 or (flags.frac_test > 0) != (flags.num_test_shards > 0):
        raise UserError(
            f"--frac_test {flags.frac_test} with --num_test_shards {flags.num_test_shards}; "
            "a share above 0 and below 1 with at least one test shard, or 0 for both, would work"
        )
    if not re.fullmatch(r"[a-z]{2,3}", flags.language):
        raise UserError(f"--language {flags.language}; an ISO 639 code such as en, de or zh would work")
    if old_shards(flags.output_dir) and not flags.overwrite:
        advice = "another folder or --overwrite would work"
        raise UserError(f"--output_dir {flags.output_dir} holds shards already; {advice}")


def main(arguments: list[str] | None = None) -> None:
    """Parse `arguments` (None: the command line), write the shards and say how large they are."""
    flags = parse_flags(arguments)
    files = sorted(flags.dir.glob("*.txt"))
    if not files:
        raise UserError(f"--dir {flags.dir} holds no *.txt; the output folder of process_data would work")
    flags.output_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".partial_shards_", dir=flags.output_dir) as folder:
        sentences = write_shards(flags, files, Path(folder))
        publish(Path(folder), flags.output_dir)
    train, test = (sum(count for name, count in sentences.items() if name.startswith(split)) for split in ("tr", "te"))
    print(
        f"{flags.output_dir}: {flags.num_train_shards} train shards with {train} sentences, {flags.num_test_shards} "
        f"test shards with {test} ({test / (train + test):.2%} of all)"
    )


def write_shards(flags: argparse.Namespace, files: list[Path], folder: Path) -> dict[str, int]:
    """Write all shards of the articles in `files` to `folder`; returns file name -> number of sentences."""
    from dataset.articles import deal_out, list_blocks, split_block
    from dataset.assignment import assign_articles

    blocks = list_blocks(files)
    parts = [folder / f"part_{number}" for number in range(len(blocks))]
    jobs = {
        f"{block.path.name} at {block.start}": (block, flags.language, part)
        for block, part in zip(blocks, parts, strict=True)
    }
    sizes = list(run_jobs(split_block, jobs, flags.n_processes, "blocks of text").values())
    counts = [article.sentences for articles in sizes for article in articles]
    if not counts:
        raise UserError(f"--dir {flags.dir}: its *.txt files hold no text; one article a line would work")
    train, test = assign_articles(counts, flags.num_train_shards, flags.num_test_shards, flags.frac_test, flags.seed)
    names = [f"training{a}.txt" if a >= 0 else f"test{b}.txt" for a, b in zip(train, test, strict=True)]
    deal_out(parts, sizes, [folder / name for name in names])
    totals: dict[str, int] = {}
    for name, count in zip(names, counts, strict=True):
        totals[name] = totals.get(name, 0) + count
    return totals


def publish(folder: Path, output_dir: Path) -> None:
    """Give finished shards their place, older ones out of the way first."""
    fsync_tree(folder)
    for path in old_shards(output_dir):
        path.unlink()
    for path in sorted(folder.iterdir()):
        os.replace(path, output_dir / path.name)


def old_shards(folder: Path) -> list[Path]:
    """Text shards in `folder`, which need not exist."""
    return [path for path in folder.glob("*.txt") if SHARD_NAME.fullmatch(path.name)]


if __name__ == "__main__":
    run_command(main)
