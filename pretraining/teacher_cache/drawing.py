"""Importance-sampled ids of a teacher's distribution: an unbiased stand-in for all of it (Anshumann et al. 2025, Sparse Logit Sampling,
ACL 2025, arXiv 2503.16870: random sampling knowledge distillation).

N ids are drawn from q = softmax(z/T), and id v that came c(v) times has the weight

    w(v) = c(v)/N · p(v)/q(v),   p = softmax(z),   so that E[w(v)] = p(v) for every v of the vocabulary

The cross-entropy with w has the expected value and the expected gradient of that with p, whatever the student; the K largest have
neither. Below T = 1 the mean is p still, but the few draws of what q all but leaves out carry all of its weight p/q, and any sample of
usual size is without them: a variance that grows without bound as T falls, towards the one largest entry. Draws are stratified (one in
each N-th of the cumulated q), which leaves E unchanged and lowers the variance. At T = 1 the weights add up to 1.
"""

import torch


def draw(logits_MV: torch.Tensor, uniform_MN: torch.Tensor, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids (M, N) int64, weights (M, N) fp32) of logits (M, V); numbers (M, N) float64 in [0, 1) decide what is drawn.

    Each id stands in a row once, in ascending order; what is left of the row has the id 0 and the weight 0.
    """
    if not len(logits_MV):
        return uniform_MN.long(), uniform_MN.float()
    logits_MV = logits_MV.float()
    log_q = torch.log_softmax(logits_MV / temperature, dim=-1)
    cumulated_MV = log_q.double().exp_().cumsum(dim=-1)
    count = uniform_MN.shape[1]
    places_MN = (torch.arange(count, device=logits_MV.device) + uniform_MN) / count
    # Rounding must not reach past the last entry that has a probability.
    targets_MN = torch.minimum(places_MN * cumulated_MV[:, -1:], cumulated_MV[:, -1:] * (1 - 1e-15))
    drawn_MN = torch.searchsorted(cumulated_MV, targets_MN, right=True).clamp_(max=logits_MV.shape[1] - 1)
    is_new = torch.ones_like(drawn_MN, dtype=torch.bool)
    is_new[:, 1:] = drawn_MN[:, 1:] != drawn_MN[:, :-1]
    place_MN = is_new.long().cumsum(dim=1) - 1
    ids_MN = torch.zeros_like(drawn_MN).scatter_(1, place_MN, drawn_MN)
    counts_MN = torch.zeros_like(uniform_MN, dtype=torch.float32).scatter_add_(1, place_MN, torch.ones_like(drawn_MN, dtype=torch.float32))
    log_ratio_MN = (torch.log_softmax(logits_MV, dim=-1).gather(1, ids_MN) - log_q.gather(1, ids_MN))
    return ids_MN, torch.where(counts_MN > 0, counts_MN / count * log_ratio_MN.exp(), 0.0)
