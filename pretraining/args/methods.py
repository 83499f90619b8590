"""--method and the flags that belong to it."""

from dataset.errors import UserError
from pretraining.args.parser import INFO, Args
from pretraining.objectives.catalog import (
    COMPOSITES,
    DEFAULT_ALPHAS,
    DEFAULT_TRUNCATED_TARGET,
    OBJECTIVES,
    UNNORMALISED,
    Part,
    parse_method,
)

NSP_MODEL = "bert-mlm-nsp"
ALPHAS = ("alpha_ce", "alpha_mlm", "alpha_clm", "alpha_mse", "alpha_cos")


def resolve_methods(args: Args) -> list[Part]:
    """The parts of --method with their weights; UserError where other flags contradict them."""
    flags = args.distillation
    if flags.method is None:
        if flags.distillation:
            raise UserError(f"--distillation needs --method; available: {', '.join([*OBJECTIVES, *COMPOSITES])}")
        flags.method = {"gpt2-clm": "clm", NSP_MODEL: "mlm,nsp"}.get(args.model.model_type, "mlm")
    if args.model.add_nsp:
        _add_nsp(args)
    alphas = {part: default if (asked := args.get(flag)) is None else asked
              for (part, default), flag in zip(DEFAULT_ALPHAS.items(), ALPHAS, strict=True)}
    methods = parse_method(flags.method, flags.second_stage, alphas)
    if not methods:
        raise UserError(f"--method {flags.method}: every alpha is 0; give one above 0")
    needing = [part.name for part in methods if OBJECTIVES[part.name].teacher]
    if needing and not flags.distillation:
        raise UserError(f"--method {flags.method}: {needing[0]} needs a teacher; give --distillation --teacher_path FOLDER")
    if flags.teacher_cache is not None and not flags.distillation:
        raise UserError("--teacher_cache without --distillation; add --distillation, or leave the stored teacher out")
    if flags.distillation and not needing:
        raise UserError(f"--distillation with --method {flags.method}: no objective of it learns from a teacher; "
                        "leave --distillation out, or add one such as hidden_mse")
    if flags.distillation and flags.teacher_path is None and flags.teacher_cache is None:
        raise UserError("--distillation needs --teacher_path, a Hugging Face folder (or --teacher_cache, its stored outputs)")
    _check_options(args, methods)
    if flags.student_layers is not None and flags.student_initialize is not True:
        raise UserError("--student_layers says what a bare --student_initialize copies; give both")
    if flags.teacher_path is not None and not flags.distillation and flags.student_initialize is not True:
        raise UserError("--teacher_path without --distillation; add --distillation, or --student_initialize to only copy layers")
    if flags.student_initialize is True and flags.teacher_path is None:
        raise UserError("a bare --student_initialize copies teacher layers and needs --teacher_path; "
                        "--student_initialize FOLDER loads a student")
    stops_at = args.budget.early_exit_time_marker
    late = next((part for part in methods if part.since > 0), None)
    if late is not None and stops_at is not None and stops_at <= late.since * args.budget.total_training_time:
        raise UserError(f"--early_exit_time_marker {stops_at}: the run would stop before {late.since:.0%} of --total_training_time "
                        f"{args.budget.total_training_time}, where {late.name} begins; --second_stage sets where that is")
    if any(part.since > 0 for part in methods) and args.engine.zero_stage > 0:
        raise UserError(f"--method {flags.method} changes what is learnt half-way, and ZeRO {args.engine.zero_stage} cannot leave single "
                        "weights alone; --zero_stage 0 works")
    return methods


def _add_nsp(args: Args) -> None:
    """--add_nsp is the model that has the head, and the loss that trains it."""
    if args.model.model_type not in (None, "bert-mlm", NSP_MODEL):
        raise UserError(f"--add_nsp: {args.model.model_type} has no next-sentence head; --model_type {NSP_MODEL} has one")
    args.model.model_type = NSP_MODEL
    if "nsp" not in [word.partition(":")[0].strip() for word in args.distillation.method.split(",")]:
        args.distillation.method += ",nsp"


def _check_options(args: Args, methods: list[Part]) -> None:
    """Options of objectives that are not in the run, and --aug where the text's own tokens are learnt."""
    flags = args.distillation
    named = [word.partition(":")[0].strip() for word in flags.method.split(",")]
    entries = [OBJECTIVES[part.name] for part in methods] + [COMPOSITES[name] for name in named if name in COMPOSITES]
    for option in sorted({option for entry in (*OBJECTIVES.values(), *COMPOSITES.values()) for option in entry.options}):
        said = option in args.given and args.get(option) != INFO[option].default
        if said and not any(option in entry.options for entry in entries):
            owners = [name for name, entry in (OBJECTIVES | COMPOSITES).items() if option in entry.options]
            raise UserError(f"--{option} belongs to {', '.join(owners)}, and --method is {flags.method}; leave it out")
    _check_truncation(args, methods)
    if flags.aug and flags.teacher_cache is not None:
        raise UserError("--aug changes what teacher and student read, and --teacher_cache holds what the teacher made of the text as it "
                        "is; leave one of them out")
    learning_text = next((part.name for part in methods if OBJECTIVES[part.name].labels), None)
    if flags.aug and learning_text is not None:
        raise UserError(f"--aug replaces the text that {learning_text} learns; it works with objectives that only look at the teacher")


def _check_truncation(args: Args, methods: list[Part]) -> None:
    """Whether every objective between logits can do with what --truncated_target leaves of them; sets its default where it is in force."""
    flags = args.distillation
    if flags.truncation_factor is None and flags.teacher_cache is None:
        if flags.truncated_target is not None:
            raise UserError(f"--truncated_target {flags.truncated_target} is about truncated targets; give --truncation_factor K or "
                            "--teacher_cache DIR too")
        return
    able = [part.name for part in methods if OBJECTIVES[part.name].truncated]
    if flags.truncated_target is None and able:
        flags.truncated_target = DEFAULT_TRUNCATED_TARGET
    for name in able:
        kinds = OBJECTIVES[name].truncated
        if flags.truncated_target not in kinds:
            raise UserError(f"--truncated_target {flags.truncated_target}: {name} works with {', '.join(kinds)}")
        if name == "logit" and flags.truncated_target == UNNORMALISED and flags.temperature != 1:
            raise UserError(f"--truncated_target {UNNORMALISED}: probabilities at --temperature {flags.temperature:g} follow from all "
                            "logits; --temperature 1 works, or rest")
