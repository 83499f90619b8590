"""Losses between similarities of hidden states: the two models' widths need not agree, and nothing is projected."""

import torch
from torch.autograd.function import FunctionCtx, once_differentiable

from pretraining.objectives.hidden import PairedStates, real_tokens, squared_distance
from pretraining.signals import Batch, Term, Unit

# Frobenius norms below it count as this large: of centred states and of alignments (Cka), of a sequence's Gram matrix (Gram).
EPS = 1e-6


class _RowProducts(torch.autograd.Function):
    """x xᵀ, (..., n, m) -> (..., n, n). Its gradient is (g + gᵀ) x: one product, where autograd takes one for each of the two x."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x @ x.mT

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        return (gradient + gradient.mT) @ x


class Cka(PairedStates):
    """One minus the linear centred kernel alignment (Kornblith et al. 2019, eq. 1 with linear kernels; Dasgupta and Cohn 2025).

        L = Σ over pairs (s, t) of  1 − ‖Yᵀ X‖²_F / (‖Xᵀ X‖_F · ‖Yᵀ Y‖_F)

    with X (N, D_s) and Y (N, D_t) the two layers' states of all N real tokens of the micro-batch, each column minus its mean. In the
    form with D × D products, which does not grow with the square of the micro-batch. Free of shift, of scale and of rotation of either
    side. Where there is nothing to align (a single token, or states that do not vary), the alignment is 0, L is 1, and no gradient flows.
    """

    def pair_term(self, pair: tuple[int, int], student_BLD: torch.Tensor, teacher_BLD: torch.Tensor, batch: Batch) -> Term:
        student_NS, teacher_NT = _centred(real_tokens(student_BLD, batch)), _centred(real_tokens(teacher_BLD, batch))
        crossed = (teacher_NT.T @ student_NS).square().sum()
        own = _RowProducts.apply(student_NS.T).square().sum() * _RowProducts.apply(teacher_NT.T).square().sum()
        # The clamp stands inside of the root, whose slope at 0 is infinite.
        loss = 1 - crossed / own.clamp_min(EPS**2).sqrt()
        return Term(loss * len(student_BLD), Unit.SEQUENCES)


def _centred(states_ND: torch.Tensor) -> torch.Tensor:
    """Columns minus their means, at a Frobenius norm of 1 or of exactly 0; in fp32."""
    states_ND = states_ND.float()
    # Counted from the first token, so that equal rows leave exactly nothing and a large common part costs no digits. The alignment
    # depends neither on this origin nor on the scale: no gradient goes through either.
    shifted_ND = states_ND - states_ND[0].detach()
    centred_ND = shifted_ND - shifted_ND.mean(dim=0)
    return centred_ND / torch.linalg.vector_norm(centred_ND.detach()).clamp_min(EPS)


class Gram(PairedStates):
    """Squared difference of normalised Gram matrices of a sequence's tokens (arXiv 2509.25253; normalised as in Tung and Mori 2019).

        L = Σ over pairs (s, t) of  1/B · Σ_b ‖G_s/‖G_s‖_F − G_t/‖G_t‖_F‖²_F,   G = H_b H_bᵀ

    with H_b (n_b, D) the states of the n_b real tokens of sequence b. Between 0 and 2, and free of scale and of rotation of either side.
    A sequence of one token gives 0; one whose states are all 0 has a normalised Gram matrix of 0. Taken as a difference of matrices:
    2 − 2⟨·,·⟩ would lose its digits where the two are alike.
    """

    def pair_term(self, pair: tuple[int, int], student_BLD: torch.Tensor, teacher_BLD: torch.Tensor, batch: Batch) -> Term:
        return Term(squared_distance(_unit_gram(student_BLD, batch), _unit_gram(teacher_BLD, batch)), Unit.SEQUENCES)


def _unit_gram(states_BLD: torch.Tensor, batch: Batch) -> torch.Tensor:
    """(B, L, L) in fp32, each matrix of Frobenius norm 1 with rows and columns of padding 0."""
    states_BLD = states_BLD.float()
    if batch.has_padding:
        states_BLD = states_BLD.masked_fill(~batch.mask.unsqueeze(-1), 0.0)
    gram_BLL = _RowProducts.apply(states_BLD)
    squares_B11 = gram_BLL.square().sum(dim=(1, 2), keepdim=True)
    return gram_BLL / squares_B11.clamp_min(EPS**2).sqrt()
