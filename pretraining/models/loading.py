"""Loading `transformers` folders without noise, and refusing folders whose weights are not all there."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from dataset.errors import UserError
from pretraining.models.catalog import ARCHITECTURES, Architecture, model_type_of

# What a configuration says about a file, and not about a model.
_ABOUT_THE_FILE = ("model_type", "architectures", "dtype", "torch_dtype", "transformers_version", "_name_or_path")


@dataclass
class BuiltModel:
    """A model and what its folder held beside it: `pooler` and `next_sentence` are weights that this model has no place for."""

    model: nn.Module
    has_head: bool
    pooler: dict[str, torch.Tensor]
    next_sentence: dict[str, torch.Tensor] = field(default_factory=dict)


def quiet_transformers() -> None:
    """No progress bars and no reports about weights: what matters is checked and said in one line here."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def model_class(architecture: Architecture, has_head: bool) -> Any:
    return getattr(transformers, architecture.head_class if has_head else architecture.base_class)


def make_config(config: Mapping[str, Any], architecture: Architecture) -> transformers.PretrainedConfig:
    """The configuration of `transformers` for one under our names."""
    values = {name: value for name, value in architecture.native(config).items() if name not in _ABOUT_THE_FILE}
    return transformers.AutoConfig.for_model(architecture.family, **values)


def load_model(
    path: Path, flag: str, architecture: Architecture, config: Mapping[str, Any] | None = None,
) -> tuple[nn.Module, bool, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """(model in fp32 on the CPU, whether it has a language-model head, pooler, next-sentence head), the fields of a `BuiltModel`.

    The model has a language-model head and no other; without one it is the base class. What the folder holds for the pooler and the
    next-sentence head comes beside it, by name: for exports, and for students that train them. config: to load with another
    configuration (our names) than the folder's. UserError where encoder weights are missing.
    """
    plain = ARCHITECTURES[model_type_of(architecture.family)]
    settings = {} if config is None else {"config": make_config(config, plain)}
    try:
        model, info = model_class(plain, True).from_pretrained(path, output_loading_info=True, dtype=torch.float32, **settings)
    except Exception as error:  # safetensors, pickle, torch and transformers each have their own kind for a broken file
        raise UserError(f"{flag} {path}: cannot be loaded ({str(error).splitlines()[0]}); save the model again") from None
    missing = set(info["missing_keys"])
    has_head = not any(map(plain.in_head, missing))
    lost = sorted(name for name in missing if not plain.in_head(name) and not name.endswith("position_ids"))
    if lost:
        raise UserError(f"{flag} {path}: {len(lost)} weights are missing, such as {lost[0]}; save the whole model again")
    pooler, next_sentence = _load_beside(path, plain, set(info["unexpected_keys"]))
    return (model if has_head else model.get_submodule(plain.base)), has_head, pooler, next_sentence


def _load_beside(path: Path, plain: Architecture, unexpected: set[str]) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The weights of pooler (names of the base class) and next-sentence head (of the head class) that the folder holds."""
    if not any("pooler" in name for name in unexpected):
        return {}, {}
    if any("seq_relationship" in name for name in unexpected):
        whole = next(row for row in ARCHITECTURES.values() if row.family == plain.family and row.next_sentence is not None)
        state = model_class(whole, True).from_pretrained(path, dtype=torch.float32).state_dict()
        prefix = f"{whole.base}.pooler."
        pooler = {name.removeprefix(f"{whole.base}."): tensor for name, tensor in state.items() if name.startswith(prefix)}
        return pooler, {name: tensor for name, tensor in state.items() if name.startswith(f"{whole.next_sentence}.")}
    state = model_class(plain, False).from_pretrained(path, dtype=torch.float32).state_dict()
    return {name: tensor for name, tensor in state.items() if name.startswith("pooler.")}, {}
