"""The tasks as one table, their selection by name, and `load_task`, which reads one from wherever it is.

Adding a task of GLUE's kind is adding a row here; a task of one's own needs no code (`own.py`). The order of `label_names` is that of the
hub's data sets, so checkpoints fine-tuned elsewhere mean the same classes.

`version` of a row goes up when reading or scoring of that task changes, and is kept with every result.
"""

from collections.abc import Sequence
from pathlib import Path

from dataset.errors import UserError, nearest
from evaluation.tasks.glue_files import GlueFile, GlueLayout, read_glue
from evaluation.tasks.hub import read_dataset
from evaluation.tasks.own import OwnTask, read_own, read_own_task
from evaluation.tasks.squad import SQUAD, read_squad
from evaluation.tasks.task import Task, TaskData

NLI = ("entailment", "neutral", "contradiction")
ENTAILED = ("entailment", "not_entailment")
BINARY = ("0", "1")
COLA_COLUMNS = ("source", "label", "star", "sentence")

GLUE: dict[Task, GlueLayout] = {
    Task("CoLA", "classification", ("matthews",), "matthews", ("unacceptable", "acceptable")): GlueLayout(
        ("CoLA", "cola"), ("sentence",), label_values=BINARY,
        train=GlueFile("train", ("train.tsv",), COLA_COLUMNS), dev=(GlueFile("dev", ("dev.tsv",), COLA_COLUMNS),),
    ),
    Task("SST-2", "classification", ("accuracy",), "accuracy", ("negative", "positive")): GlueLayout(
        ("SST-2", "SST2", "sst2", "sst-2"), ("sentence",), label_values=BINARY,
    ),
    Task("MRPC", "classification", ("f1", "accuracy"), "f1", ("not_equivalent", "equivalent")): GlueLayout(
        ("MRPC", "mrpc"), ("#1 String", "#2 String"), "Quality", BINARY,
        test=(GlueFile("test", ("test.tsv", "msr_paraphrase_test.txt")),), msr_sources=True,
    ),
    Task("STS-B", "regression", ("spearman", "pearson"), "spearman"): GlueLayout(
        ("STS-B", "STSB", "stsb", "sts-b"), ("sentence1", "sentence2"), "score", limits=(0.0, 5.0),
    ),
    Task("QQP", "classification", ("f1", "accuracy"), "f1", ("not_duplicate", "duplicate")): GlueLayout(
        ("QQP", "qqp"), ("question1", "question2"), "is_duplicate", BINARY, "id", torn_rows=True,
    ),
    Task("MNLI", "classification", ("accuracy",), "accuracy", NLI): GlueLayout(
        ("MNLI", "mnli"), ("sentence1", "sentence2"), "gold_label", NLI,
        dev=(GlueFile("matched", ("dev_matched.tsv",)), GlueFile("mismatched", ("dev_mismatched.tsv",))),
        test=(GlueFile("matched", ("test_matched.tsv",)), GlueFile("mismatched", ("test_mismatched.tsv",))),
    ),
    Task("QNLI", "classification", ("accuracy",), "accuracy", ENTAILED): GlueLayout(
        ("QNLI", "QNLIv2", "qnli"), ("question", "sentence"), label_values=ENTAILED,
    ),
    Task("RTE", "classification", ("accuracy",), "accuracy", ENTAILED): GlueLayout(
        ("RTE", "rte"), ("sentence1", "sentence2"), label_values=ENTAILED,
    ),
    Task("WNLI", "classification", ("accuracy",), "accuracy", ("not_entailment", "entailment")): GlueLayout(
        ("WNLI", "wnli"), ("sentence1", "sentence2"), label_values=BINARY,
    ),
    Task("AX", "classification", ("matthews", "accuracy"), "matthews", NLI): GlueLayout(
        ("diagnostic", "AX", "ax", "MNLI"), ("sentence1", "sentence2"), label_values=NLI, train=None,
        dev=(GlueFile("dev", ("diagnostic-full.tsv",),
                      renamed=(("sentence1", "Premise"), ("sentence2", "Hypothesis"), ("label", "Label"))),),
        test=(GlueFile("test", ("diagnostic.tsv", "AX.tsv")),),
    ),
}
DIAGNOSTIC = "AX"
"""The task without training data: a model of MNLI is scored on it."""
LAYOUTS = {task.name: layout for task, layout in GLUE.items()}
TASKS = (*GLUE, *SQUAD)
ALIASES = {"squad": "squad1.1", "squadv1": "squad1.1", "squadv1.1": "squad1.1", "squad1": "squad1.1", "squad11": "squad1.1",
           "squadv2": "squad2.0", "squadv2.0": "squad2.0", "squad2": "squad2.0", "squad20": "squad2.0",
           "diagnostic": "ax", "mnlim": "mnli", "qnliv2": "qnli"}


def plain_name(name: str) -> str:
    """A task's name without what people spell differently: case, dashes, underscores."""
    short = name.strip().lower().replace("-", "").replace("_", "")
    return ALIASES.get(short, short)


def select_tasks(names: list[str], own: Sequence[Path] = ()) -> list[Task]:
    """Tasks for names as people write them: `sst2`, `SST-2`, `rte,mrpc`; in the order given, each once; then those of the files `own`.

    Raises UserError for an unknown name, for no task at all, and for a task of one's own that is called like another.
    """
    known = {plain_name(task.name): task for task in TASKS}
    tasks = []
    for path in own:
        task = read_own_task(path)
        if (same := known.setdefault(plain_name(task.name), task)) is not task:
            raise UserError(f"{path}: another task is called {same.name!r} already; another name than {task.name!r} would work")
        tasks.append(task)
    wanted = [part.strip() for name in names for part in name.split(",") if part.strip()]
    unknown = [name for name in wanted if plain_name(name) not in known]
    if unknown or not (wanted or tasks):
        found = f"unknown task {unknown[0]!r}{nearest(plain_name(unknown[0]), known)}" if unknown else "no task named"
        raise UserError(f"--task_name: {found}; known tasks are {', '.join(task.name for task in known.values())}")
    return list(dict.fromkeys([*(known[plain_name(name)] for name in wanted), *tasks]))


def load_task(task: Task, glue_dir: Path | None, *, dataset_name: str | None = None, test: bool = False) -> TaskData:
    """Read and check every set of `task`, the test sets only if `test`, where there are such.

    `glue_dir`: the folder of the official files; `dataset_name`: instead, a data set for `datasets`, by name or local path. A task of
    one's own knows its files. Raises UserError in one line, with file and line where there are such, for anything wrong.
    """
    if isinstance(task, OwnTask):
        return read_own(task, test)
    if dataset_name is not None and glue_dir is not None:
        raise UserError("--glue_dir and --dataset_name: the same tasks from two places; one of the two would work")
    if dataset_name is not None:
        return read_dataset(task, dataset_name, test)
    if glue_dir is None:
        raise UserError(f"{task.name}: no data named; --glue_dir FOLDER with the official files, or --dataset_name, would work")
    if task.kind == "span":
        return read_squad(task, glue_dir, test)
    return read_glue(task, LAYOUTS[task.name], glue_dir, test)
