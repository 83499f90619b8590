"""Losses between the attention of paired encoder layers, and what the other attention losses share.

No map of attention is kept: one is (B, H, L, L), many times a layer's hidden states. Scores are made, compared and forgotten a block of
sequences at a time, and the gradient for queries and keys is made with them, so that memory does not grow with B·L² and a block stays in
a CPU's cache. Against autograd over whole maps this more than halves the time of a relation of 48 heads and 128 tokens.

Padding: queries, keys and values are set to zero there before anything is computed from them, and padded keys are hidden from the
softmax. A padded query then has the same scores in both models, so it adds exactly nothing to a loss and gets exactly no gradient.
"""

from abc import abstractmethod
from collections.abc import Callable
from functools import reduce

import torch

from pretraining.objectives.base import Objective, ObjectiveContext
from pretraining.signals import Attention, Batch, ModelNeeds, Needs, Signals, Term, Unit

# (student's scores, teacher's scores, where keys are hidden or None) -> (sum, its gradient for the student's scores); scores are
# (b, H, L, L) and may be overwritten.
Measure = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], tuple[torch.Tensor, torch.Tensor]]


class AttentionObjective(Objective):
    """An objective over pairs of layers that sees queries, keys and values of both."""

    def __init__(self, name: str, context: ObjectiveContext) -> None:
        super().__init__(name, context)
        self.needs = Needs(
            student=ModelNeeds(attention=frozenset(student for student, _ in context.pairs)),
            teacher=ModelNeeds(attention=frozenset(teacher for _, teacher in context.pairs)),
        )

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Term]:
        terms = {}
        for pair in self.context.pairs:
            terms |= self.compare(self.pair_name(pair), student.attention[pair[0]], teacher.attention[pair[1]], batch)
        return terms

    @abstractmethod
    def compare(self, name: str, student: Attention, teacher: Attention, batch: Batch) -> dict[str, Term]:
        """The terms of one pair of layers, called `name` or `name/part`."""


class AttMse(AttentionObjective):
    """Mean squared difference of attention scores before the softmax (TinyBERT, arXiv 1909.10351, eq. 7; Wang et al. 2023).

        L = Σ over pairs (s, t) of  1/(H·Σ_b n_b²) · Σ_h,i,j (A_s,hij − A_t,hij)²,   A = Q Kᵀ/√d

    with i and j over the n_b real tokens of sentence b, and each model's own d. A pair of tokens that is hidden from either model, by
    causality or a window, has no difference; it is counted all the same.
    """

    def compare(self, name: str, student: Attention, teacher: Attention, batch: Batch) -> dict[str, Term]:
        total = compare_scores(squared_difference, scaled_query_and_key(student, batch), scaled_query_and_key(teacher, batch),
                               hidden_keys(batch, student, teacher))
        return {name: Term(total, Unit.PAIRS, per_unit=student.query.shape[1])}


class AttKl(AttentionObjective):
    """Kullback-Leibler divergence of attention distributions (MiniLM, arXiv 2002.10957, eq. 3; Wang et al. 2023).

        L = Σ over pairs (s, t) of  1/(H·N) · Σ_h,i Σ_j p_t,j · (log p_t,j − log p_s,j),   p = σ(A_hi),   A = Q Kᵀ/√d

    with i over the N real tokens, and j over the real tokens that both models see from i: where causality or a window hides keys from
    one of them, both distributions are over the rest.
    """

    def compare(self, name: str, student: Attention, teacher: Attention, batch: Batch) -> dict[str, Term]:
        total = compare_scores(divergence, scaled_query_and_key(student, batch), scaled_query_and_key(teacher, batch),
                               hidden_keys(batch, student, teacher))
        return {name: Term(total, Unit.TOKENS, per_unit=student.query.shape[1])}


class ValKl(AttentionObjective):
    """Kullback-Leibler divergence of value relations (MiniLM, arXiv 2002.10957, eq. 4 and 5).

        L = Σ over pairs (s, t) of  1/(H·N) · Σ_h,i KL(σ(V_t V_tᵀ/√d_t)_hi ‖ σ(V_s V_sᵀ/√d_s)_hi)

    over the same tokens as `AttKl`: also a relation is between a token and those that both models see from it.
    """

    def compare(self, name: str, student: Attention, teacher: Attention, batch: Batch) -> dict[str, Term]:
        total = relation_kl(without_padding(student.value, batch), without_padding(teacher.value, batch),
                            hidden_keys(batch, student, teacher))
        return {name: Term(total, Unit.TOKENS, per_unit=student.value.shape[1])}


def relation_kl(student_BHLd: torch.Tensor, teacher_BHLd: torch.Tensor, hidden: torch.Tensor | None) -> torch.Tensor:
    """Σ KL(σ(X_t X_tᵀ/√d_t) ‖ σ(X_s X_sᵀ/√d_s)) of one kind of vectors X, each model with its own d; fp32, zero at padding."""
    student, teacher = ((states * states.shape[-1] ** -0.5, states) for states in (student_BHLd, teacher_BHLd))
    return compare_scores(divergence, student, teacher, hidden)


