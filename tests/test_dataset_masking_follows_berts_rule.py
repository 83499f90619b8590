"""Masking keeps BERT's numbers and shares, touches no special token, and is a function of the row's key alone."""

import numpy as np
import pytest

from dataset.masking import generator, mask_rows, mask_sample

PAD, UNK, CLS, SEP, MASK = range(5)
VOCABULARY = 300
EXCLUDED = np.array([*range(5), 17, 299])
WIDTH = 64


def make_rows(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows of random length 3 to WIDTH, with some unknown tokens in the text."""
    rng = np.random.default_rng(seed)
    ids = np.full((count, WIDTH), PAD)
    mask = np.zeros((count, WIDTH), dtype=np.int8)
    for row, length in enumerate(rng.integers(3, WIDTH, count, endpoint=True)):
        ids[row, :length] = rng.integers(18, 299, length)
        ids[row, 1 : length - 1][rng.random(length - 2) < 0.05] = UNK
        ids[row, 0], ids[row, length - 1] = CLS, SEP
        mask[row, :length] = 1
    return ids, mask


def mask_all(ids, mask, probability=0.15, most=20, key=7):
    keys = [(key, row) for row in range(len(ids))]
    return mask_rows(ids, mask, EXCLUDED, MASK, VOCABULARY, probability, most, keys)


def naive_count(row: list[int], probability: float, most: int) -> int:
    eligible = [token for token in row if token not in EXCLUDED]
    return min(most, max(1, round(len(row) * probability)), len(eligible))


@pytest.mark.parametrize(("probability", "most"), [(0.15, 20), (0.15, 4), (0.5, 100), (0.0, 3), (1.0, 80)])
def test_every_row_agrees_with_a_naive_reading_of_the_rule(probability, most):
    ids, mask = make_rows(200)
    masked, positions, labels = mask_all(ids, mask, probability, most)
    assert positions.shape == labels.shape == (200, most)
    assert (positions.dtype, labels.dtype, masked.dtype) == (np.int32, np.int32, ids.dtype)
    for row in range(200):
        length = int(mask[row].sum())
        count = naive_count(ids[row, :length].tolist(), probability, most)
        chosen = positions[row, :count].tolist()
        assert chosen == sorted(set(chosen)) and 0 not in chosen
        assert not positions[row, count:].any() and not labels[row, count:].any()
        assert labels[row, :count].tolist() == ids[row, chosen].tolist()
        assert not np.isin(labels[row, :count], EXCLUDED).any()
        untouched = np.setdiff1d(np.arange(WIDTH), chosen)
        assert (masked[row, untouched] == ids[row, untouched]).all()
        shown = masked[row, chosen]
        assert not np.isin(shown[shown != MASK], EXCLUDED).any()


def test_shares_are_80_10_10_and_random_tokens_and_positions_are_spread_evenly():
    ids = np.tile(np.array([CLS, *[18] * 62, SEP]), (4000, 1))
    masked, positions, _ = mask_all(ids, np.ones_like(ids), most=20)
    used = positions > 0
    assert used.sum() == 4000 * round(64 * 0.15)
    shown = np.take_along_axis(masked, positions.astype(int), axis=1)[used]
    is_random = (shown != MASK) & (shown != 18)
    assert (shown == MASK).mean() == pytest.approx(0.8, abs=0.01)
    assert is_random.mean() == pytest.approx(0.1, abs=0.007)
    counts = np.bincount(shown[is_random], minlength=VOCABULARY)
    candidates = np.setdiff1d(np.arange(VOCABULARY), [*EXCLUDED, 18])
    assert counts[candidates].min() > 0 and counts[candidates].max() < 4 * counts[candidates].mean()
    by_position = np.bincount(positions[used], minlength=WIDTH)[1:63]
    assert by_position.min() > 0.8 * by_position.mean() and by_position.max() < 1.2 * by_position.mean()


def test_a_row_does_not_depend_on_its_neighbours_or_on_padding():
    ids, mask = make_rows(30)
    whole = mask_all(ids, mask)
    for row in (0, 13, 29):
        length = int(mask[row].sum())
        rng = generator((7, row))
        masked, positions, labels = mask_sample(ids[row, :length], EXCLUDED, MASK, VOCABULARY, 0.15, 20, rng)
        count = len(positions)
        assert count == (whole[1][row] > 0).sum() and len(labels) == count
        assert masked.tolist() == whole[0][row, :length].tolist()
        assert positions.tolist() == whole[1][row, :count].tolist()
        assert labels.tolist() == whole[2][row, :count].tolist()


def test_other_keys_give_other_masks_and_the_input_is_left_alone():
    ids, mask = make_rows(30)
    before = ids.copy()
    first, again, other = mask_all(ids, mask), mask_all(ids, mask), mask_all(ids, mask, key=8)
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert (first[1] != other[1]).any(axis=1).mean() > 0.8
    assert (ids == before).all()


def test_a_sample_without_an_eligible_token_has_no_prediction():
    sample = np.array([CLS, UNK, UNK, SEP])
    masked, positions, labels = mask_sample(sample, EXCLUDED, MASK, VOCABULARY, 0.15, 20, generator((1,)))
    assert masked.tolist() == sample.tolist() and not len(positions) and not len(labels)


def test_the_first_position_is_never_predicted_as_a_zero_ends_the_list():
    sample = np.arange(20, 30)
    _, positions, _ = mask_sample(sample, EXCLUDED, MASK, VOCABULARY, 1.0, 20, generator((1,)))
    assert positions.tolist() == list(range(1, 10))


def test_the_numbers_drawn_are_the_same_on_every_machine():
    sample = np.arange(20, 40)
    masked, positions, _ = mask_sample(sample, EXCLUDED, MASK, VOCABULARY, 0.3, 20, generator((555, 0, 3)))
    assert positions.tolist() == POSITIONS and masked[positions].tolist() == SHOWN


# Written down once: a change here changes every shard that anyone can make anew from its seed.
POSITIONS = [4, 7, 10, 15, 17, 18]
SHOWN = [4, 4, 4, 4, 4, 38]
