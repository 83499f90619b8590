"""What the flags of run_pretraining.py alone decide. What files and config.json decide follows in `pretraining.preflight`."""

import importlib.util

from dataset.errors import UserError
from pretraining.args.deepspeed_file import read_deepspeed_file
from pretraining.args.flags import UNLIMITED_STEPS
from pretraining.args.methods import resolve_methods
from pretraining.args.parser import Args
from pretraining.args.ranges import check_ranges
from pretraining.args.resolve_run import Resolved, flags_without_effect, idle_flags, resolve_run
from pretraining.launch import Launch


def resolve(args: Args, launch: Launch) -> Resolved:
    """Check the flags against one another and derive what follows from them alone; fills in contextual defaults in `args`."""
    notes = [*flags_without_effect(args), *_notes_and_refusals(args)]
    file = read_deepspeed_file(args, notes)
    methods = resolve_methods(args)
    check_ranges(args)
    notes.extend(_idle_flags(args))
    return resolve_run(args, launch, methods, file, notes)


def _notes_and_refusals(args: Args) -> list[str]:
    """Lines about what runs in another way than asked; errors for what is not available."""
    notes = []
    if args.budget.max_steps_per_epoch != UNLIMITED_STEPS:
        raise UserError("--max_steps_per_epoch: it would drop the rest of every shard; use --max_steps")
    if args.model.layer_norm_type == "rms_norm":
        raise UserError("--layer_norm_type rms_norm: no transformers class of this architecture has it; pytorch works")
    if args.model.layer_norm_type == "apex" and "layer_norm_type" in args.given and not apex_layer_norm_importable():
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
    validation, counts = args.validation, args.data.token_counts
    lines = []
    if args.data.max_predictions_per_seq is not None and counts is not None and validation.do_validation:
        lines.append(f"--max_predictions_per_seq {args.data.max_predictions_per_seq}: bounds held-out samples only; --token_counts draws "
                     "training masks over whole batches")
    return lines + idle_flags(args, [
        (("initializer_range",), not args.distillation.student_initialize, "the student's weights are copied"),
        (("mlm_smoothing",), counts is not None, "--token_counts is not given"),
        (("max_predictions_per_seq",), counts is None or validation.do_validation, "--token_counts draws masks over whole batches"),
    ])
