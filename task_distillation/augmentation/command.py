"""More texts of a task by rules (d-lite), for a teacher to label and a small student to learn from.

    python run_task_distillation.py augment --task_name sst2 --glue_dir glue --output runs/sst2/augmented.tsv

The output begins with the task's own training rows and their labels; the new rows have none. Every pass makes one new text of each row, so
that a file that --max_rows cuts short in a later pass has something of every row. OUTPUT.json beside it says what decided it: the same
command again does nothing, and another one does not replace it.
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dataset.errors import OneLineParser, UserError
from dataset.files import file_hash
from dataset.flags import parse
from dataset.jobs import core_count
from evaluation.fine_tuning.settings import boolean
from evaluation.tasks.task import Examples, TaskData
from pretraining.args.flags import parse_int
from task_distillation.augmentation.corpus import read_corpus
from task_distillation.augmentation.new_rows import write_new
from task_distillation.augmentation.rule import Rule
from task_distillation.augmentation.taggers import SPACY_MODEL, TAGGERS, load_tagger
from task_distillation.record import other_making, read_record, record_path, write_record
from task_distillation.task_flags import add_task_flags, check_output, read_task
from task_distillation.transfer_set import plain_text, transfer_writer

FORMAT_VERSION = 1
N_ITER = {1: 20, 2: 10}
"""The paper's passes over single sentences and over pairs."""


def make_parser() -> OneLineParser:
    """The parser of `augment`."""
    rule = Rule()
    parser = OneLineParser(prog="run_task_distillation.py augment", description=__doc__, allow_abbrev=False,
                           formatter_class=argparse.RawDescriptionHelpFormatter)
    add_task_flags(parser)
    add = parser.add_argument
    add("--output", type=Path, required=True, metavar="FILE", help="the transfer set, a TSV")
    add("--mask_prob", type=float, default=rule.mask_prob, metavar="X", help="of a word to become [MASK] (default 0.1)")
    add("--random_prob", type=float, default=rule.random_prob, metavar="X",
        help="of a word to become another of its part of speech, drawn by frequency (default 0.1)")
    add("--window_prob", type=float, default=rule.window_prob, metavar="X", help="of a sentence to be cut to an n-gram (default 0.25)")
    add("--window_lengths", nargs="+", default=["1,2,3,4,5"], metavar="1,2,3", help="words of that n-gram, one of them by chance (default "
        "1,2,3,4,5); a sentence that is shorter stays whole")
    add("--single_only_prob", type=float, metavar="X", help="pairs: that one of the two sentences stays as it is (default 2/3)")
    add("--n_iter", type=parse_int, metavar="N", help="passes over the rows (default 20, for pairs 10)")
    add("--max_rows", type=parse_int, metavar="N", help="stop at a file of so many rows, the task's own included")
    add("--keep_originals", type=boolean, nargs="?", const=True, default=True, metavar="true|false",
        help="begin with the task's training rows and their labels (default true)")
    add("--seed", type=parse_int, default=0, metavar="N", help="of all draws (default 0)")
    add("--tagger", choices=TAGGERS, default=TAGGERS[0], help="of parts of speech (default hanta)")
    add("--spacy_model", default=SPACY_MODEL, metavar="NAME", help=f"for --tagger spacy: a model's name or folder (default {SPACY_MODEL})")
    add("--num_workers", "--n_processes", dest="n_processes", type=parse_int, default=core_count(), metavar="N",
        help="processes that tag (default: one for each core); what is written does not depend on it")
    add("--overwrite", action="store_true", help="replace what is at --output, whatever it is")
    return parser


