"""What the flags alone decide: contradictions between flags, batch arithmetic, markers, precision asked for, notes to print.

Reads no file but --deepspeed_config. What files and config.json decide follows in `pretraining.preflight`.
"""

import importlib.util
import math
import re
from dataclasses import dataclass, field
from pathlib import PurePath

from dataset.errors import UserError
from pretraining.args.deepspeed_file import DeepSpeedFile, read_deepspeed_file
from pretraining.args.flags import UNLIMITED_STEPS
from pretraining.args.parser import INFO, Args
from pretraining.launch import Launch
from pretraining.objectives.catalog import OBJECTIVES, parse_method

_MODEL_SIZES = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
                "max_position_embeddings", "type_vocab_size", "initializer_range")


@dataclass
class Resolved:
    """`exit_hours` is where training stops, at most `total_hours`; `markers` are fractions of `total_hours`, ascending."""

    args: Args
    launch: Launch
    methods: list[tuple[str, float]]
    accumulation: int
    total_hours: float
    exit_hours: float
    markers: tuple[float, ...]
    simulated_seconds_per_step: float | None
    deepspeed_file: DeepSpeedFile
    notes: list[str] = field(default_factory=list)


def resolve(args: Args, launch: Launch) -> Resolved:
    """Check the flags against one another and derive what follows from them alone; fills in contextual defaults in `args`."""
    notes = _notes_and_refusals(args)
    deepspeed_file = read_deepspeed_file(args, notes)
    methods = _methods(args)
    _check_ranges(args)
    notes.extend(_idle_flags(args))
    total_hours = args.budget.total_training_time
    if args.budget.early_exit_time_marker is None:
        args.budget.early_exit_time_marker = total_hours
    if args.engine.fp16 and "fp16" in args.commanded and "precision" not in args.commanded:
        args.engine.precision = "fp16"  # the command line overrides a recipe's --precision
    if args.engine.precision is None:
        args.engine.precision = "fp16" if args.engine.fp16 else "auto"
    elif args.engine.fp16 and args.engine.precision != "fp16":
        notes.append(f"--precision {args.engine.precision} beats --fp16")
    accumulation = _accumulation(args, launch)
    if deepspeed_file.accumulation not in (None, accumulation):
        raise UserError(f"--deepspeed_config {args.engine.deepspeed_config}: gradient_accumulation_steps is {deepspeed_file.accumulation}, "
                        f"a batch of {args.optimization.train_batch_size} in micro-batches of "
                        f"{args.optimization.train_micro_batch_size_per_gpu} on {launch.world_size} rank(s) takes {accumulation}; "
                        "write \"auto\" in the file")
    if args.optimization.gradient_accumulation_steps not in (None, accumulation):
        notes.append(f"--gradient_accumulation_steps: no effect: {INFO['gradient_accumulation_steps'].no_effect}; it is {accumulation}")
    args.optimization.gradient_accumulation_steps = accumulation
    return Resolved(
        args=args, launch=launch, methods=methods, accumulation=accumulation, total_hours=total_hours,
        exit_hours=min(total_hours, args.budget.early_exit_time_marker), markers=_markers(args),
        simulated_seconds_per_step=_simulated_seconds(args.budget.clock), deepspeed_file=deepspeed_file, notes=notes,
    )


def _notes_and_refusals(args: Args) -> list[str]:
    """The line of every flag that was given without effect; errors for what is not available."""
    notes = []
    for name in sorted(args.given, key=list(INFO).index):
        info = INFO[name]
        if info.no_effect and args.get(name) != info.default and name != "gradient_accumulation_steps":
            notes.append(f"--{name}: no effect: {info.no_effect}")
        if info.not_yet and args.get(name) != info.default:
            raise UserError(f"--{name}: not available yet: {info.not_yet}")
    if args.model.model_type == "bert-mlm-nsp":
        raise UserError("--model_type bert-mlm-nsp: not available yet; bert-mlm works")
    if args.optimization.optimizer_type in ("adam", "lamb", "adafactor"):
        raise UserError(f"--optimizer_type {args.optimization.optimizer_type}: not available yet; adamw works")
    if args.engine.deepspeed_transformer_kernel:
        raise UserError("--deepspeed_transformer_kernel: it returns no hidden states and current DeepSpeed has dropped it; "
                        "leave it out, transformers' layers under SDPA run instead")
    if args.budget.max_steps_per_epoch != UNLIMITED_STEPS:
        raise UserError("--max_steps_per_epoch: it would drop the rest of every shard; use --max_steps")
    if args.model.layer_norm_type == "rms_norm":
        raise UserError("--layer_norm_type rms_norm: no transformers class of this architecture has it; pytorch works")
    if args.model.layer_norm_type == "apex" and not apex_layer_norm_importable():
        notes.append("--layer_norm_type apex: NVIDIA's apex is not importable, torch's LayerNorm runs instead")
    if args.engine.fp16_backend == "apex":
        notes.append("--fp16_backend apex: torch's autocast runs instead (apex.amp is retired)")
    return notes


