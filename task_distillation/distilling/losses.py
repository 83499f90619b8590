"""The objectives of `distil` as loss terms: sums over the rows of a micro-batch; the trainer divides by the global batch's count."""

import torch

from evaluation.fine_tuning.losses import label_loss, teacher_loss
from pretraining.signals import Term, Unit


def task_term(name: str, kind: str, logits: torch.Tensor, teacher: torch.Tensor | None, labels: torch.Tensor | None,
              temperature: float) -> Term:
    """The objective `name` of `catalog` for a task of `kind`, from fp32 logits (B, C).

    `teacher`: fp32 (B, C); `labels`: (B,) int64 classes or fp32 scores; None where the objective does not ask for them.
    """
    if name == "logit_mse":
        return Term((logits - teacher).square().sum(), Unit.SEQUENCES, per_unit=logits.shape[1])
    choices = logits.unsqueeze(1)
    if name == "kl":
        rows = teacher_loss(kind, choices, teacher.unsqueeze(1), temperature)
    else:
        rows = label_loss(kind, choices, (teacher.argmax(dim=1) if name == "hard_labels" else labels).unsqueeze(1))
    return Term(rows.sum(), Unit.SEQUENCES)
