"""`glue.json`: every score ever taken in a folder, with all that decided it, so that nothing is computed twice.

A row says which weights (a hash, not a path), which data, which settings and which task it belongs to. Equal in all
four means the score is known, under whatever name or place the model goes now. The file is read again before each row
is added and written whole, so an interrupted run loses at most the score it was computing.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dataset.errors import UserError
from dataset.files import write_json

FILE_NAME = "glue.json"
IDENTITY = ("task", "task_version", "weights_sha256", "data_sha256", "settings")
"""Fields that decide a score; what the model is called does not."""
MEASURED = (
    "metrics", "constant_metrics", "diverged", "train_size", "dev_size", "train_seconds", "precision", "device",
    "new_weights",
)
"""Fields that scoring adds."""

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
    if not isinstance(rows, list) or not all(isinstance(row, dict) and "model" in row for row in rows):
        raise UserError(f"{path}: not a list of results; move it away to score anew")
    return rows


def same_score(row: Row, other: Row) -> bool:
    """True where weights, data, settings and task agree, so that the score must."""
    return all(row.get(name) == other[name] for name in IDENTITY)


def find_result(rows: Sequence[Row], wanted: Row) -> Row | None:
    """The newest complete row with the score of `wanted`, one under the same model name first; None where unknown."""
    found = [row for row in rows if same_score(row, wanted) and all(name in row for name in MEASURED)]
    named = [row for row in found if row["model"] == wanted["model"]]
    return (named or found or [None])[-1]


def add_result(folder: Path, new: Row) -> None:
    """Put `new` into `folder`/glue.json, in place of an older row of the same model name and score."""
    kept = [row for row in read_results(folder) if row["model"] != new["model"] or not same_score(row, new)]
    write_json(folder / FILE_NAME, [*kept, new])


def table(rows: Sequence[Row]) -> str:
    """One line for each model, one column for each task and metric, in percent; models and tasks in order of `rows`."""
    columns = list(dict.fromkeys((row["task"], metric) for row in rows for metric in row["metrics"]))
    models = list(dict.fromkeys(row["model"] for row in rows))
    cells = {(row["model"], row["task"], metric): value for row in rows for metric, value in row["metrics"].items()}
    broken = {(row["model"], row["task"]) for row in rows if row["diverged"]}
    hours = {row["model"]: f"{row['hours']:.3f}" for row in rows if "hours" in row}
    lines = [["model", *(["hours"] if hours else []), *(f"{task} {metric}" for task, metric in columns)]]
    for model in models:
        line = [model, *([hours.get(model, "")] if hours else [])]
        for task, metric in columns:
            value = cells.get((model, task, metric))
            text = "" if value is None else f"{100 * value:.1f}"
            line.append("diverged" if (model, task) in broken else text)
        lines.append(line)
    widths = [max(len(line[at]) for line in lines) for at in range(len(lines[0]))]
    shape = "  ".join([f"{{:<{widths[0]}}}", *(f"{{:>{width}}}" for width in widths[1:])])
    return "\n".join(shape.format(*line) for line in lines)
