"""`glue.json`: every score ever taken in a folder, with all that decided it, so that nothing is computed twice.

A row is one fine-tuning with one seed. It says which weights (a hash, not a path), which data, which settings, which task, which teacher
and which start it belongs to; equal in all of them means the score is known, under whatever name or place the model goes now. The file is
read again before each row is added, under a lock, and written whole: an interrupted call loses at most the scores it was computing, and
two calls may work on one folder.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from dataset.errors import UserError
from dataset.files import write_json

FILE_NAME = "glue.json"
ROLES = ("marker", "model", "baseline", "teacher")
IDENTITY = ("task", "task_version", "metric_names", "weights_sha256", "data_sha256", "settings", "mode", "teacher_sha256", "start")
"""Fields that decide a score; what the model is called and under which protocol it was asked for do not.

`metric_names`: of the task, which one's own may change. `mode`: `fine_tuning`, or `as_it_is` for a checkpoint scored with its own head.
`teacher_sha256`: of the teacher in fine-tuning, null without one. `start`: null, or task, version, data, settings and teacher of the
fine-tuning whose encoder it began with. A precision of `auto` is what the device made of it: `precision` says that.
"""
MEASURED = (
    "metrics", "constant_metrics", "diverged", "selected_on_dev", "best_step", "history", "train_size", "dev_size", "train_seconds",
    "precision", "device", "new_weights", "parameters", "versions",
)
"""Fields that scoring adds. `history`: evaluations during the training. `versions`: of the code that computed it (torch, transformers)."""
MARKER_FIELDS = ("fraction", "step", "hours", "validation_loss")
"""A marker's place in its run; other rows lack them."""

Row = dict[str, Any]


def read_results(folder: Path) -> list[Row]:
    """Rows of `folder`/glue.json, none where there is no file; UserError where it is not a list of rows."""
    path = folder / FILE_NAME
    if not path.exists():
        return []
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not JSON ({error}); move it away to score anew") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) and "model" in row and "task" in row for row in rows):
        raise UserError(f"{path}: not a list of results; move it away to score anew")
    return rows


def identity(row: Row) -> str:
    """A hash of all that decides a score: equal where the score must be."""
    return hashlib.sha256(json.dumps({name: row.get(name) for name in IDENTITY}, sort_keys=True).encode()).hexdigest()


def is_complete(row: Row) -> bool:
    """Whether `row` holds a score."""
    return all(name in row for name in MEASURED)


class Known:
    """The complete ones of many rows, to be found by what decides their score."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._rows: dict[str, list[Row]] = {}
        for row in rows:
            self.add(row)

    def add(self, row: Row) -> None:
        if is_complete(row):
            self._rows.setdefault(identity(row), []).append(row)

    def find(self, wanted: Row) -> Row | None:
        """The newest row with the score of `wanted`, one under the same model name first; None where unknown."""
        found = self._rows.get(identity(wanted), [])
        named = [row for row in found if row["model"] == wanted["model"]]
        return (named or found or [None])[-1]


def add_results(folder: Path, new: Sequence[Row]) -> None:
    """Put `new` into `folder`/glue.json, each in place of an older row of the same model name, protocol and score."""
    if not new:
        return
    from filelock import FileLock

    replaced = {_place(row) for row in new}
    with FileLock(folder / f".{FILE_NAME}.lock"):
        kept = [row for row in read_results(folder) if _place(row) not in replaced]
        write_json(folder / FILE_NAME, [*kept, *new])


def _place(row: Row) -> tuple[str, str, str]:
    return row["model"], json.dumps(row.get("protocol"), sort_keys=True), identity(row)
