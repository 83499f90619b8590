"""A classification or regression of one's own, described by a YAML file of ten lines:

    name: reviews
    kind: classification          # or regression
    train: train.tsv              # TSV, CSV or JSON lines; paths are relative to this file
    dev: dev.tsv                  # or a mapping of names to files, the headline's first
    test: test.tsv                # optional, without labels
    text: [title, body]           # one or two columns
    label: stars
    labels: [bad, good]           # optional: by default those of the training file, sorted
    metrics: [accuracy, f1]       # optional; see METRICS_OF_KIND
    headline: accuracy            # optional: by default the first of the metrics

and `format: tsv`, `csv` or `jsonl` where the files' names do not say it. Every value is text as it stands there (no, 010 and 1:30 too), so
that labels are what the files hold. `f1` is that of the second label. In TSV quotes mean nothing, in CSV they do (`rows.py`).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dataset.errors import UserError, nearest, one_line
from dataset.files import reason
from evaluation.tasks.examples import class_reader, content_sha256, examples_of, score_reader
from evaluation.tasks.rows import FORMATS, column_names, read_rows
from evaluation.tasks.task import Examples, Task, TaskData

KEYS = ("name", "kind", "train", "dev", "test", "text", "label", "labels", "metrics", "headline", "format")
NEEDED = ("name", "kind", "train", "dev", "text", "label")
METRICS_OF_KIND = {
    "classification": ("accuracy", "f1", "macro_f1", "matthews"),
    "regression": ("spearman", "pearson"),
}
"""What a task of one's own can be scored by; by default the first of a classification and all of a regression."""
SUFFIXES = {".tsv": "tsv", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl"}
MOST_LABELS = 1000
LABEL, PAIR, NO_TEXT = "label", ("sentence1", "sentence2"), ("id", "idx", "index")  # of task_of_files


@dataclass(frozen=True)
class OwnLayout:
    """Which files and columns a task of one's own is read from. `dev` and `test`: pairs of a set's name and its file."""

    train: Path
    dev: tuple[tuple[str, Path], ...]
    test: tuple[tuple[str, Path], ...]
    text_columns: tuple[str, ...]
    label_column: str
    file_format: str | None
    """None: by each file's name."""


@dataclass(frozen=True, kw_only=True)
class OwnTask(Task):
    """A task that knows its files."""

    layout: OwnLayout


class _TextLoader(yaml.BaseLoader):
    """Every scalar stays text; a key that is written twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [str(key.value) for key, _ in node.value]
        if twice := next((key for key in keys if keys.count(key) > 1), None):
            raise yaml.constructor.ConstructorError(problem=f"{twice!r} is written twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


def read_own_task(path: Path) -> OwnTask:
    """The task that the YAML file at `path` describes; its training file is read too if the labels are to be found there.

    Raises UserError, naming file and key, for anything wrong with it, and for files that are not there.
    """
    content = _read_yaml(path)
    kind = _text(path, content, "kind")
    if kind not in METRICS_OF_KIND:
        raise UserError(f"{path}: kind {kind!r}; {' or '.join(METRICS_OF_KIND)} would work")
    name = _text(path, content, "name")
    if not re.fullmatch(r"\w[\w.-]*", name, re.ASCII):
        raise UserError(f"{path}: name {name!r}; letters, digits, '-', '_' and '.' would work, for files are named after it")
    layout = _layout(path, content)
    usual = METRICS_OF_KIND[kind][:1] if kind == "classification" else METRICS_OF_KIND[kind]
    metrics = tuple(_texts(path, content, "metrics")) if "metrics" in content else usual
    for metric in metrics:
        if metric not in METRICS_OF_KIND[kind]:
            close = nearest(metric, METRICS_OF_KIND[kind])
            raise UserError(f"{path}: unknown metric {metric!r} of a {kind}{close}; known are {', '.join(METRICS_OF_KIND[kind])}")
    headline = _text(path, content, "headline") if "headline" in content else metrics[0]
    if headline not in metrics:
        raise UserError(f"{path}: headline {headline!r} is not one of the metrics {', '.join(metrics)}")
    if kind == "regression":
        if "labels" in content:
            raise UserError(f"{path}: labels of a regression, whose labels are numbers; kind: classification, or no labels, would work")
        return OwnTask(name, kind, metrics, headline, layout=layout)
    labels = tuple(_texts(path, content, "labels")) if "labels" in content else _labels_of(name, layout)
    if len(labels) < 2:
        where = path if "labels" in content else layout.train
        raise UserError(f"{where}: one label, {labels[0]!r}; a classification needs two or more")
    if "f1" in metrics and len(labels) != 2:
        raise UserError(f"{path}: metric f1 is of two labels and there are {len(labels)}; macro_f1 would work")
    return OwnTask(name, kind, metrics, headline, labels, layout=layout)


def read_own(task: OwnTask, test: bool) -> TaskData:
    """Every set of `task`, the test sets only if `test`; UserError with file and line for anything wrong."""
    layout = task.layout
    train = _read(task, layout.train)
    dev = {name: _read(task, path) for name, path in layout.dev}
    tests = {name: _read(task, path, labelled=False) for name, path in layout.test if test}
    return TaskData(task, train, dev, content_sha256([train, *dev.values()]), tests)


def task_of_files(train: Path, dev: Path) -> OwnTask:
    """A task without a YAML, from --train_file and --validation_file, by the rule that `transformers`' script has for them.

    The labels are in the column `label`; the texts in `sentence1` and `sentence2`, or else in the other columns, of which there must be one
    or two (`id`, `idx` and `index` are none). It is a regression if every label is a number and one has a decimal point. Called `own_` and
    the name of the training file, or of its folder if the file is called train. Raises UserError as `read_own_task` does.
    """
    for flag, path in (("--train_file", train), ("--validation_file", dev)):
        if not path.is_file():
            raise UserError(f"{flag} {path}: no such file; a TSV, CSV or JSONL file with a column {LABEL} would work")
    names = column_names(train, _format(train, None))
    texts = [name for name in names if name not in (LABEL, *NO_TEXT)]
    texts = list(PAIR) if set(PAIR) <= set(texts) else texts
    if not 1 <= len(texts) <= 2:
        found = ", ".join(names)[:200]
        raise UserError(f"{train}: found columns {found!r}; {LABEL} and one or two of text would work, or --task_file own.yaml")
    stem = train.stem if train.stem != "train" else train.resolve().parent.name
    name = f"own_{re.sub(r'[^a-zA-Z0-9.-]+', '_', stem)}"
    layout = OwnLayout(train, (("dev", dev),), (), tuple(texts), LABEL, None)
    written = set(read_rows(train, [LABEL], whose=name, file_format=_format(train, None)).columns[LABEL])
    if any("." in label for label in written) and None not in map(score_reader(), written):
        return OwnTask(name, "regression", METRICS_OF_KIND["regression"], METRICS_OF_KIND["regression"][0], layout=layout)
    labels = _labels_of(name, layout)
    if len(labels) < 2:
        raise UserError(f"{train}: one label, {labels[0]!r}; a classification needs two or more")
    return OwnTask(name, "classification", ("accuracy",), "accuracy", labels, layout=layout)


def _read(task: OwnTask, path: Path, labelled: bool = True) -> Examples:
    texts, label = task.layout.text_columns, task.layout.label_column if labelled else None
    rows = read_rows(path, [*texts, label] if label else texts, whose=task.name, file_format=_format(path, task.layout.file_format))
    if task.kind == "regression":
        return examples_of(path, rows, texts, label, score_reader(), "a finite number")
    return examples_of(path, rows, texts, label, class_reader(task.label_names), f"one of {', '.join(task.label_names)[:200]}")


def _labels_of(name: str, layout: OwnLayout) -> tuple[str, ...]:
    """The labels that the training file holds, sorted; whole numbers by their value."""
    path = layout.train
    rows = read_rows(path, [layout.label_column], whose=name, file_format=_format(path, layout.file_format))
    found = set(rows.columns[layout.label_column])
    if len(found) > MOST_LABELS:
        raise UserError(f"{path}: {len(found)} labels in column {layout.label_column}; kind: regression, or labels: [a, b], would work")
    if all(re.fullmatch(r"-?[0-9]+", label) for label in found):
        return tuple(sorted(found, key=lambda label: (int(label), label)))
    return tuple(sorted(found))


def _layout(path: Path, content: dict[str, Any]) -> OwnLayout:
    texts = _texts(path, content, "text")
    if len(texts) > 2:
        raise UserError(f"{path}: {len(texts)} text columns ({', '.join(texts)}); one or two would work")
    file_format = _text(path, content, "format") if "format" in content else None
    if file_format is not None and file_format not in FORMATS:
        raise UserError(f"{path}: format {file_format!r}; {', '.join(FORMATS)} would work")
    sets = {key: _files(path, content, key, file_format) for key in ("train", "dev", "test") if key in content}
    if len(sets["train"]) != 1:
        raise UserError(f"{path}: train: {len(sets['train'])} files; one would work")
    return OwnLayout(sets["train"][0][1], sets["dev"], sets.get("test", ()), tuple(texts), _text(path, content, "label"), file_format)


def _files(path: Path, content: dict[str, Any], key: str, file_format: str | None) -> tuple[tuple[str, Path], ...]:
    value = content[key]
    named = value if isinstance(value, dict) and value else {key: _text(path, content, key)}
    files = tuple((str(name), path.parent / Path(_text(path, named, name)).expanduser()) for name in named)
    for _, file in files:
        if not file.is_file():
            raise UserError(f"{path}: {key}: no file {file}; a path relative to {path.parent} would work")
        _format(file, file_format)
    return files


def _format(path: Path, given: str | None) -> str:
    found = given or SUFFIXES.get(path.suffix.lower())
    if found is None:
        raise UserError(f"{path}: its name does not tell its format; {', '.join(SUFFIXES)}, or format: {', '.join(FORMATS)}, would work")
    return found


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"--task_file {path}: no such file; a YAML file with {', '.join(NEEDED)} would work")
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_TextLoader)
    except OSError as error:
        raise UserError(f"--task_file {path}: {reason(error)}; a readable file would work") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or one_line(error)
        raise UserError(f"{path}{line}: not YAML ({problem}); lines of 'key: value' would work") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: not a mapping; a task of one's own has {', '.join(KEYS)}")
    if unknown := [str(key) for key in content if key not in KEYS]:
        raise UserError(f"{path}: unknown key {unknown[0]!r}{nearest(unknown[0], KEYS)}; known keys are {', '.join(KEYS)}")
    if missing := [key for key in NEEDED if key not in content]:
        raise UserError(f"{path}: no {missing[0]}; a task of one's own needs {', '.join(NEEDED)}")
    return content


def _text(path: Path, content: dict[str, Any], key: str) -> str:
    value = content[key]
    if not isinstance(value, str) or not value:
        raise UserError(f"{path}: {key}: {value!r}; one value would work")
    return value


def _texts(path: Path, content: dict[str, Any], key: str) -> Sequence[str]:
    """One or more different values, written as a list, or as a single value."""
    value = content[key]
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not values or not all(isinstance(one, str) and one for one in values):
        raise UserError(f"{path}: {key}: {value!r}; a list of values would work")
    if len(set(values)) < len(values):
        raise UserError(f"{path}: {key}: {value!r}; a list of different values would work")
    return values