def apex_layer_norm_importable() -> bool:
    """Whether NVIDIA's apex is installed; PyPI's package of that name is another program and has no `normalization`."""
    try:
        return importlib.util.find_spec("apex.normalization") is not None
    except (ImportError, AttributeError, ValueError):
        return False


def _idle_flags(args: Args) -> list[str]:
    """The line of every flag that was given a value which nothing in this run reads."""
    optimization, validation, budget = args.optimization, args.validation, args.budget
    schedule, initialize = optimization.lr_schedule, args.distillation.student_initialize
    conditions = [
        (("num_warmup_steps",), schedule == "constant_step", f"--lr_schedule {schedule} warms up by --warmup_proportion"),
        (("warmup_proportion",), schedule != "constant_step", "--lr_schedule constant_step warms up by --num_warmup_steps"),
        (("decay_rate", "decay_step"), optimization.curve == "exp", "they belong to --curve exp"),
        (("validation_epochs", "validation_epochs_begin", "validation_epochs_end", "validation_begin_proportion",
          "validation_end_proportion", "validation_micro_batch", "validation_samples"), validation.do_validation,
         "--do_validation is not given"),
        (("early_stop_time", "early_stop_eval_loss", "scale_cnt_limit"), validation.use_early_stopping,
         "--use_early_stopping is not given"),
        (("initializer_range",), not initialize, "the student's weights are copied"),
        (("early_exit_time_marker",), (budget.early_exit_time_marker or 0) <= budget.total_training_time,
         "training stops at --total_training_time before it"),
    ]
    return [f"--{name}: no effect: {why}" for names, is_read, why in conditions if not is_read
            for name in names if name in args.given and args.get(name) != INFO[name].default]


def _methods(args: Args) -> list[tuple[str, float]]:
    flags = args.distillation
    if flags.method is None:
        if flags.distillation:
            raise UserError(f"--distillation needs --method; available: {', '.join(OBJECTIVES)}")
        flags.method = "mlm"
    methods = parse_method(flags.method)
    needing = [name for name, _ in methods if OBJECTIVES[name].teacher]
    if needing and not flags.distillation:
        raise UserError(f"--method {flags.method}: {needing[0]} needs a teacher; give --distillation --teacher_path FOLDER")
    if flags.distillation and not needing:
        raise UserError(f"--distillation with --method {flags.method}: no objective of it learns from a teacher; "
                        "leave --distillation out, or add one such as hidden_mse")
    if flags.distillation and flags.teacher_path is None:
        raise UserError("--distillation needs --teacher_path, a Hugging Face folder")
    for name in ("layer_selection", "student_layer_selection", "temperature"):
        said = name in args.given and args.get(name) != INFO[name].default
        if said and not any(name in OBJECTIVES[method].options for method, _ in methods):
            raise UserError(f"--{name} belongs to {_objectives_with(name)}, and --method is {flags.method}; leave it out")
    if flags.student_layers is not None and flags.student_initialize is not True:
        raise UserError("--student_layers says what a bare --student_initialize copies; give both")
    if flags.teacher_path is not None and not flags.distillation and flags.student_initialize is not True:
        raise UserError("--teacher_path without --distillation; add --distillation, or --student_initialize to only copy layers")
    if flags.student_initialize is True and flags.teacher_path is None:
        raise UserError("a bare --student_initialize copies teacher layers and needs --teacher_path; "
                        "--student_initialize FOLDER loads a student")
    return methods


def _objectives_with(option: str) -> str:
    return ", ".join(name for name, entry in OBJECTIVES.items() if option in entry.options)


