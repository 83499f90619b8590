"""Samples of two texts for next-sentence prediction (Devlin et al. 2019, section 3.1, and their script's rule), with true labels.

Sentences of a document are gathered until they have the number of tokens a sample aims at; the last one is cut there and its rest
begins the next sample. The first part is a random number of these sentences. With probability 1/2, and always where only one sentence
fitted, the second part is text from a random place of another document (label 1), and the sentences it took the place of are put back;
else it is the rest (label 0). What differs from the script, where it lost text or told an untruth:

- nothing is truncated, so every token of a document stands in exactly one sample as its document's own text;
- a single sentence leaves half of the sample to the other part and goes on in the next sample;
- where a block of text has one document only, nothing is drawn from that document under label 1: the sample is a true pair, and counted.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from dataset.masking import WordStream
from dataset.sampling.rows import Pieces
from dataset.sampling.tokens import TokenBlock

DRAWS_AT_A_TIME = 1024
Span = tuple[int, int]


class PairChunker:
    """Cuts block after block; of an open document the end, for a sample or less, is kept until the next one."""

    def __init__(self, lengths: Iterator[int], key: Sequence[int]) -> None:
        """`lengths`: tokens of both parts together that each sample aims at; `key`: of the random words."""
        self.without_other = 0  # samples that were to have a random second part, and no other document to take it from
        self._lengths = lengths
        self._words = _words(key)
        self._open = np.zeros(0, dtype=np.int32)
        self._open_ends = np.zeros(0, dtype=np.int64)
        self._wanted: int | None = None

    def cut(self, block: TokenBlock) -> Pieces:
        """The samples that are complete with this block."""
        tokens = np.concatenate([self._open, block.ids])
        ends = np.concatenate([self._open_ends, block.sentence_ends + len(self._open)])
        starts = np.concatenate([[0], ends[:-1]])
        bounds = np.concatenate([[0], block.document_ends + len(self._open_ends), [len(ends)]])
        documents = [
            [(start, end) for start, end in zip(starts[first:last].tolist(), ends[first:last].tolist(), strict=True) if end > start]
            for first, last in pairwise(bounds)
        ]
        holding = [number for number, sentences in enumerate(documents) if sentences]
        pairs: list[tuple[Span, Span, bool]] = []
        left: list[Span] = []
        for number, sentences in enumerate(documents):
            left = self._pair(number, sentences, documents, holding, pairs, is_open=number == len(documents) - 1)
        first = left[0][0] if left else len(tokens)
        self._open, self._open_ends = tokens[first:], np.array([end - first for _, end in left], dtype=np.int64)
        return _gather(tokens, pairs)

    def _pair(
        self, number: int, sentences: list[Span], documents: list[list[Span]], holding: list[int],
        pairs: list[tuple[Span, Span, bool]], is_open: bool,
    ) -> list[Span]:
        """Append the pairs of a document; returns the sentences that wait for the next block, none unless `is_open`."""
        waiting = sentences[::-1]
        others = len(holding) - bool(sentences)
        while waiting:
            wanted, self._wanted = self._wanted or next(self._lengths), None
            chunk = _take(waiting, wanted)
            is_lone = len(waiting) == 1 and waiting[0][1] - waiting[0][0] == 1
            if is_open and (is_lone or not waiting):
                self._wanted = wanted
                return chunk + waiting
            if is_lone and not others:
                # A document's last token would have nothing to be paired with: the sample before it gives it another, or takes it.
                waiting.extend(chunk[::-1])
                chunk = _take(waiting, wanted - 1 if wanted > 2 else wanted + 1)
            is_random = len(chunk) == 1 or next(self._words) < 2**31
            if len(chunk) == 1 and (not others or chunk[0][1] - chunk[0][0] > wanted - wanted // 2):
                _halve(chunk, wanted if others else chunk[0][1] - chunk[0][0])
            cut = 1 if len(chunk) <= 2 else 1 + (next(self._words) * (len(chunk) - 1) >> 32)
            start, end, rest = chunk[0][0], chunk[cut - 1][1], chunk[cut:]
            if is_random and others:
                waiting.extend(rest[::-1])
                pairs.append(((start, end), self._elsewhere(number, documents, holding, wanted - (end - start)), True))
            elif rest:
                self.without_other += is_random
                pairs.append(((start, end), (rest[0][0], rest[-1][1]), False))
            # A lone token that is the only text of a block has nothing to be paired with.
        return []

    def _elsewhere(self, number: int, documents: list[list[Span]], holding: list[int], room: int) -> Span:
        """Up to `room` tokens from a random sentence on of a random document that is not number `number`."""
        candidates = len(holding) - 1
        place = next(self._words) * candidates >> 32
        chosen = holding[place]
        if chosen >= number:
            chosen = holding[place + 1]
        sentences = documents[chosen]
        start = sentences[next(self._words) * len(sentences) >> 32][0]
        return start, min(start + room, sentences[-1][1])


def _words(key: Sequence[int]) -> Iterator[int]:
    stream = WordStream(key)
    while True:
        yield from stream.take(1, DRAWS_AT_A_TIME)[0].tolist()


def _take(waiting: list[Span], wanted: int) -> list[Span]:
    """Sentences from the end of `waiting` up to `wanted` tokens; what the last one has more is put back."""
    chunk: list[Span] = []
    while waiting and wanted:
        start, end = waiting.pop()
        if end - start > wanted:
            waiting.append((start + wanted, end))
            end = start + wanted
        chunk.append((start, end))
        wanted -= end - start
    return chunk


def _halve(chunk: list[Span], size: int) -> None:
    """Cut the only sentence of `chunk` where half of `size` is reached, if both sides get a token."""
    start, end = chunk[0]
    middle = start + size - size // 2
    if start < middle < end:
        chunk[:] = [(start, middle), (middle, end)]


def _gather(tokens: np.ndarray, pairs: list[tuple[Span, Span, bool]]) -> Pieces:
    parts = []
    for side in (0, 1):
        starts, ends = (np.array([pair[side][edge] for pair in pairs], dtype=np.int64) for edge in (0, 1))
        sizes = ends - starts
        before = np.cumsum(sizes) - sizes
        parts += [tokens[np.repeat(starts - before, sizes) + np.arange(int(sizes.sum()))], sizes]
    return Pieces(*parts, is_random=np.array([pair[2] for pair in pairs], dtype=bool))
