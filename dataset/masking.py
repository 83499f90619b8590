"""BERT's masking rule as a pure function of random words, so that a sample's mask never depends on its neighbours or on order.

Of a sample with n real tokens (special tokens counted), min(max_predictions, max(1, round(n * probability))) positions are predicted, or
all eligible ones where those are fewer. Of these 80 % show the mask token, 10 % a random token and 10 % the token itself. Unlike the
original, a random token is never a special or spare one (`excluded_ids`), and neither is a token to be predicted. Position 0 is never
predicted: in the file format a position of 0 ends the list.

Whole words (Google's later rule): words in random order, a word that would exceed the number is passed over. Where none fits, the first
word is predicted all the same if the file has room for it, so that samples of one long word count.

A row takes 2 P + L words of 32 bits: a fate and a substitute for every prediction, then a rank for every token, so that padding changes
nothing. The rank of a single token keeps 22 bits, the rest is the position itself (beyond 1,024 tokens more of them): two ranks of a
sample of 512 tokens agree once in 32 samples, and the earlier position then wins. Sorting such words is what NumPy does fastest: 5,500
rows of 128 tokens are masked in 15 ms on one core.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

MASK_SHARE = 0.8
RANDOM_SHARE = 0.1
NEVER = np.uint64(2**64 - 1)
PLACE_BITS = 10  # a number that does not depend on a row's padding


@dataclass(frozen=True)
class MaskRule:
    """What is masked, and how often.

    `excluded_ids` sorted int ids that are never hidden or put in, see `tokenizer.masking_exclusions`; `vocab_size`: all ids are below it;
    `continues` (vocab_size,) bool for whole words, see `tokenizer.word_continuations`, None for single tokens.
    """

    excluded_ids: np.ndarray
    mask_id: int
    vocab_size: int
    probability: float
    max_predictions: int
    continues: np.ndarray | None = None

    @cached_property
    def is_excluded(self) -> np.ndarray:
        """(vocab_size,) bool."""
        table = np.zeros(self.vocab_size, dtype=bool)
        table[self.excluded_ids] = True
        return table

    @cached_property
    def random_ids(self) -> np.ndarray:
        """Ids that may stand for another, int64, ascending."""
        return np.flatnonzero(~self.is_excluded)

    def words_per_row(self, width: int) -> int:
        """Random words of 32 bits that a row of `width` tokens takes: an even number."""
        return (2 * self.max_predictions + width + 1) // 2 * 2


def generator(key: Sequence[int]) -> np.random.Generator:
    """The generator of a key of non-negative ints, the same on every machine.

    Keys that are to be told apart need the same number of entries: a key and the same key with a 0 behind it may agree.
    """
    return np.random.Generator(_philox(key))


class WordStream:
    """The random words of a key: a stream that NumPy promises for ever, however many are taken at a time."""

    def __init__(self, key: Sequence[int]) -> None:
        self._bits = _philox(key)

    def take(self, rows: int, words: int) -> np.ndarray:
        """(rows, words) uint32; `words` is even."""
        return self._bits.random_raw(rows * words // 2).astype("<u8", copy=False).view("<u4").reshape(rows, words)


def _philox(key: Sequence[int]) -> np.random.Philox:
    return np.random.Philox(np.random.SeedSequence([int(part) for part in key]))


def mask_rows(
    input_ids: np.ndarray, input_mask: np.ndarray, rule: MaskRule, keys: Sequence[Sequence[int]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`mask_block` with words of its own for every row: `keys` has one key a row, for example (seed, sample, epoch).

    A row depends on its key, its tokens and their number. Building a row's generator takes about 15 microseconds.
    """
    words = rule.words_per_row(input_ids.shape[1])
    random = np.concatenate([WordStream(key).take(1, words) for key in keys]) if len(keys) else np.zeros((0, words), np.uint32)
    return mask_block(input_ids, input_mask, rule, random)


