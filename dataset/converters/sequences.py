"""DistilBERT's binarized text, a pickled list of token sequences, -> shards without masks, for masking on the fly.

Its rules for sequences (LmSeqsDataset) with their numbers as settings: what is longer than a sample is cut, with start token and separator
around every piece; pieces that are short, or unknown tokens by half, are dropped. Beyond them: a hash of the whole sequence and the seed
decides on its split, so pieces of a text, and texts that are there twice, never stand in both. Within a split shards are dealt out in turn.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import xxhash
from tokenizers import Tokenizer

from dataset import shard_format as shards
from dataset.converters.pickles import read_arrays
from dataset.errors import UserError
from dataset.sampling.attributes import tokenizer_attributes
from dataset.shard_format import ShardWriter, shard_writer
from dataset.tokenizer import SpecialIds, special_ids, vocabulary_size

MOST_UNKNOWN = 0.5
ROWS_AT_A_TIME = 256
Attributes = dict[str, int | float | str]


@dataclass(frozen=True)
class SequenceSettings:
    """How sequences become samples; `min_length` counts the two special tokens. The masking numbers are for the trainer."""

    max_seq_length: int
    min_length: int
    masked_lm_prob: float
    max_predictions_per_seq: int
    frac_test: float
    seed: int


def plan_shards(
    files: list[Path], hashes: list[str], counts: dict[str, int], settings: SequenceSettings, tokenizer: Tokenizer
) -> dict[str, Attributes]:
    """Name -> attributes of every shard; `counts`: split -> its number of shards, `hashes`: hex SHA-256 of each file."""
    known = {
        shards.ATTRIBUTE_MASKING: shards.NO_MASKING,
        **tokenizer_attributes(tokenizer),
        **asdict(settings),
        "source": " ".join(file.name for file in files),
        "source_sha256": " ".join(hashes),
    }
    return {
        f"{split}_shard_{number}.hdf5": {**known, shards.ATTRIBUTE_SPLIT: split, "file_index": number, "num_shards": count}
        for split, count in counts.items()
        for number in range(count)
    }


def convert_sequences(files: list[Path], folder: Path, planned: dict[str, Attributes], tokenizer: Tokenizer) -> Counter:
    """Write the planned shards; the Counter holds what was read ("sequences", "tokens"), made ("train", "test") and dropped."""
    settings = SequenceSettings(**{name: next(iter(planned.values()))[name] for name in SequenceSettings.__dataclass_fields__})
    ids, vocab_size = special_ids(tokenizer), vocabulary_size(tokenizer)
    seen: Counter = Counter()
    with ExitStack() as stack:
        buffers: dict[str, list[_Buffer]] = {shards.TRAIN: [], shards.TEST: []}
        for name, attributes in planned.items():
            writer = stack.enter_context(shard_writer(folder / name, attributes))
            buffers[str(attributes[shards.ATTRIBUTE_SPLIT])].append(_Buffer(writer, settings.max_seq_length, ids))
        for file in files:
            number = 0
            for sequences in read_arrays(file):
                _check(file, number, sequences, ids, vocab_size)
                number += len(sequences)
                for sequence in sequences:
                    split = _split(sequence, settings)
                    for piece in _pieces(sequence, settings, ids, seen):
                        buffers[split][seen[split] % len(buffers[split])].add(piece)
                        seen[split] += 1
                    seen.update(sequences=1, tokens=len(sequence))
        for split, ours in buffers.items():
            if seen[split] < len(ours):
                raise UserError(f"{seen[split]} samples are too few for {len(ours)} {split} shards; fewer --num_{split}_shards would work")
            for buffer in ours:
                buffer.flush()
    return seen


def _check(file: Path, start: int, sequences: list[np.ndarray], ids: SpecialIds, vocab_size: int) -> None:
    """UserError names the first sequence that this tokenizer cannot have made."""
    lengths = np.array([len(sequence) for sequence in sequences])
    if not lengths.all():
        raise UserError(f"{file}: sequence {start + int(np.argmin(lengths))} is empty; make the file anew")
    flat = np.concatenate(sequences)
    if flat.min() < 0 or flat.max() >= vocab_size:
        wrong = next(place for place, one in enumerate(sequences) if one.min() < 0 or one.max() >= vocab_size)
        raise UserError(
            f"{file}: sequence {start + wrong} holds an id outside 0 to {vocab_size - 1}; the tokenizer of binarized_data would work"
        )
    ends = np.cumsum(lengths)
    for end, expected, found in (("begins", ids.cls, flat[ends - lengths]), ("ends", ids.sep, flat[ends - 1])):
        if (found != expected).any():
            wrong = int(np.argmax(found != expected))
            raise UserError(
                f"{file}: sequence {start + wrong} {end} with id {found[wrong]}, expected {expected} as in this tokenizer; the one of "
                "binarized_data (BERT's, RoBERTa's or GPT-2's) would work"
            )


def _split(sequence: np.ndarray, settings: SequenceSettings) -> str:
    """Test with probability `frac_test`, by the ids and the seed alone."""
    drawn = xxhash.xxh3_64_intdigest(sequence.astype("<i4").tobytes(), seed=settings.seed % 2**64)
    return shards.TEST if drawn < settings.frac_test * 2**64 else shards.TRAIN


def _pieces(sequence: np.ndarray, settings: SequenceSettings, ids: SpecialIds, seen: Counter) -> Iterator[np.ndarray]:
    """What is kept of a sequence, without start token and separator; `seen` counts what is not."""
    inside, room = sequence[1:-1], settings.max_seq_length - 2
    if len(inside) > room:
        seen["cut"] += 1
    for start in range(0, max(1, len(inside)), room):
        piece = inside[start : start + room]
        length = len(piece) + 2
        if length < settings.min_length:
            seen["short"] += 1
            seen["short_tokens"] += length
        elif ids.unk is not None and np.count_nonzero(piece == ids.unk) >= MOST_UNKNOWN * length:
            seen["unknown"] += 1
        else:
            yield piece


class _Buffer:
    """Rows of a shard on their way to its writer."""

    def __init__(self, writer: ShardWriter, max_seq_length: int, ids: SpecialIds) -> None:
        self._writer, self._width, self._ids = writer, max_seq_length, ids
        self._pieces: list[np.ndarray] = []

    def add(self, piece: np.ndarray) -> None:
        self._pieces.append(piece)
        if len(self._pieces) == ROWS_AT_A_TIME:
            self.flush()

    def flush(self) -> None:
        """Hand all rows over as padded arrays."""
        if not self._pieces:
            return
        lengths = np.array([len(piece) for piece in self._pieces])
        place = np.arange(self._width)
        rows = np.full((len(lengths), self._width), self._ids.pad, dtype=np.int32)
        rows[:, 0] = self._ids.cls
        rows[(place > 0) & (place <= lengths[:, None])] = np.concatenate(self._pieces)
        rows[np.arange(len(lengths)), lengths + 1] = self._ids.sep
        mask = (place <= lengths[:, None] + 1).astype(np.int8)
        self._writer.append({shards.INPUT_IDS: rows, shards.INPUT_MASK: mask, shards.SEGMENT_IDS: np.zeros_like(mask)})
        self._pieces = []
