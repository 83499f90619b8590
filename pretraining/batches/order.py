"""The order of all samples of a run, as a pure function of (seed, epoch): nothing to save, nothing to replay.

Within an epoch shards are permuted and rows are permuted inside their shard, so that reading stays sequential by shard; no sample
is dropped or repeated. Optimizer step k of a run with global batch B uses samples [k·B, (k+1)·B) of the endless concatenation
of epochs, however many ranks, micro-batches or loader threads share the work.

Samples of similar length come into one micro-batch by sorting inside a step (`longest_first`), never across steps: which samples a step
learns from, and the mean over them, stay the same with and without, and the position stays one integer. The originals sort or bin the
whole epoch, which makes one step all short and the next all long.

Permutations come from sorting Philox's raw 64-bit words: NumPy promises that stream for ever, which it does not for `permutation`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np


def _permutation(count: int, key: tuple[int, ...]) -> np.ndarray:
    """A permutation of range(count), (count,) int64, that depends on `key` alone."""
    words = np.random.Philox(np.random.SeedSequence(key)).random_raw(count)
    return np.argsort(words, kind="stable")


def shard_order(seed: int, epoch: int, shards: int) -> np.ndarray:
    """The order in which `shards` shards are read in `epoch`, (shards,) int64."""
    return _permutation(shards, (seed, epoch, 0, 0))


def row_order(seed: int, epoch: int, shard: int, rows: int) -> np.ndarray:
    """The order in which the `rows` rows of `shard` are read in `epoch`, (rows,) int64."""
    return _permutation(rows, (seed, epoch, 1, shard))


def order(seed: int, epoch: int, shard_sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Every (shard, row) of one epoch, each once, in training order."""
    for shard in shard_order(seed, epoch, len(shard_sizes)).tolist():
        for row in row_order(seed, epoch, shard, shard_sizes[shard]).tolist():
            yield shard, row


@dataclass(frozen=True)
class Segment:
    """Consecutive samples of the order that lie in one shard: `rows` (n,) int64, in training order."""

    epoch: int
    shard: int
    rows: np.ndarray


def longest_first(widths: np.ndarray) -> np.ndarray:
    """The places (B,) int64 of a global batch's samples by falling `widths` (B,), equal ones in the order of training.

    Longest first, and not shuffled: a step's sum does not depend on the order of its micro-batches, and memory peaks in the first
    micro-step of the first step, where a lack of it costs least.
    """
    return np.argsort(-widths, kind="stable")


def at_places(segments: Sequence[Segment], places: np.ndarray) -> list[Segment]:
    """Those samples of `segments` whose places in their concatenation are `places` (n,), ascending."""
    ends = np.cumsum([len(segment.rows) for segment in segments])
    pieces = np.split(places, np.searchsorted(places, ends[:-1]))
    starts = ends - [len(segment.rows) for segment in segments]
    return [Segment(segment.epoch, segment.shard, segment.rows[piece - start])
            for segment, start, piece in zip(segments, starts, pieces, strict=True) if len(piece)]


class GlobalOrder:
    """The endless concatenation of epochs, addressed by one integer, the position."""

    def __init__(self, seed: int, shard_sizes: Sequence[int]) -> None:
        self.seed = seed
        self.shard_sizes = list(shard_sizes)
        self.samples = sum(self.shard_sizes)
        self._ends: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._rows: dict[tuple[int, int], np.ndarray] = {}

    def segments(self, position: int, count: int) -> Iterator[Segment]:
        """Samples [position, position + count), cut where the shard changes."""
        while count > 0:
            epoch, offset = divmod(position, self.samples)
            shards, ends = self._epoch(epoch)
            place = int(np.searchsorted(ends, offset, side="right"))
            shard = int(shards[place])
            start = offset - (int(ends[place]) - self.shard_sizes[shard])
            rows = self._shard_rows(epoch, shard)[start : start + count]
            yield Segment(epoch, shard, rows)
            position, count = position + len(rows), count - len(rows)

    def shards_finished(self, position: int) -> int:
        """How many shards lie wholly before `position`: the originals' epoch counter, an epoch being a pass over one shard."""
        epoch, offset = divmod(position, self.samples)
        _, ends = self._epoch(epoch)
        return epoch * len(self.shard_sizes) + int(np.searchsorted(ends, offset, side="right"))

    def position_after_shards(self, shards: int) -> int:
        """The position at which `shards` shards have been read."""
        epoch, rest = divmod(shards, len(self.shard_sizes))
        return epoch * self.samples + (int(self._epoch(epoch)[1][rest - 1]) if rest else 0)

    def _epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """(shards in order, cumulative ends); the two epochs a batch can touch are kept."""
        if epoch not in self._ends:
            shards = shard_order(self.seed, epoch, len(self.shard_sizes))
            self._ends = {kept: value for kept, value in self._ends.items() if kept == epoch - 1}
            self._ends[epoch] = (shards, np.cumsum(np.array(self.shard_sizes)[shards]))
        return self._ends[epoch]

    def _shard_rows(self, epoch: int, shard: int) -> np.ndarray:
        key = (epoch, shard)
        if key not in self._rows:
            if len(self._rows) >= 2:
                del self._rows[next(iter(self._rows))]
            self._rows[key] = row_order(self.seed, epoch, shard, self.shard_sizes[shard])
        return self._rows[key]
