"""Correlation between the attention distributions of paired encoder layers."""

import torch

from pretraining.objectives.attention import AttentionObjective, hidden_keys, hide, scaled_query_and_key
from pretraining.signals import Attention, Batch, Term, Unit

# A spread below this share of a vector's size is rounding of fp32 probabilities.
_NO_SPREAD = 1e-6
# Probabilities are squared: in this unit those from 1e-34 on keep a square in fp32, while the sum of all squares is far from its end.
_UNIT = 2.0**50
_AXES = (0, 1, 2, 3)  # of (B, H, L, L): sentences, heads, columns (queries), rows (keys)


class PearCol(AttentionObjective):
    """One minus the mean Pearson correlation of attention probabilities, along four axes (Wang et al. 2023).

        L = Σ over pairs (s, t) of Σ_axis (1 − mean ρ(p_s, p_t)),   p = σ(Q Kᵀ/√d),
        ρ(x, y) = Σ (x − x̄)(y − ȳ) / √(Σ (x − x̄)² · Σ (y − ȳ)²)

    The vectors along an axis: rows, p_bhi· over keys; columns, p_bh·j over queries; heads, p_b·ij; sentences, p_·hij of the micro-batch.
    Their entries are the p_bhij with i and j real tokens of b that both models see from one another (i sees j); the softmax is over
    these j. A vector of fewer than two entries does not count in its axis' mean, and an axis without a countable vector adds 0: heads of a
    model with one, sentences of a micro-batch of one. A vector without spread in either model has no correlation: it counts as 0, and
    gives no gradient. The least value is 0 where none is without spread.

    The value is the micro-batch's, weighted with its number of sequences.
    """

    def compare(self, name: str, student: Attention, teacher: Attention, batch: Batch) -> dict[str, Term]:
        hidden = hidden_keys(batch, student, teacher)
        real_BqL = batch.mask[:, None, :, None]
        counted_BqLL = real_BqL & (real_BqL.mT if hidden is None else ~hidden)
        value = _Decorrelation.apply(probabilities(student, batch, hidden), probabilities(teacher, batch, hidden), counted_BqLL)
        return {name: Term(value * len(batch.mask), Unit.SEQUENCES)}


def probabilities(attention: Attention, batch: Batch, hidden: torch.Tensor | None) -> torch.Tensor:
    """(B, H, L, L): softmax over the keys that are not hidden, fp32."""
    query, key = scaled_query_and_key(attention, batch)
    return hide(query @ key.mT, hidden).softmax(dim=-1)


class _Decorrelation(torch.autograd.Function):
    """Σ_axis (1 − mean ρ); the gradient is made on the way forward, so that of all the four axes' centred vectors none is kept."""

    @staticmethod
    def forward(ctx, student_BHLL, teacher_BHLL, counted_BqLL) -> torch.Tensor:
        counted = counted_BqLL.to(student_BHLL.dtype)
        student, teacher = student_BHLL * (counted * _UNIT), teacher_BHLL * (counted * _UNIT)
        gradient = torch.zeros_like(student)
        values = [_along(axis, student, teacher, counted, gradient) for axis in _AXES]
        ctx.save_for_backward(gradient.mul_(_UNIT))
        return torch.stack(values).sum()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, upstream: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return upstream * gradient, None, None


def _along(
    axis: int, student: torch.Tensor, teacher: torch.Tensor, counted: torch.Tensor, gradient: torch.Tensor,
) -> torch.Tensor:
    """1 − mean ρ along one axis; adds its gradient for the student's probabilities to `gradient`.

    With u = (x − x̄)/‖x − x̄‖ of the student and v of the teacher: ρ = u·v and dρ/dx = (v − ρ u)/‖x − x̄‖.
    """
    heads = student.shape[1] if axis == 1 else 1
    entries = counted.sum(dim=axis, keepdim=True) * heads
    u, spread_u = _normalised(student, axis, entries, counted)
    v, spread_v = _normalised(teacher, axis, entries, counted)
    correlation = (u * v).sum(dim=axis, keepdim=True)
    countable = (entries >= 2).expand_as(correlation)
    correlation = correlation.masked_fill(~countable, 0.0)
    weight = countable.to(correlation.dtype) / countable.sum().clamp(min=1)
    # Two entries are correlated with ±1 wherever they lie: their derivative is 0, and would come out as rounding over spread.
    sloped = (spread_u > 0) & (spread_v > 0) & (entries > 2)
    slope = torch.where(sloped, weight / spread_u.masked_fill(~sloped, 1.0), 0.0)
    gradient.addcmul_(v, slope, value=-1).addcmul_(u, slope * correlation)
    return (weight * (1 - correlation)).sum()


def _normalised(
    vectors: torch.Tensor, axis: int, entries: torch.Tensor, counted: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Vectors less their mean, of length one, and the length they had; both are 0 for a vector without spread."""
    mean = vectors.sum(dim=axis, keepdim=True) / entries.clamp(min=1)
    centred = (vectors - mean).mul_(counted)
    spread = centred.square().sum(dim=axis, keepdim=True).sqrt()  # several times as fast on a CPU as vector_norm along an outer axis
    spread = spread.masked_fill(spread <= _NO_SPREAD * mean * entries.sqrt(), 0.0)
    return centred.mul_(torch.where(spread > 0, 1 / spread, 0.0)), spread
