"""What a student reads and what every student is: sequences without special treatment of padding in, logits out."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from evaluation.fine_tuning.batching import gather
from evaluation.fine_tuning.tokens import Tokens
from task_distillation.students.config import StudentConfig


class Part(NamedTuple):
    """B sequences in one tensor. What stands behind a sequence's end is padding and reaches no output."""

    ids: torch.Tensor
    """(B, L) int64."""
    lengths: torch.Tensor
    """(B,) int64: real tokens, 1 to L."""
    segments: torch.Tensor | None = None
    """(B, L) int64, of an encoder that has any."""


@dataclass(frozen=True)
class ParameterCounts:
    """Numbers in the weights, frozen ones included."""

    total: int
    without_embeddings: int
    """As papers count small students: Tang et al.'s BiLSTM of 0.96 M."""


class Student(nn.Module):
    """`forward(parts)` gives fp32 logits (B, outputs) in the order of the task's classes; a regression has one, its score."""

    config: StudentConfig
    """Set by `build_student` and `load_student`."""
    pad_token_id = 0

    def embeddings(self) -> nn.Module:
        """The module that holds the word embeddings and nothing else."""
        raise NotImplementedError

    def parameter_counts(self) -> ParameterCounts:
        total = sum(weight.numel() for weight in self.parameters())
        return ParameterCounts(total, total - sum(weight.numel() for weight in self.embeddings().parameters()))


def collate_parts(rows: list[Tokens], chosen: np.ndarray, pad_token_id: int) -> tuple[Part, ...]:
    """The rows `chosen` of every part as `encode` gave them, on the CPU, each part padded right to its own longest row."""
    return tuple(_collate(tokens, chosen, pad_token_id) for tokens in rows)


def _collate(tokens: Tokens, chosen: np.ndarray, pad_token_id: int) -> Part:
    lengths = tokens.lengths[chosen]
    positions, mask = gather(tokens.starts, chosen, int(lengths.max()))

    def tensor(values: np.ndarray, padding: int) -> torch.Tensor:
        return torch.from_numpy(np.where(mask, values[positions], padding).astype(np.int64))

    segments = None if tokens.segments is None else tensor(tokens.segments, 0)
    return Part(tensor(tokens.ids, pad_token_id), torch.from_numpy(lengths), segments)
