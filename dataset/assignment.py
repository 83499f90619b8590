"""Which article goes where: a test set of the right share, then shards of equal size. Depends on sizes, order and seed only.

Sizes are sentences. The test set is a random choice, filled up to the share it should have; each split is then dealt out largest article
first, each to the shard that has least (Graham's LPT rule), so two shards of a split differ by at most one article. A corpus comes in
windows of consecutive articles: shares and loads are carried from one to the next, so only a window has to be in memory.
"""

import heapq

import numpy as np

from dataset.errors import UserError


class Assigner:
    """Deals out articles window by window. Shards 0 to `num_train` - 1 are the train shards, `num_test` test shards follow.

    The first window must hold an article for every shard.
    """

    def __init__(self, num_train: int, num_test: int, frac_test: float, seed: int) -> None:
        self._num_train, self._num_test, self._frac_test = num_train, num_test, frac_test
        self._random = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed])))
        self._seen = self._held_out = 0
        self._train_loads = [(0, shard) for shard in range(num_train)]
        self._test_loads = [(0, num_train + shard) for shard in range(num_test)]

    def assign(self, sizes: np.ndarray) -> np.ndarray:
        """Shard of every article of the next window (int64); `sizes`: sentences of each (int64), all positive.

        Raises UserError where the first window has fewer articles than there are shards.
        """
        first = self._seen == 0
        if first:
            check_count(len(sizes), self._num_train, self._num_test)
        order = self._random.permutation(len(sizes)).tolist()
        counts = sizes.tolist()
        self._seen += sum(counts)
        target = self._frac_test * self._seen - self._held_out
        least_train, least_test = (self._num_train, self._num_test) if first else (0, 0)
        test = choose_test(counts, order, least_train, least_test, target) if self._num_test else set()
        self._held_out += sum(counts[article] for article in test)
        shard_of = np.empty(len(counts), np.int64)
        _deal([article for article in order if article not in test], counts, self._train_loads, shard_of)
        _deal([article for article in order if article in test], counts, self._test_loads, shard_of)
        return shard_of


def check_count(articles: int, num_train: int, num_test: int) -> None:
    """UserError where there are fewer articles than shards."""
    if num_train + num_test > articles:
        test = min(num_test, articles // 2)
        advice = f"--num_train_shards {articles - test} --num_test_shards {test}{'' if test else ' --frac_test 0'}"
        raise UserError(
            f"{num_train} train and {num_test} test shards need {num_train + num_test} articles, found {articles}; {advice} would work"
        )


def choose_test(sizes: list[int], order: list[int], least_train: int, least_test: int, target: float) -> set[int]:
    """Articles of the test set: `target` sentences as nearly as whole articles allow, and the least number for either split."""
    most = len(sizes) - least_train
    test, train, total = [], [], 0
    for article in order:
        if len(test) < most and total + sizes[article] <= target:
            test.append(article)
            total += sizes[article]
        else:
            train.append(article)
    train.sort(key=lambda article: sizes[article])
    # The smallest article left goes over the target; it is taken where that comes nearer.
    if train and len(test) < most and abs(total + sizes[train[0]] - target) < abs(total - target):
        total += sizes[train[0]]
        test.append(train.pop(0))
    # Too few articles for the shards: take small ones, and give large ones back while that brings the share nearer.
    missing = least_test - len(test)
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


def _deal(articles: list[int], sizes: list[int], loads: list[tuple[int, int]], shard_of: np.ndarray) -> None:
    """Set `shard_of` for `articles`: largest first (ties in the given order), each to the shard with least in the heap `loads`."""
    for article in sorted(articles, key=lambda article: -sizes[article]):
        load, shard = loads[0]
        shard_of[article] = shard
        heapq.heapreplace(loads, (load + sizes[article], shard))
