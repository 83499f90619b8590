"""Numbers and paths that make no sense by themselves, found before they cost hours."""

import math
from pathlib import PurePath

from dataset.errors import UserError
from pretraining.args.flags import UNLIMITED_STEPS
from pretraining.args.methods import ALPHAS
from pretraining.args.parser import Args
from pretraining.args.run_values import RunValues

_MODEL_SIZES = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
                "max_position_embeddings", "type_vocab_size", "initializer_range")
_PATHS = ("dataset_path", "teacher_path", "student_initialize", "tokenizer_name", "token_counts", "teacher_cache")


def check_ranges(args: Args) -> None:
    """UserError for a number or path of run_pretraining.py's flags that cannot be meant."""
    distillation = args.distillation
    optional = {"relation_heads": distillation.relation_heads, "truncation_factor": distillation.truncation_factor,
                "max_predictions_per_seq": args.data.max_predictions_per_seq,
                **{name: getattr(args.model, name) for name in _MODEL_SIZES}}
    check_positive({"temperature": distillation.temperature, "contrastive_width": distillation.contrastive_width,
                    "contrastive_temperature": distillation.contrastive_temperature,
                    **{name: value for name, value in optional.items() if value is not None}})
    check_not_negative({"mlm_smoothing": args.data.mlm_smoothing,
                        **{name: value for name in ALPHAS if (value := args.get(name)) is not None}})
    for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
        if (value := getattr(args.model, name)) is not None:
            check_share(name, value)
    if not 0 < distillation.second_stage < 1:
        raise UserError(f"--second_stage {distillation.second_stage}: a share of the budget above 0 and below 1 is needed")
    check_run_ranges(args)
    check_not_empty(args, _PATHS)


def check_run_ranges(args: RunValues) -> None:
    """UserError for a number or path of the groups that every run has."""
    optimization, budget, validation = args.optimization, args.budget, args.validation
    optional = {"early_exit_time_marker": budget.early_exit_time_marker, "validation_samples": validation.validation_samples,
                "gradient_predivide_factor": args.engine.gradient_predivide_factor}
    check_positive({
        "lr": optimization.lr, "total_training_time": budget.total_training_time, "max_steps": budget.max_steps,
        "num_epochs": budget.num_epochs, "train_batch_size": optimization.train_batch_size,
        "train_micro_batch_size_per_gpu": optimization.train_micro_batch_size_per_gpu,
        "validation_micro_batch": validation.validation_micro_batch, "print_steps": args.run.print_steps,
        "decay_rate": optimization.decay_rate, "decay_step": optimization.decay_step,
        "validation_epochs": validation.validation_epochs, "validation_epochs_begin": validation.validation_epochs_begin,
        "validation_epochs_end": validation.validation_epochs_end, "adam_eps": optimization.adam_eps,
        "steps_per_print": args.engine.steps_per_print, "scale_cnt_limit": validation.scale_cnt_limit,
        **{name: value for name, value in optional.items() if value is not None}})
    check_not_negative({
        "max_coeff": optimization.max_coeff, "min_coeff": optimization.min_coeff, "weight_decay": optimization.weight_decay,
        "gradient_clipping": optimization.gradient_clipping, "num_workers": args.data.num_workers,
        "num_warmup_steps": optimization.num_warmup_steps, "early_stop_time": validation.early_stop_time})
    for name in ("warmup_proportion", "adam_beta1", "adam_beta2"):
        check_share(name, getattr(optimization, name))
    for name in ("validation_begin_proportion", "validation_end_proportion"):
        if not 0 <= getattr(validation, name) <= 1:
            raise UserError(f"--{name} {getattr(validation, name)}: a share from 0 to 1 is needed")
    if optimization.min_coeff > optimization.max_coeff:
        raise UserError(f"--min_coeff {optimization.min_coeff} is above --max_coeff {optimization.max_coeff}; swap them")
    if not math.isfinite(validation.early_stop_eval_loss):
        raise UserError(f"--early_stop_eval_loss {validation.early_stop_eval_loss}: a finite number is needed")
    if not 0 <= args.run.seed < 2**32:
        raise UserError(f"--seed {args.run.seed}: a whole number from 0 to 4294967295 is needed")
    if args.engine.zero_stage not in (0, 1, 2):
        raise UserError(f"--zero_stage {args.engine.zero_stage}: 0, 1 and 2 work")
    if optimization.lr_schedule == "step" and budget.max_steps == UNLIMITED_STEPS:
        raise UserError("--lr_schedule step needs --max_steps, the total of the schedule")
    if validation.use_early_stopping and not validation.do_validation:
        raise UserError("--use_early_stopping looks at the held-out loss; give --do_validation too")
    _check_paths(args)
    _check_checkpoints(args)
    if args.engine.prescale_gradients and args.engine.gradient_predivide_factor is not None:
        raise UserError("--gradient_predivide_factor divides before the all-reduce and after it, --prescale_gradients only before; "
                        "give one of them")


