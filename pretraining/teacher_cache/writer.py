"""Writing one shard's outputs, whole or not at all, a window of rows at a time so that memory does not grow with the shard.

Targets are packed in chunks of whole rows with HDF5's shuffle and deflate, which every h5py reads. Hidden states are left as they are:
half-precision noise does not shrink, and the reader can map them into memory.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

from dataset.files import locked, remove_partials, whole_file
from dataset.hdf5_chunks import write_rows
from pretraining.teacher_cache.format import IDS, NO_TARGETS, OFFSETS, REST, TOPK, VALUES, CacheHeader, disk_errors

CHUNK_BYTES, WINDOW_BYTES = 1 << 20, 1 << 28


@dataclass
class RowOutputs:
    """A teacher's outputs for some rows of a shard.

    rows: (n,) int64. row_of, slot_of: (M,) the place of each masked position in `rows` and in the row's list. ids: (M, K), values: (M, K)
    f2, rest: (M,) f2 or None, as in the file. hidden: layer -> (tokens, D) f2, the rows one after the other.
    """

    rows: np.ndarray
    row_of: np.ndarray
    slot_of: np.ndarray
    ids: np.ndarray | None = None
    values: np.ndarray | None = None
    rest: np.ndarray | None = None
    hidden: dict[int, np.ndarray] = field(default_factory=dict)


def window_rows(header: CacheHeader) -> int:
    """How many rows are held in memory at a time: whole chunks, at most WINDOW_BYTES where a single chunk is no more."""
    row = header.predictions * (header.k * (header.id_dtype.itemsize + 2) + 2)
    row += 2 * header.max_seq_length * header.hidden_size * len(header.hidden_layers)
    chunk = chunk_rows(header)
    return max(1, WINDOW_BYTES // max(1, row) // chunk) * chunk


def chunk_rows(header: CacheHeader) -> int:
    """Rows of a chunk of the targets."""
    return max(1, min(header.rows, CHUNK_BYTES // max(1, 2 * header.predictions * header.k)))


class CacheWriter:
    """Takes a shard's rows window by window, within a window in any order; see `cache_writer`."""

    def __init__(self, path: Path, file: h5py.File, header: CacheHeader, lengths: np.ndarray) -> None:
        self._path, self._file, self._header = path, file, header
        self._offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        self._first = self._stop = 0
        self._buffers: dict[str, np.ndarray] = {}
        for name, value in header.attributes().items():
            file.attrs[name] = value
        if header.kind != NO_TARGETS:
            shape, chunk = (header.rows, header.predictions), chunk_rows(header)
            for name, dtype, tail in self._columns():
                file.create_dataset(name, shape=(*shape, *tail), dtype=dtype, chunks=(chunk, shape[1], *tail), compression="gzip",
                                    shuffle=True, track_times=False)
        if header.hidden_layers:
            file.create_dataset(OFFSETS, data=self._offsets, track_times=False)
            for layer in header.hidden_layers:
                file.create_dataset(f"hidden_{layer}", shape=(int(self._offsets[-1]), header.hidden_size), dtype="<f2", track_times=False)

    def _columns(self) -> list[tuple[str, np.dtype, tuple[int, ...]]]:
        header = self._header
        columns = [(IDS[header.kind], header.id_dtype, (header.k,)), (VALUES[header.kind], np.dtype("<f2"), (header.k,))]
        return columns + [(REST, np.dtype("<f2"), ())] * (header.kind == TOPK)

    def begin(self, first: int, stop: int) -> None:
        """The rows to come are `first` to before `stop`."""
        self._first, self._stop, header = first, stop, self._header
        self._buffers = {}
        if header.kind != NO_TARGETS:
            self._buffers = {name: np.zeros((stop - first, header.predictions, *tail), dtype) for name, dtype, tail in self._columns()}
        tokens = int(self._offsets[stop] - self._offsets[first])
        self._buffers |= {f"hidden_{layer}": np.zeros((tokens, header.hidden_size), "<f2") for layer in header.hidden_layers}

    def add(self, outputs: RowOutputs) -> None:
        """Some rows of the window."""
        header = self._header
        if header.kind != NO_TARGETS:
            place = outputs.rows[outputs.row_of] - self._first, outputs.slot_of
            self._buffers[IDS[header.kind]][place] = outputs.ids
            self._buffers[VALUES[header.kind]][place] = outputs.values
            if header.kind == TOPK:
                self._buffers[REST][place] = outputs.rest
        if header.hidden_layers:
            places = token_places(self._offsets, outputs.rows) - self._offsets[self._first]
            for layer, states in outputs.hidden.items():
                self._buffers[f"hidden_{layer}"][places] = states

    def end(self) -> None:
        """Store the window."""
        header, first = self._header, self._first
        with disk_errors(self._path):
            if header.kind != NO_TARGETS:
                step = chunk_rows(header)
                for name, _, _ in self._columns():
                    rows = self._buffers[name]
                    rows = rows.view("<u2") if rows.dtype == "<f2" else rows  # packed as integers
                    for start in range(0, len(rows), step):
                        write_rows(self._file[name], first + start, rows[start : start + step])
            for layer in header.hidden_layers:
                name = f"hidden_{layer}"
                self._file[name][self._offsets[first] : self._offsets[self._stop]] = self._buffers[name]


def token_places(offsets: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Where the real tokens of `rows` (n,) lie among those of the shard, row after row; `offsets` (N + 1,)."""
    lengths = offsets[rows + 1] - offsets[rows]
    ends = np.cumsum(lengths)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(offsets[rows] - (ends - lengths), lengths)


@contextmanager
def cache_writer(path: Path, header: CacheHeader, lengths: np.ndarray) -> Iterator[CacheWriter]:
    """Write the file `path`, whole or not at all; `lengths` (N,) are the real tokens of the shard's rows.

    UserError for what the disk refuses and where another process writes the same file. What a killed one left of it goes.
    """
    with locked(path.parent, path.name):
        remove_partials(path.parent, [path.name])
        with disk_errors(path), whole_file(path) as partial:
            file = h5py.File(partial, "w")
            try:
                yield CacheWriter(path, file, header, lengths)
            finally:
                file.close()
