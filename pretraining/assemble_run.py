"""From what any run is made of to a running trainer: ranks that watch each other, the engine, the clock, the folder, the loop.

What is trained, on what, and how it is exported comes as `Parts`; nothing here knows an encoder. Also mends what a killed run left behind.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dataset.errors import UserError, one_line
from pretraining.args.resolve_run import Resolved
from pretraining.batches.loader import RowReader, Share, StepLoader
from pretraining.batches.order import GlobalOrder
from pretraining.budget import Budget, CheckpointPlan, Clock, Deadline, MonotonicClock, SimulatedClock, ValidationPlan, is_reached
from pretraining.checkpoint import Keep
from pretraining.console import Console, say
from pretraining.control import AgreedError, Control
from pretraining.engine import Engine, engine_config, select_device, start_ranks, stop_ranks
from pretraining.events import Events
from pretraining.memory import keep_freed_memory
from pretraining.optimizers import build_optimizer
from pretraining.outputs import HeldOut, Outputs, Recipe, markers
from pretraining.precision import Precision, select_precision
from pretraining.progress import Progress
from pretraining.run_folder import RunFolder, RunPlan
from pretraining.run_start import Saved, begin_run, claim_run, file_options
from pretraining.schedules import Schedule
from pretraining.stopping import EarlyStop, StopSignal
from pretraining.throughput import CostPerToken, device_peak
from pretraining.tracking import TensorBoardTracker, Tracking, WandbTracker
from pretraining.trainer import Rhythm, Trainer
from pretraining.watch import Watch

DRY_RUN_BATCHES = 1
VERDICT_S = 10.0  # closed connections are seen within milliseconds; a dead machine's may not be, and then the launcher has the word


@dataclass
class Parts:
    """What one kind of run brings to the loop.

    `module` is what is trained, with the methods of `TrainedModule` that the trainer calls, on its device; `teacher` gives signals for a
    batch, or is None. `reader` gives rows of the training shards, `rows` how many each has, `collate` makes micro-batches of them.
    `identify` says what the run reads (JSON), so that a resumed run notices other data.
    """

    module: nn.Module
    teacher: Any
    reader: RowReader
    rows: list[int]
    collate: Callable[[Any, int], Any]
    validator: HeldOut | None
    recipe: Recipe
    cost: CostPerToken
    identify: Callable[[], dict[str, Any]]


def choose_device(resolved: Resolved) -> tuple[torch.device, Precision]:
    """The device of this rank and the precision on it; UserError for one that the device has not."""
    device = select_device(resolved.launch)
    precision, line = select_precision(resolved.args.engine.precision, device)
    if line is not None:
        resolved.notes.append(line)
    resolved.args.engine.precision = precision.name
    return device, precision


def run_on_ranks(plan: RunPlan, device: torch.device, prepare: Callable[[Control], Trainer]) -> str:
    """Join the ranks, prepare and train while they watch each other; returns the exit reason.

    Where one dies or fails, the others end and say which.
    """
    start_ranks(device)
    try:
        return _run_watched(Control(plan.resolved.launch.rank, plan.resolved.launch.world_size), prepare)
    finally:
        stop_ranks()


def _run_watched(control: Control, prepare: Callable[[Control], Trainer]) -> str:
    trainer: Trainer | None = None

    def on_lost(text: str) -> None:
        if trainer is not None:
            trainer.note_rank_failure(text)

    watch = Watch(control, on_lost)
    try:
        trainer = prepare(control)
        reason = trainer.run()
    except AgreedError:
        watch.goodbye()
        raise
    except BaseException as error:
        # What torch raised may only be this rank's view of another one's death; then the watch ends the process.
        if not isinstance(error, (UserError, KeyboardInterrupt)):
            watch.verdict(VERDICT_S)
        watch.failed(one_line(error))
        if isinstance(error, UserError) and control.rank != 0 and not watch.is_active:
            print(f"error: rank {control.rank}: {error}", file=sys.stderr, flush=True)
        raise
    watch.goodbye()
    return reason


def make_trainer(
    plan: RunPlan, parts: Parts, control: Control, precision: Precision, device: torch.device, signal: StopSignal,
) -> Trainer:
    """The run's trainer, ready to start, its folder claimed and described; what was saved is loaded. All ranks together."""
    resolved, args = plan.resolved, plan.resolved.args
    if device.type == "cpu":
        keep_freed_memory()
    config = engine_config(resolved, precision)
    optimizer = build_optimizer(parts.module, args.optimization)
    engine = _engine(parts.module, optimizer, config, precision, args.engine.deepspeed_config)
    folder, start = plan.folder, claim_run(plan, control, parts.identify)
    saved, progress = start.state, Progress.restore(start.state.get("progress", {}))
    if start.checkpoint is not None:
        _load(engine, start)
        engine.set_learning_rate(progress.rate)
    if start.changes:
        progress.interval, progress.interval_steps, progress.term_steps = [], 0, {}  # of other objectives, perhaps
    begin_run(plan, control, config, start)
    order = GlobalOrder(args.run.seed, parts.rows)
    budget = _budget(plan, order, progress, saved)
    events = _events(plan, parts.cost, folder, control, start, precision, device)
    tracking = events.tracking
    outputs = Outputs(
        folder, control, parts.validator, parts.recipe, {part.name: part.weight for part in resolved.methods},
        Keep(args.checkpoints.keep_checkpoints, args.checkpoints.keep_marker_checkpoints),
        lambda: {"wandb_id": tracking.wandb_id if tracking else None, "data": start.data, "options": file_options(plan)}, events.outside,
        validation_limit=DRY_RUN_BATCHES if args.run.dry_run else None)
    # A batch of one micro-batch has nothing to group, and its rows keep their order.
    grouped = args.data.group_by_length and args.optimization.train_batch_size > args.optimization.train_micro_batch_size_per_gpu
    share = Share(control.rank, control.world_size, args.optimization.train_micro_batch_size_per_gpu, resolved.accumulation, grouped)
    # The loader's thread has an order of its own: an order remembers the epochs it was asked about last.
    loader = StepLoader(GlobalOrder(args.run.seed, parts.rows), parts.reader, share, first_sample=progress.samples,
                        ahead=args.data.num_workers, pin=device.type == "cuda", collate=parts.collate)
    early_stop = EarlyStop(args.validation.use_early_stopping, args.validation.early_stop_time, args.validation.early_stop_eval_loss,
                           args.validation.scale_cnt_limit)
    deadline = Deadline(resolved.deadline, int(control.sum([float(engine.checkpoint_bytes())])[0]), progress.longest_gap_s,
                        progress.longest_save_s)
    if control.rank == 0:
        for note in resolved.notes:
            say(f"note: {note}")
    return Trainer(engine, parts.teacher, loader, order, budget, _clock(resolved.simulated_seconds_per_step, progress), deadline,
                   _schedule(plan), control, _rhythm(plan), early_stop, signal, outputs, events, progress,
                   progress.step if start.is_own else None, device)


