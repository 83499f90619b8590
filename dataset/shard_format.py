"""The HDF5 file of masked samples: what it holds, writing it, and refusing what does not fit.

Keys, kinds and shapes are those of academic-budget-bert and NVIDIA's scripts, so their shards read as they are; ours
add attributes that say how a shard was made. Any integer type is accepted when reading. `read_info` looks at headers
only; `check_ids` reads the ids themselves, block by block.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

from dataset.errors import UserError
from dataset.files import reason, whole_file
from dataset.hdf5_chunks import write_rows

FORMAT_VERSION = 1
TRAIN, TEST = "train", "test"
STATIC, NO_MASKING = "static", "none"
SUFFIXES = (".hdf5", ".h5")

INPUT_IDS, INPUT_MASK, SEGMENT_IDS = "input_ids", "input_mask", "segment_ids"
POSITIONS, LABELS, NSP_LABELS = "masked_lm_positions", "masked_lm_ids", "next_sentence_labels"
# N samples, L = max_seq_length, P = max_predictions_per_seq. Rows are filled from the left and padded on the right;
# in masked_lm_positions, ascending, the first 0 ends the list.
SHAPES = {
    INPUT_IDS: ("N", "L"),
    INPUT_MASK: ("N", "L"),
    SEGMENT_IDS: ("N", "L"),
    POSITIONS: ("N", "P"),
    LABELS: ("N", "P"),
    NSP_LABELS: ("N",),
}
DTYPES = {
    INPUT_IDS: np.dtype("<i4"),
    INPUT_MASK: np.dtype("i1"),
    SEGMENT_IDS: np.dtype("i1"),
    POSITIONS: np.dtype("<i4"),
    LABELS: np.dtype("<i4"),
    NSP_LABELS: np.dtype("i1"),
}
REQUIRED = (INPUT_IDS, INPUT_MASK, SEGMENT_IDS)

ATTRIBUTE_VERSION, ATTRIBUTE_SPLIT, ATTRIBUTE_MASKING = "format_version", "split", "masking"
# What ids mean, and how text becomes ids; shards made before the second was told go on to be read.
ATTRIBUTE_TOKENIZER, ATTRIBUTE_RULES, ATTRIBUTE_VOCAB_SIZE = "tokenizer_sha256", "tokenizer_rules_sha256", "vocab_size"
ATTRIBUTE_LOWERCASE = "lowercase"
ATTRIBUTE_WHOLE_WORDS = "whole_word_masking"
ROWS_AT_A_TIME = 8192
CHUNK_BYTES, CHUNK_ROWS = 1 << 20, 8192
# Positions ascend in a row, so those of near slots are alike: a few columns to a chunk compress better, by a sixth.
CHUNK_COLUMNS = {POSITIONS: 5}


class BrokenShard(UserError):
    """The file is no HDF5, or was cut short."""


@dataclass(frozen=True)
class ShardInfo:
    """What the header of one shard says. `predictions` is None and `masking` "none" where the masks are not stored."""

    path: Path
    split: str
    rows: int
    max_seq_length: int
    predictions: int | None
    masking: str
    has_nsp: bool
    attributes: dict[str, int | float | str] = field(default_factory=dict)

    @property
    def is_ours(self) -> bool:
        """False for a shard without our attributes: nothing tells which tokenizer made it."""
        return ATTRIBUTE_VERSION in self.attributes


def split_of(name: str) -> str | None:
    """The split a file name tells: "train", "test" or None. A name that holds both words raises UserError."""
    found = [split for split in (TRAIN, TEST) if split in name]
    if len(found) == 2:
        raise UserError(f"{name} has both 'train' and 'test' in its name; rename it so that it has one of them")
    return found[0] if found else None


def natural_key(path: Path) -> list:
    """Sort key that reads digits as numbers: shard_2 before shard_10."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"([0-9]+)", Path(path).name)]


