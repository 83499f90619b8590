"""Masks in written shards, a million of them: 15 % within the cap, 80/10/10, every place alike, never a special token.

Chi-square limits are those of p = 0.0005; the seed is fixed, so that a test passes always or never.
"""

import random

import numpy as np
import pytest
from sampling_case import make_samples
from tiny_corpus import SPECIAL, STEMS, UNUSED, write_vocabulary

from dataset.samples import SampleSettings
from dataset.tokenizer import load_tokenizer, vocabulary_size, word_continuations

FIRST, MASK, SIZE = len(SPECIAL) + len(UNUSED), SPECIAL.index("[MASK]"), 60
CAP, LENGTH, SHARE = 20, 128, 0.15


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """(text of documents of 100 to 300 word pieces with many continuations, vocabulary)."""
    rng = random.Random(8)
    parts = []
    for _ in range(400):
        words = [rng.choice(STEMS) + rng.choice(["", "", "s", "ed", "sed", "edsed"]) for _ in range(rng.randint(50, 150))]
        parts += [" ".join(words[start : start + 12]) for start in range(0, len(words), 12)]
        parts.append("")
    folder = tmp_path_factory.mktemp("masks")
    return "\n".join(parts).encode(), write_vocabulary(folder, [*STEMS, "##s", "##ed", *(f"x{number}" for number in range(SIZE - 34))])


def masked_shards(corpus, folder, duplicates: int, **changes):
    text, vocabulary = corpus
    settings = SampleSettings(**{"max_seq_length": LENGTH, "masked_lm_prob": SHARE, "max_predictions_per_seq": CAP, **changes})
    tokenizer = load_tokenizer(vocabulary)
    shards = make_samples(folder, text, tokenizer, settings, duplicates)[1]
    names = ("shown", "ids", "lengths", "positions", "labels")
    return tokenizer, *(np.concatenate([getattr(shard, name) for shard in shards]) for name in names)


def chi_square(observed: np.ndarray, expected: np.ndarray) -> float:
    return float(((observed - expected) ** 2 / expected).sum())


def limit(freedom: int) -> float:
    """Wilson and Hilferty's approximation of the quantile at p = 0.0005."""
    return freedom * (1 - 2 / (9 * freedom) + 3.29 * (2 / (9 * freedom)) ** 0.5) ** 3


def check_fates(shown, originals, vocabulary_size: int) -> None:
    """80 % [MASK], 10 % another token out of all allowed ones, 10 % the same; a random token may be the same one by chance."""
    allowed = vocabulary_size - FIRST
    count, same = len(shown), shown == originals
    observed = np.array([(shown == MASK).sum(), same.sum(), ((shown != MASK) & ~same).sum()])
    expected = count * np.array([0.8, 0.1 + 0.1 / allowed, 0.1 * (1 - 1 / allowed)])
    assert chi_square(observed, expected) < limit(2)
    replaced = shown[(shown != MASK) & ~same]
    assert replaced.min() >= FIRST, "no special and no spare token is put in"
    # A token is never seen as its own replacement, so what is rare in the text is put in a little more often.
    own = np.bincount(originals, minlength=vocabulary_size)[FIRST:]
    expected = 0.1 / allowed * (count - own)
    assert chi_square(np.bincount(replaced, minlength=vocabulary_size)[FIRST:], expected) < limit(allowed - 1)


def test_a_million_single_tokens(corpus, tmp_path):
    tokenizer, shown, ids, lengths, positions, labels = masked_shards(corpus, tmp_path, duplicates=78)
    used = positions > 0
    assert used.sum() > 1_000_000
    wanted = np.minimum(CAP, np.maximum(1, np.rint(lengths * SHARE))).astype(int)
    assert (used.sum(axis=1) == np.minimum(wanted, lengths - 2)).all(), "15 % of a sample, special tokens counted, and no more than the cap"
    assert (np.diff(np.where(used, positions, LENGTH + np.arange(CAP)), axis=1) > 0).all() and (labels[~used] == 0).all()
    rows, slots = np.nonzero(used)
    places, originals = positions[rows, slots], labels[rows, slots]
    assert originals.min() >= FIRST and places.max() < LENGTH - 1
    hidden = np.zeros(shown.shape, bool)
    hidden[rows, places] = True
    assert (shown == ids)[~hidden].all()
    check_fates(shown[rows, places], originals, vocabulary_size(tokenizer))
    # Of samples of full length every place is hidden equally often; rows of a sample are no independent draws, but nearly.
    full = lengths == LENGTH
    by_place = hidden[full].sum(axis=0)[1:-1]
    assert full.sum() > 20_000 and chi_square(by_place, np.full(LENGTH - 2, full.sum() * wanted.max() / (LENGTH - 2))) < limit(LENGTH - 3)
    # Every token of the vocabulary is hidden as often as it stands there.
    there = np.bincount(ids[full][:, 1:-1].ravel())[FIRST:]
    found = np.bincount(ids[full][hidden[full]], minlength=len(there) + FIRST)[FIRST:]
    there, found = there[there > 0], found[there > 0]
    assert chi_square(found, there * (wanted.max() / (LENGTH - 2))) < limit(len(there) - 1)


def test_a_million_tokens_of_whole_words(corpus, tmp_path):
    tokenizer, shown, ids, lengths, positions, labels = masked_shards(corpus, tmp_path, duplicates=78, whole_word_masking=True)
    used = positions > 0
    assert used.sum() > 1_000_000
    hidden = np.zeros(shown.shape, bool)
    rows, slots = np.nonzero(used)
    hidden[rows, positions[rows, slots]] = True
    assert not hidden[ids < FIRST].any()
    continues = word_continuations(tokenizer)[ids] & (np.arange(LENGTH) > 1)
    assert continues.mean() > 0.15
    assert (hidden[:, 1:] == hidden[:, :-1])[continues[:, 1:]].all(), "a word is hidden whole or not at all"
    wanted = np.minimum(CAP, np.maximum(1, np.rint(lengths * SHARE))).astype(int)
    counts = used.sum(axis=1)
    more = counts > wanted
    assert more.mean() < 0.02 and ((hidden & ~continues)[more].sum(axis=1) == 1).all(), "only where no word was short enough"
    long = lengths > 40
    assert (counts[long] >= wanted[long] - 1).mean() > 0.95, "shorter words fill what longer ones leave"
    check_fates(shown[rows, positions[rows, slots]], labels[rows, slots], vocabulary_size(tokenizer))
    # Words begin to be hidden at every place of full samples equally often, as far as there are words there.
    full = lengths == LENGTH
    begins = (~continues & (ids >= FIRST))[full][:, 1:-12]
    begun = (begins & hidden[full][:, 1:-12]).sum(axis=0)
    expected = begins.sum(axis=0) * (begun.sum() / begins.sum())
    assert chi_square(begun, expected) < limit(len(begun) - 1)
