"""Losses between single hidden states: of paired layers, of layers side by side, of embeddings.

Where a difference is all that is computed, padding is masked in it and no row is gathered: a gather costs a copy of both (B, L, D)
tensors. Where a product follows (a projection, a norm), real tokens are gathered first, so that it is done for no others.
"""

from abc import abstractmethod

import torch
from torch import nn
from torch.autograd.function import FunctionCtx, once_differentiable

from pretraining.objectives.base import Objective, ObjectiveContext
from pretraining.objectives.projection import width_projections
from pretraining.signals import Batch, ModelNeeds, Needs, Signals, Term, Unit

# Norms below it count as this long, here alone: the root mean square of such a state lies below fp16's normal numbers, and the gradient
# of a state of length 0 (at most 1 / COSINE_EPS) still fits into fp16.
COSINE_EPS = 1e-3


class _SquaredDistance(torch.autograd.Function):
    """Written out because autograd would pass over memory twice as often: once more for each of the mask, the square and its sum."""

    @staticmethod
    def forward(ctx: FunctionCtx, student: torch.Tensor, target: torch.Tensor, padding_BL: torch.Tensor | None) -> torch.Tensor:
        difference = student.float() - target.float()
        if padding_BL is not None:
            # Not a product with the mask: inf or nan at a padded position would survive it.
            difference.masked_fill_(padding_BL.unsqueeze(-1), 0.0)
        ctx.save_for_backward(difference)
        ctx.dtypes = student.dtype, target.dtype
        # Not a dot product, and not a norm: those sum a million fp32 squares to 5 digits only.
        return difference.square().sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None]:
        (difference,) = ctx.saved_tensors
        for_student = difference * (2 * gradient)
        for_target = -for_student.to(ctx.dtypes[1]) if ctx.needs_input_grad[1] else None
        return for_student.to(ctx.dtypes[0]) if ctx.needs_input_grad[0] else None, for_target, None


def squared_distance(student: torch.Tensor, target: torch.Tensor, padding_BL: torch.Tensor | None = None) -> torch.Tensor:
    """Σ (student − target)², a scalar in fp32, for two tensors of one shape and any floating-point formats.

    padding_BL (for tensors of (B, L, D)): True where rows count for nothing, whatever stands there, and have a gradient of 0.
    """
    return _SquaredDistance.apply(student, target, padding_BL)


def real_tokens(states_BLD: torch.Tensor, batch: Batch) -> torch.Tensor:
    """(B, L, D) -> (N, D), the rows of real tokens."""
    states = states_BLD.flatten(0, 1)
    return states.index_select(0, batch.token_index) if batch.has_padding else states


def mean_square_term(student_BLD: torch.Tensor, teacher_BLD: torch.Tensor, batch: Batch, projection: nn.Module | None) -> Term:
    """1/(N·D) Σ_i ‖x_i W − y_i‖² over real tokens; without a projection the identity stands for W."""
    if projection is None:
        total = squared_distance(student_BLD, teacher_BLD, ~batch.mask if batch.has_padding else None)
    else:
        total = squared_distance(projection(real_tokens(student_BLD, batch)), real_tokens(teacher_BLD, batch))
    return Term(total, Unit.TOKENS, per_unit=teacher_BLD.shape[-1])


class PairedStates(Objective):
    """A term for each pair (s, t) of a student's and a teacher's layer, from the hidden states of the two."""

    def __init__(self, name: str, context: ObjectiveContext) -> None:
        super().__init__(name, context)
        self.needs = Needs(
            student=ModelNeeds(hidden=frozenset(student for student, _ in context.pairs)),
            teacher=ModelNeeds(hidden=frozenset(teacher for _, teacher in context.pairs)),
        )

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Term]:
        return {self.pair_name(pair): self.pair_term(pair, student.hidden[pair[0]], teacher.hidden[pair[1]], batch)
                for pair in self.context.pairs}

    @abstractmethod
    def pair_term(self, pair: tuple[int, int], student_BLD: torch.Tensor, teacher_BLD: torch.Tensor, batch: Batch) -> Term:
        """The term of one pair. The two tensors may differ in width and in format."""


class ProjectedStates(PairedStates):
    """Paired states that are compared number by number: where widths differ, each pair learns a map W of its own."""

    def __init__(self, name: str, context: ObjectiveContext) -> None:
        super().__init__(name, context)
        self.projections = width_projections(context, [f"{student}-{teacher}" for student, teacher in context.pairs])

    def projection(self, pair: tuple[int, int]) -> nn.Module | None:
        return self.projections[f"{pair[0]}-{pair[1]}"] if self.projections else None


class HiddenMse(ProjectedStates):
    """Mean squared difference of hidden states (Jiao et al. 2020 (TinyBERT), eq. 8; Wang et al. 2023).

        L = Σ over pairs (s, t) of  1/(N·D) · Σ_i ‖h_s,i W − h_t,i‖²

    with i over the N real tokens and D the teacher's width; W is the identity where widths are equal. Each pair is one term,
    `hidden_mse` for a single pair and `hidden_mse/S-T` for several.
    """

    def pair_term(self, pair: tuple[int, int], student_BLD: torch.Tensor, teacher_BLD: torch.Tensor, batch: Batch) -> Term:
        return mean_square_term(student_BLD, teacher_BLD, batch, self.projection(pair))


