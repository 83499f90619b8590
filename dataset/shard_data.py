"""Step 2, articles -> text shards: one sentence a line, a blank line between articles, train and test kept apart.

    python dataset/shard_data.py --dir processed -o shards --num_train_shards 256 --num_test_shards 256 --frac_test 0.1

Reads every *.txt of `--dir` (one article a line, blank lines ignored) and writes `training{i}.txt` and `test{i}.txt`.
An article goes whole to one shard. The result depends on the text, the seed and the shard counts only, not on the
processes or machines; inside a shard articles keep the order of the input.
"""

import argparse
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

if not __package__:  # run by path: the project's root takes the place of this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from dataset.errors import UserError, run_script
from dataset.flags import add_seed, add_workers, parse, script_parser
from dataset.jobs import Job, Workers
from dataset.text_shards import SHARD_NAME, check_space, shard_names, text_files, whole_set

BALANCE = 0.02
NAMES_SHOWN = 3
# ISO 639-1. Three letters may be any of the thousands of ISO 639-3.
LANGUAGES = frozenset(
    "aa ab ae af ak am an ar as av ay az ba be bg bh bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv dz ee el en eo es et eu fa "
    "ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie ig ii ik io is it iu ja jv ka kg ki kj kk kl km kn ko kr "
    "ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb nd ne ng nl nn no nr nv ny oc oj om or os pa pi pl "
    "ps pt qu rm rn ro ru rw sa sc sd se sg sh si sk sl sm sn so sq sr ss st su sv sw ta te tg th ti tk tl tn to tr ts tt tw ty ug uk "
    "ur uz ve vi vo wa wo xh yi yo za zh zu".split()
)


def parse_flags(arguments: list[str] | None) -> argparse.Namespace:
    parser = script_parser("Articles to text shards of sentences.")
    parser.add_argument("--dir", type=Path, required=True, help="folder of *.txt files, one article a line")
    parser.add_argument("-o", "--output_dir", type=Path, required=True)
    parser.add_argument("--num_train_shards", type=int, default=256, help="default: 256")
    parser.add_argument("--num_test_shards", type=int, default=256, help="default: 256")
    parser.add_argument("--frac_test", type=float, default=0.1, help="share of the sentences that is held out; default: 0.1")
    parser.add_argument("--language", default="en", help="ISO 639 code for splitting sentences (default: en)")
    parser.add_argument("--errors", choices=["strict", "replace"], default="strict", help="bytes that are no UTF-8; default: strict")
    parser.add_argument("--overwrite", action="store_true", help="replace the shards in the output folder")
    add_seed(parser)
    add_workers(parser)
    flags = parse(parser, arguments, {"num_train_shards": (1, None), "num_test_shards": (0, None)})
    check_flags(flags)
    return flags


def check_flags(flags: argparse.Namespace) -> None:
    """UserError for the first flag that cannot work."""
    if not flags.dir.is_dir():
        raise UserError(f"--dir {flags.dir} is no folder; the output folder of process_data would work")
    if flags.dir.resolve() == flags.output_dir.resolve():
        raise UserError(f"--output_dir {flags.output_dir} is also --dir; another folder would work")
    if not 0 <= flags.frac_test < 1 or (flags.frac_test > 0) != (flags.num_test_shards > 0):
        raise UserError(
            f"--frac_test {flags.frac_test} with --num_test_shards {flags.num_test_shards}; "
            "a share above 0 and below 1 with at least one test shard, or 0 for both, would work"
        )
    if flags.language not in LANGUAGES and not re.fullmatch(r"[a-z]{3}", flags.language):
        raise UserError(f"--language {flags.language}; an ISO 639 code such as en, de or zh would work")


def main(arguments: list[str] | None = None) -> None:
    """Parse `arguments` (None: the command line), write the shards and say how large they are."""
    flags = parse_flags(arguments)
    files = text_files(flags.dir)
    if not files:
        raise UserError(f"--dir {flags.dir} holds no *.txt; the output folder of process_data would work")
    from dataset.windows import WINDOW_BYTES

    text = sum(path.stat().st_size for path in files)
    shown = ", ".join(path.name for path in files[:NAMES_SHOWN]) + (", ..." if len(files) > NAMES_SHOWN else "")
    print(f"{flags.dir}: {len(files)} files of articles, {text / 1e6:.1f} MB: {shown}", flush=True)
    with no_empty_folder(flags.output_dir), whole_set(flags.output_dir, SHARD_NAME, flags.overwrite, "shard_data") as folder:
        check_space(flags.output_dir, text + min(text, WINDOW_BYTES))
        sentences, damaged = write_shards(flags, files, folder)
    report(flags, sentences, damaged)


@contextmanager
def no_empty_folder(folder: Path) -> Iterator[None]:
    """Take `folder` and its parents away after an error, those that were not there before and hold nothing."""
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    except BaseException:
        with suppress(OSError):
            for path in new:
                path.rmdir()
        raise


def write_shards(flags: argparse.Namespace, files: list[Path], folder: Path):
    """Write all shards of the articles in `files` to `folder`; returns the sentences of each shard (train shards first) and the number of
    lines that were no UTF-8."""
    import numpy as np

    from dataset.articles import list_blocks, split_block
    from dataset.assignment import Assigner
    from dataset.windows import deal_out, windows

    jobs = [
        Job(
            name=f"{block.path.name} from byte {block.start}",
            arguments=(block, flags.language, flags.errors, folder / f"part_{number}"),
            size=block.end - block.start,
        )
        for number, block in enumerate(list_blocks([path.absolute() for path in files]))
    ]
    paths = [folder / name for name in shard_names(flags.num_train_shards, flags.num_test_shards)]
    assigner = Assigner(flags.num_train_shards, flags.num_test_shards, flags.frac_test, flags.seed)
    sentences = np.zeros(len(paths), np.int64)
    damaged = 0
    with Workers(flags.n_processes, flags.dask_address) as workers:
        parts = workers.in_order(split_block, jobs, "blocks of text", sum(job.size for job in jobs))
        for window in windows(parts, least=len(paths)):
            sizes = np.concatenate([part.sentences for part in window])
            shard_of = assigner.assign(sizes)
            deal_out(window, shard_of, paths)
            np.add.at(sentences, shard_of, sizes)
            damaged += sum(part.damaged for part in window)
    if not sentences.any():
        raise UserError(f"--dir {flags.dir}: its *.txt files hold no text; one article a line would work")
    return sentences, damaged


def report(flags: argparse.Namespace, sentences, damaged: int) -> None:
    """One line of what was written, and one for each thing the user should know."""
    from dataset.windows import largest_deviation

    train, test = sentences[: flags.num_train_shards], sentences[flags.num_train_shards :]
    worst = max(largest_deviation(split) for split in (train, test) if len(split))
    if damaged:
        print(f"{flags.dir}: {damaged} lines were not UTF-8; the bytes that were none became U+FFFD", file=sys.stderr)
    if worst > BALANCE:
        print(
            f"{flags.output_dir}: a shard is {worst:.1%} from the mean, as articles are large for so many shards; fewer shards would be "
            "more even",
            file=sys.stderr,
        )
    print(
        f"{flags.output_dir}: {len(train)} train shards with {train.sum()} sentences, {len(test)} test shards with {test.sum()} "
        f"({test.sum() / sentences.sum():.2%} of all), none more than {worst:.2%} from its split's mean"
    )


if __name__ == "__main__":
    run_script(main)