def find_shards(folder: str | Path) -> tuple[list[Path], list[Path]]:
    """(train shards, test shards) directly in `folder`, by the words in their file names, in natural order.

    Raises UserError where the folder or its train shards are missing. An empty test list is the caller's to judge.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise UserError(f"no folder {folder}; a folder of train_shard_*.hdf5 from generate_samples would work")
    # Hidden names are files still being written, or left by a killed run.
    files = [path for path in folder.iterdir() if path.suffix in SUFFIXES and not path.name.startswith(".")]
    by_split = {TRAIN: [], TEST: [], None: []}
    for path in sorted(files, key=natural_key):
        by_split[split_of(path.name)].append(path)
    if not by_split[TRAIN]:
        raise UserError(
            f"{folder} has no train shard among its {len(files)} HDF5 files; names like train_shard_0.hdf5 would work"
        )
    return by_split[TRAIN], by_split[TEST]


def read_info(path: str | Path) -> ShardInfo:
    """Check the header of a shard and return it; UserError names the file, the key, what was found and expected."""
    path = Path(path)
    with open_shard(path) as file:
        attributes = {name: _plain(value) for name, value in file.attrs.items()}
        sizes = _check_datasets(path, file)
        has_nsp = NSP_LABELS in file
    version = attributes.get(ATTRIBUTE_VERSION, FORMAT_VERSION)
    if version != FORMAT_VERSION:
        raise UserError(f"{path}: {ATTRIBUTE_VERSION} is {version}, expected {FORMAT_VERSION}; make the shard anew")
    if not sizes["N"]:
        raise UserError(f"{path}: {INPUT_IDS} has no rows, expected at least one sample")
    masking = STATIC if "P" in sizes else NO_MASKING
    named = split_of(path.name)
    split = attributes.get(ATTRIBUTE_SPLIT, named)
    for name, found, expected in (
        (ATTRIBUTE_MASKING, attributes.get(ATTRIBUTE_MASKING, masking), masking),
        (ATTRIBUTE_SPLIT, split, named or split),
    ):
        if found != expected:
            told = "its keys" if name == ATTRIBUTE_MASKING else "its file name"
            raise UserError(f"{path}: attribute {name} is {found!r}, expected {expected!r} as {told} say")
    if split not in (TRAIN, TEST):
        raise UserError(f"{path}: neither file name nor attribute says train or test; rename it train_{path.name}")
    return ShardInfo(path, split, sizes["N"], sizes["L"], sizes.get("P"), masking, has_nsp, attributes)


def open_shard(path: Path) -> h5py.File:
    """Open a shard for reading; UserError where it is missing or may not be read, BrokenShard where it is no HDF5 or was cut short."""
    if not path.is_file():
        raise UserError(f"no shard {path}; generate_samples makes train_shard_*.hdf5")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        if error.errno:  # the system's, such as no permission or a lock; damage has no number
            raise UserError(f"{path} cannot be read ({reason(error)})") from error
        what = "was cut short" if "truncated" in str(error) else "is no HDF5 file"
        raise BrokenShard(f"{path} {what} ({error}); make or copy it anew") from error


def check_ids(path: str | Path, vocab_size: int) -> None:
    """Read every id of a shard; UserError where one is not in [0, vocab_size) or a position not in [0, L)."""
    path = Path(path)
    with open_shard(path) as file:
        limits = {INPUT_IDS: vocab_size, LABELS: vocab_size, POSITIONS: file[INPUT_IDS].shape[1]}
        for key, limit in limits.items():
            if key in file and file[key].size:
                lowest, highest = _extremes(path, file[key])
                if highest >= limit:
                    raise UserError(f"{path}: {key} holds {highest}, expected numbers below {limit}")
                if lowest < 0:
                    raise UserError(f"{path}: {key} holds {lowest}, expected no negative number")


def check_tokenizer(info: ShardInfo, sha256: str) -> None:
    """UserError where the shard says it was made with another vocabulary; a shard that says nothing passes."""
    found = info.attributes.get(ATTRIBUTE_TOKENIZER, sha256)
    if found != sha256:
        raise UserError(
            f"{info.path}: attribute {ATTRIBUTE_TOKENIZER} is {found}, expected {sha256}; "
            "use the tokenizer that made the shard, or make the shard with this tokenizer"
        )


class ShardWriter:
    """Takes the rows of a shard block by block; see `shard_writer`."""

    def __init__(self, path: Path, file: h5py.File) -> None:
        self.rows = 0
        self._path, self._file = path, file
        self._columns: dict[str, _Column] = {}

    def append(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Add rows: keys and shapes as in SHAPES, the same keys in every call, integers, stored in the types of DTYPES.

        A value that does not fit its type raises ValueError; what the disk refuses UserError.
        """
        checked = {key: _fitting(key, np.asarray(arrays[key])) for key in SHAPES if key in arrays}
        with _disk_errors(self._path):
            if not self._columns:
                self._columns = {key: _Column(self._file, key, values.shape[1:]) for key, values in checked.items()}
            if checked.keys() != self._columns.keys():
                raise ValueError(f"{self._path}: keys {sorted(checked)} after {sorted(self._columns)}")
            start, rows = 0, len(checked[INPUT_IDS])
            while start < rows:
                # Up to the first full chunk of any key: chunks then lie in the file in one order, whatever the blocks.
                stop = start + min(column.missing_rows for column in self._columns.values())
                for key, values in checked.items():
                    self._columns[key].append(values[start:stop])
                start = stop
        self.rows += rows

    def finish(self) -> None:
        """Store what waits for a whole chunk."""
        with _disk_errors(self._path):
            for column in self._columns.values():
                column.finish()


