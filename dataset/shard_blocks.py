"""Samples of a shard block by block, with their masks undone: what counting and inspecting share.

A block holds about a million tokens, so that memory does not grow with the shard.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dataset import shard_format as shards
from dataset.errors import UserError, one_line

TOKENS_AT_A_TIME = 2**20


@dataclass(frozen=True)
class Block:
    """Rows `start`, `start` + 1, ... of a shard, in the integer types they are stored in.

    `ids`, `mask`, `segments` (n, L); `positions`, `labels` (n, P), P = 0 without stored masks; `nsp` (n,) or None.
    """

    start: int
    ids: np.ndarray
    mask: np.ndarray
    segments: np.ndarray
    positions: np.ndarray
    labels: np.ndarray
    nsp: np.ndarray | None

    def predicted(self) -> np.ndarray:
        """(n, P) bool: the entry is a prediction; the first position of 0 ends a row's list."""
        return np.logical_and.accumulate(self.positions != 0, axis=1)

    def unmasked_ids(self) -> np.ndarray:
        """(n, L) ids as they were before masking; positions outside the row are passed over."""
        width = self.ids.shape[1]
        rows, slots = np.nonzero(self.predicted() & (self.positions > 0) & (self.positions < width))
        original = self.ids.astype(np.int64)
        original[rows, self.positions[rows, slots]] = self.labels[rows, slots]
        return original


def read_blocks(info: shards.ShardInfo) -> Iterator[Block]:
    """All rows of a shard whose header was read; UserError where the file is damaged inside."""
    rows = max(1, TOKENS_AT_A_TIME // max(1, info.max_seq_length))
    with shards.open_shard(info.path) as file:
        for start in range(0, info.rows, rows):
            try:
                part = {key: file[key][start : start + rows] for key in shards.SHAPES if key in file}
            except OSError as error:
                raise UserError(
                    f"{info.path}: rows {start} and on cannot be read ({one_line(error)}); make or copy the shard anew"
                ) from error
            nothing = np.zeros((len(part[shards.INPUT_IDS]), 0), dtype=np.int32)
            yield Block(
                start,
                part[shards.INPUT_IDS],
                part[shards.INPUT_MASK],
                part[shards.SEGMENT_IDS],
                part.get(shards.POSITIONS, nothing),
                part.get(shards.LABELS, nothing),
                part.get(shards.NSP_LABELS),
            )