def _load(engine: Engine, start: Saved) -> None:
    """Weights and optimizer state of the checkpoint; under --allow_changes they may not fit this run, which is the user's one line."""
    try:
        engine.load(start.checkpoint)
    except (RuntimeError, ValueError, KeyError, AssertionError) as error:
        if not start.changes:
            raise
        raise AgreedError(f"--allow_changes: {start.checkpoint} does not fit a run with {'; '.join(start.changes)} "
                          f"({one_line(error)[:200]}); give the old values, or start another run") from error
    engine.load_scaler_state(start.state["scaler"])


def _engine(module: nn.Module, optimizer: Any, config: dict[str, Any], precision: Precision, file: str | None) -> Engine:
    """The engine; what DeepSpeed finds wrong with the options of a user's file is the user's one line."""
    try:
        return Engine(module, optimizer, config, precision)
    except (ValueError, TypeError, AssertionError, KeyError) as error:  # pydantic's errors are ValueErrors
        if file is None:
            raise
        raise AgreedError(f"--deepspeed_config {file}: DeepSpeed refuses an option of it ({str(error)[:300]}); remove it") from error


def _clock(simulated: float | None, progress: Progress) -> Clock:
    if simulated is not None:
        return SimulatedClock(simulated, steps_before=progress.step)
    return MonotonicClock(hours_before=progress.hours)


