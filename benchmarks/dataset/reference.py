"""What `dataset/generate_samples.py` is measured against: Google BERT's published algorithm in plain Python, without next-sentence pairs.

Written from the rule (Devlin et al. 2019 and the script that came with it, as academic-budget-bert uses it), one token at a time, and kept
as simple as the rule reads: tokens are strings, every duplicate reads and tokenises the text anew, a chunk that grew too long loses
tokens at a random end, and a random token is any entry of the vocabulary. A file is written as the originals write it: gzip, h5py's own
guess at chunks, no shuffle filter.

    python -m benchmarks.dataset.reference shards samples --vocab_file vocab.txt --tokenizer fast --dup_factor 1

`--tokenizer fast` is the `tokenizers` library called sentence by sentence, with less around it than `transformers` puts there, so the
reference is rather faster than the original; `slow` is the pure-Python WordPiece that the original was written for.
"""

import argparse
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

Tokenize = Callable[[str], list[str]]
CLS, SEP, MASK = "[CLS]", "[SEP]", "[MASK]"
FAST, SLOW = "fast", "slow"


@dataclass(frozen=True)
class Rule:
    """The published settings. L = max_seq_length, P = max_predictions."""

    max_seq_length: int = 128
    short_seq_prob: float = 0.1
    masked_lm_prob: float = 0.15
    max_predictions: int = 20


@dataclass(frozen=True)
class Instance:
    """One masked sample: `tokens` with CLS and SEP, `positions` ascending, `labels` the tokens that stood there."""

    tokens: list[str]
    positions: list[int]
    labels: list[str]


def fast_tokenizer(vocab_file: Path) -> Tokenize:
    """A sentence's word pieces by the `tokenizers` library."""
    from dataset.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(vocab_file)
    return lambda sentence: tokenizer.encode(sentence, add_special_tokens=False).tokens


def slow_tokenizer(vocab_file: Path) -> Tokenize | None:
    """A sentence's word pieces by `transformers`' pure-Python BertTokenizer; None where the installed release has none."""
    from dataset.tokenizer import is_lowercasing, load_tokenizer

    try:
        from transformers.models.bert.tokenization_bert_legacy import BertTokenizerLegacy
    except ImportError:
        return None
    lowercase = is_lowercasing(load_tokenizer(vocab_file))
    return BertTokenizerLegacy(str(vocab_file), do_lower_case=lowercase).tokenize


def read_vocabulary(vocab_file: Path) -> dict[str, int]:
    """Token -> id, the number of its line."""
    return {token: index for index, token in enumerate(vocab_file.read_text(encoding="utf-8").splitlines())}


def read_documents(path: Path, tokenize: Tokenize) -> list[list[list[str]]]:
    """Documents of a text shard (one sentence a line, blank line between documents) as lists of tokenised sentences."""
    documents: list[list[list[str]]] = [[]]
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            sentence = line.strip()
            if not sentence:
                documents.append([])
            elif tokens := tokenize(sentence):
                documents[-1].append(tokens)
    return [document for document in documents if document]


def chunk_document(document: Sequence[Sequence[str]], rule: Rule, rng: random.Random) -> list[list[str]]:
    """Sentences gathered until there are as many tokens as aimed at, then cut to L - 2 tokens at random ends.

    The aim is L - 2, or once per document with probability `short_seq_prob` a random number from 2 on.
    """
    room = rule.max_seq_length - 2
    target = rng.randint(2, room) if rng.random() < rule.short_seq_prob else room
    chunks: list[list[str]] = []
    chunk: list[str] = []
    for number, sentence in enumerate(document):
        chunk.extend(sentence)
        if len(chunk) >= target or number == len(document) - 1:
            while len(chunk) > room:
                chunk.pop(0 if rng.random() < 0.5 else -1)
            chunks.append(chunk)
            chunk = []
    return chunks