def _check_ranges(args: Args) -> None:
    """Numbers that make no sense, found before they cost hours."""
    optimization, budget, validation = args.optimization, args.budget, args.validation
    positive = {
        "lr": optimization.lr, "total_training_time": budget.total_training_time, "max_steps": budget.max_steps,
        "num_epochs": budget.num_epochs, "train_batch_size": optimization.train_batch_size,
        "train_micro_batch_size_per_gpu": optimization.train_micro_batch_size_per_gpu,
        "validation_micro_batch": validation.validation_micro_batch, "print_steps": args.run.print_steps,
        "temperature": args.distillation.temperature, "decay_rate": optimization.decay_rate,
        "decay_step": optimization.decay_step, "validation_epochs": validation.validation_epochs,
        "validation_epochs_begin": validation.validation_epochs_begin,
        "validation_epochs_end": validation.validation_epochs_end, "adam_eps": optimization.adam_eps,
        "steps_per_print": args.engine.steps_per_print, "scale_cnt_limit": validation.scale_cnt_limit,
    }
    optional = {"early_exit_time_marker": budget.early_exit_time_marker, "validation_samples": validation.validation_samples,
                "max_predictions_per_seq": args.data.max_predictions_per_seq,
                "gradient_predivide_factor": args.engine.gradient_predivide_factor,
                **{name: getattr(args.model, name) for name in _MODEL_SIZES}}
    positive.update({name: value for name, value in optional.items() if value is not None})
    for name, value in positive.items():
        if not (math.isfinite(value) and value > 0):
            raise UserError(f"--{name} {value}: a number above 0 is needed")
    at_least_zero = {"weight_decay": optimization.weight_decay, "gradient_clipping": optimization.gradient_clipping,
                     "num_workers": args.data.num_workers, "num_warmup_steps": optimization.num_warmup_steps,
                     "early_stop_time": validation.early_stop_time}
    for name, value in at_least_zero.items():
        if not (math.isfinite(value) and value >= 0):
            raise UserError(f"--{name} {value}: a number of at least 0 is needed")
    shares = {"warmup_proportion": optimization.warmup_proportion, "adam_beta1": optimization.adam_beta1,
              "adam_beta2": optimization.adam_beta2, "hidden_dropout_prob": args.model.hidden_dropout_prob,
              "attention_probs_dropout_prob": args.model.attention_probs_dropout_prob}
    for name, value in shares.items():
        if value is not None and not 0 <= value < 1:
            raise UserError(f"--{name} {value}: a number from 0 to below 1 is needed")
    for name in ("validation_begin_proportion", "validation_end_proportion"):
        if not 0 <= getattr(validation, name) <= 1:
            raise UserError(f"--{name} {getattr(validation, name)}: a share from 0 to 1 is needed")
    if not math.isfinite(validation.early_stop_eval_loss):
        raise UserError(f"--early_stop_eval_loss {validation.early_stop_eval_loss}: a finite number is needed")
    if not 0 <= args.run.seed < 2**32:
        raise UserError(f"--seed {args.run.seed}: a whole number from 0 to 4294967295 is needed")
    if args.engine.zero_stage not in (0, 1, 2):
        raise UserError(f"--zero_stage {args.engine.zero_stage}: 0, 1 and 2 work")
    checkpoint_every = budget.num_epochs_between_checkpoints
    if checkpoint_every != -1 and checkpoint_every < 1:
        raise UserError(f"--num_epochs_between_checkpoints {checkpoint_every}: a number above 0, or -1 for the end only")
    if optimization.lr_schedule == "step" and budget.max_steps == UNLIMITED_STEPS:
        raise UserError("--lr_schedule step needs --max_steps, the total of the schedule")
    if validation.use_early_stopping and not validation.do_validation:
        raise UserError("--use_early_stopping looks at the held-out loss; give --do_validation too")
    _check_paths(args)
    if args.engine.prescale_gradients and args.engine.gradient_predivide_factor is not None:
        raise UserError("--gradient_predivide_factor divides before the all-reduce and after it, --prescale_gradients only before; "
                        "give one of them")
    if args.run.resume and args.run.overwrite:
        raise UserError("--resume goes on with the run in the folder and --overwrite moves it aside; give one of them")


def _check_paths(args: Args) -> None:
    if args.run.output_dir is None:
        raise UserError("--output_dir is missing; runs go to OUTPUT_DIR/JOB_NAME/CURRENT_RUN_ID")
    for name in ("output_dir", "dataset_path", "teacher_path", "student_initialize", "tokenizer_name"):
        if args.get(name) == "":
            raise UserError(f"--{name} is empty; give a path (an unset shell variable leaves nothing behind)")
    for name in ("job_name", "current_run_id"):
        path = PurePath(args.get(name))
        # An empty job_name would make OUTPUT_DIR itself the run, for --overwrite to move aside.
        if ".." in path.parts or path.is_absolute() or (name == "job_name" and not path.parts):
            raise UserError(f"--{name} {args.get(name)!r}: a name below --output_dir is needed")


def _accumulation(args: Args, launch: Launch) -> int:
    batch, micro = args.optimization.train_batch_size, args.optimization.train_micro_batch_size_per_gpu
    if batch % (micro * launch.world_size):
        works = max(1, round(batch / (micro * launch.world_size))) * micro * launch.world_size
        raise UserError(f"--train_batch_size {batch} is not a multiple of --train_micro_batch_size_per_gpu {micro} times "
                        f"{launch.world_size} rank(s); --train_batch_size {works} works")
    return batch // (micro * launch.world_size)


def _markers(args: Args) -> tuple[float, ...]:
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
