"""Learned linear maps from the student's width to the teacher's, where the two differ."""

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn.functional import linear

from pretraining.objectives.base import ObjectiveContext


class Projection(nn.Linear):
    """x W for x of (..., inputs), without bias and in fp32 whatever the formats of x and W (TinyBERT's W_h and W_e, eq. 8 and 9).

    W starts semi-orthogonal (WᵀW = 1 to the wider side): it is Wᵀ through which the error reaches the student, and in this way no
    direction of the student's states is pulled harder than another. Independent entries have a condition number of
    (1 + √r) / (1 − √r) instead, 5.8 for widths in the ratio r = 1/2.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)

    def reset_parameters(self) -> None:
        nn.init.orthogonal_(self.weight)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return linear(states.float(), self.weight.float())


def width_projections(context: ObjectiveContext, names: Iterable[str]) -> nn.ModuleDict:
    """One `Projection` from the student's width to the teacher's for every name; none at all where the widths are equal."""
    if context.student.width == context.teacher.width:
        return nn.ModuleDict()
    return nn.ModuleDict({name: Projection(context.student.width, context.teacher.width) for name in names})
