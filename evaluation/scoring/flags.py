"""The flags of run_glue.py: what is scored, on what, how; those of the originals' script with what became of them. Imports no torch."""

import argparse
from dataclasses import fields
from pathlib import Path
from typing import Any

from dataset.errors import OneLineParser, UserError
from evaluation.fine_tuning.settings import FineTuningSettings, add_flags, boolean
from evaluation.scoring.protocols import MNLI_STARTS, Protocol, check_seeds, flags_only, known_protocols, read_protocol
from evaluation.tasks.own import task_of_files
from evaluation.tasks.table import DIAGNOSTIC, GLUE, select_tasks
from evaluation.tasks.task import Task

ALL_TASKS = "glue"
"""What --task_name says for the nine tasks of GLUE."""

WITHOUT_EFFECT = {
    "group_name": "scores are kept in glue.json, not in W&B",
    "project_name": "scores are kept in glue.json, not in W&B",
    "log_group": "scores are kept in glue.json, not in W&B",
    "fp16_full_eval": "dev sets are scored in the precision of the training (--precision)",
    "total_steps": "the learning rate falls to the last update of the training (--max_steps or --num_train_epochs)",
}
"""Flags of the originals' script that ours does not need, and why."""


def make_parser(description: str) -> argparse.ArgumentParser:
    """The parser of run_glue.py. A fine-tuning setting that was not given is absent, so that a protocol can say it."""
    parser = OneLineParser(prog="run_glue.py", description=description, allow_abbrev=False,
                           formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_argument_group("what is scored (one of the first three)").add_mutually_exclusive_group(required=True)
    what.add_argument("--run_dir", type=Path, help="a run; every marker in its finetune/ is scored")
    what.add_argument("--model_name_or_path", type=Path, help="folder of one model: config, weights and tokenizer")
    what.add_argument("--models", type=Path, nargs="+", metavar="FOLDER", help="several models, compared in one table")
    beside = parser.add_argument_group("beside them")
    beside.add_argument("--baseline", action="append", default=[], metavar="NAME=FOLDER",
                        help="another model to score, a dashed line in the plot; a NAME that begins with teacher is what retention is "
                             "measured by; may be repeated")
    beside.add_argument("--with_teacher", **_switch(), help="with --run_dir: score the teacher that the run's flags name as well")
    beside.add_argument("--watch", **_switch(), help="with --run_dir: go on until the run has ended, scoring each marker as it appears")
    beside.add_argument("--watch_seconds", type=float, default=30.0, help="seconds between two looks (default 30)")

    on = parser.add_argument_group("on what")
    on.add_argument("--task_name", action="append", default=[],
                    help="CoLA, SST-2, MRPC, STS-B, QQP, MNLI, QNLI, RTE, WNLI, AX, SQuAD-1.1, SQuAD-2.0 in any spelling; several with "
                         "commas or by repeating the flag; glue: the nine tasks of GLUE")
    on.add_argument("--task_file", type=Path, action="append", default=[], metavar="YAML", help="a task of your own; may be repeated")
    on.add_argument("--train_file", type=Path, help="a task of your own without a YAML: TSV, CSV or JSONL with a column `label`")
    on.add_argument("--validation_file", type=Path, help="its dev set")
    on.add_argument("--glue_dir", type=Path, help="GLUE's official files: SST-2/train.tsv, SST-2/dev.tsv, RTE/ ...; SQuAD/train-v1.1.json")
    on.add_argument("--dataset_name", help="in place of --glue_dir: a data set of the `datasets` package, nyu-mll/glue, or its folder")

    how = parser.add_argument_group("how")
    how.add_argument("--protocol", metavar="NAME", help=f"{', '.join(known_protocols())}, or a YAML file; flags below change it, and the "
                                                         "result says which")
    how.add_argument("--seeds", metavar="1,2,3", help="one fine-tuning for each (default: the protocol's, or --seed)")
    how.add_argument("--start_from_mnli", **_switch(), help="RTE, MRPC and STS-B begin with an MNLI encoder; marked in results")
    how.add_argument("--teacher_path", type=Path, help="a model fine-tuned on the task: distil it on the way (--alpha, --temperature)")
    how.add_argument("--do_train", **_switch(None), help="fine-tune; the default unless --do_eval or --do_predict is given without it")
    how.add_argument("--do_eval", **_switch(None), help="score; without --do_train: the model as it is, with the head it has")
    how.add_argument("--do_predict", **_switch(), help="write predictions of the test sets as GLUE's server takes them")
    how.add_argument("--devices", default="auto", metavar="LIST",
                     help="cpu, cuda:0,cuda:1 (one fine-tuning on each at a time), cpu,cpu; auto: every GPU, or the CPU")
    how.add_argument("--output_dir", type=Path, help="where the scores go; for --run_dir the run by default")
    how.add_argument("--overwrite", "--overwrite_output_dir", **_switch(), help="score again what is already scored")
    how.add_argument("--save_models", **_switch(), help="keep each fine-tuned model in OUTPUT_DIR/models")

    add_flags(parser)
    old = parser.add_argument_group("of the originals' script, without effect here")
    for name, why in WITHOUT_EFFECT.items():
        old.add_argument(f"--{name}", nargs="?", const="true", help=why)
    return parser


def _switch(default: bool | None = False) -> dict[str, Any]:
    """A boolean flag that stands alone or is followed by true or false, as the originals write them."""
    return {"type": boolean, "nargs": "?", "const": True, "default": default, "metavar": "BOOL"}


def check_flags(flags: argparse.Namespace) -> list[str]:
    """UserError for flags that contradict one another; the lines to print about those without effect."""
    if flags.output_dir is None and flags.run_dir is None:
        raise UserError("--output_dir is missing; without --run_dir say where the scores go")
    if flags.run_dir is None:
        for name in ("watch", "with_teacher"):
            if getattr(flags, name):
                raise UserError(f"--{name}: only a run has markers and a teacher; give --run_dir")
    if not (flags.task_name or flags.task_file or flags.train_file):
        raise UserError("no task named; --task_name sst2,rte or --task_file own.yaml would work")
    if (flags.train_file is None) != (flags.validation_file is None):
        missing = "--validation_file" if flags.validation_file is None else "--train_file"
        raise UserError(f"{missing} is missing; --train_file and --validation_file together make a task")
    if flags.glue_dir is not None and flags.dataset_name is not None:
        raise UserError("--glue_dir and --dataset_name: two places for the same data; one of them would work")
    if flags.watch_seconds <= 0:
        raise UserError(f"--watch_seconds {flags.watch_seconds:g}: more than 0 would work")
    if flags.do_train is False and not flags.do_eval and not flags.do_predict:
        raise UserError("--do_train false without --do_eval or --do_predict leaves nothing to do")
    if flags.save_models and scores_as_is(flags):
        raise UserError("--save_models: nothing is trained without --do_train, so there is nothing to save")
    if flags.teacher_path is not None and scores_as_is(flags):
        raise UserError("--teacher_path: nothing is trained without --do_train, so there is nothing to distil into")
    given = {name: getattr(flags, name) for name in WITHOUT_EFFECT if getattr(flags, name) is not None}
    lines = [f"--{name} {value}: no effect: {WITHOUT_EFFECT[name]}" for name, value in given.items()]
    if flags.start_from_mnli and not _starts(flags):
        why = "nothing is trained" if scores_as_is(flags) else f"it is for {', '.join(MNLI_STARTS)}"
        lines.append(f"--start_from_mnli: no effect: {why}")
    return lines


def _starts(flags: argparse.Namespace) -> dict[str, str] | None:
    """What --start_from_mnli makes begin with MNLI, if anything."""
    if not flags.start_from_mnli or scores_as_is(flags) or not any(task.name in MNLI_STARTS for task in selected_tasks(flags)):
        return None
    return MNLI_STARTS


def scores_as_is(flags: argparse.Namespace) -> bool:
    """Whether models are scored with the heads that they have: --do_eval or --do_predict without --do_train."""
    return flags.do_train is False or (flags.do_train is None and bool(flags.do_eval or flags.do_predict))


def given_settings(flags: argparse.Namespace) -> dict[str, Any]:
    """The fine-tuning settings that the command line names."""
    return {item.name: getattr(flags, item.name) for item in fields(FineTuningSettings) if hasattr(flags, item.name)}


def selected_tasks(flags: argparse.Namespace) -> list[Task]:
    """The tasks that the flags name, each once; UserError for an unknown one and for a description that cannot work."""
    names = []
    for name in (part.strip() for text in flags.task_name for part in text.split(",")):
        names += [task.name for task in GLUE if task.name != DIAGNOSTIC] if name.lower() == ALL_TASKS else [name]
    tasks = select_tasks(names, flags.task_file) if names or flags.task_file else []
    tasks += [task_of_files(flags.train_file, flags.validation_file)] if flags.train_file else []
    names = [task.name for task in tasks]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"two tasks are called {twice}; another name in one of the files would work")
    return tasks


def select_protocol(flags: argparse.Namespace) -> Protocol:
    """The protocol with what flags change in it; UserError for an unknown one and for settings out of range."""
    given = given_settings(flags)
    seed = given.pop("seed", None)
    if flags.seeds is not None and seed is not None:
        raise UserError("--seed and --seeds: two answers to one question; --seeds 1,2,3 is for several")
    seeds = _seeds(flags.seeds) if flags.seeds is not None else None if seed is None else check_seeds((seed,), "--seed")
    starts = _starts(flags)
    if flags.protocol is None:
        protocol = flags_only(FineTuningSettings(**given), seeds or (FineTuningSettings().seed,))
        return protocol.with_flags({}, None, starts)
    return read_protocol(flags.protocol).with_flags(given, seeds, starts)


def _seeds(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    return check_seeds([int(part) if part.strip().isdecimal() else part for part in parts], "--seeds")
