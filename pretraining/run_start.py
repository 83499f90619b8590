"""The first minute of a run in its folder: nobody else in it, what was saved and whether it fits, what describes the run.

Nothing is written before the saved run was compared with this one, and rank 0's findings reach every rank, so none waits for ever.
"""

import fcntl
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from dataset.errors import UserError
from dataset.files import write_json, write_text
from pretraining.checkpoint import changed_flags, file_hash, find_checkpoint, read_state
from pretraining.console import say
from pretraining.control import Control
from pretraining.models.catalog import WEIGHT_FILES
from pretraining.outputs import marker_step, markers
from pretraining.preflight import Plan
from pretraining.run_folder import RunFolder
from pretraining.tracking import cut_metrics, environment


@dataclass
class Saved:
    """What a run goes on from: the checkpoint's folder and its state.json; empty for a fresh run. `data` is what it reads, old or new."""

    data: dict[str, Any]
    checkpoint: Path | None = None
    state: dict[str, Any] = field(default_factory=dict)


def open_run(plan: Plan, control: Control, config: dict[str, Any]) -> Saved:
    """Take the run's folder, find what to go on from, and write args.yaml, deepspeed_config.json and environment.json.

    All ranks call it together; UserError where another process is in the folder or what was saved does not fit.
    """
    def work() -> Saved:
        try:
            return _open(plan, control, config)
        except OSError as error:
            raise UserError(f"--output_dir {plan.folder.path}: cannot write there ({error.strerror}); choose another folder") from None

    return control.on_first(work)


def data_identity(plan: Plan) -> dict[str, Any]:
    """What a run reads, so that a resumed run notices other shards or another teacher: names and rows, and a hash of weights."""
    weights = None
    if plan.teacher is not None:
        weights = file_hash(next(plan.teacher.path / name for name in WEIGHT_FILES if (plan.teacher.path / name).is_file()))
    return {"train": [[info.path.name, info.rows] for info in plan.train_shards],
            "test": [[info.path.name, info.rows] for info in plan.test_shards], "teacher": weights}


def _open(plan: Plan, control: Control, config: dict[str, Any]) -> Saved:
    folder, args = plan.folder, plan.resolved.args
    if folder.path.exists():
        _lock(folder.path)
    saved = Saved(data_identity(plan))
    if args.run.resume and folder.path.exists() and not folder.occupied:
        saved = _find(plan, control, saved.data)
    if folder.occupied:
        say(f"note: the run that was here is now {folder.move_aside()}")
    if not folder.path.exists():
        folder.path.mkdir(parents=True)
        _lock(folder.path)
    folder.finetune.mkdir(exist_ok=True)
    write_text(folder.path / "args.yaml", yaml.safe_dump(args.as_dict(), sort_keys=False))
    write_json(folder.path / "deepspeed_config.json", config)
    write_json(folder.path / "environment.json", {"project_name": args.run.project_name, **environment()})
    if args.run.resume:
        _cut_back(folder, saved)
        progress = saved.state.get("progress")
        say("note: --resume: no checkpoint here yet, starting fresh" if progress is None else
            f"resumed from {saved.checkpoint} at step {progress['step']}, {progress['hours']:.3f} h")
    return saved


def _lock(path: Path) -> None:
    """Hold the folder until this process ends. Where the file system knows no locks, the user must take care."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"{path}: another process is running in this folder; wait for it, or give another --current_run_id") from None
    except OSError:
        os.close(descriptor)


def _find(plan: Plan, control: Control, data: dict[str, Any]) -> Saved:
    """The newest undamaged checkpoint; UserError where its run is not this one."""
    args = plan.resolved.args
    checkpoint, warnings = find_checkpoint(plan.folder.checkpoints)
    for warning in warnings:
        say(f"warning: {warning}")
    if checkpoint is None:
        return Saved(data)
    state = read_state(checkpoint)
    changes = list(changed_flags(state["flags"], args.as_dict()))
    if changes:
        raise UserError(f"--resume: flags that change the mathematics differ from the run's ({'; '.join(changes)}); give the old "
                        "values, or start another run with --current_run_id")
    for name, now in data.items():
        if state["data"][name] != now:
            what = "teacher's weights" if name == "teacher" else f"{name} shards"
            raise UserError(f"--resume: the {what} are not those that the run began with; bring them back, or start another run with "
                            "--current_run_id")
    if state["world_size"] != control.world_size and args.engine.zero_stage > 0:
        raise UserError(f"--resume: the checkpoint was made by {state['world_size']} ranks and its optimizer state is split among them "
                        f"(ZeRO {args.engine.zero_stage}); {control.world_size} rank(s) cannot read it, launch {state['world_size']}")
    return Saved(data, checkpoint, state)


def _cut_back(folder: RunFolder, saved: Saved) -> None:
    """Undo what was written after the checkpoint: later metrics go, later exports move to finetune/superseded/."""
    cut_metrics(folder.metrics, saved.state.get("metrics_bytes", 0))
    folder.summary.unlink(missing_ok=True)
    superseded = folder.finetune / "superseded"
    for path in markers(folder.finetune):
        if marker_step(path) > saved.state.get("progress", {"step": -1})["step"]:
            superseded.mkdir(exist_ok=True)
            shutil.rmtree(superseded / path.name, ignore_errors=True)
            os.replace(path, superseded / path.name)
