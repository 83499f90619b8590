"""What the flags of any run decide: contradictions, batch arithmetic, markers, precision asked for, deadline, notes to print.

Reads no file but --deepspeed_config. What belongs to one kind of run is checked by its own `resolve` before.
"""

import math
import os
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from dataset.errors import UserError
from pretraining.args.deepspeed_file import DeepSpeedFile
from pretraining.args.run_values import RunValues
from pretraining.launch import Launch
from pretraining.objectives.catalog import Part

# Their update of a matrix is more than that of its elements.
SHAPED_OPTIMIZERS = ("lamb", "adafactor", "muon")
SLURM_END = "SLURM_JOB_END_TIME"
MAX_TIME = 2**40  # seconds since the epoch, past which calendars give up
Idle = tuple[tuple[str, ...], bool, str]
"""Flags, whether this run reads them, and why not."""


@dataclass
class Resolved:
    """`exit_hours` is where training stops, at most `total_hours`; `markers` are fractions of `total_hours`, ascending."""

    args: RunValues
    launch: Launch
    methods: list[Part]
    accumulation: int
    total_hours: float
    exit_hours: float
    markers: tuple[float, ...]
    simulated_seconds_per_step: float | None
    deepspeed_file: DeepSpeedFile
    deadline: float | None = None  # seconds since the epoch
    notes: list[str] = field(default_factory=list)


def resolve_run(args: RunValues, launch: Launch, methods: list[Part], file: DeepSpeedFile, notes: list[str]) -> Resolved:
    """What follows from the flags alone; fills in contextual defaults in `args`. `notes` were found before, and more are added."""
    total_hours = args.budget.total_training_time
    if args.engine.fp16 and "fp16" in args.commanded and "precision" not in args.commanded:
        args.engine.precision = "fp16"  # the command line overrides a recipe's --precision
    if args.engine.precision is None:
        args.engine.precision = "fp16" if args.engine.fp16 else "auto"
    elif args.engine.fp16 and args.engine.precision != "fp16":
        notes.append(f"--precision {args.engine.precision} beats --fp16")
    accumulation = _accumulation(args, launch)
    if file.accumulation not in (None, accumulation):
        raise UserError(f"--deepspeed_config {args.engine.deepspeed_config}: gradient_accumulation_steps is {file.accumulation}, "
                        f"a batch of {args.optimization.train_batch_size} in micro-batches of "
                        f"{args.optimization.train_micro_batch_size_per_gpu} on {launch.world_size} rank(s) takes {accumulation}; "
                        "write \"auto\" in the file")
    if args.optimization.gradient_accumulation_steps not in (None, accumulation):
        why = args.flags.info["gradient_accumulation_steps"].no_effect
        notes.append(f"--gradient_accumulation_steps: no effect: {why}; it is {accumulation}")
    args.optimization.gradient_accumulation_steps = accumulation
    return Resolved(
        args=args, launch=launch, methods=methods, accumulation=accumulation, total_hours=total_hours,
        exit_hours=min(total_hours, args.budget.early_exit_time_marker or total_hours), markers=_markers(args),
        simulated_seconds_per_step=_simulated_seconds(args.budget.clock), deepspeed_file=file,
        deadline=_deadline(args.checkpoints.deadline, launch, notes), notes=notes,
    )


def flags_without_effect(args: RunValues) -> list[str]:
    """The line of every flag that was given and that no run reads; UserError for what no run can do."""
    notes = []
    for name, info in args.flags.info.items():
        if name in args.given and info.no_effect and args.get(name) != info.default and name != "gradient_accumulation_steps":
            notes.append(f"--{name}: no effect: {info.no_effect}")
    if args.optimization.optimizer_type in SHAPED_OPTIMIZERS and args.engine.zero_stage > 0:
        raise UserError(f"--optimizer_type {args.optimization.optimizer_type}: it needs the shapes of weights, which ZeRO "
                        f"{args.engine.zero_stage} flattens; --zero_stage 0 works, or adamw")
    if args.engine.deepspeed_transformer_kernel:
        raise UserError("--deepspeed_transformer_kernel: it returns no hidden states and current DeepSpeed has dropped it; "
                        "leave it out, transformers' layers under SDPA run instead")
    return notes


