"""The HDF5 file of a teacher's stored outputs, one beside every sample shard: names, header, and whether it belongs. No torch.

    topk_ids       (N, P, K) uint16 (uint32 for larger vocabularies), the likeliest first   `kind` topk
    topk_logprobs  (N, P, K) f2, log-probabilities at temperature 1
    rest_logprob   (N, P)    f2, log of the probability that all other ids have together, −inf for none
    sampled_ids    (N, P, K) uint16 or uint32, drawn ids, each once                         `kind` sampled
    sampled_weights (N, P, K) f2, what estimates their probability, 0 past the last
    hidden_{layer} (tokens, D) f2, real tokens only, row after row; row i's are offsets[i] to offsets[i + 1]
    offsets        (N + 1,) i8

N rows and P positions as in the shard; what lies past a row's last prediction is 0. The attributes are the fields of `CacheHeader`.
The name (`SUFFIX`) is none that a sample shard can have.
"""

import errno
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xxhash

from dataset.errors import UserError, one_line
from dataset.files import reason
from dataset.shard_format import INPUT_IDS, INPUT_MASK, LABELS, POSITIONS, SEGMENT_IDS, ShardInfo, open_shard

FORMAT_VERSION = 1
HASH = "xxh3_128"  # attribute of a dataset of hidden states: of its bytes, which no packing guards
# What becomes of a file that is damaged: --overwrite would make the others again as well.
AGAIN = "delete it and run extract_teacher_outputs.py again without --overwrite, which keeps the other files"
SUFFIX = ".teacher_cache"
TOPK, SAMPLED, NO_TARGETS = "topk", "sampled", "none"
MASKED, UNMASKED = "masked", "unmasked"  # what the teacher read
IDS = {TOPK: "topk_ids", SAMPLED: "sampled_ids"}
VALUES = {TOPK: "topk_logprobs", SAMPLED: "sampled_weights"}
REST, OFFSETS = "rest_logprob", "offsets"
HEAD_ROWS = 64
_INFINITE = 0x7C00  # bits of an f2
# What h5py and NumPy raise where the structure of a file, or what it says of itself, is damaged.
DAMAGE = (OSError, RuntimeError, KeyError, IndexError, TypeError, ValueError, AttributeError)

# Settings of a configuration that no output of a trained model depends on, besides all that have to do with dropout.
_WITHOUT_EFFECT = ("_name_or_path", "architectures", "dtype", "finetuning_task", "gradient_checkpointing", "id2label",
                   "initializer_range", "label2id", "output_attentions", "output_hidden_states", "problem_type", "torch_dtype",
                   "transformers_version", "use_cache")
_HASHED = ((INPUT_IDS, "<i4"), (INPUT_MASK, "<i1"), (SEGMENT_IDS, "<i1"), (POSITIONS, "<i4"))  # what a teacher's outputs depend on


@dataclass(frozen=True)
class CacheHeader:
    """What a file says of itself.

    `teacher` is the name of its folder; `teacher_hash`, of its weights, and `teacher_config`, its configuration under our names, say which
    one it is (`other_setting`); `family` is its architecture's. `shard_hash` is of the samples that it belongs to, `shard_head` of the
    first rows of them, which is soon compared. `k`: entries a position, 0 without. `precision` is that of the teacher's matrix products.
    `tokenizer_sha256` is "" where nobody knew it.
    """

    kind: str
    k: int
    vocab_size: int
    tokenizer_sha256: str
    teacher: str
    teacher_hash: str
    family: str
    teacher_config: dict[str, Any]
    input: str
    shard: str
    shard_hash: str
    shard_head: str
    rows: int
    predictions: int
    max_seq_length: int
    hidden_layers: tuple[int, ...]
    hidden_size: int
    precision: str
    sampling_temperature: float = 1.0
    seed: int = 0
    format_version: int = FORMAT_VERSION

    @property
    def id_dtype(self) -> np.dtype:
        return np.dtype("<u2" if self.vocab_size <= 2**16 else "<u4")

    def attributes(self) -> dict[str, int | float | str]:
        """As HDF5 attributes."""
        return {**asdict(self), "teacher_config": json.dumps(self.teacher_config, sort_keys=True),
                "hidden_layers": ",".join(map(str, self.hidden_layers))}

    def differences(self, other: "CacheHeader") -> list[str]:
        """`field is A, expected B` for each field in which this file and `other` would hold different things."""
        names = [one.name for one in fields(self) if one.name not in ("teacher", "teacher_config", "shard")]
        found = [f"{name} is {_word(getattr(self, name))}, expected {_word(getattr(other, name))}" for name in names
                 if getattr(self, name) != getattr(other, name)]
        setting = other_setting(self.teacher_config, other.teacher_config)
        if setting is not None:
            found.append(f"the teacher's {setting} was {self.teacher_config.get(setting)}, expected {other.teacher_config.get(setting)}")
        return found


def _word(value: Any) -> Any:
    return (",".join(map(str, value)) or "none") if isinstance(value, tuple) else value


