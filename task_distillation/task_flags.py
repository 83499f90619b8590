"""Which task a command works on: the same flags in every command, and what they name. Imports no torch."""

import argparse
from pathlib import Path

from dataset.errors import UserError
from dataset.files import reason
from evaluation.tasks.own import OwnTask
from evaluation.tasks.table import LAYOUTS, load_task, select_tasks
from evaluation.tasks.task import Task, TaskData
from task_distillation.transfer_set import text_columns

GLUE_NAMES = "CoLA, SST-2, MRPC, STS-B, QQP, MNLI, QNLI, RTE or WNLI"
DIAGNOSTIC = "AX"


def add_task_flags(parser: argparse.ArgumentParser) -> None:
    """Add --task_name, --task_file and --glue_dir to `parser`."""
    group = parser.add_argument_group("the task: a task of GLUE, or one of your own")
    group.add_argument("--task_name", metavar="NAME", help=f"{GLUE_NAMES} in any spelling")
    group.add_argument("--task_file", type=Path, metavar="YAML", help="a task of your own in place of --task_name; it names its own files")
    group.add_argument("--glue_dir", type=Path, metavar="DIR", help="GLUE's official files: SST-2/train.tsv, SST-2/dev.tsv, RTE/ ...")


def select_task(flags: argparse.Namespace) -> Task:
    """The one task that the flags name, without its data.

    Raises UserError for none or several, for an unknown one, and for one that has no training rows of texts (SQuAD, GLUE's diagnostic set).
    """
    if (flags.task_name is None) == (flags.task_file is None):
        found = "no task named" if flags.task_name is None else "--task_name and --task_file: two tasks"
        raise UserError(f"{found}; --task_name sst2 --glue_dir FOLDER, or --task_file own.yaml, would work")
    tasks = select_tasks([] if flags.task_name is None else [flags.task_name], [] if flags.task_file is None else [flags.task_file])
    if len(tasks) > 1:
        raise UserError(f"--task_name {flags.task_name}: {len(tasks)} tasks; one at a time would work")
    text_columns(tasks[0])
    if tasks[0].name == DIAGNOSTIC:
        raise UserError(f"{DIAGNOSTIC}: a task without training data; the students of MNLI can be scored on it")
    return tasks[0]


def read_task(flags: argparse.Namespace) -> TaskData:
    """The task that the flags name with its training and dev sets, read and checked.

    Raises UserError as `select_task` and `load_task` do, and without --glue_dir for a task of GLUE.
    """
    task = select_task(flags)
    if flags.glue_dir is None and not isinstance(task, OwnTask):
        raise UserError(f"{task.name}: no data named; --glue_dir FOLDER with GLUE's official files would work")
    return load_task(task, flags.glue_dir)


def input_files(flags: argparse.Namespace) -> list[Path]:
    """The files that the task's examples are read from, those that are there."""
    task = select_task(flags)
    if isinstance(task, OwnTask):
        files = [flags.task_file, task.layout.train, *(path for _, path in (*task.layout.dev, *task.layout.test))]
    elif flags.glue_dir is None:
        files = []
    else:
        files = [path for name in LAYOUTS[task.name].folders for path in (flags.glue_dir / name).glob("*")]
    return [path for path in files if path.is_file()]


def check_output(flags: argparse.Namespace, path: Path) -> None:
    """Make the folder of `path`, a file to be written; UserError where that cannot be, and where it is one of the task's own files."""
    if any(path.exists() and path.samefile(file) for file in input_files(flags)):
        raise UserError(f"{path}: one of the task's own files; another place would work")
    if path.is_dir():
        raise UserError(f"{path}: a folder; a file's name would work")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path.parent}: cannot be made ({reason(error)}); choose another place") from None
