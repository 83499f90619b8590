"""One pass over a shard: what it holds in numbers, every rule it breaks, and a hash of each sample's text."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import xxhash

from dataset import shard_format as shards
from dataset.errors import UserError
from dataset.inspection.problems import Problem
from dataset.shard_blocks import Block, read_blocks

NO_TEXT = 0  # hash of a sample without tokens other than special ones


@dataclass(frozen=True)
class Vocabulary:
    """What is known of the ids, from a tokenizer or from a shard's attributes; None where nothing tells."""

    sha256: str | None = None
    size: int | None = None
    pad: int | None = None
    cls: int | None = None
    sep: int | None = None
    mask: int | None = None
    unk: int | None = None

    def filled_from(self, attributes: dict[str, int | float | str]) -> "Vocabulary":
        """This one, completed by the attributes of a shard."""
        return Vocabulary(
            self.sha256,
            _first(self.size, attributes.get(shards.ATTRIBUTE_VOCAB_SIZE)),
            *(_first(getattr(self, role), attributes.get(f"{role}_token_id")) for role in ("pad", "cls", "sep", "mask", "unk")),
        )

    @property
    def specials(self) -> list[int]:
        """Ids of padding, start, separator and mask token, as far as known."""
        return [token_id for token_id in (self.pad, self.cls, self.sep, self.mask) if token_id is not None]


@dataclass
class Counts:
    """Numbers that add up over shards. Of the predicted tokens `shown_*` say what stands in their place in shards with static masks."""

    samples: int = 0
    places: int = 0  # samples times their padded length
    tokens: int = 0
    tokens_checked: int = 0  # tokens of shards whose unknown token is known
    unknown: int = 0
    predicted: int = 0
    shown_mask: int = 0
    shown_same: int = 0
    shown_other: int = 0
    with_nsp: int = 0
    random_next: int = 0
    lengths: np.ndarray = field(default_factory=lambda: np.zeros(1, dtype=np.int64))  # [n]: samples of n tokens

    def __add__(self, other: "Counts") -> "Counts":
        sums = {name: getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__ if name != "lengths"}
        lengths = np.zeros(max(len(self.lengths), len(other.lengths)), dtype=np.int64)
        for one in (self, other):
            lengths[: len(one.lengths)] += one.lengths
        return Counts(**sums, lengths=lengths)


@dataclass
class ShardScan:
    """All that one pass found. `info` is None and `problems` says why where the file cannot be read; `hashes` (samples,) uint64.

    `fits`: nothing says that the vocabulary given is not the one that the ids are of.
    """

    path: Path
    info: shards.ShardInfo | None
    counts: Counts
    problems: list[Problem]
    hashes: np.ndarray
    fits: bool = True


def scan_shard(path: Path, vocabulary: Vocabulary) -> ShardScan:
    """Read a shard whole, block by block; what is wrong with it is in the result, never raised."""
    nothing = np.zeros(0, dtype=np.uint64)
    try:
        info = shards.read_info(path)
    except UserError as error:
        return ShardScan(path, None, Counts(), [Problem(_without(path, error))], nothing)
    problems = _Problems()
    fits = vocabulary.sha256 in (None, info.attributes.get(shards.ATTRIBUTE_TOKENIZER, vocabulary.sha256))
    if not fits:
        problems.of_file(_mismatch(info, vocabulary))
        vocabulary = Vocabulary()  # its ids say nothing of these
    known = vocabulary.filled_from(info.attributes)
    counts, hashes = Counts(), []
    try:
        for block in read_blocks(info):
            _check(block, known, problems)
            original = block.unmasked_ids()
            counts += _count(block, original, known)
            hashes.append(_hash_texts(original, block.mask, known))
    except UserError as error:
        problems.of_file(_without(path, error))
    fits = fits and 2 * problems.strange_rows <= info.rows
    return ShardScan(path, info, counts, problems.found(), np.concatenate(hashes) if hashes else nothing, fits)


class _Problems:
    """Rules that rows break: how many, and the first."""

    def __init__(self) -> None:
        self.strange_rows = 0  # rows that another vocabulary would explain
        self._texts: list[str] = []
        self._rows: dict[str, list[int]] = {}  # rule -> [rows, first row]

    def of_file(self, text: str) -> None:
        self._texts.append(text)

    def add(self, rule: str, start: int, is_broken: np.ndarray) -> None:
        """`is_broken` (n,) or (n, anything) bool, for rows `start` and on."""
        rows = is_broken.reshape(len(is_broken), -1).any(axis=1)
        if rows.any():
            seen = self._rows.setdefault(rule, [0, start + int(np.argmax(rows))])
            seen[0] += int(np.count_nonzero(rows))

    def found(self) -> list[Problem]:
        return [*map(Problem, self._texts), *(Problem(rule, count, first) for rule, (count, first) in self._rows.items())]


