"""Losses between the teacher's and the student's distributions over the vocabulary."""

import torch

from pretraining.objectives.base import Objective, ObjectiveContext
from pretraining.signals import Batch, ModelNeeds, Needs, Signals, Term, Unit


class LogitKl(Objective):
    """Kullback-Leibler divergence at masked positions, softened by a temperature (Hinton et al. 2015, §2; DistilBERT's L_ce).

        L = T²/M · Σ_i Σ_v p_i(v) · (log p_i(v) − log q_i(v)),   p = softmax(z_t/T), q = softmax(z_s/T)

    with i over the M masked positions. T² keeps the gradient's size independent of T.
    """

    needs = Needs(student=ModelNeeds(logits=True), teacher=ModelNeeds(logits=True))

    def __init__(self, context: ObjectiveContext) -> None:
        super().__init__()
        self.temperature = context.temperature

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Term]:
        log_q_MV = torch.log_softmax(student.logits.float() / self.temperature, dim=-1)
        log_p_MV = torch.log_softmax(teacher.logits.float() / self.temperature, dim=-1)
        divergence = torch.nn.functional.kl_div(log_q_MV, log_p_MV, reduction="sum", log_target=True)
        return {"logit": Term(divergence * self.temperature**2, Unit.MASKED)}
