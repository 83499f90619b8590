"""What is trained: the student, whose forward pass is one micro-batch's loss."""

import torch
from torch import nn

from pretraining.control import AgreedError
from pretraining.objectives.catalog import Part
from pretraining.signals import Unit
from task_distillation.distilling.batches import TextBatch
from task_distillation.distilling.losses import task_term
from task_distillation.students.part import Student


class TaskModule(nn.Module):
    """`forward` gives (loss to call backward on, {term: share of the global mean}), as the trainer takes it.

    `vocabulary`: a hash of which word has which embedding. It is saved with the weights, which mean nothing under another one.
    """

    teacher_needs = None
    """The teacher spoke before: its logits come with the batch."""

    def __init__(self, student: Student, methods: list[Part], kind: str, temperature: float, vocabulary: str) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.student, self.methods, self.kind, self.temperature = student, methods, kind, temperature

    def get_extra_state(self) -> str:
        """What a checkpoint holds beside the weights."""
        return self.vocabulary

    def set_extra_state(self, state: str) -> None:
        """UserError for the checkpoint of a student with other words: also where --allow_changes was given."""
        if state != self.vocabulary:
            raise AgreedError("the vocabulary is not the saved run's: the embeddings there belong to other words; bring the old "
                              "--transfer_set or --student_path back, or start another run with --current_run_id")

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
