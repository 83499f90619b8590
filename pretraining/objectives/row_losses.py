"""Sums over rows of logits, a few rows at a time, forward and backward.

A row of the vocabulary is long (30522 numbers for BERT) and its loss needs a softmax, its logarithm and products of them. Autograd keeps
each of these for all rows at once and goes through memory once for each; here they live for a few rows, in cache, and the gradient is
written in closed form from the logits, which are alive anyway. Against log_softmax and kl_div with log_target on a CPU, 1024 rows of
30522 take about half of the time and one matrix of the logits' size in memory instead of seven; 160 rows take the same time. The price
is that softmaxes are computed twice. The size of pieces on other devices is reasoned and was not measured.
"""

from collections.abc import Callable, Iterator

import torch
from torch.autograd.function import once_differentiable

# Numbers of one piece: what stays in a CPU's cache; large enough elsewhere that starting kernels does not count.
_CPU_PIECE, _DEVICE_PIECE = 2**20, 2**24

Formula = Callable[..., torch.Tensor]


def sum_over_rows(value: Formula, gradient: Formula, logits_RV: torch.Tensor, *targets: torch.Tensor) -> torch.Tensor:
    """The sum of a loss over R rows of logits (R, V): a scalar in fp32 (float64 for float64), with gradient for `logits_RV` alone.

    `value` and `gradient` get some rows of the logits and the same rows of each of `targets` (R, ...). `value` gives the sum over these
    rows, `gradient` its derivative with regard to their logits, of the same shape and in memory of its own. Floating-point inputs reach
    both in fp32 at least. R may be 0.
    """
    return _SumOverRows.apply(logits_RV, value, gradient, *targets)


class _SumOverRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits_RV: torch.Tensor, value: Formula, gradient: Formula, *targets: torch.Tensor) -> torch.Tensor:
        ctx.gradient = gradient
        ctx.save_for_backward(logits_RV, *targets)
        return torch.stack([value(*piece) for piece in pieces(logits_RV, *targets)]).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx, scale: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        logits_RV, *targets = ctx.saved_tensors
        result_RV = torch.empty_like(logits_RV)
        results = result_RV.split(_rows(logits_RV))
        for result, piece in zip(results, pieces(logits_RV, *targets), strict=True):
            # Scaled before it is rounded to the logits' format: a loss scale is there to keep halves from underflowing.
            result.copy_(ctx.gradient(*piece).mul_(scale))
        return result_RV, None, None, *(None for _ in targets)


def _rows(logits_RV: torch.Tensor) -> int:
    return max(1, (_CPU_PIECE if logits_RV.device.type == "cpu" else _DEVICE_PIECE) // logits_RV.shape[1])


def pieces(*tensors: torch.Tensor) -> Iterator[list[torch.Tensor]]:
    """The rows of tensors (R, V), (R, ...), ..., a few at a time, floating-point ones in fp32 at least."""
    for piece in zip(*(tensor.split(_rows(tensors[0])) for tensor in tensors), strict=True):
        yield [part.to(torch.promote_types(part.dtype, torch.float32)) if part.is_floating_point() else part for part in piece]
