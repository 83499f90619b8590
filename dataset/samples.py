"""Text shards to HDF5 shards of samples: one text, tokenized once, becomes a file for each of its duplicates.

All randomness comes from (seed, split, file index, duplicate), so a shard's bytes depend on nothing else. The text is read in blocks,
so memory depends on none of its lengths.
"""

import threading
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from hashlib import file_digest
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from dataset import shard_format as shards
from dataset.errors import UserError
from dataset.masking import MaskRule, WordStream, mask_block
from dataset.sampling.attributes import tokenizer_attributes
from dataset.sampling.chunks import Chunker
from dataset.sampling.lengths import draw_lengths
from dataset.sampling.pairs import PairChunker
from dataset.sampling.rows import Pieces, fill_rows
from dataset.sampling.text import STRICT
from dataset.sampling.tokens import BlockTokenizer, TokenBlock
from dataset.tokenizer import SpecialIds, masking_exclusions, special_ids, vocabulary_size, word_continuations

LENGTHS_STREAM, MASKS_STREAM, PAIRS_STREAM = 0, 1, 2
ROWS_AT_A_TIME = 4096


@dataclass(frozen=True)
class SampleSettings:
    """How samples are made. With `masking` "none" the trainer masks, by the two masking numbers and `whole_word_masking`.

    `nsp`: two texts a sample, with labels. `errors`: what is done with text that is not UTF-8, "strict" or "replace".
    """

    max_seq_length: int = 512
    masking: str = shards.STATIC
    masked_lm_prob: float = 0.15
    max_predictions_per_seq: int = 77
    whole_word_masking: bool = False
    short_seq_prob: float = 0.1
    nsp: bool = False
    seed: int = 555
    errors: str = STRICT

    @property
    def room(self) -> int:
        """Tokens of a sample that are text."""
        return self.max_seq_length - (3 if self.nsp else 2)


@dataclass(frozen=True)
class SampleJob:
    """One text and the files to make of it: `targets` are (duplicate, path)."""

    source: Path
    split: str
    file_index: int
    targets: tuple[tuple[int, Path], ...]


@dataclass(frozen=True)
class SampleCounts:
    """What a job wrote. `unknown`: those of the tokens that are the unknown one; `without_other`: samples that were to have a second part
    from another document where there was none."""

    samples: int
    tokens: int
    unknown: int
    without_other: int


