"""Masked language modelling: the loss that needs no teacher."""

import torch

from pretraining.objectives.base import Objective, ObjectiveContext
from pretraining.signals import Batch, ModelNeeds, Needs, Signals, Term, Unit


class MaskedLm(Objective):
    """Cross-entropy with the original token at masked positions (Devlin et al. 2019, §3.1, task 1).

        L = 1/M · Σ_i −log softmax(z_i)[y_i]
    """

    needs = Needs(student=ModelNeeds(logits=True))

    def __init__(self, context: ObjectiveContext) -> None:
        super().__init__()

    def forward(self, student: Signals, teacher: Signals | None, batch: Batch) -> dict[str, Term]:
        loss = torch.nn.functional.cross_entropy(student.logits.float(), batch.labels, reduction="sum")
        return {"mlm": Term(loss, Unit.MASKED)}
