"""Loading `transformers` folders without noise, and refusing folders whose weights are not all there."""

from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from dataset.errors import UserError
from pretraining.models.catalog import Architecture


def quiet_transformers() -> None:
    """No progress bars and no reports about weights: what matters is checked and said in one line here."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def model_class(architecture: Architecture, has_head: bool) -> Any:
    return getattr(transformers, architecture.mlm_class if has_head else architecture.base_class)


def load_model(path: Path, flag: str, architecture: Architecture) -> tuple[nn.Module, bool, dict[str, torch.Tensor]]:
    """(model in fp32 on the CPU, whether it has an MLM head, the pooler's weights if the folder has them).

    Without a head the model is the base class. The pooler is never run; its weights are kept for exports without a head, whose
    class expects them. UserError where encoder weights are missing.
    """
    try:
        model, info = model_class(architecture, True).from_pretrained(path, output_loading_info=True, dtype=torch.float32)
    except Exception as error:  # safetensors, pickle, torch and transformers each have their own kind for a broken file
        raise UserError(f"{flag} {path}: cannot be loaded ({str(error).splitlines()[0]}); save the model again") from None
    missing, unexpected = set(info["missing_keys"]), set(info["unexpected_keys"])
    has_head = not any(name.startswith(f"{architecture.head}.") for name in missing)
    lost = sorted(name for name in missing if not name.startswith(f"{architecture.head}.") and not name.endswith("position_ids"))
    if lost:
        raise UserError(f"{flag} {path}: {len(lost)} weights are missing, such as {lost[0]}; save the whole model again")
    pooler = _load_pooler(path, architecture, unexpected)
    return (model if has_head else model.get_submodule(architecture.base)), has_head, pooler


def _load_pooler(path: Path, architecture: Architecture, unexpected: set[str]) -> dict[str, torch.Tensor]:
    if not any("pooler" in name for name in unexpected):
        return {}
    base = model_class(architecture, False).from_pretrained(path, dtype=torch.float32)
    return {name: tensor for name, tensor in base.state_dict().items() if name.startswith("pooler.")}
