"""The first minute of a run in its folder: nobody else in it, what was saved and whether it fits, what describes the run.

Nothing is written before the saved run was compared with this one, and rank 0's findings reach every rank, so none waits for ever.
"""

import fcntl
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from dataset.errors import UserError
from dataset.files import reason, replace_folder, write_json, write_text
from pretraining.checkpoint import clean_partials, find_checkpoint, read_state, supersede_later
from pretraining.console import say
from pretraining.control import AgreedError, Control
from pretraining.outputs import marker_step, markers
from pretraining.run_changes import STATE_FLAGS, changed_data, changed_flags, changed_options
from pretraining.run_folder import RunFolder, RunPlan, goes_on_here, loads_own, run_path, source_checkpoints
from pretraining.tracking import cut_metrics, environment


@dataclass
class Saved:
    """What a run goes on from: the checkpoint's folder and its state.json; empty for a fresh run.

    `data` is what the run reads, old or new; `is_own` whether the checkpoint lies in this run's folder; `changes` what differs from the
    saved run under --allow_changes.
    """

    data: dict[str, Any]
    checkpoint: Path | None = None
    state: dict[str, Any] = field(default_factory=dict)
    is_own: bool = False
    changes: list[str] = field(default_factory=list)


def claim_run(plan: RunPlan, control: Control, identify: Callable[[], dict[str, Any]]) -> Saved:
    """Take the run's folder, if it is there, and find what to go on from; writes nothing. `identify` says what the run reads.

    All ranks call it together; UserError where another process is in the folder or what was saved does not fit.
    """
    def work() -> Saved:
        if plan.folder.path.exists():
            _lock(plan.folder.path)
        return _find(plan, control, identify())

    saved = control.on_first(lambda: _writing(plan, work))
    blind = [rank for rank, sees in enumerate(control.gather(saved.checkpoint is None or saved.checkpoint.is_dir())) if not sees]
    if blind:
        raise AgreedError(f"rank {blind[0]} cannot see {saved.checkpoint}; all nodes of a run need --output_dir on a disk that they share")
    return saved


def begin_run(plan: RunPlan, control: Control, config: dict[str, Any], saved: Saved) -> None:
    """Write args.yaml, deepspeed_config.json and environment.json, and undo what is later than the checkpoint. All ranks together."""
    control.on_first(lambda: _writing(plan, lambda: _begin(plan, config, saved)))


def _writing(plan: RunPlan, work: Callable[[], Any]) -> Any:
    try:
        return work()
    except OSError as error:
        raise UserError(f"--output_dir {plan.folder.path}: cannot write there ({reason(error)}); choose another folder") from None


def file_options(plan: RunPlan) -> dict[str, Any]:
    """The options that a --deepspeed_config adds to those of our flags."""
    file = plan.resolved.deepspeed_file
    return {**file.extra, "zero_optimization": file.zero}


def _begin(plan: RunPlan, config: dict[str, Any], saved: Saved) -> None:
    folder, args = plan.folder, plan.resolved.args
    if folder.occupied:
        say(f"note: the run that was here is now {folder.move_aside()}")
    if not folder.path.exists():
        folder.path.mkdir(parents=True)
        _lock(folder.path)
    clean_partials(folder.path)
    folder.finetune.mkdir(exist_ok=True)
    write_text(folder.path / "args.yaml", yaml.safe_dump(args.as_dict(), sort_keys=False))
    write_json(folder.path / "deepspeed_config.json", config)
    write_json(folder.path / "environment.json", {"project_name": args.run.project_name, **environment()})
    _cut_back(folder, saved)
    for change in saved.changes:
        say(f"note: --allow_changes: {change}")
    say(f"run folder: {folder.path}")
    progress = saved.state.get("progress")
    if progress is not None:
        say(f"resumed from {saved.checkpoint} at step {progress['step']}, {progress['hours']:.3f} h")
    elif args.run.resume:
        say("note: --resume: no checkpoint here yet, starting fresh")


