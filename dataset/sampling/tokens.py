"""Blocks of text as token ids with the ends of sentences and documents."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from dataset.sampling.text import TextBlock, read_blocks
from dataset.sampling.words import WordTable, is_wordwise
from dataset.text_shards import is_blank


@dataclass(frozen=True)
class TokenBlock:
    """`ids` (n,) int32 without special tokens; `sentence_ends` (s,) int64, tokens up to the end of each sentence; `document_ends` (d,)
    int64, sentences up to the end of each document that ends in this block. What comes after the last end goes on in the next block."""

    ids: np.ndarray
    sentence_ends: np.ndarray
    document_ends: np.ndarray


class BlockTokenizer:
    """Tokenizes text blocks one after the other, BERT's way from a table of words, any other tokenizer at its own speed."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """`tokenizer` is told to read text that spells a special token, such as "[MASK]", as plain text."""
        tokenizer.encode_special_tokens = True
        self.tokenizer = tokenizer
        self._table = WordTable(tokenizer) if is_wordwise(tokenizer) else None

    def read(self, path: Path, errors: str) -> Iterator[TokenBlock]:
        """The blocks of a text shard (one sentence a line, blank line between documents); its end ends the last document."""
        is_first = True
        for block in read_blocks(path, errors):
            tokens, has_open = self._tokenize(block, is_first)
            is_first = not has_open
            yield tokens

    def _tokenize(self, block: TextBlock, is_first: bool) -> tuple[TokenBlock, bool]:
        """The block's tokens, and whether a document is open at its end. `is_first`: a document begins with the block."""
        lines = block.text.split(b"\n")[:-1]
        is_sentence = np.array([not is_blank(line) for line in lines])
        if self._table is not None:
            ids, ends = self._table.tokenize(block.text)
        else:
            ids, ends = self._tokenize_lines(lines, is_sentence, is_first)
        sentences = np.cumsum(is_sentence)
        # A blank line ends a document if a sentence stands before it, in this block or in an earlier one.
        before = np.concatenate([[not is_first], is_sentence[:-1]])
        document_ends = sentences[~is_sentence & before]
        return TokenBlock(ids, ends[is_sentence], document_ends), bool(is_sentence[-1])

    def _tokenize_lines(self, lines: list[bytes], is_sentence: np.ndarray, is_first: bool) -> tuple[np.ndarray, np.ndarray]:
        """Sentences after a document's first are led by a space, so that a byte-level tokenizer gives the pieces of running text."""
        starts_document = np.concatenate([[is_first], ~is_sentence[:-1]])
        texts = [
            ("" if starts else " ") + line.decode().strip() if sentence else ""
            for line, sentence, starts in zip(lines, is_sentence, starts_document, strict=True)
        ]
        encodings = self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        ids = [np.array(encoding.ids, dtype=np.int32) for encoding in encodings]
        return np.concatenate(ids), np.cumsum([len(part) for part in ids])
