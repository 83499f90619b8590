"""Random tokens for distillation (--aug): half of the training sequences have most of their words replaced, and the teacher says what it
makes of them.

Of a sequence that is drawn, 100 of 128 words are replaced: the original put 100 random ids into each sequence of 128, wherever they
fell. Special tokens, [MASK] and padding stay here, and no random id is one of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dataset.masking import generator

SEQUENCE_SHARE = 0.5
TOKEN_SHARE = 100 / 128


@dataclass(frozen=True)
class Augmentation:
    """`excluded_ids`: sorted ids, special tokens among them, that are never replaced or put in; `vocab_size`: random ids are below it."""

    seed: int
    excluded_ids: np.ndarray
    vocab_size: int

    @cached_property
    def _random_ids(self) -> np.ndarray:
        return np.setdiff1d(np.arange(self.vocab_size), self.excluded_ids)

    def apply(self, input_ids: np.ndarray, input_mask: np.ndarray, keys: Sequence[Sequence[int]]) -> np.ndarray:
        """`input_ids` (n, L) int32 with random words in half of the rows; `input_mask` (n, L), nonzero at real tokens.

        `keys`: one key a row; a row's draw depends on its key, its words and their number, and on nothing around them.
        """
        augmented = input_ids.copy()
        replaceable = (input_mask != 0) & ~np.isin(input_ids, self.excluded_ids)
        for row, key in enumerate(keys):
            rng = generator(key)
            if rng.random() >= SEQUENCE_SHARE:
                continue
            words = np.flatnonzero(replaceable[row])
            ranks, substitutes = rng.random((2, len(words)))
            chosen = words[np.argsort(ranks, kind="stable")[: round(TOKEN_SHARE * len(words))]]
            augmented[row, chosen] = self._random_ids[(substitutes[: len(chosen)] * len(self._random_ids)).astype(np.int64)]
        return augmented
