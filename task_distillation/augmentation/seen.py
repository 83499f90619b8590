"""A set of 64-bit hashes at 8 bytes each (16 while it grows), for what Python's own set needs 60 to 100.

Sorted arrays, each more than twice as long as the next, so that a look-up is a few binary searches and a hash is moved a few times.
"""

import numpy as np


class Seen:
    """Which hashes have been before."""

    def __init__(self) -> None:
        self._levels: list[np.ndarray] = []

    def add(self, hashes: np.ndarray) -> np.ndarray:
        """`hashes` (n,) uint64 -> (n,) bool, True for each that is here for the first time, in this array too; they are added."""
        values, firsts = np.unique(hashes, return_index=True)
        fresh = np.ones(len(values), bool)
        for level in self._levels:
            at = np.searchsorted(level, values)
            at[at == len(level)] = 0  # beyond its end: not there
            fresh &= level[at] != values
        is_new = np.zeros(len(hashes), bool)
        is_new[firsts[fresh]] = True
        self._insert(values[fresh])
        return is_new

    def _insert(self, values: np.ndarray) -> None:
        while self._levels and len(self._levels[-1]) <= 2 * len(values):
            values = np.sort(np.concatenate([self._levels.pop(), values]))
        if len(values):
            self._levels.append(values)
