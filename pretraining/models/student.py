"""The student: built, filled and told which of its parameters can learn."""

from dataclasses import dataclass

import torch
import transformers
from torch import nn

from pretraining.models.catalog import Architecture
from pretraining.models.encoder import layers_of
from pretraining.models.loading import load_model, model_class
from pretraining.student_plan import StudentPlan


@dataclass
class BuiltModel:
    """A model and what its folder held: `pooler` are weights that are exported but never run or trained."""

    model: nn.Module
    has_head: bool
    pooler: dict[str, torch.Tensor]


def build_student(
    plan: StudentPlan, architecture: Architecture, teacher: BuiltModel | None, needs_logits: bool, seed: int,
) -> BuiltModel:
    """The student in fp32 on the CPU, with dropout as planned; random parts depend on `seed` alone.

    It has an MLM head where an objective needs logits, its folder has one or the teacher has one.
    """
    torch.manual_seed(seed)
    if plan.source == "folder":
        built = _from_folder(plan, architecture, needs_logits)
    else:
        has_head = needs_logits or (teacher is not None and teacher.has_head)
        built = _fresh(plan, architecture, has_head)
        if plan.source == "teacher":
            copy_layers(teacher, built, plan.layers, architecture)
    _apply_free_settings(built.model, plan)
    return built


def _config(plan: StudentPlan) -> transformers.PretrainedConfig:
    values = {name: value for name, value in plan.config.items()
              if name not in ("model_type", "architectures", "dtype", "torch_dtype", "transformers_version", "_name_or_path")}
    return transformers.AutoConfig.for_model(plan.config["model_type"], **values)


def _fresh(plan: StudentPlan, architecture: Architecture, has_head: bool) -> BuiltModel:
    model = model_class(architecture, has_head)(_config(plan))
    return BuiltModel(model, has_head, {} if has_head else _take_pooler(model))


def _take_pooler(model: nn.Module) -> dict[str, torch.Tensor]:
    """Remove the pooler of a base-class model, which no objective trains, and return its weights for the export."""
    pooler = {name: tensor.detach().clone() for name, tensor in model.state_dict().items() if name.startswith("pooler.")}
    model.pooler = None
    return pooler


def _from_folder(plan: StudentPlan, architecture: Architecture, needs_logits: bool) -> BuiltModel:
    model, has_head, pooler = load_model(plan.folder, "--student_initialize", architecture)
    if needs_logits and not has_head:
        headless = BuiltModel(model, False, pooler)
        built = _fresh(plan, architecture, has_head=True)
        copy_layers(headless, built, list(range(plan.config["num_hidden_layers"])), architecture)
        return built
    if not has_head and not pooler:
        pooler = _fresh(plan, architecture, has_head=False).pooler
    return BuiltModel(model, has_head, pooler)


def copy_layers(source: BuiltModel, target: BuiltModel, layers: list[int], architecture: Architecture) -> None:
    """Copy embeddings, the named encoder layers (in order) and, where both have one, the MLM head or the pooler.

    Widths must agree. In-place, so tied weights stay tied.
    """
    base_of = lambda built: built.model.get_submodule(architecture.base) if built.has_head else built.model  # noqa: E731
    source_base, target_base = base_of(source), base_of(target)
    source_layers = layers_of(source.model, architecture, source.has_head)
    target_layers = layers_of(target.model, architecture, target.has_head)
    layer_prefix = architecture.layers.removeprefix(f"{architecture.base}.") + "."
    rest = {name: tensor for name, tensor in source_base.state_dict().items()
            if not name.startswith(layer_prefix) and not name.startswith("pooler.")}
    result = target_base.load_state_dict(rest, strict=False)
    assert not result.unexpected_keys, result.unexpected_keys
    for target_layer, index in zip(target_layers, layers, strict=True):
        target_layer.load_state_dict(source_layers[index].state_dict())
    if source.has_head and target.has_head:
        target.model.get_submodule(architecture.head).load_state_dict(source.model.get_submodule(architecture.head).state_dict())
    elif not target.has_head and source.pooler:
        target.pooler = {name: tensor.detach().clone() for name, tensor in source.pooler.items()}


def _apply_free_settings(model: nn.Module, plan: StudentPlan) -> None:
    """Dropout of the plan on a model that was loaded with its folder's."""
    for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
        setattr(model.config, name, plan.config[name])
    hidden, attention = plan.config["hidden_dropout_prob"], plan.config["attention_probs_dropout_prob"]
    for path, module in model.named_modules():
        if isinstance(module, nn.Dropout):
            module.p = attention if path.endswith("attention.self.dropout") else hidden