def main(arguments: list[str]) -> None:
    """Run the command line; UserError for flags, files and packages that cannot work."""
    flags = parse(make_parser(), arguments, {"n_iter": (1, None), "max_rows": (1, None)})
    rule = rule_of(flags)
    load_tagger(flags.tagger, flags.spacy_model)
    check_output(flags, flags.output)
    data = read_task(flags)
    sides = len(data.train.texts)
    if flags.single_only_prob is not None and sides == 1:
        print(f"--single_only_prob {flags.single_only_prob:g}: no effect: {data.task.name} has single sentences")
    check_rows(flags, data)
    rows = [(texts, label) for texts, label in _plain_rows(data.train) if all(texts)]
    if not rows:
        raise UserError(f"{data.task.name}: none of its {len(data.train)} training rows has text; rows with words would work")
    identity = _identity(flags, data, rule)
    if flags.output.is_file() and not _is_to_be_made(flags.output, identity, flags.overwrite):
        print(f"{flags.output}: already done")
        return
    if len(rows) < len(data.train):
        print(f"{data.task.name}: {len(data.train) - len(rows)} training rows without text passed over")
    with transfer_writer(flags.output, data.task) as writer:
        if flags.keep_originals:
            for texts, label in rows:
                writer.write(texts, label)
        own = writer.rows
        corpus = read_corpus([texts for texts, _ in rows], flags.tagger, flags.spacy_model, flags.n_processes)
        n_iter = identity["n_iter"]
        most = None if flags.max_rows is None else flags.max_rows - own
        started = time.perf_counter()
        tried = write_new(writer, corpus, rule, flags.seed, n_iter, ["\t".join(texts) for texts, _ in rows], most)
        seconds = time.perf_counter() - started
        if writer.rows == own:
            told = f"{data.task.name}: no new row in {tried} tries; longer texts, more passes or higher probabilities would give some"
            if not own:
                raise UserError(told)
            print(f"note: {told}")
        # Without a hash: the file that is found beside it was written by this command, which was killed before it could say so.
        write_record(flags.output, {"identity": identity, "xxh3": None})
    write_record(flags.output, {"identity": identity, "xxh3": file_hash(flags.output), "originals": own, "rows": writer.rows,
                                "tries": tried})
    print(f"{flags.output}: {own} training rows and {writer.rows - own} new ones of {tried} tries ({tried / seconds:.0f}/s after tagging)")


def _identity(flags: argparse.Namespace, data: TaskData, rule: Rule) -> dict[str, Any]:
    """All that decides the file."""
    return {
        "format_version": FORMAT_VERSION, "task": data.task.name, "data_sha256": data.sha256,
        **asdict(rule), "window_lengths": list(rule.window_lengths), "n_iter": flags.n_iter or N_ITER[len(data.train.texts)],
        "max_rows": flags.max_rows, "keep_originals": flags.keep_originals, "seed": flags.seed, "tagger": flags.tagger,
        "spacy_model": flags.spacy_model if flags.tagger == "spacy" else None,
    }


def _is_to_be_made(output: Path, identity: dict[str, Any], overwrite: bool) -> bool:
    """Whether the file that is there is to be replaced; UserError where it is something else and `overwrite` is not asked for."""
    made = other_making(output, identity)
    if made is None or overwrite:
        return made is not None
    record = read_record(record_path(output))
    if record is not None and record["identity"] == identity and record["xxh3"] is None:
        return True
    raise UserError(f"{output}: there already, {made}; another --output, or --overwrite, would work")


def check_rows(flags: argparse.Namespace, data: TaskData) -> None:
    """UserError where --max_rows leaves no place for new rows."""
    if flags.max_rows is not None and flags.keep_originals and flags.max_rows <= len(data.train):
        raise UserError(f"--max_rows {flags.max_rows}: {data.task.name} has {len(data.train)} training rows, which come first; more, or "
                        "--keep_originals false, would work")


def rule_of(flags: argparse.Namespace) -> Rule:
    try:
        lengths = tuple(int(part) for word in flags.window_lengths for part in word.split(","))
    except ValueError:
        raise UserError(f"--window_lengths {' '.join(flags.window_lengths)}; whole numbers such as 1,2,3 would work") from None
    given = {} if flags.single_only_prob is None else {"single_only_prob": flags.single_only_prob}
    return Rule(flags.mask_prob, flags.random_prob, flags.window_prob, lengths, **given)


def _plain_rows(examples: Examples) -> Iterator[tuple[tuple[str, ...], int | float]]:
    return zip(zip(*(map(plain_text, column) for column in examples.texts), strict=True), examples.labels, strict=True)