class SampleMaker:
    """Makes the rows of one duplicate of a text."""

    def __init__(self, settings: SampleSettings, ids: SpecialIds, rule: MaskRule | None, key: tuple[int, ...]) -> None:
        """`rule`: of static masking; `key`: ints that no other duplicate of no other text has."""
        self.settings = settings
        self.ids = ids
        lengths = draw_lengths(settings.room, settings.short_seq_prob, (*key, LENGTHS_STREAM))
        self._chunker = PairChunker(lengths, (*key, PAIRS_STREAM)) if settings.nsp else Chunker(lengths)
        self._rule = rule
        self._random = WordStream((*key, MASKS_STREAM))

    @property
    def without_other(self) -> int:
        """See SampleCounts."""
        return self._chunker.without_other if isinstance(self._chunker, PairChunker) else 0

    def make(self, block: TokenBlock) -> list[dict[str, np.ndarray]]:
        """Arrays by the keys of a shard, of the samples that are complete with this block, in parts of limited size."""
        pieces = self._chunker.cut(block)
        return [self._mask(fill_rows(part, self.settings.max_seq_length, self.ids)) for part in _parts(pieces)]

    def _mask(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if self._rule is None:
            return arrays
        input_ids = arrays[shards.INPUT_IDS]
        random = self._random.take(len(input_ids), self._rule.words_per_row(input_ids.shape[1]))
        masked, positions, labels = mask_block(input_ids, arrays[shards.INPUT_MASK], self._rule, random)
        return {**arrays, shards.INPUT_IDS: masked, shards.POSITIONS: positions, shards.LABELS: labels}


def mask_rule(settings: SampleSettings, tokenizer: Tokenizer) -> MaskRule:
    """The rule of static masking; UserError where the tokenizer has no mask token, or does not tell the whole words that are asked for."""
    mask = special_ids(tokenizer).mask
    if mask is None:
        raise UserError("the tokenizer has no mask token; one with [MASK] or <mask>, or --masking none for a causal student, would work")
    return MaskRule(
        masking_exclusions(tokenizer), mask, vocabulary_size(tokenizer), settings.masked_lm_prob,
        settings.max_predictions_per_seq, word_continuations(tokenizer) if settings.whole_word_masking else None,
    )


def shard_attributes(job: SampleJob, settings: SampleSettings, tokenizer_json: str) -> list[dict[str, int | float | str]]:
    """The attributes of each file a job writes: enough to tell whether writing it again would give the same bytes."""
    with job.source.open("rb") as source:
        source_sha256 = file_digest(source, "sha256").hexdigest()
    common = {
        **_tokenizer_attributes(tokenizer_json),
        shards.ATTRIBUTE_SPLIT: job.split,
        shards.ATTRIBUTE_MASKING: settings.masking,
        "max_seq_length": settings.max_seq_length,
        "masked_lm_prob": settings.masked_lm_prob,
        "max_predictions_per_seq": settings.max_predictions_per_seq,
        shards.ATTRIBUTE_WHOLE_WORDS: int(settings.whole_word_masking),
        "short_seq_prob": settings.short_seq_prob,
        "nsp": int(settings.nsp),
        "seed": settings.seed,
        "errors": settings.errors,
        "file_index": job.file_index,
        "source": job.source.name,
        "source_sha256": source_sha256,
    }
    return [{**common, "duplicate": duplicate} for duplicate, _ in job.targets]


def write_samples(job: SampleJob, settings: SampleSettings, tokenizer_json: str) -> SampleCounts:
    """Make the shards of one text and write them, each whole or not at all. Runs in a process of its own."""
    split, rule, ids = int(job.split == shards.TEST), _rule(settings, tokenizer_json), _special_ids(tokenizer_json)
    makers = [SampleMaker(settings, ids, rule, (settings.seed, split, job.file_index, duplicate)) for duplicate, _ in job.targets]
    tokens = unknown = sentences = 0
    with ExitStack() as stack:
        attributes = shard_attributes(job, settings, tokenizer_json)
        writers = [
            stack.enter_context(shards.shard_writer(path, named)) for (_, path), named in zip(job.targets, attributes, strict=True)
        ]
        for block in _reader(tokenizer_json).read(job.source, settings.errors):
            tokens += len(block.ids)
            unknown += 0 if ids.unk is None else int(np.count_nonzero(block.ids == ids.unk))
            sentences += len(block.sentence_ends)
            for maker, writer in zip(makers, writers, strict=True):
                for arrays in maker.make(block):
                    writer.append(arrays)
        if not all(writer.rows for writer in writers):
            if not sentences:
                raise UserError(f"{job.source} holds no text; shard_data writes files that do")
            size = attributes[0][shards.ATTRIBUTE_VOCAB_SIZE]
            raise UserError(f"{job.source}: the tokenizer (vocabulary of {size}) made no token of it; one for such text would work")
    return SampleCounts(
        sum(writer.rows for writer in writers), tokens * len(makers), unknown * len(makers), sum(maker.without_other for maker in makers)
    )


_local = threading.local()


def _reader(tokenizer_json: str) -> BlockTokenizer:
    """A tokenizer with what it has learnt of words, kept for the next job of this thread (workers of a cluster may have several)."""
    if getattr(_local, "tokenizer_json", None) != tokenizer_json:
        _local.reader = BlockTokenizer(Tokenizer.from_str(tokenizer_json))
        _local.tokenizer_json = tokenizer_json
    return _local.reader


@lru_cache(maxsize=1)
def _special_ids(tokenizer_json: str) -> SpecialIds:
    return special_ids(Tokenizer.from_str(tokenizer_json))


@lru_cache(maxsize=1)
def _rule(settings: SampleSettings, tokenizer_json: str) -> MaskRule | None:
    return mask_rule(settings, Tokenizer.from_str(tokenizer_json)) if settings.masking == shards.STATIC else None


@lru_cache(maxsize=1)
def _tokenizer_attributes(tokenizer_json: str) -> dict[str, Any]:
    return tokenizer_attributes(Tokenizer.from_str(tokenizer_json))


def _parts(pieces: Pieces) -> list[Pieces]:
    """Samples in parts of ROWS_AT_A_TIME: what is derived from them takes several times their memory."""
    firsts = np.concatenate([[0], np.cumsum(pieces.first_sizes)])
    seconds = None if pieces.second_sizes is None else np.concatenate([[0], np.cumsum(pieces.second_sizes)])
    parts = []
    for start in range(0, len(pieces), ROWS_AT_A_TIME):
        rows = slice(start, min(start + ROWS_AT_A_TIME, len(pieces)))
        first = pieces.first[firsts[rows.start] : firsts[rows.stop]]
        if seconds is None:
            parts.append(Pieces(first, pieces.first_sizes[rows]))
        else:
            second = pieces.second[seconds[rows.start] : seconds[rows.stop]]
            parts.append(Pieces(first, pieces.first_sizes[rows], second, pieces.second_sizes[rows], pieces.is_random[rows]))
    return parts
