"""What becomes of a teacher's distribution of which only some entries are known: the K largest, or ids that were drawn from it.

    unnormalised   p(v) for the K entries and nothing for the others, as pipelines with stored teachers have it
    renormalised   p(v) / Σ_topK p: the others are said to be impossible
    rest           K + 1 classes: the K entries, and all others as one, with the probability that is left; the student's likewise

`rest` is exact wherever only the mass of the others matters: its gradient for the K entries is that of the whole distribution, and the
remaining mass is shared out among the others as the student shares it. Which of them is nearest to the whole distribution was measured,
see docs/teacher_cache.md.
"""

import torch

from pretraining.objectives.row_losses import pieces
from pretraining.signals import SparseTargets


def keep_largest(teacher_MV: torch.Tensor, kept: int) -> SparseTargets:
    """The `kept` largest probabilities of logits (M, V) at temperature 1, largest first, and what is left for the others.

    `kept` is at most V; the remaining probability of a row of which nothing is left is 0.
    """
    found: list[tuple[torch.Tensor, ...]] = []
    for (teacher_RV,) in pieces(teacher_MV):
        top_RK, ids_RK = torch.topk(teacher_RV, kept, dim=-1)
        others_R1 = _others(teacher_RV, ids_RK)[1]
        # The same as over all V once more, which would take a quarter of the time of all this.
        total_R1 = torch.logaddexp(torch.logsumexp(top_RK, dim=-1, keepdim=True), others_R1)
        found.append((ids_RK, top_RK - total_R1, (others_R1 - total_R1).squeeze(1)))
    return SparseTargets(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def keep_fewer(targets: SparseTargets, kept: int) -> SparseTargets:
    """The `kept` largest of more entries that are sorted; the others join the rest."""
    if kept >= targets.ids.shape[1]:
        return targets
    rest_M = torch.logsumexp(torch.cat([targets.logprobs[:, kept:], targets.rest.unsqueeze(1)], dim=1), dim=1)
    return SparseTargets(targets.ids[:, :kept], targets.logprobs[:, :kept], rest_M)


def merge_others(logits_RV: torch.Tensor, ids_RK: torch.Tensor) -> torch.Tensor:
    """Logits (R, K + 1) of the classes `ids_RK` and of all other entries as one; log-sum-exp, so that the softmax adds them up."""
    return torch.cat([logits_RV.gather(1, ids_RK), _others(logits_RV, ids_RK)[1]], dim=1)


def unmerge_gradient(gradient_RC: torch.Tensor, logits_RV: torch.Tensor, ids_RK: torch.Tensor) -> torch.Tensor:
    """The derivative (R, V) by the logits, from that by the logits of `merge_others` (R, K + 1)."""
    others_RV, total_R1 = _others(logits_RV, ids_RK)
    # Where there are no others their total is −inf, and −inf less it would be nan.
    shares_RV = others_RV.sub_(total_R1.clamp(min=torch.finfo(total_R1.dtype).min)).exp_()
    return shares_RV.mul_(gradient_RC[:, -1:]).scatter_(1, ids_RK, gradient_RC[:, :-1])


def _others(logits_RV: torch.Tensor, ids_RK: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(logits (R, V) with −inf at `ids_RK`, their log-sum-exp (R, 1), −inf where there are no others)."""
    others_RV = logits_RV.scatter(1, ids_RK, -torch.inf)
    return others_RV, torch.logsumexp(others_RV, dim=-1, keepdim=True)
