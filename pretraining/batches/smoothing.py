"""Masks that fall on rare tokens more often (DistilBERT): drawn over the whole global batch, from counters.

A token with id v has the weight q(v) = max(count(v), 1)^-smoothing, special and spare tokens 0. Of a global batch with T real tokens
n = ceil(probability * T) are to be predicted, or all eligible ones where those are fewer, drawn without replacement in proportion to q
as torch.multinomial does: exponential clocks E/q, of which the n first to ring are drawn (Efraimidis and Spirakis 2006). A token's E
comes from the random words of its sample's key (seed, sample, epoch), so a step's masks are the same however its samples are shared
among ranks and micro-batches. Their number differs from sample to sample, and no max_predictions_per_seq bounds it.

The price is that every rank draws the clocks of the whole global batch: 25 ms of one core for 1,024 samples of 128 tokens, on the
loader's thread, and 8 bytes for every real token of it. Logarithms may differ in the last of 53 bits between machines, which moves a
mask once in some 10^10 steps.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dataset.masking import MaskRule, WordStream, shown_ids

_WORDS_PER_TOKEN = 4  # two for the clock, a fate, a substitute: a token's words do not depend on padding


@dataclass(frozen=True)
class Smoothing:
    """`counts` (vocabulary,) int64, 0 and more; `exponent` at least 0, where 0 draws all tokens alike; `excluded_ids` are never drawn;
    `probability`: the share of real tokens to be predicted."""

    counts: np.ndarray
    exponent: float
    excluded_ids: np.ndarray
    probability: float

    @cached_property
    def slowness(self) -> np.ndarray:
        """(vocabulary,) float64: 1/q, infinite where q is 0."""
        slowness = np.maximum(self.counts, 1).astype(np.float64) ** self.exponent
        slowness[self.excluded_ids] = np.inf
        return slowness


class Draw:
    """The draw of one global batch, whose rows come block by block."""

    def __init__(self, smoothing: Smoothing) -> None:
        self._smoothing = smoothing
        self._clocks: list[np.ndarray] = []
        self._eligible: list[np.ndarray] = []
        self._tokens = 0

    def add(self, input_ids: np.ndarray, input_mask: np.ndarray, keys: Sequence[Sequence[int]]) -> None:
        """Rows: input_ids (n, L) below the vocabulary, input_mask (n, L) nonzero at real tokens, one key a row."""
        slowness = self._smoothing.slowness[input_ids]
        eligible = (input_mask != 0) & np.isfinite(slowness)
        eligible[:, :1] = False  # in the file format a position of 0 ends the list
        raw = _words(keys, input_ids.shape[1])[..., :2].reshape(len(keys), -1).view("<u8")[eligible]
        share = (raw >> np.uint64(11)) * 2.0**-53  # from 0 to below 1
        self._clocks.append(-np.log1p(-share) * slowness[eligible])
        self._eligible.append(eligible)
        self._tokens += int(np.count_nonzero(input_mask))

    def chosen(self) -> np.ndarray:
        """(B, L) bool: the tokens to be predicted. Of equal clocks the one of the earlier token rings first."""
        chosen, clocks = np.concatenate(self._eligible), np.concatenate(self._clocks)
        chosen[chosen] = _lowest(clocks, min(len(clocks), math.ceil(self._smoothing.probability * self._tokens)))
        return chosen


def hide(
    input_ids: np.ndarray, chosen: np.ndarray, rule: MaskRule, keys: Sequence[Sequence[int]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(masked ids (n, L), positions (n, P), labels (n, P)), dtypes of `input_ids`, int32, int32; P is the largest number in a row.

    `input_ids` (n, L), `chosen` (n, L) bool, both rows of what a `Draw` was given, under the same keys. Of `rule` it takes the
    shares of what is shown instead of a token; unused positions and labels are 0.
    """
    row_of, column = np.nonzero(chosen)
    counts = np.bincount(row_of, minlength=len(chosen))
    slot = np.arange(len(row_of)) - (np.cumsum(counts) - counts)[row_of]
    originals = input_ids[row_of, column]
    words = _words(keys, input_ids.shape[1])[row_of, column]
    positions, labels = (np.zeros((len(chosen), counts.max(initial=0)), dtype=np.int32) for _ in range(2))
    positions[row_of, slot], labels[row_of, slot] = column, originals
    masked = input_ids.copy()
    masked[row_of, column] = shown_ids(originals, words[:, 2], words[:, 3], rule)
    return masked, positions, labels


def _words(keys: Sequence[Sequence[int]], width: int) -> np.ndarray:
    """(n, width, 4) uint32."""
    each = width * _WORDS_PER_TOKEN
    words = [WordStream(key).take(1, each) for key in keys]
    return np.concatenate(words).reshape(len(keys), width, _WORDS_PER_TOKEN)


def _lowest(values: np.ndarray, count: int) -> np.ndarray:
    """(N,) bool: the `count` lowest of `values` (N,), of equal ones the earlier."""
    if count == 0:
        return np.zeros(len(values), dtype=bool)
    limit = np.partition(values, count - 1)[count - 1]
    is_low = values < limit
    is_low[np.flatnonzero(values == limit)[: count - np.count_nonzero(is_low)]] = True
    return is_low