def _budget(plan: RunPlan, order: GlobalOrder, progress: Progress, saved: dict[str, Any]) -> Budget:
    resolved, flags = plan.resolved, plan.resolved.args.budget
    end = order.position_after_shards(flags.num_epochs)
    epochs_end = progress.step - (progress.samples - end) // resolved.args.optimization.train_batch_size
    if resolved.args.run.dry_run:
        epochs_end = progress.step + 1
    passed = list(progress.markers)
    if saved and any(saved["flags"][name] != getattr(flags, name) for name in ("total_training_time", "finetune_time_markers")):
        passed = [marker for marker in resolved.markers if is_reached(progress.decided.hours, marker * resolved.total_hours)]
        gone = [marker for marker in passed if marker not in progress.markers]
        if gone:
            plan.resolved.notes.append(f"markers {', '.join(map(str, gone))} lie before the hour that the run goes on from: not exported")
    return Budget(resolved.total_hours, resolved.exit_hours, flags.max_steps, epochs_end, resolved.markers, passed)


def _schedule(plan: RunPlan) -> Schedule:
    flags, budget = plan.resolved.args.optimization, plan.resolved.args.budget
    return Schedule(
        kind=flags.lr_schedule, curve=flags.curve, peak=flags.lr, total_hours=budget.total_training_time, max_steps=budget.max_steps,
        warmup_proportion=flags.warmup_proportion, num_warmup_steps=flags.num_warmup_steps, decay_rate=flags.decay_rate,
        decay_step=flags.decay_step)


def _rhythm(plan: RunPlan) -> Rhythm:
    args = plan.resolved.args
    validation = ValidationPlan(
        begin_every=args.validation.validation_epochs_begin, middle_every=args.validation.validation_epochs,
        end_every=args.validation.validation_epochs_end, begin_proportion=args.validation.validation_begin_proportion,
        end_proportion=args.validation.validation_end_proportion)
    flags = args.checkpoints
    checkpoints = CheckpointPlan(
        flags.steps_between_checkpoints, flags.minutes_between_checkpoints, flags.num_epochs_between_checkpoints)
    return Rhythm(args.run.print_steps, checkpoints, validation, args.budget.finetune_checkpoint_at_end, args.run.seed)


def _events(
    plan: RunPlan, cost: CostPerToken, folder: RunFolder, control: Control, start: Saved, precision: Precision, device: torch.device,
) -> Events:
    args, saved = plan.resolved.args, start.state
    tracking = console = None
    place = saved.get("progress", {"step": 0, "samples": 0, "tokens": 0, "hours": 0.0})
    if control.rank == 0:
        other = None
        if args.run.report_to == "tensorboard":
            other = TensorBoardTracker(folder.path, place["step"] + 1 if saved else 0)
        elif args.run.report_to == "wandb":
            name = f"{args.run.job_name}-{args.run.current_run_id}" if args.run.current_run_id else args.run.job_name
            other = WandbTracker(folder.path, args.run.project_name, args.run.job_name, name, args.as_dict(), saved.get("wandb_id"))
        tracking = Tracking(folder.metrics, other)
        origin = {} if start.is_own or not saved else {"from": str(start.checkpoint)}
        tracking.log({"event": "resume" if saved else "start", **{key: place[key] for key in ("step", "samples", "tokens", "hours")},
                      "progress": min(1.0, place["hours"] / plan.resolved.total_hours), **origin})
        console = Console(plan.resolved.exit_hours, args.budget.max_steps)
    peak = device_peak(torch.cuda.get_device_name(device), precision.name) if device.type == "cuda" else None
    finetune = folder.finetune
    return Events(tracking, console, folder.summary, cost, peak, control.world_size,
                  lambda: [path.name for path in markers(finetune)])


def dry_run_flags(plan: RunPlan, folder: Path) -> None:
    """Turn a plan into one step of everything in a temporary folder: train, validate, checkpoint, export."""
    args = plan.resolved.args
    args.run.report_to = "none"
    args.budget.finetune_checkpoint_at_end = True
    plan.folder = RunFolder(folder / "run")


def describe_dry_run(folder: Path) -> str:
    """What the temporary run did, in one line."""
    summary = json.loads((folder / "run" / "summary.json").read_text(encoding="utf-8"))
    size = sum(path.stat().st_size for path in (folder / "run" / "checkpoints").rglob("*") if path.is_file())
    losses = ", ".join(f"{name} {'no number' if value is None else f'{value:.6g}'}" for name, value in summary["losses"].items())
    return f"dry run: one step, {losses}; a checkpoint takes {size / 1e6:.0f} MB; nothing was left behind"