def idle_flags(args: RunValues, more: Iterable[Idle] = ()) -> list[str]:
    """The line of every flag that was given a value which nothing in this run reads; `more` of those that not every run has."""
    optimization, validation, budget = args.optimization, args.validation, args.budget
    schedule = optimization.lr_schedule
    conditions: list[Idle] = [
        (("num_warmup_steps",), schedule == "constant_step", f"--lr_schedule {schedule} warms up by --warmup_proportion"),
        (("warmup_proportion",), schedule != "constant_step", "--lr_schedule constant_step warms up by --num_warmup_steps"),
        (("decay_rate", "decay_step"), optimization.curve == "exp", "they belong to --curve exp"),
        (("validation_epochs", "validation_epochs_begin", "validation_epochs_end", "validation_begin_proportion",
          "validation_end_proportion", "validation_micro_batch", "validation_samples"), validation.do_validation,
         "--do_validation is not given"),
        (("early_stop_time", "early_stop_eval_loss", "scale_cnt_limit"), validation.use_early_stopping,
         "--use_early_stopping is not given"),
        (("bias_correction", "max_coeff", "min_coeff"), optimization.optimizer_type == "lamb", "it belongs to --optimizer_type lamb"),
        (("adam_beta1", "adam_beta2", "adam_eps"), optimization.optimizer_type != "adafactor", "adafactor has its own"),
        (("group_by_length",), optimization.train_batch_size > optimization.train_micro_batch_size_per_gpu,
         "one micro-batch is the whole batch"),
        (("early_exit_time_marker",), (budget.early_exit_time_marker or 0) <= budget.total_training_time,
         "training stops at --total_training_time before it"),
    ]
    return [f"--{name}: no effect: {why}" for names, is_read, why in (*conditions, *more) if not is_read
            for name in names if name in args.given and args.get(name) != args.flags.info[name].default]


def _accumulation(args: RunValues, launch: Launch) -> int:
    batch, micro = args.optimization.train_batch_size, args.optimization.train_micro_batch_size_per_gpu
    if batch % (micro * launch.world_size):
        works = max(1, round(batch / (micro * launch.world_size))) * micro * launch.world_size
        raise UserError(f"--train_batch_size {batch} is not a multiple of --train_micro_batch_size_per_gpu {micro} times "
                        f"{launch.world_size} rank(s); --train_batch_size {works} works")
    return batch // (micro * launch.world_size)


def _markers(args: RunValues) -> tuple[float, ...]:
    text = args.budget.finetune_time_markers
    if text is None or not text.strip():
        return ()
    markers = []
    for part in text.split(","):
        try:
            marker = float(part)
        except ValueError:
            marker = math.nan
        if not 0 < marker <= 1:
            raise UserError(f"--finetune_time_markers {text}: {part.strip()!r} is not a fraction of the budget above 0 and up to 1")
        markers.append(marker)
    return tuple(sorted(set(markers)))


def _simulated_seconds(clock: str) -> float | None:
    if clock == "monotonic":
        return None
    match = re.fullmatch(r"simulated:([0-9.eE+-]+)", clock)
    try:
        seconds = float(match.group(1)) if match else math.nan
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds > 0):
        raise UserError(f"--clock {clock}: monotonic, or simulated:SECONDS_PER_STEP such as simulated:2.5")
    return seconds


def _deadline(text: str | None, launch: Launch, notes: list[str]) -> float | None:
    """Seconds since the epoch: --deadline in local time or with an offset, else the end of the Slurm job; None for neither."""
    if text is not None and text.lower() == "none":
        return None
    if text is not None:
        try:
            at = datetime.fromisoformat(text).timestamp()
        except (ValueError, OverflowError, OSError):
            raise UserError(f"--deadline {text}: a time such as 2026-12-01T08:00 (local) or 2026-12-01T08:00+01:00, or none") from None
        if launch.world_size == 1 and at <= time.time():  # several ranks stop at once: the clocks of their machines may differ
            raise UserError(f"--deadline {text} has passed; give a later time, or none")
        notes.append(f"the run saves and stops before {datetime.fromtimestamp(at).isoformat(timespec='seconds')}")
        return at
    slurm = os.environ.get(SLURM_END)
    if slurm is None:
        return None
    end = int(slurm) if slurm.isascii() and slurm.isdigit() else 0
    if not time.time() < end < MAX_TIME:
        notes.append(f"{SLURM_END}={slurm}: not a time to come, and not used; --deadline sets one")
        return None
    notes.append(f"the run saves and stops before the Slurm job ends at {datetime.fromtimestamp(end).isoformat()} (--deadline none "
                 "switches this off)")
    return float(end)
