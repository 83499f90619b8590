"""Stored outputs of the rows of a batch, read beside the shards; NumPy only, in the formats of the file.

Targets are read whole with their shard, under the same rule of at most two in memory. Hidden states, which are a hundred times as large,
are mapped: rows are read where they lie, and the system keeps what it can.
"""

from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

from dataset.errors import UserError, one_line
from dataset.hdf5_chunks import read_all
from dataset.shard_format import ShardInfo
from pretraining.teacher_cache.format import (
    AGAIN,
    DAMAGE,
    IDS,
    OFFSETS,
    REST,
    SAMPLED,
    TOPK,
    VALUES,
    cache_path,
    is_finite,
    is_number,
    open_cache,
    read_header,
    samples_hash,
)
from pretraining.teacher_cache.writer import token_places


@dataclass
class TeacherRows:
    """What a teacher said of n samples: ids (n, P, K), values (n, P, K) f2, rest (n, P) f2 or None; hidden: layer -> (tokens, D) f2 of the
    real tokens, row after row, and lengths (n,) how many each row has."""

    lengths: np.ndarray
    ids: np.ndarray | None = None
    values: np.ndarray | None = None
    rest: np.ndarray | None = None
    hidden: dict[int, np.ndarray] = field(default_factory=dict)

    def __getitem__(self, rows: np.ndarray) -> "TeacherRows":
        ids, values, rest = (None if array is None else array[rows] for array in (self.ids, self.values, self.rest))
        hidden = {}
        if self.hidden:
            places = token_places(np.concatenate([[0], np.cumsum(self.lengths)]), rows)
            hidden = {layer: states[places] for layer, states in self.hidden.items()}
        return TeacherRows(self.lengths[rows], ids, values, rest, hidden)

    @classmethod
    def joined(cls, parts: list["TeacherRows"]) -> "TeacherRows":
        """The rows of all parts, which may have different numbers of positions."""
        def join(arrays: list[np.ndarray | None]) -> np.ndarray | None:
            if arrays[0] is None:
                return None
            width = max(array.shape[1] for array in arrays)
            tail = [(0, 0)] * (arrays[0].ndim - 2)
            return np.concatenate([np.pad(array, [(0, 0), (0, width - array.shape[1]), *tail]) for array in arrays])

        hidden = {layer: np.concatenate([part.hidden[layer] for part in parts]) for layer in parts[0].hidden}
        return cls(np.concatenate([part.lengths for part in parts]),
                   *(join([getattr(part, name) for part in parts]) for name in ("ids", "values", "rest")), hidden)


class ShardOutputs:
    """The stored outputs for one shard."""

    def __init__(self, path: Path, arrays: dict[str, np.ndarray], targets: bool, layers: tuple[int, ...]) -> None:
        self._path, self.lengths = path, np.count_nonzero(arrays["input_mask"], axis=1)
        header = read_header(path)
        if header.shard_hash != samples_hash(arrays, header.input):
            raise UserError(f"{path}: its shard was another one when it was made; {AGAIN}")
        self.ids = self.values = self.rest = None
        self.hidden: dict[int, np.ndarray] = {}
        with open_cache(path) as file:
            try:
                if targets:
                    self.ids, self.values = read_all(file[IDS[header.kind]]), read_all(file[VALUES[header.kind]])
                    self.rest = read_all(file[REST]) if header.kind == TOPK else None
                if layers:
                    self.offsets = file[OFFSETS][:]
                    self.hidden = {layer: _mapped(path, file[f"hidden_{layer}"]) for layer in layers}
            except DAMAGE as error:
                raise UserError(f"{path} cannot be read ({one_line(error)}); {AGAIN}") from error
        if layers and not np.array_equal(self.offsets, np.concatenate([[0], np.cumsum(self.lengths)])):
            raise UserError(f"{path}: {OFFSETS} are not those of its shard's rows; {AGAIN}")
        if self.ids is not None and self.ids.size and int(self.ids.max()) >= header.vocab_size:
            raise UserError(f"{path}: {IDS[header.kind]} holds {int(self.ids.max())}, expected below {header.vocab_size}; {AGAIN}")
        if self.values is not None and not (is_finite(self.values) if header.kind == SAMPLED else is_number(self.values)
                                            and is_number(self.rest)):
            raise UserError(f"{path}: {VALUES[header.kind]} or {REST} holds what is no number; {AGAIN}")

    def rows(self, rows: np.ndarray, max_predictions: int | None) -> TeacherRows:
        """The outputs of `rows` (n,), at most `max_predictions` positions of each; UserError where hidden states are damaged."""
        ids, values, rest = (None if array is None else array[rows][:, :max_predictions] for array in (self.ids, self.values, self.rest))
        places = token_places(self.offsets, rows) if self.hidden else None
        hidden = {layer: states[places] for layer, states in self.hidden.items()}
        lost = next((layer for layer, states in hidden.items() if not is_finite(states)), None)
        if lost is not None:
            raise UserError(f"{self._path}: hidden_{lost} holds what is no number; {AGAIN}")
        return TeacherRows(self.lengths[rows], ids, values, rest, hidden)


@dataclass(frozen=True)
class CacheReader:
    """Opens the outputs that belong to a shard: `targets` or not, and the hidden states of `layers`."""

    folder: Path
    targets: bool
    layers: tuple[int, ...]

    def load(self, info: ShardInfo, arrays: dict[str, np.ndarray]) -> ShardOutputs:
        """The outputs for a shard whose arrays these are; UserError where they are another's or damaged."""
        return ShardOutputs(cache_path(self.folder, info.path), arrays, self.targets, self.layers)


def _mapped(path: Path, dataset: h5py.Dataset) -> np.ndarray:
    """A dataset that was written in one piece as a map of the file; anything else is read."""
    offset = dataset.id.get_offset()
    if offset is None or dataset.dtype != np.dtype("<f2"):
        return dataset[:]
    return np.memmap(path, np.dtype("<f2"), "r", offset, dataset.shape)
