"""Losses between self-attention relations of paired encoder layers, in heads that belong to neither model."""

import torch

from pretraining.objectives.attention import AttentionObjective, hidden_keys, relation_kl, without_padding
from pretraining.signals import Attention, Batch, Term, Unit


class MiniLmV2(AttentionObjective):
    """Kullback-Leibler divergence of query, key and value relations (MiniLMv2, arXiv 2012.15828, eq. 4 to 6).

        L = Σ over pairs (s, t) of Σ_X∈{Q,K,V} 1/(A_r·N) · Σ_a,i KL(σ(X_t,a X_t,aᵀ/√d_t)_i ‖ σ(X_s,a X_s,aᵀ/√d_s)_i)

    with i over the N real tokens and the relation over those that both models see from i. All heads of a model side by side are one
    vector of its width D, which is cut anew into A_r = `relation_heads` heads of d = D/A_r: A_r divides both widths, and need not be
    either model's number of heads. The terms are `name/query`, `name/key` and `name/value`.
    """

    def compare(self, name: str, student: Attention, teacher: Attention, batch: Batch) -> dict[str, Term]:
        hidden, heads = hidden_keys(batch, student, teacher), self.context.relation_heads
        terms = {}
        for part in ("query", "key", "value"):
            student_BALd, teacher_BALd = (
                without_padding(in_relation_heads(getattr(attention, part), heads), batch) for attention in (student, teacher))
            terms[f"{name}/{part}"] = Term(relation_kl(student_BALd, teacher_BALd, hidden), Unit.TOKENS, per_unit=heads)
        return terms


def in_relation_heads(states_BHLd: torch.Tensor, heads: int) -> torch.Tensor:
    """(B, H, L, d) -> (B, heads, L, H·d/heads): a token's heads are joined before its vector is cut, so no two tokens mix."""
    return states_BHLd.transpose(1, 2).flatten(2).unflatten(2, (heads, -1)).transpose(1, 2)
