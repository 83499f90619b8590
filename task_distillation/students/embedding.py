"""Word embeddings in Kim's (2014) four modes: random, static, non-static, multichannel.

Multichannel is static and non-static vectors of the same file side by side, so twice as wide, as in d-bert; under a convolution that is
Kim's two channels with filters of their own. The vector of padding is zero and stays so.
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from task_distillation.students.vectors import read_vectors
from task_distillation.students.vocabulary import PAD_ID

SPREAD = 0.25
"""Vectors of words without one are uniform in (-0.25, 0.25), of about the variance of word2vec's: Kim 2014, section 3.1."""


class WordEmbedding(nn.Module):
    """Ids (B, L) -> vectors (B, L, `width`)."""

    def __init__(self, vocabulary: int, mode: str, size: int) -> None:
        super().__init__()
        self.static = nn.Embedding(vocabulary, size, padding_idx=PAD_ID) if mode in ("static", "multichannel") else None
        self.trained = nn.Embedding(vocabulary, size, padding_idx=PAD_ID) if mode != "static" else None
        self.width = 2 * size if mode == "multichannel" else size
        if self.static is not None:
            self.static.weight.requires_grad_(False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        found = [channel(ids) for channel in (self.static, self.trained) if channel is not None]
        return found[0] if len(found) == 1 else torch.cat(found, dim=-1)

    @torch.no_grad()
    def start_from(self, vectors: np.ndarray) -> None:
        """Every channel begins as `vectors`, fp32 (V, size)."""
        for channel in (self.static, self.trained):
            if channel is not None:
                channel.weight.copy_(torch.from_numpy(vectors))


def start_vectors(words: dict[str, int], size: int, seed: int, path: Path | None) -> tuple[np.ndarray, int]:
    """(fp32 (V, `size`): the vectors of the file `path` where it has the word, drawn from `seed` elsewhere, 0 for padding; how many the
    file had). A word's random vector depends on the seed and its id alone, so another file changes no other word."""
    vectors = np.random.default_rng(seed).uniform(-SPREAD, SPREAD, (len(words), size)).astype(np.float32)
    vectors[PAD_ID] = 0
    if path is None:
        return vectors, 0
    return vectors, read_vectors(path, {word: row for word, row in words.items() if row != PAD_ID}, size, vectors)
