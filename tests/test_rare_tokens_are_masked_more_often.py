"""Smoothed masks: the published draw without replacement, from counters, the same for any split of a global batch."""

import itertools
import math
from collections import Counter

import h5py
import numpy as np
import pytest
from test_dataset_masking_follows_berts_rule import deviation
from tiny import MASK, PREDICTIONS, SPECIAL, VOCABULARY, make_shards

from dataset.masking import MaskRule, WordStream
from dataset.shard_format import find_shards, read_info
from pretraining.batches.loader import Share, StepLoader
from pretraining.batches.order import GlobalOrder
from pretraining.batches.samples import MaskingRule, ShardReader
from pretraining.batches.smoothing import Draw, Smoothing, hide

EXCLUDED = np.arange(len(SPECIAL))
COUNTS = np.arange(VOCABULARY) ** 2
BATCH = 12


def smoothing(counts: np.ndarray = COUNTS, exponent: float = 0.7, share: float = 0.15) -> Smoothing:
    return Smoothing(counts, exponent, EXCLUDED, share)


def chosen_of(one: Smoothing, ids: np.ndarray, mask: np.ndarray, seed: int = 1) -> np.ndarray:
    draw = Draw(one)
    draw.add(ids, mask, [(seed, row, 0, 0) for row in range(len(ids))])
    return draw.chosen()


def make_rows(rows: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, VOCABULARY, (rows, width))
    mask = np.arange(width) < rng.integers(1, width, rows, endpoint=True)[:, None]
    return ids * mask, mask.astype(np.int8)


@pytest.mark.parametrize("exponent", [0.0, 0.7, 2.0])
@pytest.mark.parametrize("share", [0.0, 0.15, 0.9, 1.0])
def test_the_draw_agrees_with_a_naive_reading_of_the_rule(exponent, share):
    """n exponential clocks ring first, in plain Python: E = -ln(1 - u), u of 53 bits, E / q with q = max(count, 1)^-exponent."""
    ids, mask = make_rows(30, 24)
    clocks = []
    for row in range(30):
        words = WordStream((1, row, 0, 0)).take(1, 4 * 24)[0].tolist()
        for column in range(1, 24):
            token = int(ids[row, column])
            if mask[row, column] and token not in EXCLUDED:
                uniform = ((words[4 * column] | words[4 * column + 1] << 32) >> 11) / 2**53
                clocks.append((-math.log1p(-uniform) * max(int(COUNTS[token]), 1) ** exponent, row, column))
    wanted = min(math.ceil(share * int(mask.sum())), len(clocks))
    expected = {(row, column) for _, row, column in sorted(clocks)[:wanted]}
    found = chosen_of(smoothing(exponent=exponent, share=share), ids, mask)
    assert set(zip(*(axis.tolist() for axis in np.nonzero(found)), strict=True)) == expected


def test_equal_clocks_ring_in_the_order_of_the_batch(monkeypatch):
    monkeypatch.setattr("pretraining.batches.smoothing._words", lambda keys, width: np.zeros((len(keys), width, 4), np.uint32))
    ids = np.full((3, 5), 20)
    assert np.flatnonzero(chosen_of(smoothing(share=7 / 15), ids, np.ones_like(ids))).tolist() == [1, 2, 3, 4, 6, 7, 8]


def test_the_distribution_is_that_of_draws_one_after_the_other():
    """torch.multinomial without replacement: three of five tokens of weights 1, 2, 4, 8, 16, against the exact probabilities."""
    tokens = [10, 11, 12, 13, 14]
    counts = np.ones(VOCABULARY, dtype=np.int64)
    counts[tokens] = [16, 8, 4, 2, 1]
    weights = [1 / int(counts[token]) for token in tokens]
    exact: Counter[frozenset] = Counter()
    for one, two, three in itertools.permutations(range(5), 3):
        left, probability = sum(weights), 1.0
        for place in (one, two, three):
            probability *= weights[place] / left
            left -= weights[place]
        exact[frozenset((one, two, three))] += probability
    assert sum(exact.values()) == pytest.approx(1)
    batch, seen = smoothing(counts, 1.0, 0.5), Counter()
    ids = np.array([[2, *tokens]])
    for step in range(20_000):
        draw = Draw(batch)
        draw.add(ids, np.ones_like(ids), [(3, step, 0, 0)])
        seen[frozenset((np.flatnonzero(draw.chosen()[0]) - 1).tolist())] += 1
    sets = list(exact)
    assert seen.keys() <= exact.keys()
    assert abs(deviation(np.array([seen[one] for one in sets]), 20_000 * np.array([exact[one] for one in sets]))) < 4


