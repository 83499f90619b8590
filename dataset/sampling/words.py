"""Token ids of text for BERT's tokenizers, word by word from memory: what they do to a word depends on nothing around it.

White space and ASCII punctuation always end a word there (BERT's pre-tokenizer puts every punctuation mark alone), so a block of text is
cut at those by table look-ups on its bytes, equal words are found by one hash table, and only a word never met before goes to the
tokenizer itself. Ids are exactly the tokenizer's: a word with other than ASCII letters and digits goes there as it stands, and a word that
is itself in the vocabulary is its longest piece. 3 MB of English hold 570,000 words, 36,000 different ones and 20,000 to be asked for.
"""

import json
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer

MOST_WORDS, MOST_BYTES = 1 << 19, 1 << 25  # kept in memory: about 150 MB
WORDS_AT_A_TIME = 1000
SPACE, PUNCTUATION, LETTER = 0, 1, 2


def is_wordwise(tokenizer: Tokenizer) -> bool:
    """Whether the tokenizer is one that `WordTable` reproduces: BERT's normalizer, pre-tokenizer and WordPiece, nothing added but special
    tokens, which are read as plain text (`encode_special_tokens`)."""
    parts = json.loads(tokenizer.to_str())
    kinds = [(parts[name] or {}).get("type") for name in ("normalizer", "pre_tokenizer", "model")]
    added = tokenizer.get_added_tokens_decoder().values()
    return (
        kinds == ["BertNormalizer", "BertPreTokenizer", "WordPiece"]
        and tokenizer.encode_special_tokens
        and all(token.special for token in added)
    )


@dataclass(frozen=True)
class Words:
    """Words of a text: `numbers` (n,) into the table, and `starts` (n,) int64, the byte at which each begins."""

    numbers: np.ndarray
    starts: np.ndarray


class WordTable:
    """Every word met so far with its token ids. Not to be shared between threads."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        parts = json.loads(tokenizer.to_str())
        self._lower, self._kind = np.arange(256, dtype=np.uint8), np.full(256, LETTER, dtype=np.uint8)
        if parts["normalizer"]["lowercase"]:
            self._lower[ord("A") : ord("Z") + 1] += 32
        for code in range(128):
            if chr(code) in " \t\n\r":
                self._kind[code] = SPACE
            elif chr(code).isprintable() and not chr(code).isalnum():
                self._kind[code] = PUNCTUATION
        longest = parts["model"]["max_input_chars_per_word"]
        # A piece that goes on with a word ("##ing") is no word: its punctuation would have been cut off.
        self._vocabulary = {
            token.encode(): token_id for token, token_id in parts["model"]["vocab"].items()
            if token.isascii() and token.isprintable() and len(token) <= longest and (len(token) == 1 or token.isalnum())
        }
        self._forget()

    def tokenize(self, text: bytes) -> tuple[np.ndarray, np.ndarray]:
        """(token ids (n,) int32 of UTF-8 `text`, tokens before each line feed, int64)."""
        if len(self._numbers) > MOST_WORDS or self._bytes > MOST_BYTES:
            self._forget()
        words = self._words(text)
        counts = self._counts[words.numbers]
        ends = np.cumsum(counts)
        total = int(ends[-1]) if len(ends) else 0
        # Token i of a word stands i places after the word's first one in the table.
        places = np.repeat(self._starts[words.numbers] - (ends - counts), counts) + np.arange(total)
        line_feeds = np.flatnonzero(np.frombuffer(text, np.uint8) == ord("\n"))
        words_before = np.searchsorted(words.starts, line_feeds)
        return self._ids[places], np.concatenate([[0], ends])[words_before]

    def _words(self, text: bytes) -> Words:
        raw = self._lower[np.frombuffer(text, np.uint8)]
        kind = self._kind[raw]
        begins = kind == LETTER
        begins[1:] &= kind[:-1] != LETTER
        begins |= kind == PUNCTUATION
        starts = np.flatnonzero(begins)
        is_kept = kind != SPACE
        kept = raw[is_kept]
        offsets = np.append(np.flatnonzero(begins[is_kept]), len(kept)).astype(np.int32)
        column = pa.BinaryArray.from_buffers(pa.binary(), len(starts), [None, pa.py_buffer(offsets), pa.py_buffer(kept)])
        encoded = column.dictionary_encode()
        different = encoded.dictionary.to_pylist()
        numbers = self._number(different)
        return Words(numbers[encoded.indices.to_numpy()], starts)

    def _number(self, words: list[bytes]) -> np.ndarray:
        """Numbers of different `words` in the table; those it lacks are added."""
        known = self._numbers
        missing = [word for word in words if word not in known]
        if missing:
            self._add(missing)
        return np.array([known[word] for word in words], dtype=np.int64)

    def _add(self, words: list[bytes]) -> None:
        ids, owners = [], []
        for first in range(0, len(words), WORDS_AT_A_TIME):
            texts = [word.decode() for word in words[first : first + WORDS_AT_A_TIME]]
            encoding = self.tokenizer.encode(texts, is_pretokenized=True, add_special_tokens=False)
            ids.append(np.array(encoding.ids, dtype=np.int32))
            owners.append(np.array(encoding.word_ids, dtype=np.int64) + first)
        counts = np.bincount(np.concatenate(owners), minlength=len(words))
        first_number = len(self._numbers)
        self._bytes += sum(map(len, words))
        self._numbers.update((word, first_number + place) for place, word in enumerate(words))
        self._starts = np.concatenate([self._starts, len(self._ids) + np.cumsum(counts) - counts])
        self._counts = np.concatenate([self._counts, counts])
        self._ids = np.concatenate([self._ids, *ids])

    def _forget(self) -> None:
        """Keep only the words that are pieces of the vocabulary; what is met again is learnt anew."""
        self._bytes = 0
        self._numbers = {word: number for number, word in enumerate(self._vocabulary)}
        self._ids = np.array(list(self._vocabulary.values()), dtype=np.int32)
        self._starts = np.arange(len(self._ids))
        self._counts = np.ones(len(self._ids), dtype=np.int64)
