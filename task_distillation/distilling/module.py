"""What is trained: the student, whose forward pass is one micro-batch's loss."""

import torch
from torch import nn

from pretraining.objectives.catalog import Part
from pretraining.signals import Unit
from task_distillation.distilling.batches import TextBatch
from task_distillation.distilling.losses import task_term
from task_distillation.students.part import Student


class TaskModule(nn.Module):
    """`forward` gives (loss to call backward on, {term: share of the global mean}), as the trainer takes it."""

    teacher_needs = None
    """The teacher spoke before: its logits come with the batch."""

    def __init__(self, student: Student, methods: list[Part], kind: str, temperature: float) -> None:
        super().__init__()
        self.student, self.methods, self.kind, self.temperature = student, methods, kind, temperature

    def begin_step(self, progress: float) -> None:
        """Nothing changes with the budget."""

    def not_begun(self) -> list[str]:
        """Every objective is learnt from all the time."""
        return []

    def idle_parameters(self) -> list[nn.Parameter]:
        """Every trainable weight is reached by every objective."""
        return []

    def forward(
        self, batch: TextBatch, teacher: None, counts: dict[Unit, float],
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        logits = self.student(batch.parts).float()
        total, shares = None, {}
        for part in self.methods:
            term = task_term(part.name, self.kind, logits, batch.logits, batch.labels, self.temperature)
            share = term.sum / max(1.0, term.count(counts))
            shares[part.name] = share.detach()
            total = part.weight * share if total is None else total + part.weight * share
        return total, shares