def _check(block: Block, known: Vocabulary, problems: _Problems) -> None:
    """The rules of the format, see `shard_format.SHAPES`."""
    width = block.ids.shape[1]
    is_real = block.mask != 0
    lengths = np.count_nonzero(is_real, axis=1)
    is_predicted = block.predicted()
    limit = 2**31 if known.size is None else known.size
    outside = f"outside 0 to {limit - 1}"

    def broken(rule: str, rows: np.ndarray) -> None:
        problems.add(rule, block.start, rows)

    is_outside = (block.ids < 0) | (block.ids >= limit)
    is_strange = is_outside.any(axis=1)
    broken(f"input_ids {outside}", is_outside)
    broken("input_mask neither 0 nor 1", is_real & (block.mask != 1))
    broken("input_mask has no 1: no token", lengths == 0)
    broken("input_mask has holes", is_real != (np.arange(width) < lengths[:, None]))
    broken("segment_ids neither 0 nor 1", (block.segments != 0) & (block.segments != 1))
    if known.cls is not None:
        broken(f"input_ids does not begin with the start token {known.cls}", block.ids[:, :1] != known.cls)
        is_strange |= block.ids[:, 0] != known.cls
    problems.strange_rows += int(np.count_nonzero(is_strange))
    if len(known.specials) == 4:
        texts = is_real & ~np.isin(block.ids, [known.pad, known.cls, known.sep])
        broken("no token but special ones", (lengths > 0) & ~texts.any(axis=1))
    if block.nsp is not None:
        broken("next_sentence_labels neither 0 nor 1", (block.nsp != 0) & (block.nsp != 1))
    positions = np.clip(block.positions, 0, width - 1)
    broken(f"masked_lm_positions outside 0 to {width - 1}", positions != block.positions)
    broken("masked_lm_positions not ascending", is_predicted[:, 1:] & (block.positions[:, 1:] <= block.positions[:, :-1]))
    broken("masked_lm_positions go on after the 0 that ends them", ~is_predicted & (block.positions != 0))
    broken("padding is predicted", is_predicted & ~np.take_along_axis(is_real, positions, axis=1))
    broken(f"masked_lm_ids {outside}", (block.labels < 0) | (block.labels >= limit))
    broken("masked_lm_ids go on after the positions", ~is_predicted & (block.labels != 0))
    if known.specials:
        broken("special tokens are predicted", is_predicted & np.isin(block.labels, known.specials))


def _count(block: Block, original: np.ndarray, known: Vocabulary) -> Counts:
    width = block.ids.shape[1]
    lengths = np.count_nonzero(block.mask, axis=1)
    is_predicted = block.predicted() & (block.positions > 0) & (block.positions < width)
    rows, slots = np.nonzero(is_predicted)
    places = block.positions[rows, slots]
    shown, hidden = block.ids[rows, places], original[rows, places]
    is_mask = shown == known.mask if known.mask is not None else np.zeros(len(shown), dtype=bool)
    is_same = (shown == hidden) & ~is_mask
    return Counts(
        samples=len(lengths),
        places=block.ids.size,
        tokens=int(lengths.sum()),
        tokens_checked=0 if known.unk is None else int(lengths.sum()),
        unknown=0 if known.unk is None else int(np.count_nonzero((original == known.unk) & (block.mask != 0))),
        predicted=len(rows),
        shown_mask=int(is_mask.sum()),
        shown_same=int(is_same.sum()),
        shown_other=int((~is_mask & ~is_same).sum()),
        with_nsp=0 if block.nsp is None else len(lengths),
        random_next=0 if block.nsp is None else int(np.count_nonzero(block.nsp)),
        lengths=np.bincount(lengths, minlength=width + 1),
    )


def _hash_texts(original: np.ndarray, mask: np.ndarray, known: Vocabulary) -> np.ndarray:
    """(n,) uint64: hashes of the unmasked tokens without special ones, NO_TEXT where there are none."""
    is_text = mask != 0
    for token_id in (known.pad, known.cls, known.sep):
        if token_id is not None:
            is_text &= original != token_id
    content = memoryview(original[is_text].astype("<u4").tobytes())
    ends = np.cumsum(np.count_nonzero(is_text, axis=1)) * 4
    starts = np.concatenate([[0], ends[:-1]])
    digest = xxhash.xxh3_64_intdigest
    hashes = [digest(content[start:end]) or 1 for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
    return np.where(starts == ends, np.uint64(NO_TEXT), np.array(hashes, dtype=np.uint64))


def _mismatch(info: shards.ShardInfo, given: Vocabulary) -> str:
    """What is known of both tokenizers; shards do not keep the name of theirs."""
    told = info.attributes
    size, lowercase = told.get(shards.ATTRIBUTE_VOCAB_SIZE), told.get("lowercase")
    facts = [f"{size} tokens"] if size is not None else []
    facts += [] if lowercase is None else ["lower-casing" if lowercase else "not lower-casing"]
    facts += [f"{shards.ATTRIBUTE_TOKENIZER} {told[shards.ATTRIBUTE_TOKENIZER]}"]
    return f"made with another tokenizer ({', '.join(facts)}) than the one given ({given.size} tokens, {given.sha256})"


def _without(path: Path, error: UserError) -> str:
    """What an error says, less the file's name at its beginning, as the report names it."""
    return str(error).removeprefix(f"{path}: ").removeprefix(f"{path} ")


def _first(given: int | None, told: int | float | str | None) -> int | None:
    return given if given is not None or told is None else int(told)
