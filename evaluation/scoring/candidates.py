"""What is scored: the markers of a run, single models, and what they are compared with. Imports no torch."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from dataset.errors import UserError
from pretraining.run_folder import UNFINISHED_REASONS

MARKER_NAME = re.compile(r"progress_[0-9.]+_step_[0-9]+")
SAVED_NAME = re.compile(r"seed_[0-9]+_[0-9a-f]{8}$")
NEEDED_STATE = ("progress", "step", "hours")


@dataclass(frozen=True)
class Marker:
    """Where in its run a model was saved: share of the budget (0 to 1), optimizer step, hours on the budget's clock."""

    fraction: float
    step: int
    hours: float
    validation_loss: float | None


@dataclass(frozen=True)
class Candidate:
    """A model to score: its name in tables, its Hugging Face folder, its `role` (one of results.ROLES) and its place in a run if any."""

    name: str
    folder: Path
    role: str = "model"
    marker: Marker | None = None


def is_export(folder: Path) -> bool:
    """Whether a trainer of this project wrote the folder: what it wrote says its place in a run."""
    return (folder / "run_state.json").is_file()


def model_candidate(folder: Path) -> Candidate:
    """A single model under the name of its folder, with its place in a run where it is an export.

    One that --save_models kept goes by its model's name too, since many are called seed_1.
    """
    place = folder.resolve()
    name = f"{place.parent.parent.name} {place.name}" if SAVED_NAME.search(place.name) else place.name
    return Candidate(name, folder, "model", read_marker(folder) if is_export(folder) else None)


def named_candidate(text: str) -> Candidate:
    """What `--baseline NAME=FOLDER` says; a NAME that begins with "teacher" makes it the one whose score retention is measured by."""
    name, equals, folder = text.partition("=")
    if not (name and equals and folder):
        raise UserError(f"--baseline {text}: give NAME=FOLDER, such as teacher=models/teacher")
    if "/" in name:
        raise UserError(f"--baseline {text}: the name {name!r} holds a slash; NAME comes first, then the folder")
    return Candidate(name, Path(folder), "teacher" if name.lower().startswith("teacher") else "baseline")


def read_marker(folder: Path) -> Marker:
    """The place in its run of the export `folder`, from its run_state.json; UserError where that lacks something."""
    path = folder / "run_state.json"
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        missing = [key for key in NEEDED_STATE if not isinstance(state.get(key), int | float)]
    except FileNotFoundError:
        raise UserError(f"{folder}: no run_state.json; a marker of a run has one") from None
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError) as error:
        raise UserError(f"{path}: not a JSON object ({error}); a marker's says progress, step and hours") from None
    if missing:
        raise UserError(f"{path}: no number under {missing[0]!r}; a marker's says progress, step and hours")
    return Marker(state["progress"], state["step"], state["hours"], state.get("validation_loss"))


def find_markers(run_dir: Path) -> list[Candidate]:
    """The markers in `run_dir`/finetune, earliest first; UserError where there are none."""
    if not run_dir.is_dir():
        raise UserError(f"--run_dir {run_dir}: no such folder; give the folder of a run, which holds finetune/")
    markers = markers_there(run_dir)
    if not markers:
        near = sorted({path.parent.parent for path in run_dir.glob("*/**/finetune/progress_*_step_*")})
        near += [parent for parent in run_dir.resolve().parents[:2] if markers_there(parent)]
        hint = f"did you mean {near[0]}?" if near else "has the run passed a marker yet?"
        raise UserError(f"--run_dir {run_dir}: no finetune/progress_*_step_*/ in it; {hint}")
    return markers


def markers_there(run_dir: Path) -> list[Candidate]:
    """The markers that a run has now, earliest first."""
    folders = [path for path in run_dir.glob("finetune/*") if MARKER_NAME.fullmatch(path.name) and path.is_dir()]
    markers = []
    for folder in folders:
        try:
            markers.append(Candidate(folder.name, folder, "marker", read_marker(folder)))
        except UserError:
            if folder.is_dir():  # else a resumed run has moved it away meanwhile
                raise
    return sorted(markers, key=lambda model: (model.marker.hours, model.marker.step))


def run_teacher(run_dir: Path) -> Candidate | None:
    """The teacher that a run was distilled from, where its flags name a folder that is there: the line a student is measured by."""
    path = run_dir / "args.yaml"
    if not path.is_file():
        return None
    try:
        flags = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        raise UserError(f"{path}: not YAML; a run writes its flags there") from None
    teacher = flags.get("teacher_path") if isinstance(flags, dict) and flags.get("distillation") in (True, "true", "True") else None
    folder = Path(str(teacher)) if teacher else None
    return Candidate("teacher", folder, "teacher") if folder is not None and (folder / "config.json").is_file() else None


def run_state(run_dir: Path) -> str | None:
    """Why a run ended, None while it goes on or may go on (no summary, or one of an end that --resume continues)."""
    path = run_dir / "summary.json"
    try:
        reason = json.loads(path.read_text(encoding="utf-8"))["exit_reason"]
    except FileNotFoundError:
        return None
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
        raise UserError(f"{path}: no exit_reason in it; a run writes it last") from None
    return None if reason in UNFINISHED_REASONS else reason


def check_names(models: Sequence[Candidate]) -> None:
    """UserError where two models have one name: their scores could not be told apart."""
    names = [model.name for model in models]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"two models are called {twice!r}; give each of them a name of its own: --baseline NAME=FOLDER")
