"""What the student will be: its configuration and where its first weights come from, decided from config.json files alone."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dataset.errors import UserError
from pretraining.args.model import SCRATCH_DEFAULTS
from pretraining.args.parser import Args
from pretraining.layers import copied_layers
from pretraining.models.catalog import ARCHITECTURES, Architecture, ModelFolder, model_type_of, read_model_folder
from pretraining.models.weights import CROSSINGS, NARROWABLE

# What decides the shape of weights: a flag that was given must agree with the folder that the weights come from.
_SHAPE = ("vocab_size", "hidden_size", "num_attention_heads", "intermediate_size", "max_position_embeddings", "type_vocab_size",
          "hidden_act")
# What a bare --student_initialize can make smaller.
_WIDTHS = ("hidden_size", "num_attention_heads", "intermediate_size")
# What may differ from that folder.
_FREE = ("hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range")
# What a student from scratch takes over from the teacher: both read the same ids.
_IDS = ("pad_token_id", "bos_token_id", "eos_token_id")
# What the config.json of one family means in another.
_SHARED = (*_SHAPE, *_FREE, *_IDS, "num_hidden_layers", "tie_word_embeddings")

_PRE_LN = "roberta-prelayernorm-mlm"
_EITHER_LN = ("bert", "roberta")  # the originals have both kinds of these


@dataclass
class StudentPlan:
    """`source` is `teacher` (its `layers` are copied), `folder` (loaded whole) or `scratch`.

    `config` is config.json's content under our names (`Architecture.canonical`). `notes` are lines for the user.
    """

    source: str
    folder: Path | None
    architecture: Architecture
    layers: list[int] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def parameter_estimate(self) -> int:
        """About how many parameters the student has (embeddings, layers, head)."""
        c = self.config
        width = c["hidden_size"]
        embeddings = (c["vocab_size"] + c["max_position_embeddings"]) * c.get("embedding_size", width)
        layer = 4 * width * width + 2 * width * c["intermediate_size"] + 9 * width + c["intermediate_size"]
        return embeddings + c["num_hidden_layers"] * layer + width * width


def plan_student(args: Args, teacher: ModelFolder | None, architecture: Architecture) -> StudentPlan:
    """The student that the flags and the folders describe; UserError where they contradict each other.

    architecture: what --model_type says or implies; the plan's may be its pre-LN sister.
    """
    initialize = args.distillation.student_initialize
    if initialize is True:
        assert teacher is not None
        plan = _from_teacher(args, teacher, _resolve_ln(args, architecture, teacher))
    elif isinstance(initialize, str):
        found = read_model_folder(initialize, "--student_initialize")
        folder = read_model_folder(initialize, "--student_initialize", _resolve_ln(args, architecture, found))
        plan = _from_folder(args, folder)
    else:
        plan = _from_scratch(args, teacher, _resolve_ln(args, architecture, None))
    if teacher is not None and plan.source == "folder" and plan.config["vocab_size"] != teacher.config["vocab_size"]:
        raise UserError(f"--student_initialize {initialize}: its vocab_size is {plan.config['vocab_size']}, the teacher's "
                        f"{teacher.config['vocab_size']}, and both read one text; a student with the teacher's vocabulary works")
    _check_embedding_norm(args, plan)
    _check_embeddings(args, plan)
    return plan


def _resolve_ln(args: Args, architecture: Architecture, source: ModelFolder | None) -> Architecture:
    """The row that has the normalisation which the flags ask for; `source` is the folder that the weights come from.

    BERT and RoBERTa from scratch are pre-LN unless told otherwise, as in the originals.
    """
    mode = args.model.encoder_ln_mode
    is_open = architecture.family in _EITHER_LN
    if mode is None and source is None and is_open:
        mode = "pre-ln"
    if mode is None or (mode == "pre-ln") == architecture.pre_ln:
        return architecture
    pre_ln = ARCHITECTURES[_PRE_LN]
    if mode == "pre-ln" and is_open and (source is None or source.family == pre_ln.family):
        if architecture.next_sentence is not None:
            raise UserError("a student from scratch is pre-LN unless told otherwise, and no pre-LN class has a next-sentence head; "
                            "give --encoder_ln_mode post-ln --layernorm_embedding")
        return pre_ln
    kind = "pre-ln" if architecture.pre_ln else "post-ln"
    others = ", ".join(name for name, row in ARCHITECTURES.items() if row.pre_ln == (mode == "pre-ln"))
    raise UserError(f"--encoder_ln_mode {mode}: {architecture.family} is {kind}; leave the flag out, or choose a --model_type that is "
                    f"{mode}: {others}")


def _check_embedding_norm(args: Args, plan: StudentPlan) -> None:
    asked, row = args.model.layernorm_embedding, plan.architecture
    must_say = plan.source == "scratch" and row.family in _EITHER_LN
    if row.embedding_norm and (asked is False or (asked is None and must_say)):
        raise UserError("without --layernorm_embedding no transformers class of this architecture exists; give --layernorm_embedding")
    if asked and not row.embedding_norm:
        raise UserError(f"--layernorm_embedding: {row.family} has no LayerNorm after its embeddings; leave the flag out")
    if plan.source == "scratch" and row.family == ARCHITECTURES[_PRE_LN].family:
        if args.model.encoder_ln_mode is None and args.model.model_type != _PRE_LN:
            plan.notes.append(f"a student from scratch is pre-LN unless --encoder_ln_mode says otherwise: it is {_PRE_LN}")
        if asked is None:
            plan.notes.append(f"{_PRE_LN} has a LayerNorm after its embeddings, as with --layernorm_embedding")


def _taken_over(args: Args, config: dict[str, Any], architecture: Architecture, source: str, narrower: bool = False) -> dict[str, Any]:
    """`config` with the flags that may differ from `source` put in; UserError for one that contradicts it."""
    config = dict(config)
    for name in _SHAPE:
        asked, found = getattr(args.model, name), config.get(name)
        if asked is not None and asked != found and not (narrower and name in _WIDTHS):
            there = "no such setting" if found is None else f"{name} {found}"
            raise UserError(f"--{name} {asked}: the weights of {source} have {there}; leave the flag out")
    for name in _FREE:
        asked = getattr(args.model, name)
        if asked is not None and asked != config[name]:
            config[name] = asked
            for other in architecture.names.get(name, ())[1:]:
                config.pop(other, None)  # the flag is meant for all that the family has for it
    return config


def _check_embeddings(args: Args, plan: StudentPlan) -> None:
    """Fixed positions, and lines on embeddings that are to be frozen and are not there."""
    row = plan.architecture
    if args.model.sinusoidal_pos_embds:
        if row.family != "distilbert" or plan.source != "scratch":
            raise UserError("--sinusoidal_pos_embds: only a --model_type distilbert-mlm from scratch can have them; leave the flag out "
                            "(--freeze_pos_embs keeps the positions that are copied)")
        plan.config["sinusoidal_pos_embds"] = True
    if args.distillation.freeze_pos_embs and row.positions is None:
        plan.notes.append(f"--freeze_pos_embs: no effect: positions are no weights of {row.family}")
    if args.distillation.freeze_token_type_embds and row.segments is None:
        plan.notes.append(f"--freeze_token_type_embds: no effect: {row.family} has no token-type embeddings")


def _from_folder(args: Args, folder: ModelFolder) -> StudentPlan:
    config = _taken_over(args, folder.config, folder.architecture, f"--student_initialize {folder.path}")
    depth = args.model.num_hidden_layers
    if depth is not None and depth != config["num_hidden_layers"]:
        raise UserError(f"--num_hidden_layers {depth}: the student in {folder.path} has {config['num_hidden_layers']} layers")
    return StudentPlan(source="folder", folder=folder.path, architecture=folder.architecture, config=config)


def _from_teacher(args: Args, teacher: ModelFolder, architecture: Architecture) -> StudentPlan:
    config = _translated(teacher, architecture)
    config = _taken_over(args, config, architecture, f"--teacher_path {teacher.path}", narrower=True)
    _narrow(args, config, teacher)
    layers = copied_layers(args.distillation.student_layers, args.model.num_hidden_layers, teacher.config["num_hidden_layers"])
    config["num_hidden_layers"] = len(layers)
    if config.get("scale_attn_by_inverse_layer_idx") and layers != list(range(len(layers))):
        raise UserError(f"--teacher_path {teacher.path}: scale_attn_by_inverse_layer_idx scales attention by the layer's number, so no "
                        "layer works in another place; --student_layers first works")
    if architecture.windowed:
        every = config.pop("global_attn_every_n_layers", 3)
        types = config.get("layer_types") or ["sliding_attention" if index % every else "full_attention"
                                              for index in range(teacher.config["num_hidden_layers"])]
        config["layer_types"] = [types[layer] for layer in layers]
    notes = []
    fixed, theirs = architecture.fixed_norm_eps, teacher.config.get("layer_norm_eps")
    if fixed is not None and theirs not in (None, fixed):
        notes.append(f"{architecture.family} has a layer_norm_eps of {fixed:g} whatever the teacher's ({theirs:g}): copied layers give "
                     "slightly other numbers than the teacher's")
    return StudentPlan(source="teacher", folder=None, architecture=architecture, layers=layers, config=config, notes=notes)


def _translated(teacher: ModelFolder, architecture: Architecture) -> dict[str, Any]:
    """The teacher's configuration as one of the student's family."""
    if teacher.family == architecture.family:
        return dict(teacher.config)
    if (teacher.family, architecture.family) not in CROSSINGS:
        known = ", ".join(f"{source} to {target}" for source, target in CROSSINGS)
        raise UserError(f"--teacher_path {teacher.path}: a bare --student_initialize copies within a family, and from {known}; the teacher "
                        f"is {teacher.family}, the student {architecture.family}; --model_type {model_type_of(teacher.family)} works")
    config = architecture.canonical({name: teacher.config[name] for name in _SHARED if name in teacher.config})
    for name, default in architecture.defaults.items():
        if default is None:
            config.pop(name, None)
    return {"model_type": architecture.family, **config}


def _narrow(args: Args, config: dict[str, Any], teacher: ModelFolder) -> None:
    """Put narrower widths into `config`; heads stay whole, so their size is the teacher's."""
    asked = {name: getattr(args.model, name) for name in _WIDTHS if getattr(args.model, name) not in (None, config[name])}
    if not asked:
        return
    for name, value in asked.items():
        if value > config[name]:
            raise UserError(f"--{name} {value}: a bare --student_initialize selects from the teacher, whose {name} is {config[name]}; "
                            "at most that works, or a student from scratch")
    if teacher.family not in NARROWABLE:
        raise UserError(f"--{next(iter(asked))}: a narrower student can be selected from {', '.join(NARROWABLE)}; the teacher is "
                        f"{teacher.family}; leave the flag out")
    size = config["hidden_size"] // config["num_attention_heads"]
    width = asked.get("hidden_size", config["hidden_size"])
    fitting, heads = width // size, args.model.num_attention_heads
    if width % size:
        raise UserError(f"--hidden_size {width}: the teacher's heads of {size} are kept whole; "
                        f"{' or '.join(str(count * size) for count in (fitting, fitting + 1) if count)} works")
    if heads not in (None, fitting):
        raise UserError(f"--num_attention_heads {heads}: the teacher's heads of {size} are kept whole, and a hidden_size of {width} has "
                        f"{fitting} of them; --num_attention_heads {fitting} works")
    embedding = config.get("embedding_size")
    if embedding == config["hidden_size"]:
        config["embedding_size"] = width  # no map between them, so one selection for both
    elif embedding == width:
        raise UserError(f"--hidden_size {width}: it is the teacher's embedding_size too, and with equal sizes {teacher.family} has no map "
                        f"between them, as the teacher has; {width + size} works")
    config.update({**asked, "hidden_size": width, "num_attention_heads": fitting})


