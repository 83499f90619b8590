"""Losses between hidden states of paired encoder layers.

Masked by multiplication and not by gathering rows: a gather costs a copy of both (B, L, D) tensors and a host synchronisation for
its shape, the product fuses into the difference.
"""

from pretraining.objectives.base import Objective, ObjectiveContext
from pretraining.signals import Batch, ModelNeeds, Needs, Signals, Term, Unit


class HiddenMse(Objective):
    """Mean squared difference of hidden states (Wang et al. 2023; TinyBERT eq. 3 with the identity for its projection).

        L = Σ over pairs (s, t) of  1/(N·D) · Σ_i ‖h_s,i − h_t,i‖²

    with i over the N real tokens and D the common width. Each pair is one term, `hidden_mse` for a single pair and
    `hidden_mse/S-T` for several.
    """

    def __init__(self, context: ObjectiveContext) -> None:
        super().__init__()
        self.pairs = context.pairs
        self.needs = Needs(
            student=ModelNeeds(hidden=frozenset(student for student, _ in self.pairs)),
            teacher=ModelNeeds(hidden=frozenset(teacher for _, teacher in self.pairs)),
        )

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Term]:
        terms = {}
        for student_layer, teacher_layer in self.pairs:
            student_BLD, teacher_BLD = student.hidden[student_layer].float(), teacher.hidden[teacher_layer].float()
            difference_BLD = student_BLD - teacher_BLD
            if batch.has_padding:
                # Not a product with the mask: inf or nan at a padded position would survive it.
                difference_BLD = difference_BLD.masked_fill(~batch.mask.unsqueeze(-1), 0.0)
            name = "hidden_mse" if len(self.pairs) == 1 else f"hidden_mse/{student_layer}-{teacher_layer}"
            terms[name] = Term(difference_BLD.square().sum(), Unit.TOKENS, per_unit=difference_BLD.shape[-1])
        return terms
