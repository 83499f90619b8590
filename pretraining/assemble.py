"""From a checked plan to a running trainer: builds every part, puts them together, and mends what a killed run left behind."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dataset.errors import UserError, one_line
from dataset.shard_format import ATTRIBUTE_TOKENIZER, ShardInfo, check_tokenizer
from dataset.token_counts import TokenCounts
from dataset.tokenizer import load_tokenizer, masking_exclusions, vocabulary_sha256, vocabulary_size, word_continuations
from pretraining.assemble_models import Models, build_models, layers_compared
from pretraining.batches.augmentation import Augmentation
from pretraining.batches.loader import Share, StepLoader
from pretraining.batches.order import GlobalOrder
from pretraining.batches.samples import MaskingRule, ShardReader
from pretraining.batches.smoothing import Smoothing
from pretraining.budget import Budget, CheckpointPlan, Clock, Deadline, MonotonicClock, SimulatedClock, ValidationPlan, is_reached
from pretraining.checkpoint import Keep
from pretraining.console import Console, say
from pretraining.control import AgreedError, Control
from pretraining.engine import Engine, engine_config, select_device, start_ranks, stop_ranks
from pretraining.events import Events
from pretraining.export import ExportRecipe, load_hf_tokenizer
from pretraining.foreign_shards import check_foreign
from pretraining.memory import keep_freed_memory
from pretraining.models.loading import quiet_transformers
from pretraining.optimizers import build_optimizer
from pretraining.outputs import Outputs, markers
from pretraining.precision import Precision, select_precision
from pretraining.preflight import Plan, asks_for_whole_words
from pretraining.progress import Progress
from pretraining.run_folder import RunFolder
from pretraining.run_start import Saved, begin_run, claim_run, file_options
from pretraining.schedules import Schedule
from pretraining.stopping import EarlyStop, StopSignal
from pretraining.teacher_cache.reader import CacheReader
from pretraining.throughput import CostPerToken, device_peak
from pretraining.tracking import TensorBoardTracker, Tracking, WandbTracker
from pretraining.trained_module import TrainedModule
from pretraining.trainer import Rhythm, Trainer
from pretraining.validation import Validator
from pretraining.watch import Watch

DRY_RUN_BATCHES = 1
VERDICT_S = 10.0  # closed connections are seen within milliseconds; a dead machine's may not be, and then the launcher has the word


def run(plan: Plan, signal: StopSignal) -> str:
    """Train as planned; returns the exit reason. Writes nothing before everything that can be checked was checked."""
    resolved, args = plan.resolved, plan.resolved.args
    device = select_device(resolved.launch)
    precision, line = select_precision(args.engine.precision, device)
    if line is not None:
        resolved.notes.append(line)
    args.engine.precision = precision.name
    quiet_transformers()
    tokenizer = load_hf_tokenizer(plan.tokenizer_source)
    if plan.tokenizer_sha256 is None:  # a hub name, which no check before this could open
        for info in plan.train_shards + plan.test_shards:
            check_tokenizer(info, vocabulary_sha256(tokenizer.backend_tokenizer))
            if ATTRIBUTE_TOKENIZER not in info.attributes:
                check_foreign(info, tokenizer.backend_tokenizer, plan.student.config["vocab_size"], plan.architecture.causal)
    start_ranks(device)
    try:
        return _run_watched(plan, tokenizer, Control(resolved.launch.rank, resolved.launch.world_size), precision, device, signal)
    finally:
        stop_ranks()


def _run_watched(
    plan: Plan, tokenizer: Any, control: Control, precision: Precision, device: torch.device, signal: StopSignal,
) -> str:
    """Prepare and train while the ranks watch each other: where one dies or fails, the others end and say which."""
    trainer: Trainer | None = None

    def on_lost(text: str) -> None:
        if trainer is not None:
            trainer.note_rank_failure(text)

    watch = Watch(control, on_lost)
    try:
        trainer = prepare(plan, tokenizer, control, precision, device, signal)
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


def prepare(
    plan: Plan, tokenizer: Any, control: Control, precision: Precision, device: torch.device, signal: StopSignal,
) -> Trainer:
    """Everything that a run is made of, ready to start; the ranks must have been joined."""
    if device.type == "cpu":
        keep_freed_memory()
    models = build_models(plan, precision, device)
    trainer = make_trainer(plan, models, tokenizer, control, precision, device, signal)
    if control.rank == 0:
        for note in plan.resolved.notes:
            say(f"note: {note}")
    return trainer


def make_trainer(
    plan: Plan, models: Models, tokenizer: Any, control: Control, precision: Precision, device: torch.device, signal: StopSignal,
) -> Trainer:
    resolved, args = plan.resolved, plan.resolved.args
    config = engine_config(resolved, precision)
    optimizer = build_optimizer(models.module, args.optimization)
    engine = _engine(models.module, optimizer, config, precision, args.engine.deepspeed_config)
    folder, start = plan.folder, claim_run(plan, control)
    saved, progress = start.state, Progress.restore(start.state.get("progress", {}))
    if start.checkpoint is not None:
        _load(engine, start)
        engine.set_learning_rate(progress.rate)
    if start.changes:
        progress.interval, progress.interval_steps, progress.term_steps = [], 0, {}  # of other objectives, perhaps
    begin_run(plan, control, config, start)
    order = GlobalOrder(args.run.seed, [info.rows for info in plan.train_shards])
    budget = _budget(plan, order, progress, saved)
    events = _events(plan, models, folder, control, start, precision, device)
    recipe = ExportRecipe(
        built=models.built, architecture=plan.architecture, tokenizer=tokenizer, flags=args.as_dict(), methods=resolved.methods,
        head_trained=models.head_trained, sequence_length=plan.train_shards[0].max_seq_length, frozen=models.frozen, kept=models.kept,
        layers=layers_compared(plan))
    tracking = events.tracking
    outputs = Outputs(
        folder, control, _validator(plan, control, precision, device), recipe, {part.name: part.weight for part in resolved.methods},
        Keep(args.checkpoints.keep_checkpoints, args.checkpoints.keep_marker_checkpoints),
        lambda: {"wandb_id": tracking.wandb_id if tracking else None, "data": start.data, "options": file_options(plan)}, events.outside,
        validation_limit=DRY_RUN_BATCHES if args.run.dry_run else None)
    # A batch of one micro-batch has nothing to group, and its rows keep their order.
    grouped = args.data.group_by_length and args.optimization.train_batch_size > args.optimization.train_micro_batch_size_per_gpu
    share = Share(control.rank, control.world_size, args.optimization.train_micro_batch_size_per_gpu, resolved.accumulation, grouped)
    # The loader's thread has an order of its own: an order remembers the epochs it was asked about last.
    loader = StepLoader(
        GlobalOrder(args.run.seed, order.shard_sizes), _reader(plan, plan.train_shards, plan.token_counts), share,
        first_sample=progress.samples, ahead=args.data.num_workers, pin=device.type == "cuda")
    early_stop = EarlyStop(args.validation.use_early_stopping, args.validation.early_stop_time, args.validation.early_stop_eval_loss,
                           args.validation.scale_cnt_limit)
    deadline = Deadline(resolved.deadline, int(control.sum([float(engine.checkpoint_bytes())])[0]), progress.longest_gap_s,
                        progress.longest_save_s)
    return Trainer(engine, models.teacher, loader, order, budget, _clock(resolved.simulated_seconds_per_step, progress), deadline,
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


def _engine(module: TrainedModule, optimizer: Any, config: dict[str, Any], precision: Precision, file: str | None) -> Engine:
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


def _reader(plan: Plan, shards: list[ShardInfo], counts: TokenCounts | None = None) -> ShardReader:
    """The reader of training or held-out `shards`; `counts` smooth the masks of training ones."""
    args, vocabulary, causal = plan.resolved.args, plan.student.config["vocab_size"], plan.architecture.causal
    masking = augmentation = smoothing = None
    masks = any(info.masking == "none" for info in shards) and not causal
    if masks or args.distillation.aug:
        tokenizer = load_tokenizer(plan.tokenizer_source)
        excluded: np.ndarray = masking_exclusions(tokenizer)
        if masks:
            continues = word_continuations(tokenizer) if any(map(asks_for_whole_words, shards)) else None
            masking = MaskingRule(args.run.seed, excluded, continues)
        if counts is not None:
            share = float(shards[0].attributes["masked_lm_prob"])
            smoothing = Smoothing(counts.counts, args.data.mlm_smoothing, excluded[excluded < counts.vocab_size], share)
        if args.distillation.aug:
            augmentation = Augmentation(args.run.seed, excluded, min(vocabulary, vocabulary_size(tokenizer)))
    return ShardReader(shards, vocabulary, args.data.max_predictions_per_seq, masking, causal=causal, augmentation=augmentation,
                       smoothing=smoothing, stored=_stored(plan))


def _stored(plan: Plan) -> CacheReader | None:
    return None if plan.cache is None else CacheReader(plan.cache.folder, plan.cache.targets, plan.cache.layers)


def _validator(plan: Plan, control: Control, precision: Precision, device: torch.device) -> Validator | None:
    flags = plan.resolved.args.validation
    if not flags.do_validation:
        return None
    return Validator(_reader(plan, plan.test_shards), flags.validation_samples, flags.validation_micro_batch, control, precision, device)


def _budget(plan: Plan, order: GlobalOrder, progress: Progress, saved: dict[str, Any]) -> Budget:
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


def _schedule(plan: Plan) -> Schedule:
    flags, budget = plan.resolved.args.optimization, plan.resolved.args.budget
    return Schedule(
        kind=flags.lr_schedule, curve=flags.curve, peak=flags.lr, total_hours=budget.total_training_time, max_steps=budget.max_steps,
        warmup_proportion=flags.warmup_proportion, num_warmup_steps=flags.num_warmup_steps, decay_rate=flags.decay_rate,
        decay_step=flags.decay_step)


def _rhythm(plan: Plan) -> Rhythm:
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
    plan: Plan, models: Models, folder: RunFolder, control: Control, start: Saved, precision: Precision, device: torch.device,
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
    layers = sum(parameter.numel() for parameter in models.module.student.layers.parameters())
    cost = CostPerToken(layers, models.teacher.layer_parameters if models.teacher else 0)
    peak = device_peak(torch.cuda.get_device_name(device), precision.name) if device.type == "cuda" else None
    finetune = folder.finetune
    return Events(tracking, console, folder.summary, cost, peak, control.world_size,
                  lambda: [path.name for path in markers(finetune)])


def dry_run_flags(plan: Plan, folder: Path) -> None:
    """Turn a plan into one step of everything in a temporary folder: train, validate, checkpoint, export."""
    args = plan.resolved.args
    args.run.report_to = "none"
    args.budget.finetune_checkpoint_at_end = True
    plan.folder = RunFolder(folder / "run")


def describe_dry_run(folder: Path) -> str:
    """What the temporary run did, in one line."""
    summary = json.loads((folder / "run" / "summary.json").read_text(encoding="utf-8"))
    size = sum(path.stat().st_size for path in (folder / "run" / "checkpoints").rglob("*") if path.is_file())
    losses = ", ".join(f"{name} {value:.6g}" for name, value in summary["losses"].items())
    return f"dry run: one step, {losses}; a checkpoint takes {size / 1e6:.0f} MB; nothing was left behind"