@contextmanager
def shard_writer(path: str | Path, attributes: Mapping[str, int | float | str]) -> Iterator[ShardWriter]:
    """Write a shard, whole or not at all, with the same bytes for the same rows in the same blocks or others (no timestamps inside)."""
    path = Path(path)
    with whole_file(path) as partial:
        with _disk_errors(path):
            file = h5py.File(partial, "w")
        try:
            for name, value in attributes.items():
                file.attrs[name] = value
            writer = ShardWriter(path, file)
            yield writer
            writer.finish()
        finally:
            with _disk_errors(path):
                file.close()


def write_shard(path: str | Path, arrays: Mapping[str, np.ndarray], attributes: Mapping[str, int | float | str]) -> None:
    """Write a shard of one block of rows, see `shard_writer` and `ShardWriter.append`."""
    with shard_writer(path, attributes) as writer:
        writer.append(arrays)


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    """What HDF5 cannot write, as one line."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise UserError(f"{path} cannot be written ({reason(error)}); free some space or name another folder") from error


def _fitting(key: str, values: np.ndarray) -> np.ndarray:
    limits = np.iinfo(DTYPES[key])
    fits = not values.size or limits.min <= values.min() <= values.max() <= limits.max
    if values.ndim != len(SHAPES[key]) or not fits:
        raise ValueError(f"{key} of shape {values.shape} does not fit {SHAPES[key]} of {DTYPES[key]}")
    return values.astype(DTYPES[key], copy=False)


class _Column:
    """One dataset of a shard that grows by whole rows of chunks."""

    def __init__(self, file: h5py.File, key: str, tail: tuple[int, ...]) -> None:
        self._dtype = DTYPES[key]
        chunk_tail = tuple(min(size, CHUNK_COLUMNS.get(key, size)) for size in tail)
        row_bytes = int(np.prod(chunk_tail, dtype=np.int64)) * self._dtype.itemsize
        self._chunk_rows = max(1, min(CHUNK_ROWS, CHUNK_BYTES // row_bytes))
        self._dataset = file.create_dataset(
            key, shape=(0, *tail), maxshape=(None, *tail), dtype=self._dtype, chunks=(self._chunk_rows, *chunk_tail),
            compression="gzip", shuffle=True, track_times=False,
        )
        self._waiting: list[np.ndarray] = []
        self._waiting_rows = 0

    @property
    def missing_rows(self) -> int:
        """Rows until the chunk that waits is full."""
        return self._chunk_rows - self._waiting_rows

    def append(self, values: np.ndarray) -> None:
        """Take no more than `missing_rows` rows."""
        self._waiting.append(values)
        self._waiting_rows += len(values)
        if not self.missing_rows:
            self.finish()

    def finish(self) -> None:
        """Store what waits, full or not."""
        if self._waiting_rows:
            self._store(np.concatenate(self._waiting))
            self._waiting, self._waiting_rows = [], 0

    def _store(self, rows: np.ndarray) -> None:
        start = self._dataset.shape[0]
        self._dataset.resize(start + len(rows), axis=0)
        write_rows(self._dataset, start, rows)


def _check_datasets(path: Path, file: h5py.File) -> dict[str, int]:
    """Check keys, kinds and shapes; returns N, L and, where masks are stored, P."""
    stored_masks = [key for key in (POSITIONS, LABELS) if key in file]
    wanted = (*REQUIRED, POSITIONS, LABELS) if stored_masks else REQUIRED
    sizes: dict[str, int] = {}
    for key in (*wanted, *([NSP_LABELS] if NSP_LABELS in file else [])):
        dataset = file.get(key)
        if not isinstance(dataset, h5py.Dataset):
            found = ", ".join(file) or "no key"
            raise UserError(f"{path}: key {key} not found, found {found}; expected {', '.join(wanted)}")
        if dataset.dtype.kind not in "iu":
            raise UserError(f"{path}: {key} holds {dataset.dtype}, expected integers ({DTYPES[key]})")
        letters = SHAPES[key]
        expected = tuple(sizes.get(letter, letter) for letter in letters)
        shape = dataset.shape
        if len(shape) != len(letters) or any(
            isinstance(size, int) and size != found for size, found in zip(expected, shape, strict=True)
        ):
            raise UserError(f"{path}: {key} has shape {shape}, expected ({', '.join(map(str, expected))})")
        sizes.update(zip(letters, shape, strict=True))
    return sizes


def _extremes(path: Path, dataset: h5py.Dataset) -> tuple[int, int]:
    lowest, highest = 0, 0
    for start in range(0, dataset.shape[0], ROWS_AT_A_TIME):
        try:
            block = dataset[start : start + ROWS_AT_A_TIME]
        except OSError as error:
            raise UserError(f"{path}: {dataset.name} cannot be read ({error}); make or copy the shard anew") from error
        lowest, highest = min(lowest, int(block.min())), max(highest, int(block.max()))
    return lowest, highest


def _plain(value: object) -> int | float | str:
    """A numpy scalar or bytes attribute as a plain Python value."""
    if isinstance(value, bytes):
        return value.decode()
    return value.item() if isinstance(value, np.generic) else value
