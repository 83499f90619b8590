"""The transfer set: the texts that a teacher labels and a student learns from, one row each, in a TSV that every step reads and writes.

A header line, then one row a line: `sentence`, or `sentence1` and `sentence2`; optionally `label`, a class name or a number, empty where a
row has none; optionally `logits_0`, `logits_1`, ... of a teacher, in the order of the task's classes (a regression has `logits_0`). A
task's own column names (`question1`, `#1 String`) are read as well, and so are d-bert's joined files, whose labels are class numbers; but
not MNLI's numbers, which programs give to its classes in different orders. A text never holds a tab or a line end, so no row needs quotes
and a quote means nothing.

What a row says is known by `text_hash`: logits that are kept apart carry the row's number and that hash, so that a join cannot slip.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import xxhash

from dataset.errors import UserError
from dataset.files import reason, whole_file
from evaluation.tasks.own import OwnTask
from evaluation.tasks.table import LAYOUTS
from evaluation.tasks.task import Task

SINGLE, PAIR = ("sentence",), ("sentence1", "sentence2")
LABEL, LOGITS = "label", "logits_"
MASK_WORD = "[MASK]"
"""What stands in a text for a word that is hidden, whatever the teacher's tokenizer calls it."""
SHOWN = 120
PARQUET = b"PAR1"
"""How every Parquet file begins."""
NUMBERED_IN_MANY_WAYS = ("MNLI", "AX")
"""Tasks whose class 0 is entailment in the hub's copy of GLUE and contradiction in BERT's run_classifier.py."""
FP32_INFINITE = 2.0**128 - 2.0**103
"""From here on the nearest number of fp32 is infinite."""


@dataclass(frozen=True)
class TransferRow:
    """`texts`: 1 or 2. `label`: class number or score, None where the row has none. `logits`: as many as the task has outputs, or None."""

    texts: tuple[str, ...]
    label: int | float | None = None
    logits: tuple[float, ...] | None = None


def text_columns(task: Task) -> tuple[str, ...]:
    """The task's own names of its text columns, 1 or 2; UserError for question answering, which has no rows of texts."""
    if task.kind == "span":
        raise UserError(f"{task.name}: task distillation is for classifications and regressions; run_glue.py --teacher_path distils it")
    return task.layout.text_columns if isinstance(task, OwnTask) else LAYOUTS[task.name].text_columns


def label_words(task: Task) -> tuple[tuple[str, ...], str]:
    """(what the task's own files write for each class, in the order of the classes; the name of their label column)."""
    if isinstance(task, OwnTask):
        return task.label_names, task.layout.label_column
    return LAYOUTS[task.name].label_values, LAYOUTS[task.name].label_column


def plain_text(text: str) -> str:
    """`text` on one line: every run of white space, tabs and line ends included, becomes one space; what UTF-8 cannot hold becomes `?`."""
    return " ".join(text.split()).encode("utf-8", "replace").decode("utf-8")


def text_hash(texts: Sequence[str]) -> str:
    """16 hexadecimal digits that stand for a row's texts, whatever white space is between and around their words."""
    return xxhash.xxh3_64_hexdigest("\t".join(map(plain_text, texts)).encode("utf-8"))


