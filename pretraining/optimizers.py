"""Parameter groups and optimizers."""

import torch
from torch import nn

from pretraining.args.optimization import OptimizationFlags

# LayerNorm under any name, RMSNorm and biases have one dimension; embeddings and matrices have two.
_MATRIX_DIMENSIONS = 2


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict]:
    """Trainable parameters in two groups: matrices and embeddings with weight decay, biases and normalisation weights without.

    By dimension and not by name: the originals matched `LayerNorm.weight`, which misses the names other architectures use.
    """
    decayed, plain = [], []
    for parameter in module.parameters():
        if parameter.requires_grad:
            (decayed if parameter.ndim >= _MATRIX_DIMENSIONS else plain).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def build_optimizer(module: nn.Module, flags: OptimizationFlags) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101, algorithm 2) with torch's fused kernel."""
    return torch.optim.AdamW(
        parameter_groups(module, flags.weight_decay), lr=flags.lr, betas=(flags.adam_beta1, flags.adam_beta2), eps=flags.adam_eps,
        fused=True,
    )
