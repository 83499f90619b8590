"""The scores that belong to the runs of a report: rows of glue.json in the runs and in other folders, told apart and checked.

A row is shown only if it still says something about a model that is there: rows of weights that a folder no longer has, and of markers that
were superseded, are left out with a note. Hashing models is the slow part of a report; folders are hashed side by side.
"""

import math
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from dataset.errors import UserError
from evaluation.fine_tuning.model_folder import fingerprint
from evaluation.report.run import Run, number
from evaluation.scoring.panels import Panel, panels
from evaluation.scoring.results import FILE_NAME, IDENTITY, Row, identity, read_results
from evaluation.scoring.statistics import AGGREGATES

NEEDED = ("role", "folder", "headline", "seed", "protocol", *IDENTITY, "metrics", "constant_metrics", "diverged", "selected_on_dev",
          "dev_size", "train_seconds")


@dataclass(frozen=True)
class Scores:
    """`panels` of everything that may be shown; `notes` of what may not; `seconds` that the markers of each run took to fine-tune."""

    panels: list[Panel]
    notes: list[str]
    seconds: dict[str, float]

    @property
    def scored(self) -> set[str]:
        """Names of the runs that have scores."""
        return {entry.owner for panel in self.panels for entry in panel.entries if entry.owner is not None}


def read_scores(runs: Sequence[Run], folders: Sequence[Path]) -> Scores:
    """Rows of the runs' own glue.json, and of those in `folders`. UserError for a file that is damaged, and a folder that has none."""
    notes: list[str] = []
    missing = next((folder for folder in folders if not (folder / FILE_NAME).is_file()), None)
    if missing is not None:
        raise UserError(f"--scores {missing}: no {FILE_NAME} in it; give a folder that run_glue.py wrote its scores to")
    own = {run.folder.resolve(): run for run in runs}
    found: list[tuple[Row, Path, str | None]] = []
    seen: set[Path] = set()
    for source in [*(run.folder for run in runs), *folders]:
        if (place := source.resolve()) in seen:
            continue
        seen.add(place)
        for row in _complete(read_results(source), source / FILE_NAME, notes):
            run, folder = _owner(row, own, own.get(place))
            if row["role"] == "marker" and run is None:
                notes.append(f"{source / FILE_NAME}: {row['model']} is a marker of {folder.parent.parent}, which is not in this report; "
                             "left out")
                continue
            found.append((row, folder, run.name if run else None))
    found = _once(found)
    current = _current(found, notes)
    owners = {id(row): owner for row, owner in current}
    seconds: Counter[str] = Counter()
    for row, owner in current:
        if owner is not None:
            seconds[owner] += row["train_seconds"]
    notes = [f"{note} ({count} scores)" if count > 1 else note for note, count in Counter(notes).items()]
    return Scores(panels([row for row, _ in current], lambda row: owners[id(row)]), notes, dict(seconds))


def _complete(rows: list[Row], path: Path, notes: list[str]) -> list[Row]:
    """Rows with every field that a report needs, and finite metrics unless they say that they diverged."""
    kept = []
    for row in rows:
        lack = next((name for name in NEEDED if name not in row), None)
        if lack is not None:
            notes.append(f"{path}: scores without {lack!r}, of another version of this program; left out, run_glue.py takes them anew")
        elif not _is_usable(row):
            notes.append(f"{path}: {row['model']} on {row['task']} has no finite score; left out")
        elif row["role"] == "marker" and not all(isinstance(row.get(name), int | float) for name in ("hours", "step", "fraction")):
            notes.append(f"{path}: the marker {row['model']} has no hours, step and fraction; left out")
        else:
            kept.append(row)
    return kept


def _is_usable(row: Row) -> bool:
    finite = row["headline"] in row["metrics"] and all(math.isfinite(number(value)) for value in row["metrics"].values())
    return (finite or row["diverged"]) and row["protocol"].get("aggregate") in AGGREGATES and row["headline"] in row["constant_metrics"]


def _owner(row: Row, runs: dict[Path, Run], here: Run | None) -> tuple[Run | None, Path]:
    """(the run a marker's row belongs to, the folder of its model): by the folder it was scored in, else by the run it lies in."""
    folder = Path(row["folder"])
    if row["role"] != "marker":
        return None, folder
    if (run := runs.get(folder.resolve().parent.parent) or here) is not None:
        return run, run.folder / "finetune" / row["model"]
    return None, folder


def _once(found: list[tuple[Row, Path, str | None]]) -> list[tuple[Row, Path, str | None]]:
    """Without a score that an earlier file has as well: two runs share a teacher."""
    kept: dict[tuple, list] = {}
    for entry in found:
        row, _, owner = entry
        same = kept.setdefault((owner, row["model"], row["task"], row["seed"], row["weights_sha256"]), [])
        if not any(identity(row) == identity(other) and row["protocol"] == other["protocol"] for other, *_ in same):
            same.append(entry)
    return [entry for same in kept.values() for entry in same]


def _current(found: list[tuple[Row, Path, str | None]], notes: list[str]) -> list[tuple[Row, str | None]]:
    """Rows whose weights are those of their folder now, or whose folder is gone."""
    folders = list(dict.fromkeys(folder for _, folder, _ in found))
    with ThreadPoolExecutor() as pool:
        hashes = dict(zip(folders, pool.map(_hash, folders), strict=True))
    kept = []
    for row, folder, owner in found:
        name = row["model"] if owner is None else f"{owner}: {row['model']}"
        if owner is not None and not folder.exists() and (folder.parent / "superseded" / folder.name).exists():
            notes.append(f"{name} was superseded after it was scored; left out")
        elif hashes[folder] is None:
            notes.append(f"{name}: its folder is gone or cannot be read, so its weights could not be compared with "
                         "those that were scored")
            kept.append((row, owner))
        elif hashes[folder] != row["weights_sha256"]:
            notes.append(f"{name}: {folder} holds other weights than those that were scored; left out, run_glue.py scores them anew")
        else:
            kept.append((row, owner))
    return kept


def _hash(folder: Path) -> str | None:
    try:
        return fingerprint(folder)
    except (UserError, OSError):
        return None
