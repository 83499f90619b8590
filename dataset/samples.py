"""Documents to samples: tokens of one document, in order, cut into `[CLS] ... [SEP]` rows, masked or not.

Every token of a document stands in exactly one sample: what does not fit goes to the next one, where the original
scripts cut a random end off and lost it. A sample never crosses into another document. With probability
`short_seq_prob` a sample aims at a random shorter length; it is drawn per sample (the original drew it per document,
so that one draw turned a long document into hundreds of tiny samples). A document's last sample is what is left, so a
file can hold rows of a single token; grouping by length keeps them cheap.

All randomness comes from (seed, split, file index, duplicate), so a shard's bytes depend on nothing else.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from dataset import shard_format as shards
from dataset.errors import UserError
from dataset.masking import generator, mask_rows
from dataset.tokenizer import is_lowercasing, masking_exclusions, special_ids, vocabulary_sha256, vocabulary_size

SPECIAL_TOKENS = 2
LENGTHS_STREAM, MASKS_STREAM = 0, 1
ROWS_AT_A_TIME = 4096


@dataclass(frozen=True)
class SampleSettings:
    """How samples are made. The two masking numbers count only when `masking` is "static"."""

    max_seq_length: int = 512
    masking: str = shards.STATIC
    masked_lm_prob: float = 0.15
    max_predictions_per_seq: int = 20
    short_seq_prob: float = 0.1
    seed: int = 555


@dataclass(frozen=True)
class SampleJob:
    """One file to write: which text, as which shard."""

    source: Path
    target: Path
    split: str
    file_index: int
    duplicate: int


def read_documents(path: Path) -> Iterator[list[str]]:
    """Documents of a shard text file (one sentence a line, blank line between documents) as lists of sentences."""
    sentences: list[str] = []
    with path.open(encoding="utf-8", newline="\n") as lines:
        try:
            for line in lines:
                if line.strip():
                    sentences.append(line.strip())
                elif sentences:
                    yield sentences
                    sentences = []
        except UnicodeDecodeError as error:
            raise UserError(f"{path} is not UTF-8 ({error}); convert it, for example with iconv") from error
    if sentences:
        yield sentences


def tokenize_document(tokenizer: Tokenizer, sentences: list[str]) -> np.ndarray:
    """Token ids (n,) int32 of a document, without special tokens.

    Sentences after the first are led by a space, so a byte-level tokenizer gives the pieces it would give the running
    text (BERT's does not care). Text that spells a special token, such as "[MASK]", is read as plain text when the
    tokenizer's `encode_special_tokens` is on.
    """
    texts = [sentences[0], *(f" {sentence}" for sentence in sentences[1:])]
    encodings = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    return np.concatenate([np.array(encoding.ids, dtype=np.int32) for encoding in encodings])


def cut_document(
    tokens: np.ndarray, room: int, short_seq_prob: float, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Cut `tokens` (n,) into consecutive pieces of `room` tokens, some shorter (2 to `room`), the last what is left."""
    start = 0
    while start < len(tokens):
        size = room
        if short_seq_prob and rng.random() < short_seq_prob:
            size = int(rng.integers(2, room, endpoint=True))
        yield tokens[start : start + size]
        start += size


def make_rows(tokenizer: Tokenizer, source: Path, settings: SampleSettings, rng: np.random.Generator) -> dict:
    """Unmasked arrays of a text file: input_ids (N, L) int32, input_mask and segment_ids (N, L) int8."""
    ids = special_ids(tokenizer)
    room = settings.max_seq_length - SPECIAL_TOKENS
    pieces = [
        piece
        for sentences in read_documents(source)
        for piece in cut_document(tokenize_document(tokenizer, sentences), room, settings.short_seq_prob, rng)
    ]
    if not pieces:
        raise UserError(f"{source} holds no text; shard_data writes files that do")
    input_ids = np.full((len(pieces), settings.max_seq_length), ids.pad, dtype=np.int32)
    input_mask = np.zeros(input_ids.shape, dtype=np.int8)
    for row, piece in enumerate(pieces):
        end = len(piece) + 1
        input_ids[row, 0] = ids.cls
        input_ids[row, 1:end] = piece
        input_ids[row, end] = ids.sep
        input_mask[row, : end + 1] = 1
    return {
        shards.INPUT_IDS: input_ids,
        shards.INPUT_MASK: input_mask,
        shards.SEGMENT_IDS: np.zeros_like(input_mask),
    }


def mask_statically(arrays: dict, tokenizer: Tokenizer, settings: SampleSettings, key: tuple[int, ...]) -> dict:
    """`arrays` with input_ids masked, and masked_lm_positions and masked_lm_ids (N, P); row r has key (*key, r)."""
    rule = (
        masking_exclusions(tokenizer),
        special_ids(tokenizer).mask,
        vocabulary_size(tokenizer),
        settings.masked_lm_prob,
        settings.max_predictions_per_seq,
    )
    rows = len(arrays[shards.INPUT_IDS])
    blocks = []
    for start in range(0, rows, ROWS_AT_A_TIME):
        block = slice(start, min(start + ROWS_AT_A_TIME, rows))
        keys = [(*key, row) for row in range(block.start, block.stop)]
        blocks.append(mask_rows(arrays[shards.INPUT_IDS][block], arrays[shards.INPUT_MASK][block], *rule, keys))
    masked, positions, labels = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    return {**arrays, shards.INPUT_IDS: masked, shards.POSITIONS: positions, shards.LABELS: labels}


def shard_attributes(job: SampleJob, settings: SampleSettings, tokenizer: Tokenizer) -> dict[str, int | float | str]:
    """The attributes of the file a job writes: enough to tell whether writing it again would give the same bytes."""
    ids = special_ids(tokenizer)
    with job.source.open("rb") as source:
        source_sha256 = file_digest(source, "sha256").hexdigest()
    return {
        shards.ATTRIBUTE_VERSION: shards.FORMAT_VERSION,
        shards.ATTRIBUTE_SPLIT: job.split,
        shards.ATTRIBUTE_MASKING: settings.masking,
        shards.ATTRIBUTE_TOKENIZER: vocabulary_sha256(tokenizer),
        shards.ATTRIBUTE_VOCAB_SIZE: vocabulary_size(tokenizer),
        "pad_token_id": ids.pad,
        "cls_token_id": ids.cls,
        "sep_token_id": ids.sep,
        "mask_token_id": ids.mask,
        "lowercase": int(is_lowercasing(tokenizer)),
        "max_seq_length": settings.max_seq_length,
        # With masking "none" the trainer masks on the fly, by these two.
        "max_predictions_per_seq": settings.max_predictions_per_seq,
        "masked_lm_prob": settings.masked_lm_prob,
        "short_seq_prob": settings.short_seq_prob,
        "seed": settings.seed,
        "file_index": job.file_index,
        "duplicate": job.duplicate,
        "source": job.source.name,
        "source_sha256": source_sha256,
    }


def write_samples(job: SampleJob, settings: SampleSettings, tokenizer_json: str) -> int:
    """Make one shard and write it, whole or not at all; returns its number of samples. Runs in a process of its own."""
    tokenizer = Tokenizer.from_str(tokenizer_json)
    tokenizer.encode_special_tokens = True
    key = (settings.seed, int(job.split == shards.TEST), job.file_index, job.duplicate)
    arrays = make_rows(tokenizer, job.source, settings, generator((*key, LENGTHS_STREAM, 0)))
    if settings.masking == shards.STATIC:
        arrays = mask_statically(arrays, tokenizer, settings, (*key, MASKS_STREAM))
    shards.write_shard(job.target, arrays, shard_attributes(job, settings, tokenizer))
    return len(arrays[shards.INPUT_IDS])