def _check_checkpoints(args: RunValues) -> None:
    checkpoints = args.checkpoints
    for name in ("minutes_between_checkpoints", "steps_between_checkpoints", "num_epochs_between_checkpoints"):
        every = getattr(checkpoints, name)
        if every != -1 and not (math.isfinite(every) and every > 0):
            raise UserError(f"--{name} {every}: a number above 0, or -1 for never")
    if checkpoints.keep_checkpoints < 1:
        raise UserError(f"--keep_checkpoints {checkpoints.keep_checkpoints}: a number above 0 is needed")
    if args.run.resume and args.run.overwrite:
        raise UserError("--resume goes on with the run in the folder and --overwrite moves it aside; give one of them")
    if checkpoints.load_checkpoint_id is not None and checkpoints.load_training_checkpoint is None:
        raise UserError(f"--load_checkpoint_id {checkpoints.load_checkpoint_id}: of which run? --load_training_checkpoint FOLDER says it")
    if checkpoints.allow_changes and not args.run.resume and checkpoints.load_training_checkpoint is None:
        raise UserError("--allow_changes is about a saved run; give --resume or --load_training_checkpoint too")


def _check_paths(args: RunValues) -> None:
    if args.run.output_dir is None:
        raise UserError("--output_dir is missing; runs go to OUTPUT_DIR/JOB_NAME/CURRENT_RUN_ID")
    check_not_empty(args, ("output_dir", "load_training_checkpoint", "load_checkpoint_id"))
    for name in ("job_name", "current_run_id"):
        path = PurePath(args.get(name))
        # An empty job_name would make OUTPUT_DIR itself the run, for --overwrite to move aside.
        if ".." in path.parts or path.is_absolute() or (name == "job_name" and not path.parts):
            raise UserError(f"--{name} {args.get(name)!r}: a name below --output_dir is needed")


def check_positive(values: dict[str, float]) -> None:
    """UserError for a flag's value that is no finite number above 0."""
    for name, value in values.items():
        if not (math.isfinite(value) and value > 0):
            raise UserError(f"--{name} {value}: a number above 0 is needed")


def check_not_negative(values: dict[str, float]) -> None:
    """UserError for a flag's value that is no finite number of at least 0."""
    for name, value in values.items():
        if not (math.isfinite(value) and value >= 0):
            raise UserError(f"--{name} {value}: a number of at least 0 is needed")


def check_share(name: str, value: float) -> None:
    """UserError unless 0 <= `value` < 1."""
    if not 0 <= value < 1:
        raise UserError(f"--{name} {value}: a number from 0 to below 1 is needed")


def check_not_empty(args: RunValues, names: tuple[str, ...]) -> None:
    """UserError for a path that was given as nothing."""
    for name in names:
        if args.get(name) == "":
            raise UserError(f"--{name} is empty; give a path (an unset shell variable leaves nothing behind)")