def without_padding(states_BHLd: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Queries, keys or values in fp32, zero at padding whatever stood there, one head's after the other in memory."""
    if batch.has_padding:
        states_BHLd = states_BHLd.masked_fill(~batch.mask[:, None, :, None], 0.0)
    return states_BHLd.float().contiguous()


def scaled_query_and_key(attention: Attention, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, H, L, d) each, fp32, zero at padding; their product is what the model's softmax is taken of."""
    return without_padding(attention.query, batch) * attention.scaling, without_padding(attention.key, batch)


def hidden_keys(batch: Batch, *attentions: Attention) -> torch.Tensor | None:
    """True where a query must not be compared with a key: the key is padding, or one of the attentions does not see it from there.

    Bool, (B, 1, L, L) where L may be 1 for queries if all see the same keys; None if nothing is hidden.
    """
    length = batch.mask.shape[1]
    hidden = [~batch.mask[:, None, None, :]] if batch.has_padding else []
    places = torch.arange(length, device=batch.mask.device)
    ahead_LL = places - places[:, None]
    if any(attention.causal for attention in attentions):
        hidden.append(ahead_LL > 0)
    windows = [attention.window for attention in attentions if attention.window is not None]
    if windows and min(windows) < length:
        hidden.append(ahead_LL.abs() > min(windows))
    if not hidden:
        return None
    return reduce(torch.logical_or, hidden).expand(len(batch.mask), 1, -1, length)


def hide(scores_bHLL: torch.Tensor, hidden: torch.Tensor | None) -> torch.Tensor:
    """The scores, such that a softmax gives hidden keys nothing; in place."""
    if hidden is None:
        return scores_bHLL
    # Finite, for inf − inf would be nan; added, for a CPU adds twice as fast as it fills.
    lowest = torch.finfo(scores_bHLL.dtype).min / 2
    return scores_bHLL.add_(torch.zeros(hidden.shape, dtype=scores_bHLL.dtype, device=hidden.device).masked_fill_(hidden, lowest))


def squared_difference(
    student_bHLL: torch.Tensor, teacher_bHLL: torch.Tensor, hidden: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Σ (A_s − A_t)² over what is not hidden, and its gradient."""
    difference_bHLL = student_bHLL.sub_(teacher_bHLL)
    if hidden is not None:
        difference_bHLL.masked_fill_(hidden, 0.0)
    return difference_bHLL.square().sum(), difference_bHLL.mul_(2)


def divergence(
    student_bHLL: torch.Tensor, teacher_bHLL: torch.Tensor, hidden: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Σ over rows of KL(σ(A_t) ‖ σ(A_s)) and its gradient p_s − p_t.

    With the greatest score of a row A* and the greatest probability p*, log p_j = A_j − A* + log p*, so that
    KL = Σ_j p_t,j (A_t,j − A_s,j − (A*_t − A*_s)) + log (p*_t/p*_s): no exponential beyond the two softmaxes', and what a row's scores
    have in common cancels before it is weighted, which a small divergence needs.
    """
    student_bHLL, teacher_bHLL = hide(student_bHLL, hidden), hide(teacher_bHLL, hidden)
    p_student, p_teacher = student_bHLL.softmax(dim=-1), teacher_bHLL.softmax(dim=-1)
    shift = teacher_bHLL.amax(dim=-1, keepdim=True) - student_bHLL.amax(dim=-1, keepdim=True)
    at_greatest = (p_teacher.amax(dim=-1) / p_student.amax(dim=-1)).log()
    expected = teacher_bHLL.sub_(student_bHLL).sub_(shift).mul_(p_teacher).sum(dim=-1)
    return (expected + at_greatest).sum(), p_student.sub_(p_teacher)


def compare_scores(
    measure: Measure, student: tuple[torch.Tensor, torch.Tensor], teacher: tuple[torch.Tensor, torch.Tensor],
    hidden: torch.Tensor | None,
) -> torch.Tensor:
    """The sum that `measure` gives for the scores Q Kᵀ of both models; (query, key) are (B, H, L, d) each, `hidden` as of `hidden_keys`.

    Differentiable once, for the student's query and key.
    """
    return _CompareScores.apply(measure, *student, *teacher, hidden)


class _CompareScores(torch.autograd.Function):
    """Makes the gradient on the way forward, while a block's scores exist: what comes from above is one number."""

    @staticmethod
    def forward(ctx, measure: Measure, query_s, key_s, query_t, key_t, hidden) -> torch.Tensor:
        sums, query_gradients, key_gradients = [], [], []
        for block in _blocks(query_s):
            query, key = query_s[block], key_s[block]
            hidden_here = None if hidden is None else hidden[block]
            total, gradient = measure(query @ key.mT, query_t[block] @ key_t[block].mT, hidden_here)
            sums.append(total)
            query_gradients.append(gradient @ key)
            key_gradients.append(gradient.mT @ query)
        ctx.save_for_backward(torch.cat(query_gradients), torch.cat(key_gradients))
        return torch.stack(sums).sum()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query_gradient, key_gradient = ctx.saved_tensors
        return None, upstream * query_gradient, upstream * key_gradient, None, None, None


# Scores in a block, if a single sequence has no more: what a CPU's cache holds, and what keeps an accelerator busy (256 MiB of them).
_BLOCK = {"cpu": 2**19}
_ACCELERATOR_BLOCK = 2**26


def _blocks(query_BHLd: torch.Tensor) -> list[slice]:
    sequences, heads, length, _ = query_BHLd.shape
    size = max(1, _BLOCK.get(query_BHLd.device.type, _ACCELERATOR_BLOCK) // (heads * length * length))
    return [slice(start, start + size) for start in range(0, sequences, size)]