def test_what_is_shown_follows_80_10_10_and_labels_tell_the_rest():
    rows, width, share = 4_000, 40, 0.5
    ids = np.random.default_rng(1).integers(len(SPECIAL), VOCABULARY, (rows, width))
    chosen = chosen_of(smoothing(share=share), ids, np.ones_like(ids), seed=9)
    assert chosen.sum() == math.ceil(share * ids.size) and not chosen[:, 0].any()
    rule = MaskRule(EXCLUDED, MASK, VOCABULARY, share, 1)
    masked, positions, labels = hide(ids, chosen, rule, [(9, row, 0, 0) for row in range(rows)])
    assert positions.shape[1] == chosen.sum(axis=1).max() and (masked[~chosen] == ids[~chosen]).all()
    for row in range(0, rows, 97):
        at = np.flatnonzero(chosen[row])
        assert positions[row].tolist() == at.tolist() + [0] * (positions.shape[1] - len(at))
        assert labels[row, : len(at)].tolist() == ids[row, at].tolist() and not labels[row, len(at) :].any()
        words = WordStream((9, row, 0, 0)).take(1, 4 * width)[0].tolist()
        for column in at.tolist():
            fate, substitute = words[4 * column + 2 : 4 * column + 4]
            other = len(SPECIAL) + substitute * (VOCABULARY - len(SPECIAL)) // 2**32
            wanted = MASK if fate < 8 * 2**32 // 10 else other if fate < 9 * 2**32 // 10 else ids[row, column]
            assert masked[row, column] == wanted
    shown, originals, allowed = masked[chosen], ids[chosen], VOCABULARY - len(SPECIAL)
    counts = np.array([(shown == MASK).sum(), ((shown != MASK) & (shown != originals)).sum(), (shown == originals).sum()])
    assert abs(deviation(counts, len(shown) * np.array([0.8, 0.1 - 0.1 / allowed, 0.1 + 0.1 / allowed]))) < 4
    replaced = np.bincount(shown[(shown != MASK) & (shown != originals)], minlength=VOCABULARY)
    assert not replaced[: len(SPECIAL)].any()
    # The rarer an id, the more often it is an original, and the less often its own replacement.
    others = np.bincount(originals, minlength=VOCABULARY)[len(SPECIAL) :]
    expected = (others.sum() - others) / ((allowed - 1) * others.sum())
    assert abs(deviation(replaced[len(SPECIAL) :], replaced.sum() * expected)) < 4


def test_rare_tokens_are_drawn_more_often_and_0_draws_all_alike():
    ids = np.random.default_rng(2).integers(len(SPECIAL), VOCABULARY, (3_000, 32))
    rates = {}
    for exponent in (0.0, 0.7):
        chosen = chosen_of(smoothing(exponent=exponent), ids, np.ones_like(ids))
        rare = ids < 30
        rates[exponent] = chosen[rare].mean() / chosen[~rare].mean()
    assert rates[0.0] == pytest.approx(1, abs=0.05) and rates[0.7] > 3


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = make_shards(tmp_path_factory.mktemp("smoothed"), train=3, rows=6, uneven=True, masking="none", test=1)
    return [[read_info(path) for path in paths] for paths in find_shards(folder)]


def loader(infos, rank=0, world=1, micro=BATCH, accumulation=1, first_sample=0, seed=1, most=None, **more):
    reader = ShardReader(infos, VOCABULARY, most, MaskingRule(seed, EXCLUDED), smoothing=smoothing())
    return StepLoader(GlobalOrder(1, [info.rows for info in infos]), reader, Share(rank, world, micro, accumulation, **more), first_sample,
                      0, False)


def rows_of(batches) -> list[tuple]:
    """(tokens, masked columns, labels) of each sequence, without padding."""
    found = []
    for batch in batches:
        width = batch.mask.shape[1]
        for row in range(len(batch.mask)):
            own = (batch.masked_index // width) == row
            found.append((tuple(batch.input_ids[row][batch.mask[row]].tolist()), tuple((batch.masked_index[own] % width).tolist()),
                          tuple(batch.labels[own].tolist())))
    return found


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize(("world", "micro", "accumulation"), [(1, 4, 3), (2, 3, 2), (3, 4, 1), (4, 1, 3), (6, 2, 1)])
def test_any_split_of_a_step_covers_the_same_samples_and_masks(shards, world, micro, accumulation, grouped):
    """12 samples a step, shards of 6 to 8: a batch is larger than a shard, and epochs end inside steps."""
    whole = loader(shards[0])
    parts = [loader(shards[0], rank, world, micro, accumulation, group_by_length=grouped) for rank in range(world)]
    resumed = loader(shards[0], first_sample=3 * BATCH)
    for step in range(6):
        expected = rows_of(next(whole))
        tokens = sum(len(sequence) for sequence, _, _ in expected)
        assert sum(len(labels) for _, _, labels in expected) == math.ceil(0.15 * tokens)
        pieces = [next(part) for part in parts]
        joined = rows_of(sorted((batch for piece in pieces for batch in piece), key=lambda batch: batch.micro_index))
        assert (sorted(joined) == sorted(expected)) if grouped else (joined == expected)
        assert step < 3 or rows_of(next(resumed)) == expected


def test_masks_say_what_stood_there_and_no_number_per_sample_bounds_them(shards):
    train = shards[0]
    originals = Counter()
    for info in train:
        with h5py.File(info.path) as file:
            originals.update(tuple(ids[mask > 0].tolist()) for ids, mask in zip(file["input_ids"][:], file["input_mask"][:], strict=True))
    restored, numbers = Counter(), []
    for sequence, columns, labels in rows_of(next(loader(train, micro=21, most=1))):  # the three shards
        text = list(sequence)
        for column, label in zip(columns, labels, strict=True):
            text[column] = label
        restored[tuple(text)] += 1
        numbers.append(len(labels))
        assert not set(labels) & set(EXCLUDED.tolist())
    assert restored == originals and max(numbers) > PREDICTIONS > min(numbers)


def test_epochs_and_seeds_draw_anew(shards):
    first, second = (rows_of(next(loader(shards[0], micro=21, first_sample=21 * epoch))) for epoch in (0, 1))
    other = rows_of(next(loader(shards[0], micro=21, seed=2)))
    assert {labels for _, _, labels in first} != {labels for _, _, labels in second}
    assert [labels for _, _, labels in first] != [labels for _, _, labels in other]
