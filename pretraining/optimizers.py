"""Parameter groups and optimizers.

LAMB, Adafactor and Muon look at the shape of a parameter, which ZeRO 1 and 2 flatten away: they need stage 0.
"""

from collections.abc import Callable, Collection

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.optimization import Adafactor
from transformers.pytorch_utils import Conv1D

from pretraining.args.optimization import OptimizationFlags
from pretraining.combined_optimizer import CombinedOptimizer
from pretraining.lamb import Lamb

# LayerNorm under any name, RMSNorm and biases have one dimension; embeddings and matrices have two.
_MATRIX_DIMENSIONS = 2

# The two logits of next-sentence prediction; unlike an MLM decoder no method of transformers' models finds it.
_SENTENCE_HEAD = "seq_relationship"


def parameter_groups(module: nn.Module, weight_decay: float, without: Collection[nn.Parameter] = ()) -> list[dict]:
    """Trainable parameters but `without` in two groups: matrices and embeddings with weight decay, biases and normalisation weights
    with none.

    By dimension and not by name: the originals matched `LayerNorm.weight`, which misses the names other architectures use.
    """
    decayed, plain = [], []
    left_out = set(without)
    for parameter in module.parameters():
        if parameter.requires_grad and parameter not in left_out:
            (decayed if parameter.ndim >= _MATRIX_DIMENSIONS else plain).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def hidden_matrices(module: nn.Module) -> list[nn.Parameter]:
    """Trainable two-dimensional weights that map features to features, in the order of `module.parameters()`.

    These are the weights of `nn.Linear` and transformers' `Conv1D` (GPT-2), and every matrix of an objective, such as a projection.
    Not among them: embeddings, the MLM decoder whether it is tied to them or not, and the head of next-sentence prediction.
    """
    matrices, others = set(), set()
    for name, part in module.named_modules():
        if isinstance(part, nn.Embedding) or name.rpartition(".")[2] == _SENTENCE_HEAD:
            others.update(part.parameters(recurse=False))
        elif isinstance(part, PreTrainedModel) and part.get_output_embeddings() is not None:
            others.update(part.get_output_embeddings().parameters())
        elif isinstance(part, nn.Linear | Conv1D):
            matrices.add(part.weight)
    matrices.update(parameter for name, parameter in module.named_parameters() if name.startswith("objective."))
    return [parameter for parameter in module.parameters()
            if parameter in matrices - others and parameter.ndim == _MATRIX_DIMENSIONS and parameter.requires_grad]


def build_optimizer(module: nn.Module, flags: OptimizationFlags) -> torch.optim.Optimizer:
    """The optimizer of `flags.optimizer_type` over the trainable parameters of `module`."""
    return _BUILDERS[flags.optimizer_type](module, flags)


def _adam(module: nn.Module, flags: OptimizationFlags) -> torch.optim.Optimizer:
    """Adam (Kingma and Ba 2015, arXiv 1412.6980, algorithm 1) with torch's fused kernel; weight decay is added to the gradient (L2)."""
    return torch.optim.Adam(
        parameter_groups(module, flags.weight_decay), lr=flags.lr, betas=(flags.adam_beta1, flags.adam_beta2), eps=flags.adam_eps,
        fused=True,
    )


def _adamw(module: nn.Module, flags: OptimizationFlags, without: Collection[nn.Parameter] = ()) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101, algorithm 2) with torch's fused kernel."""
    return torch.optim.AdamW(
        parameter_groups(module, flags.weight_decay, without), lr=flags.lr, betas=(flags.adam_beta1, flags.adam_beta2),
        eps=flags.adam_eps, fused=True,
    )


def _lamb(module: nn.Module, flags: OptimizationFlags) -> torch.optim.Optimizer:
    """LAMB; it takes betas and epsilon from the flags, which the originals' left at the library's defaults."""
    return Lamb(
        parameter_groups(module, flags.weight_decay), lr=flags.lr, betas=(flags.adam_beta1, flags.adam_beta2), eps=flags.adam_eps,
        weight_decay=flags.weight_decay, bias_correction=flags.bias_correction, min_coeff=flags.min_coeff, max_coeff=flags.max_coeff,
    )


def _adafactor(module: nn.Module, flags: OptimizationFlags) -> torch.optim.Optimizer:
    """Adafactor (Shazeer and Stern 2018, arXiv 1804.04235, algorithms 4 and 5) of transformers, with the schedule's learning rate.

    Set: `relative_step=False` and `scale_parameter=False`, so that the step is lr and not min(0.01, 1/√t) times the weight's root mean
    square; weight decay lr·λ·w, decoupled, per group. Left as published: β2 = 1 - t^-0.8, clipping of the update at a root mean square
    of 1, ε1 = 1e-30 and no first moment. So --adam_beta1, --adam_beta2 and --adam_eps have no effect, as in the originals.
    Not torch's Adafactor: it cannot switch off either scaling, and waits for the device several times per parameter.
    """
    return Adafactor(parameter_groups(module, flags.weight_decay), lr=flags.lr, relative_step=False, scale_parameter=False)


def _muon(module: nn.Module, flags: OptimizationFlags) -> torch.optim.Optimizer:
    """Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) for hidden matrices, AdamW for all else, under one learning rate.

    `match_rms_adamw` multiplies Muon's step by 0.2·√max(rows, columns), which gives it the root mean square of AdamW's (Liu et al. 2025,
    arXiv 2502.16982, eq. 4), so that --lr and --weight_decay serve both. Left as published: momentum 0.95 with Nesterov's look-ahead and
    five Newton-Schulz iterations, in bf16; --adam_beta1, --adam_beta2 and --adam_eps belong to AdamW's part.
    Known limit: a fused query-key-value matrix, as GPT-2's, is orthogonalised as one.
    """
    matrices = hidden_matrices(module)
    if not matrices:
        return _adamw(module, flags)  # as where only embeddings are learnt
    muon = torch.optim.Muon(matrices, lr=flags.lr, weight_decay=flags.weight_decay, adjust_lr_fn="match_rms_adamw")
    return CombinedOptimizer([muon, _adamw(module, flags, without=matrices)])


_BUILDERS: dict[str, Callable[[nn.Module, OptimizationFlags], torch.optim.Optimizer]] = {
    "adam": _adam, "adamw": _adamw, "lamb": _lamb, "adafactor": _adafactor, "muon": _muon,
}
