"""`glue.json`: every score ever taken in a folder, with all that decided it, so that nothing is computed twice.

A row is one fine-tuning with one seed. It says which weights (a hash, not a path), which data, which settings, which task, which teacher
and which start it belongs to; equal in all of them means the score is known, under whatever name or place the model goes now. The file is
read again before each row is added, under a lock, and written whole: an interrupted call loses at most the scores it was computing, and
two calls may work on one folder.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dataset.errors import UserError
from dataset.files import write_json

FILE_NAME = "glue.json"
ROLES = ("marker", "model", "baseline", "teacher")
IDENTITY = ("task", "task_version", "weights_sha256", "data_sha256", "settings", "mode", "teacher_sha256", "start")
"""Fields that decide a score; what the model is called and under which protocol it was asked for do not.

`mode`: `fine_tuning`, or `as_it_is` for a checkpoint scored with its own head. `teacher_sha256`: of the teacher in fine-tuning, null
without one. `start`: null, or task, version, data and settings of the fine-tuning whose encoder it began with.
"""
MEASURED = (
    "metrics", "constant_metrics", "diverged", "selected_on_dev", "best_step", "train_size", "dev_size", "train_seconds", "precision",
    "device", "new_weights", "parameters", "versions",
)
"""Fields that scoring adds. `versions`: of the code that computed it (torch, transformers)."""
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


def same_score(row: Row, other: Row) -> bool:
    """True where all that decides a score agrees, so that the score must."""
    return all(row.get(name) == other.get(name) for name in IDENTITY)


def find_result(rows: Sequence[Row], wanted: Row) -> Row | None:
    """The newest complete row with the score of `wanted`, one under the same model name first; None where unknown."""
    found = [row for row in rows if same_score(row, wanted) and all(name in row for name in MEASURED)]
    named = [row for row in found if row["model"] == wanted["model"]]
    return (named or found or [None])[-1]


def add_result(folder: Path, new: Row) -> None:
    """Put `new` into `folder`/glue.json, in place of an older row of the same model name, protocol and score."""
    from filelock import FileLock

    with FileLock(folder / f".{FILE_NAME}.lock"):
        kept = [row for row in read_results(folder)
                if not (row["model"] == new["model"] and row.get("protocol") == new["protocol"] and same_score(row, new))]
        write_json(folder / FILE_NAME, [*kept, new])