def other_setting(first: dict[str, Any], second: dict[str, Any]) -> str | None:
    """The first setting in which two configurations under our names would give other outputs from the same weights, or None."""
    def decides(name: str) -> bool:
        return name not in _WITHOUT_EFFECT and "dropout" not in name and not name.endswith("_pdrop")

    return next((name for name in sorted(first.keys() | second.keys()) if decides(name) and first.get(name) != second.get(name)), None)


def cache_path(folder: Path, shard: Path) -> Path:
    """The file in `folder` that holds the outputs for `shard`."""
    return folder / f"{shard.stem}{SUFFIX}"


def open_cache(path: Path) -> h5py.File:
    """Open for reading; UserError where it is missing or no HDF5."""
    if path.is_dir():
        raise UserError(f"{path} is a folder, where a file of stored outputs is expected; move it away")
    if not path.is_file():
        raise UserError(f"no stored outputs {path}; extract_teacher_outputs.py makes them")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({reason(error)}); {AGAIN}") from error


def read_header(path: Path) -> CacheHeader:
    """The header of a file, whose datasets have the shapes that it tells; UserError for another kind of file."""
    with open_cache(path) as file:
        try:
            found = {name: value.item() if isinstance(value, np.generic) else value for name, value in file.attrs.items()}
        except DAMAGE as error:
            raise UserError(f"{path}: its attributes are damaged ({one_line(error)}); {AGAIN}") from None
        if found.get("format_version") != FORMAT_VERSION:
            raise UserError(f"{path}: format_version is {found.get('format_version')}, expected {FORMAT_VERSION}; extract it anew with "
                            "extract_teacher_outputs.py --overwrite")
        try:
            found["teacher_config"] = json.loads(found["teacher_config"])
            found["hidden_layers"] = tuple(int(word) for word in found["hidden_layers"].split(",") if word)
            header = CacheHeader(**found)
            shapes = {IDS[header.kind]: (header.rows, header.predictions, header.k)} if header.kind != NO_TARGETS else {}
            shapes |= {f"hidden_{layer}": (int(file[OFFSETS][-1]), header.hidden_size) for layer in header.hidden_layers}
            wrong = [name for name, shape in shapes.items() if file[name].shape != shape]
        except DAMAGE as error:
            raise UserError(f"{path}: not as extract_teacher_outputs.py writes it ({one_line(error)}); {AGAIN}") from None
    if wrong:
        raise UserError(f"{path}: {wrong[0]} has another shape than its attributes say; {AGAIN}")
    return header


def is_finite(halves: np.ndarray) -> bool:
    """Whether an array of f2 holds neither infinity nor what is no number; by its bits, 30 times as fast as by comparison."""
    return not halves.size or int((halves.view("<u2") & 0x7FFF).max()) < _INFINITE


def is_number(halves: np.ndarray) -> bool:
    """`is_finite`, but for infinity."""
    return not halves.size or int((halves.view("<u2") & 0x7FFF).max()) <= _INFINITE


def samples_hash(arrays: dict[str, np.ndarray], read: str) -> str:
    """xxh3-128 of the samples of a shard as a teacher sees them, whatever integers they are stored in.

    `read`: MASKED or UNMASKED; the second puts back what masks of the file hide.
    """
    digest = xxhash.xxh3_128()
    for key, dtype in _hashed(read):
        if key in arrays:
            digest.update(f"{key}{arrays[key].shape}".encode())
            digest.update(np.ascontiguousarray(arrays[key].astype(dtype, copy=False)))
    return digest.hexdigest()


def _hashed(read: str) -> tuple[tuple[str, str], ...]:
    return _HASHED if read == MASKED else (*_HASHED, (LABELS, "<i4"))


def head_hash(info: ShardInfo, read: str) -> str:
    """`samples_hash` of the first rows alone, which costs a few milliseconds."""
    with open_shard(info.path) as file:
        try:
            return samples_hash({key: file[key][:HEAD_ROWS] for key, _ in _hashed(read) if key in file}, read)
        except OSError as error:
            raise UserError(f"{info.path} cannot be read ({reason(error)}); make or copy the shard anew") from error


def weights_hash(folder: Path, weights: str) -> str:
    """xxh3-128 of a model's weights: of the file `weights` in `folder`, or of all files that it is an index of."""
    names = [weights]
    if weights.endswith(".index.json"):
        index = json.loads((folder / weights).read_text(encoding="utf-8"))
        names = sorted(set(index["weight_map"].values()))
    digest = xxhash.xxh3_128()
    for name in names:
        with (folder / name).open("rb") as file:
            while block := file.read(1 << 24):
                digest.update(block)
    return digest.hexdigest()


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """What the disk refuses, as one line."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        full = (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)) or "No space left" in str(error)
        what = "no space left on the disk" if full else reason(error)
        raise UserError(f"{path} cannot be written ({what}); free some space, or give a smaller --truncation_factor or fewer "
                        "--hidden_layers; finished files stay, and without --overwrite the same command goes on with the others") from error
