"""The official files of GLUE, read as they really are.

What is odd in them, and what is done with it:
- CoLA's train and dev files have no header line; its test file has one.
- MRPC's files begin with a byte order mark. GLUE may give out only its sources (`msr_paraphrase_train.txt`, `msr_paraphrase_test.txt`, and
  `dev_ids.tsv`, which says what is dev), so those are read where no train.tsv has been made of them.
- QQP's first release has questions with a line end inside, so that about twenty rows of its 360,000 are torn into pieces without label. No
  reader uses these; they are passed over, and how many is printed. More than one in a thousand is an error, and so is a single one in any
  other task: a score over fewer examples than the task has would look like any other score.
- MNLI has two dev and two test sets, and other columns in each; the label that counts is `gold_label`.
- The diagnostic set (AX) has no training data. `diagnostic.tsv` has no labels either: it is a test set, to be predicted by a model of MNLI.
  `diagnostic-full.tsv` has labels, under other column names.
- No test set has labels; some downloads fill in a column of them, which is not looked at.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from dataset.errors import UserError
from evaluation.tasks.examples import class_reader, content_sha256, examples_of, score_reader
from evaluation.tasks.rows import Rows, read_rows
from evaluation.tasks.task import Examples, Task, TaskData

MOST_BROKEN = 0.001  # of QQP's rows


@dataclass(frozen=True)
class GlueFile:
    """One set of a task: its name, its usual file names (the official one first) and, if it has no header line, its columns."""

    name: str
    names: tuple[str, ...]
    header: tuple[str, ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()
    """Pairs (the layout's column, this file's name for it)."""

    def column(self, name: str) -> str:
        return dict(self.renamed).get(name, name)


@dataclass(frozen=True)
class GlueLayout:
    """Where the official files of a task are, which columns count and what is written for each label."""

    folders: tuple[str, ...]
    text_columns: tuple[str, ...]
    label_column: str = "label"
    label_values: tuple[str, ...] = ()
    """Of a classification, as written in the files and in submissions; the position is the class number."""
    id_column: str = "index"
    """Of the test files, for submissions."""
    limits: tuple[float, float] | None = None
    """Of a regression's scores."""
    train: GlueFile | None = GlueFile("train", ("train.tsv",))
    dev: tuple[GlueFile, ...] = (GlueFile("dev", ("dev.tsv",)),)
    test: tuple[GlueFile, ...] = (GlueFile("test", ("test.tsv",)),)
    torn_rows: bool = False
    msr_sources: bool = False

    @property
    def needed(self) -> tuple[GlueFile, ...]:
        """The files without which the task cannot be trained and scored."""
        return () if self.train is None else (self.train, *self.dev)


def read_glue(task: Task, layout: GlueLayout, glue_dir: Path, test: bool) -> TaskData:
    """Every set of `task` from the official files below `glue_dir`; UserError with file and line for anything wrong.

    `test`: the test sets as well, where their files are there.
    """
    folder = find_folder(task, layout, glue_dir)
    if layout.msr_sources and not _path(folder, layout.train):
        train, dev = _from_msr_sources(task, layout, folder)
        sets = {"dev": dev}
    else:
        train = _read(task, layout, folder, layout.train) if layout.train else Examples(tuple([] for _ in layout.text_columns), [])
        sets = {file.name: _read(task, layout, folder, file) for file in layout.dev if _path(folder, file)}
    tests = {file.name: _read(task, layout, folder, file, labelled=False) for file in layout.test if test and _path(folder, file)}
    if not sets and not tests:
        labelled, plain = layout.dev[0].names[0], layout.test[0].names[0]
        raise UserError(f"{folder}: no {labelled}, which has labels; --do_predict would work with {plain}, which has none")
    return TaskData(task, train, sets, content_sha256([train, *sets.values()]), tests)


