"""Masking is BERT's rule to the last random word: against a naive reference without arrays, and by chi-square over a million masks."""

import numpy as np
import pytest

from dataset.masking import MaskRule, WordStream, mask_block, mask_rows

PAD, UNK, CLS, SEP, MASK = range(5)
VOCABULARY, WIDTH = 300, 64
EXCLUDED = np.array([*range(5), 17, 299])
CONTINUES = np.arange(VOCABULARY) % 5 > 2  # two tokens of five go on with a word
CASES = [(0.15, 20, False), (0.15, 4, False), (0.5, 100, False), (0.0, 3, False), (1.0, 80, False),
         (0.15, 20, True), (0.15, 2, True), (0.5, 100, True), (0.0, 3, True), (1.0, 80, True)]


def rule(probability: float = 0.15, most: int = 20, whole_words: bool = False) -> MaskRule:
    return MaskRule(EXCLUDED, MASK, VOCABULARY, probability, most, CONTINUES if whole_words else None)


def make_rows(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows of random length 3 to WIDTH, with some unknown tokens in the text."""
    rng = np.random.default_rng(seed)
    ids, mask = np.full((count, WIDTH), PAD), np.zeros((count, WIDTH), dtype=np.int8)
    for row, length in enumerate(rng.integers(3, WIDTH, count, endpoint=True)):
        ids[row, :length] = rng.integers(18, 299, length)
        ids[row, 1 : length - 1][rng.random(length - 2) < 0.05] = UNK
        ids[row, 0], ids[row, length - 1] = CLS, SEP
        mask[row, :length] = 1
    return ids, mask


def keys_of(count: int, seed: int = 7) -> list[tuple[int, int]]:
    return [(seed, row) for row in range(count)]


def naive_words(tokens: list[int], one: MaskRule) -> list[list[int]]:
    """The positions of each word; single tokens are words of their own without whole words."""
    words: list[list[int]] = []
    for place, token in enumerate(tokens):
        if place == 0 or token in EXCLUDED:
            continue
        if one.continues is not None and CONTINUES[token] and words and words[-1][-1] == place - 1:
            words[-1].append(place)
        else:
            words.append([place])
    return words


def naive_mask(tokens: list[int], one: MaskRule, random: list[int]) -> tuple[list[int], list[int], list[int]]:
    """The rule in whole numbers: (masked tokens, positions, labels) of one sample from its random words of 32 bits."""
    most = one.max_predictions
    fates, substitutes, ranks = random[:most], random[most : 2 * most], random[2 * most :]
    words = naive_words(tokens, one)
    kept = 0 if one.continues is not None else 10  # bits of a rank that give way to the position
    words.sort(key=lambda word: (ranks[word[0]] >> kept, word[0]))
    room = min(most, max(1, round(len(tokens) * one.probability)), sum(map(len, words)))
    chosen: list[int] = []
    for word in words:
        if len(chosen) + len(word) <= room:
            chosen += word
    if not chosen and words and len(words[0]) <= most:
        chosen = words[0]
    chosen = sorted(chosen)
    allowed = [token for token in range(VOCABULARY) if token not in EXCLUDED]
    shown = list(tokens)
    for place, fate, substitute in zip(chosen, fates, substitutes, strict=False):
        if fate < 8 * 2**32 // 10:
            shown[place] = MASK
        elif fate < 9 * 2**32 // 10:
            shown[place] = allowed[substitute * len(allowed) // 2**32]
    return shown, chosen, [tokens[place] for place in chosen]


@pytest.mark.parametrize(("probability", "most", "whole_words"), CASES)
def test_every_row_agrees_with_a_naive_reading_of_the_rule(probability, most, whole_words):
    one, (ids, mask) = rule(probability, most, whole_words), make_rows(400)
    words = WordStream((3, 1)).take(400, one.words_per_row(WIDTH))
    before = ids.copy()
    masked, positions, labels = mask_block(ids, mask, one, words)
    assert (ids == before).all() and positions.shape == labels.shape == (400, most)
    assert (positions.dtype, labels.dtype, masked.dtype) == (np.int32, np.int32, ids.dtype)
    for row in range(400):
        real = int(mask[row].sum())
        shown, chosen, originals = naive_mask(ids[row, :real].tolist(), one, words[row].tolist())
        assert masked[row].tolist() == shown + [PAD] * (WIDTH - real)
        assert positions[row].tolist() == chosen + [0] * (most - len(chosen))
        assert labels[row].tolist() == originals + [0] * (most - len(chosen))


def test_whole_words_are_whole():
    one, (ids, mask) = rule(0.3, 30, whole_words=True), make_rows(300, seed=4)
    _, positions, _ = mask_rows(ids, mask, one, keys_of(300))
    several = 0
    for row in range(300):
        words = naive_words(ids[row, : int(mask[row].sum())].tolist(), one)
        chosen = set(positions[row][positions[row] > 0].tolist())
        touched = [word for word in words if chosen & set(word)]
        assert {place for word in touched for place in word} == chosen
        several += sum(len(word) > 1 for word in touched)
    assert several > 300


def test_a_word_longer_than_the_number_wanted_is_predicted_only_where_nothing_else_fits():
    stem, rest, alone = 20, 23, 25
    assert list(CONTINUES[[stem, rest, alone]]) == [False, True, False]
    long = np.array([[CLS, stem, *[rest] * 5, SEP]])
    for most, expected in ((6, list(range(1, 7))), (5, [])):
        _, positions, _ = mask_rows(long, np.ones_like(long), rule(0.15, most, True), [(1, 1)])
        assert positions[positions > 0].tolist() == expected
    both = np.tile([[CLS, alone, stem, *[rest] * 5, SEP]], (200, 1))
    _, positions, _ = mask_rows(both, np.ones_like(both), rule(0.15, 6, True), keys_of(200))
    assert all(row[row > 0].tolist() == [1] for row in positions)


@pytest.mark.parametrize("whole_words", [False, True])
def test_padding_order_and_neighbours_change_nothing(whole_words):
    one, (ids, mask) = rule(whole_words=whole_words), make_rows(60)
    keys = keys_of(60)
    whole = mask_rows(ids, mask, one, keys)
    backwards = mask_rows(ids[::-1], mask[::-1], one, keys[::-1])
    wide = mask_rows(np.pad(ids, ((0, 0), (0, 449))), np.pad(mask, ((0, 0), (0, 449))), one, keys)
    for row in range(60):
        real = int(mask[row].sum())
        alone = mask_rows(ids[row : row + 1, :real], mask[row : row + 1, :real], one, [keys[row]])
        assert all((one_way[59 - row] == other[row]).all() for one_way, other in zip(backwards, whole, strict=True))
        for masked, positions, labels, at in ((*alone, 0), (*wide, row)):
            assert masked[at, :real].tolist() == whole[0][row, :real].tolist()
            assert positions[at].tolist() == whole[1][row].tolist() and labels[at].tolist() == whole[2][row].tolist()


def test_ranks_that_nearly_agree_are_told_apart_alike_in_every_width():
    """Tokens 3 and 5 of ranks that differ in one bit: whichever it is, padding must not change who wins."""
    one = rule(0.0, 1)
    for bit in range(32):
        chosen = set()
        for width in (8, 65, 128, 512, 1024):
            ids = np.full((1, width), 20)
            mask = (np.arange(width) < 8)[None].astype(np.int8)
            words = np.full((1, one.words_per_row(width)), 2**32 - 1, dtype=np.uint32)
            words[0, 2 + 3], words[0, 2 + 5] = 1 << bit, 0
            chosen.add(int(mask_block(ids, mask, one, words)[1][0, 0]))
        assert len(chosen) == 1, bit


def test_other_keys_give_other_masks():
    ids, mask = make_rows(60)
    first, again, other = (mask_rows(ids, mask, rule(), keys_of(60, seed)) for seed in (7, 7, 8))
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert (first[1] != other[1]).any(axis=1).mean() > 0.8


def test_a_sample_without_an_eligible_token_has_no_prediction():
    sample = np.array([[CLS, UNK, UNK, SEP]])
    for whole_words in (False, True):
        masked, positions, labels = mask_rows(sample, np.ones_like(sample), rule(whole_words=whole_words), [(1,)])
        assert masked.tolist() == sample.tolist() and not positions.any() and not labels.any()
    assert [len(part) for part in mask_rows(sample[:0], sample[:0], rule(), [])] == [0, 0, 0]


def test_the_first_position_is_never_predicted_as_a_zero_ends_the_list():
    sample = np.arange(20, 30)[None]
    for whole_words in (False, True):
        _, positions, _ = mask_rows(sample, np.ones_like(sample), rule(1.0, 20, whole_words), [(1,)])
        assert positions[0, :9].tolist() == list(range(1, 10)) and not positions[0, 9:].any()


def test_the_numbers_drawn_are_the_same_on_every_machine():
    sample = np.arange(20, 40)[None]
    masked, positions, _ = mask_rows(sample, np.ones_like(sample), rule(0.3), [(555, 0, 3)])
    assert positions[0, :6].tolist() == POSITIONS and masked[0, POSITIONS].tolist() == SHOWN


# Written down once: a change here changes every shard that anyone can make anew from its seed.
POSITIONS = [1, 2, 4, 6, 9, 17]
SHOWN = [4, 4, 4, 4, 106, 4]


def deviation(observed: np.ndarray, expected: np.ndarray, scale: float = 1.0) -> float:
    """Pearson's chi-square statistic times `scale` as a normal deviate (Wilson and Hilferty 1931)."""
    freedom = len(observed) - 1
    statistic = scale * float((((observed - expected) ** 2) / expected).sum())
    return ((statistic / freedom) ** (1 / 3) - (1 - 2 / (9 * freedom))) / (2 / (9 * freedom)) ** 0.5


@pytest.fixture(scope="module")
def million() -> tuple[np.ndarray, ...]:
    """(input ids, masked ids, used slots, positions) of 54,000 rows of 128 tokens, 126 of them words: a million masks."""
    rng, rows, width, one = np.random.default_rng(0), 54_000, 128, rule(0.15, 19)
    ids = np.repeat(np.array([[CLS, *[0] * 126, SEP]], dtype=np.int16), rows, axis=0)
    ids[:, 1:-1] = rng.choice(np.setdiff1d(np.arange(VOCABULARY), EXCLUDED), (rows, 126))
    words = WordStream((2026, 11))
    blocks = [mask_block(block, np.ones_like(block), one, words.take(len(block), one.words_per_row(width))) for block in np.split(ids, 9)]
    masked, positions, labels = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    assert (labels == np.take_along_axis(ids, positions, axis=1)).all()
    return ids, masked, positions


def test_fifteen_in_a_hundred_are_predicted_and_never_a_special_token(million):
    ids, masked, positions = million
    assert (positions > 0).sum() == 54_000 * 19 == 1_026_000  # round(128 * 0.15)
    assert (np.diff(positions, axis=1) > 0).all() and positions.max() < 127
    assert not np.isin(np.take_along_axis(ids, positions, axis=1), EXCLUDED).any()
    assert (masked[:, 0] == CLS).all() and (masked[:, -1] == SEP).all()
    assert not np.isin(masked[masked != MASK], EXCLUDED[2:][EXCLUDED[2:] > MASK]).any()


def test_shares_are_80_10_10(million):
    ids, masked, positions = million
    shown, originals = (np.take_along_axis(array, positions, axis=1) for array in (masked, ids))
    allowed = VOCABULARY - len(EXCLUDED)
    counts = np.array([(shown == MASK).sum(), ((shown != MASK) & (shown != originals)).sum(), (shown == originals).sum()])
    # A random token is the token itself once in `allowed`.
    expected = positions.size * np.array([0.8, 0.1 - 0.1 / allowed, 0.1 + 0.1 / allowed])
    assert abs(deviation(counts, expected)) < 4


def test_positions_are_uniform(million):
    _, _, positions = million
    counts = np.bincount(positions.ravel(), minlength=128)[1:127]
    # 19 of 126 without replacement vary less than independent draws would.
    assert abs(deviation(counts, np.full(126, positions.size / 126), scale=125 / (126 - 19))) < 4


def test_random_replacements_are_uniform_over_the_allowed_ids(million):
    ids, masked, positions = million
    shown, originals = (np.take_along_axis(array, positions, axis=1) for array in (masked, ids))
    allowed = np.setdiff1d(np.arange(VOCABULARY), EXCLUDED)
    replaced = shown[(shown != MASK) & (shown != originals)]
    counts = np.bincount(replaced, minlength=VOCABULARY)
    assert counts[EXCLUDED].sum() == 0
    assert abs(deviation(counts[allowed], np.full(len(allowed), len(replaced) / len(allowed)))) < 4
