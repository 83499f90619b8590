"""What the folders of a call hold: a run, a sweep or recipe of many runs, or scores of models without a run.

Of a sweep the runs that ended are taken, because one that goes on is no result to set beside the others; it is named.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dataset.errors import UserError
from evaluation.report.run import is_run
from evaluation.scoring.candidates import run_state
from evaluation.scoring.results import FILE_NAME
from pretraining.run_folder import ASIDE

SWEEP_FILE = "sweep.json"
"""What `python -m evaluation.sweep` leaves in its folder, beside POINT/seed_SEED/."""
RECIPE_FOLDER = "steps"
"""What a recipe of run_task_distillation.py leaves in its folder, beside students/seed_SEED/."""


@dataclass(frozen=True)
class Sources:
    """Folders of runs and of scores, in the order given; `notes`: a line for each sweep that has runs which did not end."""

    runs: list[Path] = field(default_factory=list)
    scores: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def find_sources(folders: Sequence[Path]) -> Sources:
    """What each of `folders` holds; one that holds nothing of all this is left among the runs, whose reader refuses it.

    UserError for a sweep in which no run ended.
    """
    found = Sources()
    for folder in folders:
        if (folder / SWEEP_FILE).is_file() or (folder / RECIPE_FOLDER).is_dir():
            _add_sweep(folder, found)
        elif is_run(folder):
            found.runs.append(folder)
        elif (folder / FILE_NAME).is_file():
            found.scores.append(folder)
        else:
            found.runs.append(folder)
    return found


def _add_sweep(folder: Path, found: Sources) -> None:
    found_runs = (path for path in folder.glob("*/seed_*") if is_run(path) and ASIDE not in path.name)
    runs = sorted(found_runs, key=lambda path: (path.parent.name, len(path.name), path.name))
    ended = [path for path in runs if _has_ended(path)]
    if not ended:
        hint = f"give the folder of a run, such as {runs[0]}" if runs else "the command that made the folder trains them"
        raise UserError(f"{folder}: none of its runs has ended yet; {hint}")
    found.runs.extend(ended)
    if left := [f"{path.parent.name}/{path.name}" for path in runs if path not in ended]:
        found.notes.append(f"{folder}: left out, because they have not ended: {', '.join(left[:4])}{' ...' if left[4:] else ''}")


def _has_ended(run: Path) -> bool:
    try:
        return run_state(run) is not None
    except UserError:  # a damaged summary says no end
        return False
