"""Whole articles are dealt out evenly, the test set has its share, and what cannot be done is said in one line."""

import numpy as np
import pytest

from dataset.assignment import assign_articles
from dataset.errors import UserError


def make_sizes(count: int, seed: int = 0) -> list[int]:
    """Long-tailed article lengths, as in an encyclopedia."""
    return (1 + np.random.default_rng(seed).lognormal(3, 1, count)).astype(int).tolist()


def loads(shard_of: list[int], sizes: list[int], shards: int) -> list[int]:
    totals = [0] * shards
    for shard, size in zip(shard_of, sizes, strict=True):
        if shard >= 0:
            totals[shard] += size
    return totals


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("num_train", "num_test", "frac_test"), [(7, 3, 0.1), (20, 20, 0.5), (3, 1, 0.9), (2, 9, 0.02)]
)
def test_every_article_has_one_place_and_shares_are_kept(seed, num_train, num_test, frac_test):
    sizes = make_sizes(400, seed)
    train, test = assign_articles(sizes, num_train, num_test, frac_test, seed)
    assert all((a >= 0) != (b >= 0) for a, b in zip(train, test, strict=True))
    train_loads, test_loads = loads(train, sizes, num_train), loads(test, sizes, num_test)
    assert min(train_loads) > 0 and min(test_loads) > 0
    # Within one usual article of the share that was asked for; no shard above the mean by more than one, unless a
    # single article is larger than that.
    assert abs(sum(test_loads) - frac_test * sum(sizes)) <= np.median(sizes)
    for shard_of, split_loads in ((train, train_loads), (test, test_loads)):
        largest = max(size for size, shard in zip(sizes, shard_of, strict=True) if shard >= 0)
        assert max(split_loads) <= max(largest, np.mean(split_loads) + np.median(sizes))


def test_long_articles_are_held_out_as_often_as_others():
    sizes = make_sizes(200)
    longest = set(np.argsort(sizes)[-50:].tolist())
    held_out = [sum(assign_articles(sizes, 4, 2, 0.2, seed)[1][a] >= 0 for a in longest) for seed in range(40)]
    assert np.mean(held_out) == pytest.approx(50 * 0.2, abs=2.5)


def test_few_test_articles_for_many_shards_still_keep_the_share_where_they_can():
    sizes = [100] * 30 + [1] * 40
    _, test = assign_articles(sizes, 10, 35, 0.05, 3)
    held_out = [size for size, shard in zip(sizes, test, strict=True) if shard >= 0]
    assert len(held_out) >= 35 and abs(sum(held_out) - 0.05 * sum(sizes)) <= 100


def test_as_many_shards_as_articles_works_and_one_more_does_not():
    sizes = make_sizes(10)
    train, test = assign_articles(sizes, 7, 3, 0.1, 0)
    assert sorted(shard for shard in train if shard >= 0) == list(range(7))
    assert sorted(shard for shard in test if shard >= 0) == list(range(3))
    with pytest.raises(UserError, match="11 articles, found 10; --num_train_shards 7 --num_test_shards 3 would work"):
        assign_articles(sizes, 8, 3, 0.1, 0)
    with pytest.raises(UserError, match="--num_train_shards 1 --num_test_shards 0 --frac_test 0 would work"):
        assign_articles([5], 256, 256, 0.1, 0)


def test_without_test_shards_everything_is_training():
    sizes = make_sizes(10)
    train, test = assign_articles(sizes, 2, 0, 0.0, 0)
    assert min(train) >= 0 and set(test) == {-1}


def test_another_seed_holds_out_other_articles():
    sizes = make_sizes(100)
    assert assign_articles(sizes, 4, 2, 0.2, 1) == assign_articles(sizes, 4, 2, 0.2, 1)
    assert assign_articles(sizes, 4, 2, 0.2, 1)[1] != assign_articles(sizes, 4, 2, 0.2, 2)[1]
