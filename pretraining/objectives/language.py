"""Losses that learn from the text's own tokens and need no teacher."""

import torch
from torch.nn.functional import cross_entropy

from dataset.errors import UserError
from pretraining.objectives.base import Objective, ObjectiveContext
from pretraining.objectives.row_losses import sum_over_rows
from pretraining.signals import Batch, ModelNeeds, Needs, Signals, Term, Unit

_NO_LABEL = -100


class MaskedLm(Objective):
    """Cross-entropy with the original token at masked positions (Devlin et al. 2019, BERT, §3.1, task 1).

        L = 1/M · Σ_i −log softmax(z_i)[y_i]
    """

    def __init__(self, name: str, context: ObjectiveContext) -> None:
        super().__init__(name, context)
        self.needs = Needs(student=ModelNeeds(logits=True))

    def forward(self, student: Signals, teacher: Signals | None, batch: Batch) -> dict[str, Term]:
        return {self.name: Term(_cross_entropy_sum(student.logits, batch.labels), Unit.MASKED)}


class CausalLm(Objective):
    """Cross-entropy with the next token (Radford et al. 2019, GPT-2, §2, eq. 1), over the K real tokens whose next one is real.

        L = 1/K · Σ_i −log softmax(z_i)[x_{i+1}]
    """

    def __init__(self, name: str, context: ObjectiveContext) -> None:
        super().__init__(name, context)
        self.needs = Needs(student=ModelNeeds(token_logits=True))

    def forward(self, student: Signals, teacher: Signals | None, batch: Batch) -> dict[str, Term]:
        # Labels are spread over all real tokens, as to gather the logits would copy nearly all of them.
        labels_N = torch.full_like(batch.token_index, _NO_LABEL)
        labels_N[batch.next_in_tokens] = batch.next_labels
        return {self.name: Term(_cross_entropy_sum(student.token_logits, labels_N), Unit.NEXT)}


class NextSentence(Objective):
    """Cross-entropy with the label of next-sentence prediction (Devlin et al. 2019, BERT, §3.1, task 2).

        L = 1/B · Σ_b −log softmax(s_b)[n_b],   n_b = 1 for a random second segment
    """

    def __init__(self, name: str, context: ObjectiveContext) -> None:
        super().__init__(name, context)
        self.needs = Needs(student=ModelNeeds(next_sentence=True))

    def forward(self, student: Signals, teacher: Signals | None, batch: Batch) -> dict[str, Term]:
        """Raises UserError where the batch has no labels."""
        if batch.next_sentence_labels is None:
            raise UserError(f"{self.name}: a shard has no next_sentence_labels; shards made with pairs of segments would work")
        loss = cross_entropy(student.next_sentence.float(), batch.next_sentence_labels, reduction="sum")
        return {self.name: Term(loss, Unit.SEQUENCES)}


def _cross_entropy_sum(logits_RV: torch.Tensor, labels_R: torch.Tensor) -> torch.Tensor:
    """Σ −log softmax(z)[y] over rows (R, V) with labels (R,) int64; rows labelled _NO_LABEL count nothing."""
    return sum_over_rows(_value, _gradient, logits_RV, labels_R)


def _value(logits_RV: torch.Tensor, labels_R: torch.Tensor) -> torch.Tensor:
    return cross_entropy(logits_RV, labels_R, ignore_index=_NO_LABEL, reduction="sum")


def _gradient(logits_RV: torch.Tensor, labels_R: torch.Tensor) -> torch.Tensor:
    """q − 1[y], 0 in rows without a label."""
    q_RV = torch.softmax(logits_RV, dim=-1)
    counted_R1 = (labels_R != _NO_LABEL).unsqueeze(1).to(q_RV.dtype)
    return q_RV.mul_(counted_R1).scatter_add_(1, labels_R.clamp(min=0).unsqueeze(1), -counted_R1)
