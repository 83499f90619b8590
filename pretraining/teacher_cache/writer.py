"""Writing one shard's outputs, whole or not at all, a window of rows at a time so that memory does not grow with the shard.

Targets are packed in chunks of whole rows with HDF5's shuffle and deflate, which every h5py reads. Hidden states are left as they are:
half-precision noise does not shrink, and the reader can map them into memory.

HDF5 does not survive a disk that fills up under it: what it could not write it holds in memory, tries again when it is closed and ends
the process. So the space for the next piece is taken from the system before HDF5 writes it, and what was too much given back.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
import xxhash

from dataset.files import locked, remove_partials, whole_file
from dataset.hdf5_chunks import write_rows
from pretraining.teacher_cache.format import HASH, IDS, NO_TARGETS, OFFSETS, REST, TOPK, VALUES, CacheHeader, disk_errors

CHUNK_BYTES, WINDOW_BYTES = 1 << 20, 1 << 28
MARGIN_BYTES = 1 << 18  # what HDF5 writes besides: headers, trees of chunks


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
    """Takes a shard's rows window by window, within a window in any order; see `cache_writer`. `path` is for messages."""

    def __init__(self, path: Path, file: h5py.File, header: CacheHeader, lengths: np.ndarray) -> None:
        self._path, self._file, self._header = path, file, header
        self._reserved = 0
        self._digests = {layer: xxhash.xxh3_128() for layer in header.hidden_layers}
        self._offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        self._first = self._stop = 0
        self._buffers: dict[str, np.ndarray] = {}
        self._reserve(self._offsets.nbytes + 2 * int(self._offsets[-1]) * header.hidden_size * len(header.hidden_layers))
        for name, value in header.attributes().items():
            file.attrs[name] = value
        if header.kind != NO_TARGETS:
            shape, chunk = (header.rows, header.predictions), chunk_rows(header)
            for name, dtype, tail in self._columns():
                file.create_dataset(name, shape=(*shape, *tail), dtype=dtype, chunks=(chunk, shape[1], *tail), compression="gzip",
                                    shuffle=True, track_times=False)
        if header.hidden_layers:
            file.create_dataset(OFFSETS, data=self._offsets, track_times=False)
            early = h5py.h5p.create(h5py.h5p.DATASET_CREATE)  # so that all the space is known
            early.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
            early.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
            early.set_obj_track_times(False)
            space = h5py.h5s.create_simple((int(self._offsets[-1]), header.hidden_size))
            for layer in header.hidden_layers:
                h5py.h5d.create(file.id, f"hidden_{layer}".encode(), h5py.h5t.IEEE_F16LE, space, early)

    def _reserve(self, more: int) -> None:
        """Take the space that HDF5 has given out, and for `more` bytes, from the disk; OSError where it has none."""
        if self._file.driver != "sec2":  # in memory
            return
        wanted = self._file.id.get_filesize() + more + MARGIN_BYTES
        if wanted > self._reserved:
            _take_space(self._file.id.get_vfd_handle(), self._reserved, wanted - self._reserved)
            self._reserved = wanted

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
                        self._reserve(rows[start : start + step].nbytes)
                        write_rows(self._file[name], first + start, rows[start : start + step])
            for layer in header.hidden_layers:
                name = f"hidden_{layer}"
                self._file[name][self._offsets[first] : self._offsets[self._stop]] = self._buffers[name]
                self._digests[layer].update(self._buffers[name])

    def finish(self) -> None:
        """Store what is of whole datasets."""
        with disk_errors(self._path):
            for layer, digest in self._digests.items():
                self._file[f"hidden_{layer}"].attrs[HASH] = digest.hexdigest()


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
            _check_room(partial)
            file = h5py.File(partial, "w")
            try:
                writer = CacheWriter(path, file, header, lengths)
                yield writer
                writer.finish()
                file.flush()
                size = file.id.get_filesize()
            finally:
                file.close()
            os.truncate(partial, size)


def _check_room(path: Path) -> None:
    """Whether the disk takes as much as HDF5 keeps in memory at the least; OSError where it does not."""
    with path.open("wb") as file:
        _take_space(file.fileno(), 0, MARGIN_BYTES)


def _take_space(descriptor: int, start: int, size: int) -> None:
    """Have the system set `size` bytes aside from `start` on, where the file system can; OSError where there are none."""
    try:
        os.posix_fallocate(descriptor, start, size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise
