"""Queries, keys and values as an attention function of `transformers`: SDPA that shows what it was given.

Registered together with a mask function of the same name: without one, padding would silently be attended.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from pretraining.signals import Attention

CAPTURING = "sdpa_captured"
_KEEP = "_keep_attention"


def _captured_sdpa(
    module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: torch.Tensor | None, **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    keep = getattr(module, _KEEP, None)
    if keep is not None:
        scaling = kwargs.get("scaling")
        window = kwargs.get("sliding_window")
        keep(Attention(
            query, key, value, scaling=query.shape[-1] ** -0.5 if scaling is None else scaling,
            causal=bool(getattr(module, "is_causal", False)),
            # transformers adds one, because flash attention counts a window's borders in.
            window=None if window is None else window - 1))
    return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)


AttentionInterface.register(CAPTURING, _captured_sdpa)
AttentionMaskInterface.register(CAPTURING, sdpa_mask)


def capture(module: nn.Module, keep: Callable[[Attention], None]) -> None:
    """Call `keep` with what `module`, an attention module of a model that runs under `CAPTURING`, computes attention from."""
    # Around nn.Module's own bookkeeping: `keep` may be a method of a module that contains this one.
    object.__setattr__(module, _KEEP, keep)