def _lock(path: Path) -> None:
    """Hold the folder until this process ends. Where the file system knows no locks, the user must take care."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"{path}: another process is running in this folder; wait for it, or give another --current_run_id") from None
    except OSError:
        os.close(descriptor)


def _find(plan: RunPlan, control: Control, data: dict[str, Any]) -> Saved:
    """The checkpoint to go on from: this run's, else --load_training_checkpoint's. UserError where its run is not this one.

    A dry run goes on from the same one, but elsewhere.
    """
    args, own = plan.resolved.args, RunFolder(run_path(plan.resolved.args)).checkpoints
    source, name = source_checkpoints(args), args.checkpoints.load_checkpoint_id
    checkpoint, is_own = None, False
    if goes_on_here(args) and own.is_dir() and not plan.folder.occupied:
        is_own = not args.run.dry_run
        checkpoint = _newest(own, name if loads_own(args) else None, ours=is_own)
    if checkpoint is None and source is not None:
        checkpoint, is_own = _newest(source, name, ours=False), False
        if checkpoint is None:
            raise UserError(f"--load_training_checkpoint {source}: no complete checkpoint in it; leave the flag out to start afresh")
    if checkpoint is None:
        return Saved(data)
    state = read_state(checkpoint)
    _check_world(state, control)
    return Saved(data, checkpoint, state, is_own, _changes(plan, state, data, is_own))


def _newest(folder: Path, name: str | None, ours: bool) -> Path | None:
    checkpoint, warnings = find_checkpoint(folder, name, ours)
    for warning in warnings:
        say(f"warning: {warning}")
    return checkpoint


def _changes(plan: RunPlan, state: dict[str, Any], data: dict[str, Any], is_own: bool) -> list[str]:
    """What differs from the saved run and changes what is computed; UserError unless --allow_changes."""
    args = plan.resolved.args
    flags = list(changed_flags(state["flags"], args.as_dict(), args.flags, plan.resolved.methods))
    changes = [line for _, line in flags] + [*changed_options(state["options"], file_options(plan)), *changed_data(state["data"], data)]
    fresh = "start another run with --current_run_id" if is_own else "leave --load_training_checkpoint out"
    unreadable = [name for name, _ in flags if name in STATE_FLAGS]
    if unreadable:
        raise UserError(f"this run differs from the saved one ({'; '.join(changes)}), and with another {' and '.join(unreadable)} it "
                        f"cannot read its optimizer state; give the old values, or {fresh}")
    if changes and not args.checkpoints.allow_changes:
        raise UserError(f"what is computed would differ from the saved run ({'; '.join(changes)}); bring the old back, {fresh}, or go on "
                        "all the same with --allow_changes")
    return changes


def _check_world(state: dict[str, Any], control: Control) -> None:
    """ZeRO 1 and 2 split the optimizer's state among ranks."""
    stage = state["flags"]["zero_stage"]
    if state["world_size"] != control.world_size and stage > 0:
        raise UserError(f"the checkpoint was made by {state['world_size']} ranks, and its optimizer state is split among them (ZeRO "
                        f"{stage}); {control.world_size} rank(s) cannot read it: launch {state['world_size']}, or use --zero_stage 0 for "
                        "runs that move between machines")


def _cut_back(folder: RunFolder, saved: Saved) -> None:
    """Undo what was written after the checkpoint: later metrics go, later exports and checkpoints move to superseded/."""
    step = saved.state["progress"]["step"] if saved.is_own else -1
    cut_metrics(folder.metrics, saved.state["metrics_bytes"] if saved.is_own else 0)
    folder.summary.unlink(missing_ok=True)
    if folder.checkpoints.is_dir():
        supersede_later(folder.checkpoints, step)
    superseded = folder.finetune / "superseded"
    for path in markers(folder.finetune):
        if marker_step(path) > step:
            superseded.mkdir(exist_ok=True)
            replace_folder(path, superseded / path.name)
