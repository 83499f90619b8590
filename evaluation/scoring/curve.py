"""The GLUE curve of a run: find its markers, score them and whatever they are compared with, keep and draw the scores.

All mistakes that files can show (models, data, flags) are found before torch is imported. Every (model, task) is saved
as soon as it is scored; a second call scores only what is new. The plot shows what the call asked for, not all that
glue.json holds, since rows of different settings do not belong in one curve.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from dataset.errors import UserError
from evaluation.fine_tuning.model_folder import check_model_folder, fingerprint
from evaluation.fine_tuning.settings import FineTuningSettings
from evaluation.scoring.plot import FILE_NAME as PLOT_NAME
from evaluation.scoring.plot import draw_curve
from evaluation.scoring.results import MEASURED, Row, add_result, find_result, read_results
from evaluation.tasks.table import TaskData, load_task, select_tasks

MARKER_NAME = re.compile(r"progress_[0-9.]+_step_[0-9]+")
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
    """A model to score: its name in tables, its Hugging Face folder, and its place in a run if it has one."""

    name: str
    folder: Path
    marker: Marker | None = None


def read_marker(folder: Path) -> Marker:
    """The place in its run of the marker `folder`, from its run_state.json; UserError where that lacks something."""
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
    folders = [path for path in run_dir.glob("finetune/*") if MARKER_NAME.fullmatch(path.name) and path.is_dir()]
    if not folders:
        below = sorted({path.parent.parent for path in run_dir.glob("*/**/finetune/progress_*_step_*")})
        hint = f"did you mean {below[0]}?" if below else "has the run passed a marker yet?"
        raise UserError(f"--run_dir {run_dir}: no finetune/progress_*_step_*/ in it; {hint}")
    markers = [Candidate(folder.name, folder, read_marker(folder)) for folder in folders]
    return sorted(markers, key=lambda model: (model.marker.hours, model.marker.step))


def score_models(
    models: Sequence[Candidate], task_names: Sequence[str], glue_dir: Path, output_dir: Path,
    settings: FineTuningSettings | None = None, *, title: str = "GLUE score against training time",
    overwrite: bool = False, save_models: bool = False, say: Callable[[str], None] = print,
) -> list[Row]:
    """Score every model on every task; write `output_dir`/glue.json and, if any model has hours, glue.png.

    Rows come back by model, then task. Known scores are reused unless `overwrite`. `save_models` keeps each fine-tuned
    model under `output_dir`/models. `say` gets one line for each score. UserError, before any training, for a model,
    task or data file that cannot work.
    """
    settings = settings or FineTuningSettings()
    tasks = select_tasks(list(task_names))
    names = [model.name for model in models]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"two models are called {twice!r}; give each baseline a name of its own")
    for model in models:
        check_model_folder(model.folder, settings.max_seq_length)
    data = [load_task(task, glue_dir) for task in tasks]
    known = [] if overwrite else read_results(output_dir)
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{output_dir}: cannot be made ({error.strerror}); give a folder that can be written") from None
    say_once = cache(say)  # what holds for every model needs one line
    rows = []
    for model in models:
        weights = fingerprint(model.folder)
        for task_data in data:
            keep_at = output_dir / "models" / model.name / task_data.task.name if save_models else None
            row = _describe(model, weights, task_data, settings)
            done = find_result([*known, *rows], row)
            if done is not None and (keep_at is None or keep_at.is_dir()):
                row |= {name: done[name] for name in MEASURED}
                origin = "" if done["model"] == model.name else f" as {done['model']}"
                say(f"{task_data.task.name}  {model.name}: {_headline(row)}, already scored{origin}, skipped")
            else:
                row |= _measure(model, task_data, settings, keep_at, say_once)
                say(f"{task_data.task.name}  {model.name}: {_headline(row)} in {row['train_seconds']:.0f} s")
            add_result(output_dir, row)
            rows.append(row)
    draw_curve(rows, output_dir / PLOT_NAME, title)
    return rows


def _describe(model: Candidate, weights: str, data: TaskData, settings: FineTuningSettings) -> Row:
    """What is known of a score before it is taken: all that identifies it."""
    row = {"model": model.name, "folder": str(model.folder), "task": data.task.name, "task_version": data.task.version}
    if model.marker is not None:
        row |= asdict(model.marker)
    return row | {
        "headline": data.task.headline, "seed": settings.seed, "settings": asdict(settings),
        "weights_sha256": weights, "data_sha256": data.sha256,
    }


def _measure(
    model: Candidate, data: TaskData, settings: FineTuningSettings, keep_at: Path | None, say: Callable[[str], None]
) -> Row:
    """Fine-tune and score; the fields that this adds to a row."""
    from evaluation.fine_tuning.training import fine_tune

    outcome = fine_tune(model.folder, data, settings, keep_at, say)
    return {
        "metrics": outcome.metrics, "constant_metrics": outcome.constant_metrics, "diverged": bool(outcome.diverged),
        "train_size": outcome.train_size, "dev_size": len(outcome.predictions),
        "train_seconds": round(outcome.train_seconds, 3), "precision": outcome.precision, "device": outcome.device,
        "new_weights": outcome.new_weights,
    }


def _headline(row: Row) -> str:
    value = "diverged" if row["diverged"] else f"{100 * row['metrics'][row['headline']]:.1f}"
    return f"{row['headline']} {value}"
