"""What the student will be: its configuration and where its first weights come from, decided from config.json files alone."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dataset.errors import UserError
from pretraining.args.model import SCRATCH_DEFAULTS
from pretraining.args.parser import Args
from pretraining.layers import evenly_spaced, parse_layers
from pretraining.models.catalog import Architecture, ModelFolder, read_model_folder

# What decides the shape of weights: a flag that was given must agree with the folder that the weights come from.
_SHAPE = ("vocab_size", "hidden_size", "num_attention_heads", "intermediate_size", "max_position_embeddings", "type_vocab_size",
          "hidden_act")
# What may differ from that folder.
_FREE = ("hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range")


@dataclass
class StudentPlan:
    """`source` is `teacher` (its `layers` are copied), `folder` (loaded whole) or `scratch`. `config` is config.json's content."""

    source: str
    folder: Path | None
    layers: list[int] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)

    def parameter_estimate(self) -> int:
        """About how many parameters the student has (embeddings, layers, head)."""
        c = self.config
        width = c["hidden_size"]
        embeddings = (c["vocab_size"] + c["max_position_embeddings"] + c["type_vocab_size"]) * width
        layer = 4 * width * width + 2 * width * c["intermediate_size"] + 9 * width + c["intermediate_size"]
        return embeddings + c["num_hidden_layers"] * layer + width * width


def plan_student(args: Args, teacher: ModelFolder | None, architecture: Architecture) -> StudentPlan:
    """The student that the flags and the folders describe; UserError where they contradict each other."""
    initialize = args.distillation.student_initialize
    if initialize is True:
        assert teacher is not None
        plan = _from_teacher(args, teacher)
    elif isinstance(initialize, str):
        folder = read_model_folder(initialize, "--student_initialize", architecture)
        plan = _from_folder(args, folder, "--student_initialize")
        depth = args.model.num_hidden_layers
        if depth is not None and depth != plan.config["num_hidden_layers"]:
            raise UserError(f"--num_hidden_layers {depth}: the student in {initialize} has {plan.config['num_hidden_layers']} layers")
    else:
        plan = _from_scratch(args, teacher, architecture)
    if teacher is not None and plan.source == "folder" and plan.config["vocab_size"] != teacher.config["vocab_size"]:
        raise UserError(f"--student_initialize {initialize}: its vocab_size is {plan.config['vocab_size']}, the teacher's "
                        f"{teacher.config['vocab_size']}, and both read one text; a student with the teacher's vocabulary works")
    if args.model.encoder_ln_mode == "pre-ln":
        raise UserError("--encoder_ln_mode pre-ln: not available yet; post-ln with --layernorm_embedding works")
    if args.model.layernorm_embedding is False or (plan.source == "scratch" and args.model.layernorm_embedding is None):
        raise UserError("without --layernorm_embedding no transformers class of this architecture exists; give --layernorm_embedding")
    return plan


def _from_folder(args: Args, folder: ModelFolder, flag: str) -> StudentPlan:
    config = dict(folder.config)
    for name in _SHAPE:
        asked, found = getattr(args.model, name), config.get(name, SCRATCH_DEFAULTS[name])
        if asked is not None and asked != found:
            raise UserError(f"--{name} {asked}: the weights of {flag} {folder.path} have {name} {found}; leave the flag out")
        config[name] = found
    for name in _FREE:
        asked = getattr(args.model, name)
        config[name] = asked if asked is not None else config.get(name, SCRATCH_DEFAULTS[name])
    return StudentPlan(source="folder", folder=folder.path, config=config)


def _from_teacher(args: Args, teacher: ModelFolder) -> StudentPlan:
    plan = _from_folder(args, teacher, "--teacher_path")
    teacher_depth, depth = teacher.config["num_hidden_layers"], args.model.num_hidden_layers
    text = args.distillation.student_layers
    if text is not None:
        plan.layers = parse_layers(text, "--student_layers", teacher_depth, "teacher")
        if depth is not None and depth != len(plan.layers):
            raise UserError(f"--student_layers {text} are {len(plan.layers)} layers, --num_hidden_layers is {depth}; leave one out")
    elif depth is None:
        raise UserError("a bare --student_initialize needs the student's depth: give --num_hidden_layers or --student_layers")
    elif not 1 <= depth <= teacher_depth:
        raise UserError(f"--num_hidden_layers {depth} cannot be copied from the teacher's {teacher_depth} layers; "
                        f"1 to {teacher_depth} works")
    else:
        plan.layers = evenly_spaced(depth, teacher_depth)
    plan.source, plan.folder = "teacher", None
    plan.config["num_hidden_layers"] = len(plan.layers)
    return plan


def _from_scratch(args: Args, teacher: ModelFolder | None, architecture: Architecture) -> StudentPlan:
    if args.model.encoder_ln_mode is None:
        raise UserError("a student from scratch is pre-LN unless told otherwise, and pre-LN is not available yet; "
                        "give --encoder_ln_mode post-ln --layernorm_embedding")
    config: dict[str, Any] = {"model_type": architecture.family}
    for name, default in SCRATCH_DEFAULTS.items():
        asked = getattr(args.model, name)
        config[name] = asked if asked is not None else default
    if args.model.vocab_size is None:
        config["vocab_size"] = teacher.config["vocab_size"] if teacher else None
    if teacher is not None and config["vocab_size"] != teacher.config["vocab_size"]:
        raise UserError(f"--vocab_size {config['vocab_size']}: the teacher's is {teacher.config['vocab_size']}, and both read one text; "
                        "leave the flag out")
    if config["hidden_size"] % config["num_attention_heads"]:
        raise UserError(f"--hidden_size {config['hidden_size']} does not divide by --num_attention_heads {config['num_attention_heads']}")
    for name in ("pad_token_id", "bos_token_id", "eos_token_id", "layer_norm_eps"):
        if teacher is not None and name in teacher.config:
            config[name] = teacher.config[name]
    return StudentPlan(source="scratch", folder=None, config=config)
