"""--layer_norm_type apex: NVIDIA's fused LayerNorm in place of torch's, where it is installed and a GPU is there."""

import torch
from torch import nn

from pretraining.args.resolve import apex_layer_norm_importable


def use_apex_layer_norm(module: nn.Module, device: torch.device) -> None:
    """Replace every `nn.LayerNorm` in `module` by apex's, sharing its parameters; does nothing without apex or on a CPU."""
    if device.type != "cuda" or not apex_layer_norm_importable():
        return
    from apex.normalization import FusedLayerNorm

    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.LayerNorm):
                fused = FusedLayerNorm(child.normalized_shape, eps=child.eps)
                fused.weight, fused.bias = child.weight, child.bias
                setattr(parent, name, fused)