def find_folder(task: Task, layout: GlueLayout, glue_dir: Path) -> Path:
    """The folder of `task` below `glue_dir` that holds its files; UserError where there is none."""
    wanted = " and ".join(file.names[0] for file in layout.needed or (layout.dev[0],))
    if not glue_dir.is_dir():
        raise UserError(f"--glue_dir {glue_dir}: no such folder; give the one that holds {layout.folders[0]}/{wanted.split(' and ')[0]}")
    folders = [glue_dir / name for name in layout.folders if (glue_dir / name).is_dir()]
    if not folders:
        raise UserError(f"{glue_dir}: no folder {layout.folders[0]}; {task.name} needs {wanted} in it")
    lacking = {}
    for folder in folders:
        files = layout.needed or (layout.dev[0], layout.test[0])
        lacking[folder] = [file.names[0] for file in files if not _path(folder, file)]
        sources = layout.msr_sources and (folder / "msr_paraphrase_train.txt").is_file()
        if sources or len(lacking[folder]) < (1 if layout.needed else len(files)):
            return folder
    folder = folders[0]
    raise UserError(f"{folder}: no {lacking[folder][0]}; {task.name} needs {wanted} there")


def _path(folder: Path, file: GlueFile) -> Path | None:
    return next((folder / name for name in file.names if (folder / name).is_file()), None)


def _read(task: Task, layout: GlueLayout, folder: Path, file: GlueFile, labelled: bool = True) -> Examples:
    path = _path(folder, file)
    texts = [file.column(name) for name in layout.text_columns]
    label = file.column(layout.label_column) if labelled else None
    rows = read_rows(
        path, [*texts, label] if label else texts, whose=task.name, header=file.header,
        optional=() if labelled else (layout.id_column,), most_broken=MOST_BROKEN if layout.torn_rows and labelled else 0.0,
    )
    if rows.broken:
        print(
            f"{path}: {len(rows.broken)} torn lines passed over (line {rows.broken[0]} is the first); {len(rows.lines)} rows read",
            file=sys.stderr,
        )
    return _examples(task, layout, path, rows, texts, label)


def _examples(task: Task, layout: GlueLayout, path: Path, rows: Rows, texts: list[str], label: str | None) -> Examples:
    if task.kind == "regression":
        read, expected = score_reader(*layout.limits), f"a number from {layout.limits[0]:g} to {layout.limits[1]:g}"
    else:
        read, expected = class_reader(layout.label_values), f"one of {', '.join(layout.label_values)}"
    return examples_of(path, rows, texts, label, read, expected, layout.id_column)


def _from_msr_sources(task: Task, layout: GlueLayout, folder: Path) -> tuple[Examples, Examples]:
    """Train and dev of MRPC: the rows of Microsoft's training file, whose pair of ids is, or is not, listed in GLUE's dev_ids.tsv."""
    ids = folder / "dev_ids.tsv"
    if not ids.is_file():
        raise UserError(f"{folder}: no train.tsv, and msr_paraphrase_train.txt needs GLUE's dev_ids.tsv, which says what is dev")
    listed = read_rows(ids, ["#1 ID", "#2 ID"], whose=task.name, header=("#1 ID", "#2 ID"))
    dev_pairs = set(zip(listed.columns["#1 ID"], listed.columns["#2 ID"], strict=True))
    path = folder / "msr_paraphrase_train.txt"
    rows = read_rows(path, [layout.label_column, "#1 ID", "#2 ID", *layout.text_columns], whose=task.name)
    is_dev = [pair in dev_pairs for pair in zip(rows.columns["#1 ID"], rows.columns["#2 ID"], strict=True)]

    def part(dev: bool) -> Examples:
        def pick(values: list) -> list:
            return [value for value, here in zip(values, is_dev, strict=True) if here == dev]

        picked = Rows(pick(rows.lines), {name: pick(values) for name, values in rows.columns.items()}, [])
        if not picked.lines:
            raise UserError(f"{path}: {'none' if dev else 'all'} of its pairs of ids are in {ids}; GLUE's dev_ids.tsv would work")
        return _examples(task, layout, path, picked, list(layout.text_columns), layout.label_column)

    return part(False), part(True)