def mask_tokens(chunk: Sequence[str], rule: Rule, vocabulary: Sequence[str], rng: random.Random) -> Instance:
    """`[CLS] chunk [SEP]` with 15 % of the positions predicted, in shuffled order: 80 % MASK, 10 % random, 10 % the token itself."""
    tokens = [CLS, *chunk, SEP]
    candidates = list(range(1, len(tokens) - 1))
    rng.shuffle(candidates)
    count = min(rule.max_predictions, max(1, round(len(tokens) * rule.masked_lm_prob)))
    positions = sorted(candidates[:count])
    labels = [tokens[position] for position in positions]
    for position in positions:
        if rng.random() < 0.8:
            tokens[position] = MASK
        elif rng.random() < 0.5:
            tokens[position] = rng.choice(vocabulary)
    return Instance(tokens, positions, labels)


def make_instances(documents: list[list[list[str]]], rule: Rule, vocabulary: Sequence[str], rng: random.Random) -> list[Instance]:
    """All samples of the documents, both shuffled."""
    rng.shuffle(documents)
    instances = [mask_tokens(chunk, rule, vocabulary, rng) for document in documents for chunk in chunk_document(document, rule, rng)]
    rng.shuffle(instances)
    return instances


def to_arrays(instances: Sequence[Instance], rule: Rule, ids: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Arrays by the keys of a shard: input_ids (N, L) int32, input_mask and segment_ids (N, L) int8, masked_lm_positions and
    masked_lm_ids (N, P) int32, zero where there is nothing."""
    long, wide = (len(instances), rule.max_seq_length), (len(instances), rule.max_predictions)
    arrays = {
        "input_ids": np.zeros(long, "int32"), "input_mask": np.zeros(long, "int8"), "segment_ids": np.zeros(long, "int8"),
        "masked_lm_positions": np.zeros(wide, "int32"), "masked_lm_ids": np.zeros(wide, "int32")}
    for row, instance in enumerate(instances):
        arrays["input_ids"][row, : len(instance.tokens)] = [ids[token] for token in instance.tokens]
        arrays["input_mask"][row, : len(instance.tokens)] = 1
        arrays["masked_lm_positions"][row, : len(instance.positions)] = instance.positions
        arrays["masked_lm_ids"][row, : len(instance.labels)] = [ids[token] for token in instance.labels]
    return arrays


def write_originals_layout(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """A file as the original scripts lay it out."""
    with h5py.File(path, "w") as file:
        for key, values in arrays.items():
            file.create_dataset(key, data=values, compression="gzip")


def generate(shards: Path, output: Path, vocab_file: Path, tokenize: Tokenize, rule: Rule, dup_factor: int, seed: int) -> None:
    """`train_shard_{i}.hdf5` and `test_shard_{i}.hdf5` in `output`, one for every text shard and duplicate; file number i has seed + i."""
    ids = read_vocabulary(vocab_file)
    vocabulary = list(ids)
    output.mkdir(parents=True, exist_ok=True)
    files = sorted(shards.glob("*.txt"))
    for number, path in enumerate(file for _ in range(dup_factor) for file in files):
        instances = make_instances(read_documents(path, tokenize), rule, vocabulary, random.Random(seed + number))
        split = "train" if "train" in path.name else "test"
        write_originals_layout(output / f"{split}_shard_{number}.hdf5", to_arrays(instances, rule, ids))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("shards", type=Path, help="folder of text shards")
    parser.add_argument("output", type=Path)
    parser.add_argument("--vocab_file", type=Path, required=True)
    parser.add_argument("--tokenizer", choices=(FAST, SLOW), default=FAST)
    parser.add_argument("--max_seq_length", type=int, default=Rule.max_seq_length)
    parser.add_argument("--dup_factor", type=int, default=1)
    parser.add_argument("--seed", type=int, default=555)
    asked = parser.parse_args()
    tokenize = {FAST: fast_tokenizer, SLOW: slow_tokenizer}[asked.tokenizer](asked.vocab_file)
    if tokenize is None:
        parser.error(f"--tokenizer {SLOW}: the installed transformers has no pure-Python BertTokenizer")
    generate(asked.shards, asked.output, asked.vocab_file, tokenize, Rule(asked.max_seq_length), asked.dup_factor, asked.seed)


if __name__ == "__main__":
    main()
