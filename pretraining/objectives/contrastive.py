"""Losses that tell a sample's teacher states from those of other samples."""

import torch
from torch.nn.functional import cross_entropy, normalize

from pretraining.objectives.base import Objective, ObjectiveContext
from pretraining.objectives.projection import Projection
from pretraining.signals import Batch, ModelNeeds, Needs, Signals, Term, Unit

# A projected state shorter than this is divided by it instead of by its length.
EPS = 1e-6


class Crd(Objective):
    """Contrastive representation distillation as InfoNCE (Oord et al. 2018, eq. 4; Tian et al. 2020 (CRD)).

        L = −1/B · Σ_b log( exp(z_s,b·z_t,b/τ) / Σ_c exp(z_s,b·z_t,c/τ) ),   z = W [h_l,0]_l / ‖W [h_l,0]_l‖

    with b and c over the B sequences of the micro-batch and [h_l,0]_l the first token's states of all chosen layers of one model side by
    side. W_s and W_t map to `contrastive_width` and are both trained; τ is `contrastive_temperature`. The other sequences of the
    micro-batch are the negatives: no labels and no memory bank, so larger micro-batches make a harder task.

    Bounds: log(1 + (B−1)·exp(−2/τ)) ≤ L ≤ log(1 + (B−1)·exp(2/τ)). A student that equals its teacher, with W_s = W_t, is at
    log B or below, and not at 0. A single sequence has no negatives: exactly 0, and no gradient.
    """

    def __init__(self, name: str, context: ObjectiveContext) -> None:
        super().__init__(name, context)
        self.needs = Needs(student=ModelNeeds(hidden=frozenset(context.student_layers)),
                           teacher=ModelNeeds(hidden=frozenset(context.teacher_layers)))
        self.student_projection = Projection(len(context.student_layers) * context.student.width, context.contrastive_width)
        self.teacher_projection = Projection(len(context.teacher_layers) * context.teacher.width, context.contrastive_width)

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Term]:
        anchors_BC = _unit_vectors(self.student_projection, student, self.context.student_layers)
        keys_BC = _unit_vectors(self.teacher_projection, teacher, self.context.teacher_layers)
        similarity_BB = anchors_BC @ keys_BC.T / self.context.contrastive_temperature
        own = torch.arange(len(similarity_BB), device=similarity_BB.device)
        return {self.name: Term(cross_entropy(similarity_BB, own, reduction="sum"), Unit.SEQUENCES)}


def _unit_vectors(projection: Projection, signals: Signals, layers: tuple[int, ...]) -> torch.Tensor:
    first = torch.cat([signals.hidden[layer][:, 0] for layer in layers], dim=-1)
    return normalize(projection(first), dim=-1, eps=EPS)