def mask_block(
    input_ids: np.ndarray, input_mask: np.ndarray, rule: MaskRule, random: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mask padded rows: (masked ids (N, L), positions (N, P), labels (N, P)), dtypes of `input_ids`, int32, int32.

    `input_ids` (N, L) int below `rule.vocab_size`; `input_mask` (N, L), 1 for real tokens, which come first in a row; `random`
    (N, rule.words_per_row(L)) uint32. P is `rule.max_predictions`; unused positions and labels are 0.
    """
    input_ids, input_mask = np.asarray(input_ids), np.asarray(input_mask)
    width = input_ids.shape[1]
    most = rule.max_predictions
    fates, substitutes, ranks = random[:, :most], random[:, most : 2 * most], random[:, 2 * most : 2 * most + width]
    eligible = (input_mask != 0) & ~np.take(rule.is_excluded, input_ids)
    eligible[:, :1] = False
    wanted = np.maximum(1, np.rint(input_mask.sum(axis=1, dtype=np.int64) * rule.probability)).astype(np.int64)
    counts = np.minimum(np.minimum(wanted, most), eligible.sum(axis=1))
    if rule.continues is None:
        chosen = _choose_tokens(eligible, ranks, counts, most)
    else:
        chosen = _choose_words(eligible, eligible & ~_continued(rule.continues[input_ids], eligible), ranks, counts, most)
    is_used = chosen < width
    positions = np.where(is_used, chosen, 0)

    originals = np.take_along_axis(input_ids, positions, axis=1)
    shown = shown_ids(originals, fates, substitutes, rule)
    masked = input_ids.copy()
    # Unused slots point at position 0, which stays what it is.
    np.put_along_axis(masked, positions, np.where(is_used, shown, originals), axis=1)
    return masked, positions.astype(np.int32), np.where(is_used, originals, 0).astype(np.int32)


def shown_ids(originals: np.ndarray, fates: np.ndarray, substitutes: np.ndarray, rule: MaskRule) -> np.ndarray:
    """What stands where `originals` are to be predicted: int64 of the same shape; `fates` and `substitutes` are uint32 of that shape."""
    shares = (fates >= np.uint32(MASK_SHARE * 2**32)).astype(np.int8) + (fates >= np.uint32((MASK_SHARE + RANDOM_SHARE) * 2**32))
    others = rule.random_ids[(substitutes.astype(np.uint64) * np.uint64(len(rule.random_ids))) >> np.uint64(32)]
    return np.where(shares == 0, rule.mask_id, np.where(shares == 1, others, originals))


def _choose_tokens(eligible: np.ndarray, ranks: np.ndarray, counts: np.ndarray, most: int) -> np.ndarray:
    """Positions (N, most) int64 of the `counts` (N,) eligible tokens of lowest rank, ascending; L where there are no more."""
    width = eligible.shape[1]
    low = np.uint32((1 << max(PLACE_BITS, (width - 1).bit_length())) - 1)
    # Where a token is not eligible, 0 - 1 sets every bit: such keys come last.
    keys = (ranks & ~low) | np.arange(width, dtype=np.uint32) | (eligible.astype(np.uint32) - np.uint32(1))
    lowest = (np.sort(keys, axis=1)[:, :most] & low).astype(np.int64)
    return _ascending(lowest, np.arange(lowest.shape[1]) < counts[:, None], width, most)


def _continued(continues: np.ndarray, eligible: np.ndarray) -> np.ndarray:
    """(N, L) bool: the token goes on with the word of the one before it."""
    continued = continues.copy()
    continued[:, 1:] &= eligible[:, :-1]
    continued[:, :1] = False
    return continued


def _choose_words(eligible: np.ndarray, starts: np.ndarray, ranks: np.ndarray, counts: np.ndarray, most: int) -> np.ndarray:
    """Like `_choose_tokens`, but whole words, of which `starts` (N, L) has the first token of each."""
    rows, width = eligible.shape
    bits = np.uint64(max(1, (width - 1).bit_length()))
    place = np.arange(width, dtype=np.uint64)
    start_of = np.maximum.accumulate(np.where(starts, place, 0), axis=1)
    rank_of = np.take_along_axis(ranks, start_of.astype(np.int64), axis=1).astype(np.uint64)
    keys = np.sort(np.where(eligible, (((rank_of << bits) | start_of) << bits) | place, NEVER), axis=1)
    real = np.arange(width) < eligible.sum(axis=1)[:, None]
    is_new = real.copy()
    is_new[:, 1:] &= (keys[:, 1:] >> bits) != (keys[:, :-1] >> bits)
    word = np.cumsum(is_new, axis=1) - 1
    flat = np.arange(rows)[:, None] * width + word
    sizes = np.bincount(flat[real], minlength=rows * width).reshape(rows, width)
    taken, is_chosen = np.zeros(rows, dtype=np.int64), np.zeros((rows, width), dtype=bool)
    for number in range(int(word.max(initial=-1)) + 1):
        is_chosen[:, number] = fits = (sizes[:, number] > 0) & (taken + sizes[:, number] <= counts)
        taken += np.where(fits, sizes[:, number], 0)
        if (taken == counts).all():
            break
    is_chosen[:, 0] |= (taken == 0) & (sizes[:, 0] > 0) & (sizes[:, 0] <= most)
    used = real & np.take_along_axis(is_chosen, np.maximum(word, 0), axis=1)
    return _ascending((keys & ((np.uint64(1) << bits) - np.uint64(1))).astype(np.int64), used, width, most)


def _ascending(positions: np.ndarray, used: np.ndarray, width: int, most: int) -> np.ndarray:
    """The used positions of each row in ascending order, (N, most), filled up with `width`."""
    chosen = np.sort(np.where(used, positions, width), axis=1)[:, :most]
    return np.pad(chosen, ((0, 0), (0, most - chosen.shape[1])), constant_values=width)
