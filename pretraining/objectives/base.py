"""What every objective is: a module that says what it needs and turns signals into loss terms."""

from abc import abstractmethod
from dataclasses import dataclass

from torch import nn

from pretraining.objectives.catalog import DEFAULT_TRUNCATED_TARGET
from pretraining.signals import Batch, Needs, Signals, Term


@dataclass(frozen=True)
class Shape:
    """What an objective may have to know of a model."""

    layers: int
    width: int
    heads: int


@dataclass(frozen=True)
class ObjectiveContext:
    """What one objective is built from.

    `pairs` are ((student layer, teacher layer), ...); `student_layers` and `teacher_layers` are the two sides of it, and may be unequally
    long for objectives that concatenate layers instead of pairing them. `teacher` is None where there is none.
    """

    student: Shape
    teacher: Shape | None = None
    pairs: tuple[tuple[int, int], ...] = ()
    student_layers: tuple[int, ...] = ()
    teacher_layers: tuple[int, ...] = ()
    temperature: float = 1.0
    all_positions: bool = False  # logits at all real tokens instead of masked positions
    truncation_factor: int | None = None  # how many of the teacher's probabilities count, and what becomes of the others
    truncated_target: str = DEFAULT_TRUNCATED_TARGET
    relation_heads: int = 1
    contrastive_width: int = 128
    contrastive_temperature: float = 0.07


class Objective(nn.Module):
    """Built from (name, context). Parameters of an objective (projections) are trained with the run and exported never.

    Every term is called `name`, or `name/part` where there are several.
    """

    needs: Needs

    def __init__(self, name: str, context: ObjectiveContext) -> None:
        super().__init__()
        self.name, self.context = name, context

    @abstractmethod
    def forward(self, student: Signals, teacher: Signals | None, batch: Batch) -> dict[str, Term]:
        """Loss terms of one micro-batch by name; padding counted nowhere. Called in fp32: autocast is off, and what comes in 16 bits
        must be made `.float()` before it is summed."""

    def pair_name(self, pair: tuple[int, int]) -> str:
        """The name of a pair's term: `name` for a single pair, `name/S-T` for several."""
        return self.name if len(self.context.pairs) == 1 else f"{self.name}/{pair[0]}-{pair[1]}"
