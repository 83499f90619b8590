"""GLUE tasks as one table, and the official TSV files read as they really are.

Adding a task is adding a row to `TASKS`. Columns are found by their header name, never by position. The official files
hold unbalanced double quotes, so a line is split at tabs and at nothing else; a byte order mark and CRLF line ends are
taken off. A broken line is an error, not a skipped line: a score over fewer examples than the task has would look like
any other score.

`version` of a row goes up when reading or scoring of that task changes, and is kept with every result.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from dataset.errors import UserError


@dataclass(frozen=True)
class Task:
    """One GLUE task: where its files are, which columns count, what the labels mean and how it is scored."""

    name: str
    folders: tuple[str, ...]
    text_columns: tuple[str, ...]
    label_column: str
    label_values: tuple[str, ...]
    """As written in the file; the position is the class number."""
    label_names: tuple[str, ...]
    metrics: tuple[str, ...]
    headline: str
    """The metric that stands for the task in tables and plots."""
    version: int = 1


TASKS = (
    Task("SST-2", ("SST-2", "SST2", "sst2", "sst-2"), ("sentence",), "label",
         ("0", "1"), ("negative", "positive"), ("accuracy",), "accuracy"),
    Task("RTE", ("RTE", "rte"), ("sentence1", "sentence2"), "label",
         ("entailment", "not_entailment"), ("entailment", "not_entailment"), ("accuracy",), "accuracy"),
    Task("MRPC", ("MRPC", "mrpc"), ("#1 String", "#2 String"), "Quality",
         ("0", "1"), ("not_equivalent", "equivalent"), ("f1", "accuracy"), "f1"),
)


@dataclass(frozen=True)
class Examples:
    """Labelled examples: one list of texts for each text column of the task, and as many class numbers."""

    texts: tuple[list[str], ...]
    labels: list[int]

    def first(self, count: int | None) -> "Examples":
        """The first `count` examples in file order (all of them for None)."""
        return Examples(tuple(column[:count] for column in self.texts), self.labels[:count])


@dataclass(frozen=True)
class TaskData:
    """A task with its train and dev examples; `sha256` is of the two files, so that changed data is never mistaken."""

    task: Task
    train: Examples
    dev: Examples
    sha256: str


def _plain(name: str) -> str:
    return name.strip().lower().replace("-", "").replace("_", "")


def select_tasks(names: list[str]) -> list[Task]:
    """Tasks for names as people write them: `sst2`, `SST-2`, `rte,mrpc`; in the order given, each once.

    Raises UserError for an unknown name and for no name at all.
    """
    known = {_plain(task.name): task for task in TASKS}
    wanted = [part for name in names for part in name.split(",") if part.strip()]
    unknown = [name for name in wanted if _plain(name) not in known]
    if unknown or not wanted:
        found = f"unknown task {unknown[0].strip()!r}" if unknown else "no task named"
        raise UserError(f"--task_name: {found}; known tasks are {', '.join(task.name for task in TASKS)}")
    return list(dict.fromkeys(known[_plain(name)] for name in wanted))


def find_task_folder(task: Task, glue_dir: Path) -> Path:
    """The folder of `task` below `glue_dir` that holds its train.tsv and dev.tsv; UserError where there is none."""
    if not glue_dir.is_dir():
        raise UserError(f"--glue_dir {glue_dir}: no such folder; give the one that holds {task.folders[0]}/train.tsv")
    folder = next((glue_dir / name for name in task.folders if (glue_dir / name).is_dir()), None)
    if folder is None:
        raise UserError(f"{glue_dir}: no folder {task.folders[0]}; {task.name} needs train.tsv and dev.tsv in it")
    for name in ("train.tsv", "dev.tsv"):
        if not (folder / name).is_file():
            raise UserError(f"{folder}: no {name}; {task.name} needs train.tsv and dev.tsv there")
    return folder


def load_task(task: Task, glue_dir: Path) -> TaskData:
    """Read and check the whole train and dev file of `task`; UserError with file and line for anything wrong."""
    folder = find_task_folder(task, glue_dir)
    digest = hashlib.sha256()
    parts = []
    for name in ("train.tsv", "dev.tsv"):
        content = (folder / name).read_bytes()
        digest.update(hashlib.sha256(content).digest())
        parts.append(read_examples(task, folder / name, content))
    return TaskData(task, *parts, digest.hexdigest())


def read_examples(task: Task, path: Path, content: bytes) -> Examples:
    """The examples in `content`, the bytes of the TSV file `path`; UserError with line number, found and expected."""
    lines = _lines(path, content)
    header = lines[0].split("\t")
    wanted = (*task.text_columns, task.label_column)
    missing = [column for column in wanted if column not in header]
    if missing:
        raise UserError(
            f"{path}, line 1: found columns {', '.join(header)[:200]!r}; {task.name} needs columns {', '.join(wanted)}"
        )
    text_at = [header.index(column) for column in task.text_columns]
    label_at = header.index(task.label_column)
    classes = {value: number for number, value in enumerate(task.label_values)}
    texts: tuple[list[str], ...] = tuple([] for _ in text_at)
    labels = []
    for number, line in enumerate(lines[1:], start=2):
        row = line.split("\t")
        if len(row) != len(header):
            raise UserError(
                f"{path}, line {number}: found {len(row)} columns, expected {len(header)} ({', '.join(header)})"
            )
        label = classes.get(row[label_at])
        if label is None:
            raise UserError(
                f"{path}, line {number}: found {row[label_at][:40]!r} in column {task.label_column}, "
                f"expected one of {', '.join(task.label_values)}"
            )
        for column, position in zip(texts, text_at, strict=True):
            column.append(row[position])
        labels.append(label)
    if not labels:
        raise UserError(f"{path}: a header and no examples; expected one example a line")
    return Examples(texts, labels)


def _lines(path: Path, content: bytes) -> list[str]:
    """Decoded lines (at least one) without line ends or byte order mark; empty ones at the file's end are dropped."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: not UTF-8 ({error.reason}); save the file as UTF-8") from None
    # str.splitlines would also split at form feeds and Unicode separators, which occur inside sentences.
    return [line.removesuffix("\r") for line in text.rstrip("\r\n").split("\n")]
