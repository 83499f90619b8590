"""Rows of a transfer set as micro-batches: the whole set lies in memory as ids (a million rows of twenty words take 80 MB)."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch

from evaluation.fine_tuning.tokens import Tokens
from pretraining.batches.order import Segment
from pretraining.signals import UNITS, Unit
from task_distillation.students.part import Part, collate_parts


@dataclass(frozen=True)
class TextRows:
    """N rows: `parts` as `encode` gives them; `labels` (N,) int64 or fp32, `logits` (N, C) fp32, each None where nothing asks for it."""

    parts: list[Tokens]
    labels: np.ndarray | None = None
    logits: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.parts[0].lengths)

    def widths(self) -> np.ndarray:
        """(N,) int64: tokens of each row, over all its parts."""
        return np.sum([tokens.lengths for tokens in self.parts], axis=0)


@dataclass(frozen=True)
class ChosenRows:
    """Some rows of a set, by number."""

    rows: TextRows
    numbers: np.ndarray

    def take(self, places: np.ndarray) -> "ChosenRows":
        """The rows at these places, in their order."""
        return replace(self, numbers=self.numbers[places])


class TextReader:
    """The one shard of a transfer set, for the loader."""

    looks_ahead = False

    def __init__(self, rows: TextRows) -> None:
        self.rows, self._widths = rows, rows.widths()

    def survey(self, segments: Iterable[Segment]) -> tuple[np.ndarray, None]:
        """(widths (B,) int64, nothing): what grouping by length must know of a global batch."""
        return self._widths[_numbers(segments)], None

    def read(self, segments: Iterable[Segment], chosen: None = None) -> ChosenRows:
        return ChosenRows(self.rows, _numbers(segments))


def _numbers(segments: Iterable[Segment]) -> np.ndarray:
    return np.concatenate([segment.rows for segment in segments])


@dataclass(frozen=True)
class TextBatch:
    """One micro-batch of B rows. labels: (B,) int64 or fp32, logits: (B, C) fp32, or None. counts: all units but two are 0."""

    parts: tuple[Part, ...]
    labels: torch.Tensor | None
    logits: torch.Tensor | None
    counts: dict[Unit, int]
    micro_index: int

    def to(self, device: torch.device) -> "TextBatch":
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "TextBatch":
        return self._each(torch.Tensor.pin_memory)

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "TextBatch":
        def changed(tensor: torch.Tensor | None) -> torch.Tensor | None:
            return None if tensor is None else change(tensor)

        return replace(self, parts=tuple(Part(*map(changed, part)) for part in self.parts), labels=changed(self.labels),
                       logits=changed(self.logits))


class Collate:
    """Rows and the number of a micro-batch in the global batch -> `TextBatch` on the CPU."""

    def __init__(self, pad_token_id: int) -> None:
        self.pad_token_id = pad_token_id

    def __call__(self, rows: ChosenRows, micro_index: int) -> TextBatch:
        whole, numbers = rows.rows, rows.numbers
        parts = collate_parts(whole.parts, numbers, self.pad_token_id)
        counts = dict.fromkeys(UNITS, 0) | {Unit.SEQUENCES: len(numbers), Unit.TOKENS: sum(int(part.lengths.sum()) for part in parts)}
        return TextBatch(parts, *(None if array is None else torch.from_numpy(array[numbers]) for array in (whole.labels, whole.logits)),
                         counts=counts, micro_index=micro_index)
