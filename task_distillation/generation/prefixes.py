"""The first tokens of the training texts, each as often as it occurs: what a language model without a start token begins its texts with."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataset.errors import UserError
from dataset.files import reason, write_json

FORMAT_VERSION = 1
DRAW_BITS = 31
"""Draws are whole numbers below 2 ** DRAW_BITS, so that choosing is exact everywhere."""


@dataclass(frozen=True)
class Prefixes:
    """`tokens`: (K,) int64 ids, rising; `counts`: (K,) int64, how many texts begin with each."""

    tokens: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, sequences: Iterable[int]) -> "Prefixes":
        """Of the first token of every text."""
        counted = sorted(Counter(sequences).items())
        return cls(np.array([token for token, _ in counted], np.int64), np.array([count for _, count in counted], np.int64))

    def choose(self, draws: np.ndarray) -> np.ndarray:
        """A token for each of `draws` (int64 below 2 ** DRAW_BITS, uniform): token k with probability counts[k] / sum(counts)."""
        edges = self.counts.cumsum()
        return self.tokens[np.searchsorted(edges, draws * edges[-1] >> DRAW_BITS, side="right")]

    def write(self, path: Path) -> None:
        """As JSON: pairs of a token's id and its count."""
        write_json(path, {"format_version": FORMAT_VERSION, "texts": int(self.counts.sum()),
                          "first_tokens": list(map(list, zip(self.tokens.tolist(), self.counts.tolist(), strict=True)))})

    @classmethod
    def read(cls, path: Path) -> "Prefixes":
        """What `write` wrote; UserError for anything else."""
        try:
            pairs = np.array(json.loads(path.read_text(encoding="utf-8"))["first_tokens"], np.int64)
        except OSError as error:
            raise UserError(f"{path}: {reason(error)}; run the command again in another --output_dir") from None
        except (ValueError, KeyError, TypeError, OverflowError):
            pairs = np.zeros((0, 2), np.int64)
        if pairs.ndim != 2 or pairs.shape[1] != 2 or not len(pairs) or (pairs < [0, 1]).any():
            raise UserError(f"{path}: not what this command wrote; remove it, and the next run makes it again")
        return cls(pairs[:, 0], pairs[:, 1])
