"""Samples with the same text (unmasked tokens, special ones aside), found by 64-bit hashes.

Memory: 16 bytes for each test sample and up to 24 for each train sample of one duplicate, however many duplicates generate_samples
--dup_factor made. Two different texts share a hash once in 10^19 pairs: with 10^8 samples, once in some 4,000 folders.

A text that stands in the shards of several duplicates was put there; one that stands twice in the same duplicate is an accident.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataset.inspection.scan import NO_TEXT, ShardScan
from dataset.shard_format import TRAIN, ShardInfo

Place = tuple[Path, int]  # shard, row


@dataclass(frozen=True)
class Repeats:
    """`samples` that repeat the text of another one, and the places of one such pair."""

    samples: int = 0
    example: tuple[Place, Place] | None = None


@dataclass(frozen=True)
class Duplicates:
    """`in_train`, `in_test`: samples beyond the first of their text within one duplicate; `shared`: test samples that stand in train too;
    `made`: train samples of further duplicates whose text is exactly that of one in the first."""

    in_train: Repeats
    in_test: Repeats
    shared: Repeats
    made: int


class _Group:
    """The hashes of some shards, in their order and sorted."""

    def __init__(self, scans: list[ShardScan]) -> None:
        self._paths = [scan.path for scan in scans]
        self._ends = np.cumsum([len(scan.hashes) for scan in scans])
        self.hashes = np.concatenate([scan.hashes for scan in scans]) if scans else np.zeros(0, dtype=np.uint64)
        for scan in scans:
            scan.hashes = np.zeros(0, dtype=np.uint64)
        self.sorted = np.sort(self.hashes)
        self.sorted = self.sorted[np.searchsorted(self.sorted, np.uint64(NO_TEXT), side="right") :]

    def forget_places(self) -> None:
        """Keep only what `holds` needs."""
        self.hashes = self.hashes[:0]

    def places(self, value: np.uint64, count: int) -> list[Place]:
        """The first `count` places of a hash."""
        found = np.flatnonzero(self.hashes == value)[:count].tolist()
        shards = np.searchsorted(self._ends, found, side="right").tolist()
        return [
            (self._paths[shard], place - (int(self._ends[shard - 1]) if shard else 0)) for place, shard in zip(found, shards, strict=True)
        ]

    def holds(self, values: np.ndarray) -> np.ndarray:
        """(len(values),) bool."""
        places = np.searchsorted(self.sorted, values)
        if not len(self.sorted):
            return np.zeros(len(values), dtype=bool)
        return (places < len(self.sorted)) & (self.sorted[np.minimum(places, len(self.sorted) - 1)] == values)

    def repeats(self) -> Repeats:
        """Samples beyond the first of their text."""
        is_repeat = self.sorted[1:] == self.sorted[:-1]
        if not is_repeat.any():
            return Repeats()
        first, second = self.places(self.sorted[1:][int(np.argmax(is_repeat))], 2)
        return Repeats(int(np.count_nonzero(is_repeat)), (first, second))


class DuplicateFinder:
    """Takes the scans of shards in the order of `reading_order`, so that one duplicate is in memory at a time."""

    def __init__(self) -> None:
        self._tests: list[_Group] = []
        self._shared: list[np.ndarray] = []
        self._first: _Group | None = None
        self._in_train, self._in_test = Repeats(), Repeats()
        self._example: tuple[Place, Place] | None = None
        self._made = 0
        self._key: tuple[bool, int] | None = None
        self._waiting: list[ShardScan] = []

    def add(self, scan: ShardScan) -> None:
        """Compare one more shard; its `hashes` are taken from it."""
        if scan.info is None:
            return
        key = group_of(scan.info)
        if key != self._key:
            self._close()
        self._key = key
        self._waiting.append(scan)

    def finish(self) -> Duplicates:
        """What there is, once all shards were added."""
        self._close()
        shared = sum(int(np.count_nonzero(found)) for found in self._shared)
        return Duplicates(self._in_train, self._in_test, Repeats(shared, self._example), self._made)

    def _close(self) -> None:
        if not self._waiting:
            return
        group, self._waiting = _Group(self._waiting), []
        is_train = self._key is not None and self._key[0]
        if not is_train:
            self._in_test = _sum(self._in_test, group.repeats())
            self._tests.append(group)
            self._shared.append(np.zeros(len(group.sorted), dtype=bool))
            return
        self._in_train = _sum(self._in_train, group.repeats())
        for test, found in zip(self._tests, self._shared, strict=True):
            new = group.holds(test.sorted)
            if self._example is None and new.any():
                value = test.sorted[int(np.argmax(new))]
                self._example = (test.places(value, 1)[0], group.places(value, 1)[0])
            found |= new
        if self._first is None:
            self._first = group
            group.forget_places()
        else:
            self._made += int(np.count_nonzero(self._first.holds(group.sorted)))


def group_of(info: ShardInfo) -> tuple[bool, int]:
    """(is a train shard, which duplicate): test shards come first, then one duplicate after the other."""
    return info.split == TRAIN, int(info.attributes.get("duplicate", 0))


def _sum(one: Repeats, other: Repeats) -> Repeats:
    return Repeats(one.samples + other.samples, one.example or other.example)
