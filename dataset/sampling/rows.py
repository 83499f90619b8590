"""Rows of samples from their tokens: `[CLS] A [SEP]`, or `[CLS] A [SEP] B [SEP]`, padded on the right."""

from dataclasses import dataclass

import numpy as np

from dataset import shard_format as shards
from dataset.tokenizer import SpecialIds


@dataclass(frozen=True)
class Pieces:
    """n samples: `first` (all tokens of the first parts one after the other) with `first_sizes` (n,); for next-sentence prediction the
    same of the second parts, and `is_random` (n,) bool, whether the second part comes from another document. Ids and sizes are ints."""

    first: np.ndarray
    first_sizes: np.ndarray
    second: np.ndarray | None = None
    second_sizes: np.ndarray | None = None
    is_random: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.first_sizes)


def fill_rows(pieces: Pieces, max_seq_length: int, ids: SpecialIds) -> dict[str, np.ndarray]:
    """Unmasked arrays by the keys of a shard: input_ids (n, L) int32, input_mask and segment_ids (n, L) int8, and with second parts
    next_sentence_labels (n,) int8, 1 for a random one."""
    rows, columns = np.arange(len(pieces)), np.arange(max_seq_length, dtype=np.int32)
    input_ids = np.full((len(pieces), max_seq_length), ids.pad, dtype=np.int32)
    sep = pieces.first_sizes[:, None] + 1
    input_ids[:, 0] = ids.cls
    input_ids[(columns > 0) & (columns < sep)] = pieces.first
    input_ids[rows, sep[:, 0]] = ids.sep
    if pieces.second is None:
        segment_ids = np.zeros(input_ids.shape, dtype=np.int8)
        return {shards.INPUT_IDS: input_ids, shards.INPUT_MASK: (columns <= sep).astype(np.int8), shards.SEGMENT_IDS: segment_ids}
    last = sep + pieces.second_sizes[:, None] + 1
    input_ids[(columns > sep) & (columns < last)] = pieces.second
    input_ids[rows, last[:, 0]] = ids.sep
    return {
        shards.INPUT_IDS: input_ids,
        shards.INPUT_MASK: (columns <= last).astype(np.int8),
        shards.SEGMENT_IDS: ((columns > sep) & (columns <= last)).astype(np.int8),
        shards.NSP_LABELS: pieces.is_random.astype(np.int8),
    }
