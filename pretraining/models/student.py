"""The student: built, and filled with the weights that its plan says."""

import torch
from torch import nn

from pretraining.models.catalog import Architecture
from pretraining.models.copying import choose_layers, cross, load_weights, weights_of
from pretraining.models.loading import BuiltModel, load_model, make_config, model_class
from pretraining.models.narrow import narrowed
from pretraining.student_plan import StudentPlan


def build_student(
    plan: StudentPlan, architecture: Architecture, teacher: BuiltModel | None, teacher_architecture: Architecture | None, needs_head: bool,
    needs_next_sentence: bool, seed: int,
) -> BuiltModel:
    """The student in fp32 on the CPU, with dropout as planned; random parts depend on `seed` alone.

    It has a language-model head where an objective needs one, its folder has one or the teacher has one. An architecture with a
    next-sentence head has pooler and that head inside the model; elsewhere the pooler of a class without language-model head stays beside
    it, exported and never run.
    """
    source, source_architecture = teacher, teacher_architecture
    if plan.source == "folder":
        source = BuiltModel(*load_model(plan.folder, "--student_initialize", architecture, plan.config))
        source_architecture = architecture
    has_head = needs_head or needs_next_sentence or (source is not None and source.has_head)
    if plan.source == "folder" and source.has_head and architecture.next_sentence is None:
        return BuiltModel(source.model, True, source.pooler)
    torch.manual_seed(seed)
    built = _fresh(plan, architecture, has_head)
    if plan.source != "scratch":
        load_weights(_planned_weights(plan, source, source_architecture, architecture), built, architecture)
    return built


def _planned_weights(plan: StudentPlan, source: BuiltModel, theirs: Architecture, ours: Architecture) -> dict[str, torch.Tensor]:
    """What of `source`, an architecture of `theirs`, the student takes, under the names of `ours`."""
    weights = weights_of(source, theirs)
    if plan.source == "folder":
        return weights
    weights = choose_layers(weights, theirs, plan.layers)
    config = theirs.canonical(source.model.config.to_dict())
    if any(plan.config[name] != config[name] for name in ("hidden_size", "num_attention_heads", "intermediate_size")):
        weights = narrowed(weights, theirs, config, plan.config)
    return weights if theirs.family == ours.family else cross(weights, theirs, ours)


def _fresh(plan: StudentPlan, architecture: Architecture, has_head: bool) -> BuiltModel:
    model = model_class(architecture, has_head)(make_config(plan.config, architecture))
    return BuiltModel(model, has_head, {} if has_head else _take_pooler(model))


def _take_pooler(model: nn.Module) -> dict[str, torch.Tensor]:
    """Remove the pooler of a base-class model, which no objective trains, and return its weights for the export."""
    pooler = {name: tensor.detach().clone() for name, tensor in model.state_dict().items() if name.startswith("pooler.")}
    if pooler:
        model.pooler = None
    return pooler


def whole_model(built: BuiltModel, architecture: Architecture) -> nn.Module:
    """The model as its class expects it to be saved: a bare encoder with its pooler."""
    if not built.pooler or built.has_head:
        return built.model
    with torch.device("meta"):
        model = model_class(architecture, has_head=False)(built.model.config)
    model.load_state_dict({**built.model.state_dict(), **built.pooler}, assign=True)
    return model
