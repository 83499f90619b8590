"""The losses of fine-tuning and of distillation during it, one number for each example, so that the mean over an update is the caller's.

A classification is one choice among classes, a span two choices (start and end) among the positions of a window; both have logits
(B, choices, options), and an example's loss is the mean over its choices. Padding of a window has `MASKED` as its logit, so its probability
is exactly 0 in every softmax. A regression has one output (B, 1, 1).

    labels     cross entropy, or for a regression (output - label)²
    teacher    T² KL(softmax(teacher / T) ‖ softmax(student / T))  (Hinton, Vinyals and Dean 2015, 2; for spans Sanh et al. 2019, 3),
               or for a regression (output - teacher's output)²
    together   (1 - α) labels + α teacher
"""

import torch
from torch.nn.functional import cross_entropy, kl_div, log_softmax

MASKED = -1e30
"""Logit of what cannot be chosen: finite, so that a difference of two is 0 and not nan."""


def label_loss(kind: str, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """fp32 (B) from logits (B, choices, options) and labels (B, choices): int64 options, or fp32 numbers of a regression."""
    if kind == "regression":
        return (logits[:, 0] - labels).square().mean(dim=1)
    return cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view(labels.shape).mean(dim=1)


def teacher_loss(kind: str, logits: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """fp32 (B) from the student's and the teacher's logits, both (B, choices, options)."""
    if kind == "regression":
        return (logits - teacher).square().flatten(1).mean(dim=1)
    student, target = (log_softmax(values / temperature, dim=-1) for values in (logits, teacher))
    return temperature**2 * kl_div(student, target, reduction="none", log_target=True).sum(dim=-1).mean(dim=1)
