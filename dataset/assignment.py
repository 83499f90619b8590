"""Which article goes where: a test set of the right share, then shards of equal size. Pure functions of sizes and seed.

Sizes are sentences. The test set is a random choice, filled up to the share it should have; each split is then dealt
out largest article first, each to the shard that has least, so two shards of a split differ by at most one article.
"""

import heapq
from collections.abc import Sequence

import numpy as np

from dataset.errors import UserError


def assign_articles(
    sizes: Sequence[int], num_train: int, num_test: int, frac_test: float, seed: int
) -> tuple[list[int], list[int]]:
    """(shard of every article among the train shards, among the test shards), -1 for articles of the other split.

    `sizes`: sentences of each article, all positive. Raises UserError where there are fewer articles than shards.
    """
    if num_train + num_test > len(sizes):
        test = min(num_test, len(sizes) // 2)
        advice = f"--num_train_shards {len(sizes) - test} --num_test_shards {test}{'' if test else ' --frac_test 0'}"
        raise UserError(
            f"{num_train} train and {num_test} test shards need {num_train + num_test} articles, found {len(sizes)}; "
            f"{advice} would work"
        )
    order = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed]))).permutation(len(sizes)).tolist()
    test = choose_test(sizes, order, num_train, num_test, frac_test)
    train_shards, test_shards = [-1] * len(sizes), [-1] * len(sizes)
    _deal([article for article in order if article not in test], sizes, num_train, train_shards)
    _deal([article for article in order if article in test], sizes, num_test, test_shards)
    return train_shards, test_shards


def choose_test(sizes: Sequence[int], order: list[int], num_train: int, num_test: int, frac_test: float) -> set[int]:
    """Articles of the test set: `frac_test` of all sentences as nearly as whole articles and shard counts allow."""
    if not num_test:
        return set()
    target = frac_test * sum(sizes)
    most = len(sizes) - num_train
    test, train, total = [], [], 0
    for article in order:
        if len(test) < most and total + sizes[article] <= target:
            test.append(article)
            total += sizes[article]
        else:
            train.append(article)
    train.sort(key=lambda article: sizes[article])
    # The smallest article left goes over the target; it is taken where that comes nearer.
    if len(test) < most and abs(total + sizes[train[0]] - target) < abs(total - target):
        total += sizes[train[0]]
        test.append(train.pop(0))
    # Too few articles for the shards: take small ones, and give large ones back while that brings the share nearer.
    missing = num_test - len(test)
    if missing > 0:
        test, train = test + train[:missing], train[missing:]
        total = sum(sizes[article] for article in test)
        test.sort(key=lambda article: -sizes[article])
        for give, take in zip(range(len(test)), train, strict=False):
            change = sizes[take] - sizes[test[give]]
            if change >= 0 or abs(total + change - target) >= abs(total - target):
                break
            test[give] = take
            total += change
    return set(test)


def _deal(articles: list[int], sizes: Sequence[int], shards: int, shard_of: list[int]) -> None:
    """Set `shard_of` for `articles`: largest first (ties in the given order), each to the shard with least so far."""
    loads = [(0, shard) for shard in range(shards)]
    for article in sorted(articles, key=lambda article: -sizes[article]):
        load, shard = heapq.heappop(loads)
        shard_of[article] = shard
        heapq.heappush(loads, (load + sizes[article], shard))
