"""From rows of a file to `Examples`, the check of every label on the way, and the hash of what was read.

The hash is of the content (texts and labels in their order), not of a file's bytes: the same examples from an official TSV file and from
`datasets` have the same hash, and any difference in them shows.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from dataset.errors import UserError
from evaluation.tasks.rows import Rows
from evaluation.tasks.task import Examples, Questions

LabelReader = Callable[[str], int | float | None]
"""From a label as written to a class number or score; None for a label that is none of the task's."""


def class_reader(values: Sequence[str]) -> LabelReader:
    """Reads a class: the position of what is written in `values`."""
    return {value: number for number, value in enumerate(values)}.get


def score_reader(least: float = -math.inf, most: float = math.inf) -> LabelReader:
    """Reads a finite number from `least` to `most`."""

    def read(text: str) -> float | None:
        try:
            value = float(text)
        except ValueError:
            return None
        if "_" in text:  # which Python takes for 10 in 1_0
            return None
        return value if math.isfinite(value) and least <= value <= most else None

    return read


def examples_of(
    path: Path, rows: Rows, texts: Sequence[str], label: str | None, read: LabelReader | None, expected: str, ids: str | None = None
) -> Examples:
    """Examples of the columns `texts`, with labels from the column `label` (None: the set has none) and ids from `ids`.

    Raises UserError with file and line for a label that `read` does not know; `expected` says what it would.
    """
    labels = None
    if label is not None:
        labels = [read(value) for value in rows.columns[label]]
        if None in labels:
            at = labels.index(None)
            raise UserError(f"{path}, line {rows.lines[at]}: found {rows.columns[label][at][:40]!r} in column {label}, expected {expected}")
    return Examples(tuple(rows.columns[name] for name in texts), labels, rows.columns.get(ids, []))


def content_sha256(sets: Iterable[Examples | Questions]) -> str:
    """SHA-256 in hex of the texts and labels of `sets`, in their order; ids do not count, for not every source has them."""
    digest = hashlib.sha256()
    for part in sets:
        if isinstance(part, Questions):
            columns = [part.questions, part.contexts, part.answers, part.starts]
        else:
            columns = [*part.texts, part.labels]
        for column in columns:
            digest.update(hashlib.sha256(json.dumps(column, ensure_ascii=False).encode("utf-8", "surrogatepass")).digest())
        digest.update(b"end of a set")
    return digest.hexdigest()