def _from_scratch(args: Args, teacher: ModelFolder | None, architecture: Architecture) -> StudentPlan:
    config: dict[str, Any] = {"model_type": architecture.family, **architecture.canonical({})}
    for name, default in SCRATCH_DEFAULTS.items():
        asked = getattr(args.model, name)
        if architecture.defaults.get(name, default) is None:
            if asked is not None:
                raise UserError(f"--{name} {asked}: {architecture.family} has no such setting; leave the flag out")
            continue
        config[name] = asked if asked is not None else default
    if args.model.vocab_size is None:
        config["vocab_size"] = teacher.config["vocab_size"] if teacher else None
    if teacher is not None and config["vocab_size"] != teacher.config["vocab_size"]:
        raise UserError(f"--vocab_size {config['vocab_size']}: the teacher's is {teacher.config['vocab_size']}, and both read one text; "
                        "leave the flag out")
    if config["hidden_size"] % config["num_attention_heads"]:
        raise UserError(f"--hidden_size {config['hidden_size']} does not divide by --num_attention_heads {config['num_attention_heads']}")
    if teacher is not None:
        config.update({name: teacher.config[name] for name in _IDS if teacher.config.get(name) is not None})
        if teacher.family == architecture.family and "layer_norm_eps" in config:
            config["layer_norm_eps"] = teacher.config["layer_norm_eps"]
    return StudentPlan(source="scratch", folder=None, architecture=architecture, config=config)
