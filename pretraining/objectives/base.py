"""What every objective is: a module that says what it needs and turns signals into loss terms."""

from abc import abstractmethod
from dataclasses import dataclass

from torch import nn

from pretraining.signals import Batch, Needs, Signals, Term


@dataclass(frozen=True)
class ObjectiveContext:
    """What objectives are built from. `pairs` are ((student layer, teacher layer), ...)."""

    pairs: tuple[tuple[int, int], ...] = ()
    temperature: float = 1.0


class Objective(nn.Module):
    """Built from an `ObjectiveContext`. Parameters of an objective (projections) are trained with the run and exported never."""

    needs: Needs

    @abstractmethod
    def forward(self, student: Signals, teacher: Signals | None, batch: Batch) -> dict[str, Term]:
        """Loss terms of one micro-batch by name; reductions in fp32, padding counted nowhere."""
