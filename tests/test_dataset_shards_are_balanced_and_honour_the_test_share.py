"""Whole articles are dealt out evenly, the test set has its share, and what cannot be done is said in one line."""

import numpy as np
import pytest

from dataset.assignment import Assigner
from dataset.errors import UserError


def make_sizes(count: int, seed: int = 0) -> list[int]:
    """Long-tailed article lengths, as in an encyclopedia."""
    return (1 + np.random.default_rng(seed).lognormal(3, 1, count)).astype(int).tolist()


def assign(sizes: list[int], num_train: int, num_test: int, frac_test: float, seed: int, window: int = 10**9) -> list[int]:
    """Shard of every article, of which `window` at a time are looked at."""
    assigner = Assigner(num_train, num_test, frac_test, seed)
    pieces = [sizes[start : start + window] for start in range(0, len(sizes), window)]
    return [shard for piece in pieces for shard in assigner.assign(np.array(piece, np.int64)).tolist()]


def loads(shard_of: list[int], sizes: list[int], shards: int) -> np.ndarray:
    return np.bincount(shard_of, weights=sizes, minlength=shards)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("window", [10**9, 90])
@pytest.mark.parametrize(("num_train", "num_test", "frac_test"), [(7, 3, 0.1), (20, 20, 0.5), (3, 1, 0.9), (2, 9, 0.02)])
def test_every_article_has_one_place_and_shares_are_kept(seed, num_train, num_test, frac_test, window):
    sizes = make_sizes(400, seed)
    shard_of = assign(sizes, num_train, num_test, frac_test, seed, window)
    totals = loads(shard_of, sizes, num_train + num_test)
    assert len(shard_of) == len(sizes) and len(totals) == num_train + num_test and min(totals) > 0
    # Within one usual article of the share that was asked for; no shard above the mean by more than one, unless a
    # single article is larger than that.
    assert abs(sum(totals[num_train:]) - frac_test * sum(sizes)) <= np.median(sizes)
    for first, last in ((0, num_train), (num_train, num_train + num_test)):
        largest = max(size for size, shard in zip(sizes, shard_of, strict=True) if first <= shard < last)
        most = np.median(sizes) if window > len(sizes) else largest
        assert max(totals[first:last]) <= max(largest, np.mean(totals[first:last]) + most)


@pytest.mark.parametrize("window", [10**9, 1000])
def test_shards_are_within_two_per_cent_of_the_mean(window):
    sizes = make_sizes(10_000)
    totals = loads(assign(sizes, 16, 4, 0.1, 7, window), sizes, 20)
    for split in (totals[:16], totals[16:]):
        assert np.abs(split / split.mean() - 1).max() < 0.02
    assert sum(totals[16:]) / sum(totals) == pytest.approx(0.1, abs=20 / sum(totals))


def test_the_share_holds_after_every_window():
    sizes = make_sizes(5000)
    shard_of = np.array(assign(sizes, 4, 2, 0.1, 0, 100))
    for end in range(100, 5001, 100):
        held_out = np.array(sizes[:end])[shard_of[:end] >= 4].sum()
        assert abs(held_out - 0.1 * sum(sizes[:end])) <= np.median(sizes)


def test_long_articles_are_held_out_as_often_as_others():
    sizes = make_sizes(200)
    longest = np.argsort(sizes)[-50:]
    held_out = [(np.array(assign(sizes, 4, 2, 0.2, seed))[longest] >= 4).sum() for seed in range(40)]
    assert np.mean(held_out) == pytest.approx(50 * 0.2, abs=2.5)


def test_few_test_articles_for_many_shards_still_keep_the_share_where_they_can():
    sizes = [100] * 30 + [1] * 40
    shard_of = assign(sizes, 10, 35, 0.05, 3)
    held_out = [size for size, shard in zip(sizes, shard_of, strict=True) if shard >= 10]
    assert len(held_out) >= 35 and abs(sum(held_out) - 0.05 * sum(sizes)) <= 100


def test_as_many_shards_as_articles_works_and_one_more_does_not():
    sizes = make_sizes(10)
    assert sorted(assign(sizes, 7, 3, 0.1, 0)) == list(range(10))
    with pytest.raises(UserError, match="11 articles, found 10; --num_train_shards 7 --num_test_shards 3 would work"):
        assign(sizes, 8, 3, 0.1, 0)
    with pytest.raises(UserError, match="--num_train_shards 1 --num_test_shards 0 --frac_test 0 would work"):
        assign([5], 256, 256, 0.1, 0)


def test_without_test_shards_everything_is_training():
    assert sorted(set(assign(make_sizes(10), 2, 0, 0.0, 0))) == [0, 1]


def test_another_seed_holds_out_other_articles():
    sizes = make_sizes(100)
    assert assign(sizes, 4, 2, 0.2, 1) == assign(sizes, 4, 2, 0.2, 1)
    assert assign(sizes, 4, 2, 0.2, 1) != assign(sizes, 4, 2, 0.2, 2)