@contextmanager
def transfer_writer(path: Path, task: Task) -> Iterator["TransferWriter"]:
    """Write a transfer set to `path`, which appears whole at the end or not at all; UserError where it cannot be written."""
    try:
        with whole_file(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as stream:
            yield TransferWriter(stream, task)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({reason(error)}); choose another place") from None


class TransferWriter:
    """Writes rows as they come; `rows` counts them."""

    def __init__(self, stream: TextIO, task: Task) -> None:
        self._stream, self.rows = stream, 0
        self._classes = task.label_names if task.kind == "classification" else None
        if (odd := next((name for name in self._classes or () if not name or plain_text(name) != name), None)) is not None:
            raise UserError(f"{task.name}: a class is called {odd!r}; in a transfer set a name needs letters, and no white space but "
                            "single spaces")
        self._columns = PAIR if len(text_columns(task)) == 2 else SINGLE
        stream.write("\t".join((*self._columns, LABEL)) + "\n")

    def write(self, texts: Sequence[str], label: int | float | None = None) -> None:
        """One row; `label` as in `TransferRow`. The texts are made plain; ValueError for a row that could not be read again."""
        cells = [plain_text(text) for text in texts]
        if len(cells) != len(self._columns) or not all(cells):
            raise ValueError(f"{len(cells)} texts of {[len(text) for text in cells]} letters; {len(self._columns)} with some are needed")
        self._stream.write("\t".join((*cells, self._word(label))) + "\n")
        self.rows += 1

    def _word(self, label: int | float | None) -> str:
        if label is None:
            return ""
        if self._classes is None:
            if not math.isfinite(label):
                raise ValueError(f"label {label}; a finite number is needed")
            return repr(float(label))
        if not 0 <= label < len(self._classes):
            raise ValueError(f"label {label}; the task has {len(self._classes)} classes")
        return self._classes[label]


def read_transfer_set(path: Path, task: Task) -> Iterator[TransferRow]:
    """Every row of the file, streaming.

    UserError with file and line for a file that cannot be read, lacks a text column or rows, and for a row with a wrong number of
    columns, an empty text, a label that the task has not, or a score or logits that are not finite numbers in fp32.
    """
    try:
        with _text_stream(path) as stream:
            yield from _rows(path, task, _lines(path, stream))
    except OSError as error:
        raise UserError(f"{path}: {reason(error)}; a transfer set that can be read would work") from None


def holds_logits(path: Path, task: Task) -> bool:
    """Whether the header says that the file has a teacher's logits beside its texts; UserError as of `read_transfer_set`."""
    try:
        with _text_stream(path) as stream:
            return _Layout(path, task, next(_lines(path, stream), (1, ""))[1]).logits is not None
    except OSError as error:
        raise UserError(f"{path}: {reason(error)}; a transfer set that can be read would work") from None


@contextmanager
def _text_stream(path: Path) -> Iterator[Iterable[bytes]]:
    """The file's lines; UserError for one without any and for a file of logits."""
    with Path(path).open("rb") as stream:
        begin = stream.read(len(PARQUET))
        if not begin:
            raise UserError(f"{path}: an empty transfer set; a header line and one row a line would work")
        if begin == PARQUET:
            raise UserError(f"{path}: a Parquet file; texts are in a TSV, as augment and generate write it")
        stream.seek(0)
        yield stream


def _lines(path: Path, stream: Iterable[bytes]) -> Iterator[tuple[int, str]]:
    """(number, text) of each line; empty ones at the end of the file are none."""
    empty = []
    for number, raw in enumerate(stream, start=1):
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise UserError(f"{path}, line {number}: not UTF-8 ({error.reason}); save the file as UTF-8") from None
        if not line:
            empty.append(number)
            continue
        yield from ((before, "") for before in empty)
        empty.clear()
        yield number, line


def _rows(path: Path, task: Task, lines: Iterator[tuple[int, str]]) -> Iterator[TransferRow]:
    layout, number = None, 0
    for number, line in lines:
        if layout is None:
            layout = _Layout(path, task, line)
        else:
            yield layout.row(number, line)
    if number <= 1:
        raise UserError(f"{path}: an empty transfer set; a header line and one row a line would work")


def _class_numbers(task: Task, words: Sequence[str]) -> dict[str, int]:
    """The class that each word means: a class's name first, then what the task's own files write, then its number if no name is one."""
    names = {**{word: number for number, word in enumerate(words)}, **{name: number for number, name in enumerate(task.label_names)}}
    if task.name in NUMBERED_IN_MANY_WAYS or any(name.isdecimal() for name in names):
        return names
    return names | {str(number): number for number in range(len(task.label_names))}


class _Layout:
    """Where the header says that texts, label and logits are."""

    def __init__(self, path: Path, task: Task, header: str) -> None:
        self.path, self.task = path, task
        self.columns = header.split("\t")
        own, plain = text_columns(task), PAIR if len(text_columns(task)) == 2 else SINGLE
        names = own if all(name in self.columns for name in own) else plain
        missing = [name for name in names if name not in self.columns]
        if missing:
            raise UserError(f"{path}, line 1: found columns {', '.join(self.columns)[:SHOWN]!r} and no {missing[0]!r}; {task.name} needs "
                            f"{', '.join(plain)}" + ("" if own == plain else f" (or {', '.join(own)})"))
        self.texts = [self.columns.index(name) for name in names]
        words, label_column = label_words(task)
        self.classes = _class_numbers(task, words)
        at = [name for name in (LABEL, label_column) if name in self.columns]
        self.label = self.columns.index(at[0]) if at else None
        found = [name for name in self.columns if name.startswith(LOGITS)]
        wanted = [f"{LOGITS}{number}" for number in range(task.outputs)]
        if found and sorted(found) != sorted(wanted):
            raise UserError(f"{path}, line 1: found {', '.join(found)[:SHOWN]}; {task.name} has {task.outputs} outputs: "
                            f"{', '.join(wanted)[:SHOWN]}")
        self.logits = [self.columns.index(name) for name in wanted] if found else None
        if twice := next((name for name in (*names, *at[:1]) if self.columns.count(name) > 1), None):
            raise UserError(f"{path}, line 1: two columns are called {twice!r}; one would work")

    def row(self, number: int, line: str) -> TransferRow:
        cells = line.split("\t")
        if len(cells) != len(self.columns):
            raise self._error(number, f"found {len(cells)} columns, expected {len(self.columns)} ({', '.join(self.columns)[:SHOWN]})")
        texts = tuple(cells[at] for at in self.texts)
        empty = next((at for at, text in zip(self.texts, texts, strict=True) if not text.strip()), None)
        if empty is not None:
            raise self._error(number, f"nothing under {self.columns[empty]!r}; a row needs its text")
        return TransferRow(texts, self._label(number, cells), None if self.logits is None else self._logits(number, cells))

    def _label(self, number: int, cells: list[str]) -> int | float | None:
        word = cells[self.label] if self.label is not None else ""
        if not word:
            return None
        if self.task.kind != "classification":
            return self._number(number, word, self.columns[self.label])
        if word not in self.classes:
            if self.task.name in NUMBERED_IN_MANY_WAYS and word.isdecimal():
                raise self._error(number, f"label {word[:SHOWN]!r}: programs number the classes of {self.task.name} in different orders; "
                                          f"their names ({', '.join(self.task.label_names)}) would work")
            raise self._error(number, f"label {word[:SHOWN]!r} is none of {self.task.name}'s ({', '.join(self.classes)[:SHOWN]})")
        return self.classes[word]

    def _logits(self, number: int, cells: list[str]) -> tuple[float, ...]:
        return tuple(self._number(number, cells[at], self.columns[at]) for at in self.logits)

    def _number(self, number: int, word: str, column: str) -> float:
        try:
            value = float(word)
        except ValueError:
            value = math.nan
        if "_" in word or not abs(value) < FP32_INFINITE:
            raise self._error(number, f"{word[:SHOWN]!r} under {column!r} is not a finite number in fp32")
        return value

    def _error(self, number: int, found: str) -> UserError:
        return UserError(f"{self.path}, line {number}: {found}")