class HiddenCls(ProjectedStates):
    """Mean squared difference of the first token's hidden states (Wang et al. 2023, hidden states of [CLS]).

        L = Σ over pairs (s, t) of  1/(B·D) · Σ_b ‖h_s,b,0 W − h_t,b,0‖²

    with b over the B sequences and D the teacher's width; W is the identity where widths are equal.
    """

    def pair_term(self, pair: tuple[int, int], student_BLD: torch.Tensor, teacher_BLD: torch.Tensor, batch: Batch) -> Term:
        projection, first_BD = self.projection(pair), student_BLD[:, 0]
        total = squared_distance(first_BD if projection is None else projection(first_BD), teacher_BLD[:, 0])
        return Term(total, Unit.SEQUENCES, per_unit=teacher_BLD.shape[-1])


class Cosine(ProjectedStates):
    """One minus the cosine of hidden states (Sanh et al. 2019 (DistilBERT), §2, L_cos).

        L = Σ over pairs (s, t) of  1/N · Σ_i 1 − cos(h_s,i W, h_t,i),   cos(x, y) = x·y / (max(‖x‖, ε) · max(‖y‖, ε))

    with i over the N real tokens, W the identity where widths are equal, and ε = `COSINE_EPS`. The cosine with a state of length 0 is
    0. Computed as ½‖x̂ − ŷ‖² of the vectors x̂ = x / max(‖x‖, ε): one minus a cosine close to 1 would lose its digits.
    """

    def pair_term(self, pair: tuple[int, int], student_BLD: torch.Tensor, teacher_BLD: torch.Tensor, batch: Batch) -> Term:
        student_ND, teacher_ND, projection = real_tokens(student_BLD, batch), real_tokens(teacher_BLD, batch), self.projection(pair)
        student_ND, student_shortfall = _unit_rows(student_ND if projection is None else projection(student_ND))
        teacher_ND, teacher_shortfall = _unit_rows(teacher_ND)
        distance = squared_distance(student_ND, teacher_ND)
        return Term((distance + student_shortfall + teacher_shortfall) / 2, Unit.TOKENS)


def _unit_rows(rows_ND: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """x̂ of every row, and Σ 1 − ‖x̂‖², which is exactly 0, with its gradient, where no row is shorter than ε."""
    rows_ND = rows_ND.float()
    squares_N1 = rows_ND.square().sum(dim=-1, keepdim=True)
    shortfall = (1 - squares_N1 / COSINE_EPS**2).clamp_min(0.0).sum()
    # The clamp stands inside of the root, whose slope at 0 is infinite.
    return rows_ND / squares_N1.clamp_min(COSINE_EPS**2).sqrt(), shortfall


class EmbeddingMse(Objective):
    """Mean squared difference of what enters the first layer (Jiao et al. 2020 (TinyBERT), eq. 9).

        L = 1/(N·D) · Σ_i ‖e_s,i W − e_t,i‖²

    with i over the N real tokens and D the teacher's width; W is the identity where widths are equal.
    """

    needs = Needs(student=ModelNeeds(embeddings=True), teacher=ModelNeeds(embeddings=True))

    def __init__(self, name: str, context: ObjectiveContext) -> None:
        super().__init__(name, context)
        self.projections = width_projections(context, ["embeddings"])

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Term]:
        projection = self.projections["embeddings"] if self.projections else None
        return {self.name: mean_square_term(student.embeddings, teacher.embeddings, batch, projection)}


class HiddenMseCombine(Objective):
    """All chosen student layers side by side against a learned map of all chosen teacher layers (Wang et al. 2023, "combine").

        L = 1/(N·Σ_s D_s) · Σ_i ‖[h_s,i]_s − W [h_t,i]_t‖²

    with i over the N real tokens and W of (Σ_s D_s, Σ_t D_t), trained with the student.

    Known limit: with a learned map on the target's side, h_s = 0 with W = 0 is a minimum, and so is every student whose states are a
    linear function of the teacher's. Where layers end in a LayerNorm (post-LN models) states keep their length and cannot shrink to 0;
    for pre-LN models prefer `hidden_mse`.

    One product with the layers side by side: a product for each layer, added up, was no faster, and the copy it saves costs less than a
    hundredth of the product. W has nn.Linear's initial values: the student's gradient does not pass through it.
    """

    def __init__(self, name: str, context: ObjectiveContext) -> None:
        super().__init__(name, context)
        self.needs = Needs(student=ModelNeeds(hidden=frozenset(context.student_layers)),
                           teacher=ModelNeeds(hidden=frozenset(context.teacher_layers)))
        self.projection = nn.Linear(
            len(context.teacher_layers) * context.teacher.width, len(context.student_layers) * context.student.width, bias=False)

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Term]:
        student_NS = torch.cat([real_tokens(student.hidden[layer], batch) for layer in self.context.student_layers], dim=-1)
        teacher_NT = torch.cat([real_tokens(teacher.hidden[layer], batch) for layer in self.context.teacher_layers], dim=-1)
        target_NS = nn.functional.linear(teacher_NT.float(), self.projection.weight.float())
        return {self.name: Term(squared_distance(student_NS, target_NS), Unit.TOKENS, per_unit=student_NS.shape[-1])}
