"""The vocabulary that models and objectives share: what is needed, what was captured, what a batch holds, what a loss term is.

Shapes are written with B sequences, L tokens (padding included), M masked positions of the whole micro-batch, D width, V vocabulary.
"""

from dataclasses import dataclass, field
from enum import StrEnum

import torch


@dataclass(frozen=True)
class ModelNeeds:
    """What an objective asks of one model. `hidden` are 0-based encoder layers; `logits` are taken at masked positions only."""

    hidden: frozenset[int] = frozenset()
    logits: bool = False

    def __or__(self, other: "ModelNeeds") -> "ModelNeeds":
        return ModelNeeds(self.hidden | other.hidden, self.logits or other.logits)


@dataclass(frozen=True)
class Needs:
    """What an objective asks of the student and of the teacher. `teacher` is None where no teacher is needed."""

    student: ModelNeeds = ModelNeeds()
    teacher: ModelNeeds | None = None

    def __or__(self, other: "Needs") -> "Needs":
        if self.teacher is None or other.teacher is None:
            teacher = self.teacher or other.teacher
        else:
            teacher = self.teacher | other.teacher
        return Needs(self.student | other.student, teacher)


@dataclass
class Signals:
    """What a model gave: hidden states by layer, each (B, L, D), and logits at the masked positions (M, V)."""

    hidden: dict[int, torch.Tensor] = field(default_factory=dict)
    logits: torch.Tensor | None = None


class Unit(StrEnum):
    """What a loss term is counted in. Counts are known from the batch, before any forward pass."""

    TOKENS = "tokens"  # real tokens, padding excluded
    MASKED = "masked"  # masked positions
    SEQUENCES = "sequences"


UNITS = tuple(Unit)


@dataclass
class Batch:
    """One micro-batch on its device.

    input_ids, token_type_ids: (B, L) int64. mask: (B, L) bool, True at real tokens. has_padding: False lets attention skip its mask.
    masked_index: (M,) int64, positions in the flattened (B·L,). labels: (M,) int64, the original ids there.
    counts: how many tokens, masked positions and sequences there are. micro_index: which micro-batch of the global batch this is.
    """

    input_ids: torch.Tensor
    token_type_ids: torch.Tensor
    mask: torch.Tensor
    masked_index: torch.Tensor
    labels: torch.Tensor
    counts: dict[Unit, int]
    has_padding: bool
    micro_index: int

    def to(self, device: torch.device) -> "Batch":
        """The same micro-batch on `device`; the copy overlaps with compute when the batch lies in pinned memory."""
        moved = {name: getattr(self, name).to(device, non_blocking=True)
                 for name in ("input_ids", "token_type_ids", "mask", "masked_index", "labels")}
        return Batch(**moved, counts=self.counts, has_padding=self.has_padding, micro_index=self.micro_index)

    def pin_memory(self) -> "Batch":
        pinned = {name: getattr(self, name).pin_memory()
                  for name in ("input_ids", "token_type_ids", "mask", "masked_index", "labels")}
        return Batch(**pinned, counts=self.counts, has_padding=self.has_padding, micro_index=self.micro_index)


@dataclass
class Term:
    """One named part of a loss on one micro-batch: the sum of its elements and how many there are.

    sum: scalar fp32 tensor with gradient. The number of elements is `per_unit` times the batch's count of `unit`, so that the
    count over the global batch is known before the forward pass.
    """

    sum: torch.Tensor
    unit: Unit
    per_unit: int = 1

    def count(self, counts: dict[Unit, float]) -> float:
        return counts[self.unit] * self.per_unit
