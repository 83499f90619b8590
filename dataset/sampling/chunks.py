"""Samples of one text: the tokens of a document, in order, cut into pieces.

Every token of a document stands in exactly one sample: what does not fit goes to the next one, where the original scripts cut a random
end off and lost it. A sample never crosses into another document. A document's last sample is what is left, so a file can hold rows of
a single token; grouping by length keeps them cheap.
"""

from collections.abc import Iterator

import numpy as np

from dataset.sampling.rows import Pieces
from dataset.sampling.tokens import TokenBlock


class Chunker:
    """Cuts block after block; what may go on in the next block is kept until then."""

    def __init__(self, lengths: Iterator[int]) -> None:
        self._lengths = lengths
        self._open = np.zeros(0, dtype=np.int32)
        self._wanted: int | None = None

    def cut(self, block: TokenBlock) -> Pieces:
        """The samples that are complete with this block."""
        tokens = np.concatenate([self._open, block.ids])
        last_sentence_ends = np.concatenate([[0], block.sentence_ends])
        ends = (last_sentence_ends[block.document_ends] + len(self._open)).tolist()
        sizes: list[int] = []
        position, wanted, lengths = 0, self._wanted, self._lengths
        for end in ends:
            while position < end:
                size = min(wanted or next(lengths), end - position)
                sizes.append(size)
                position, wanted = position + size, None
            wanted = None  # a document that ended where the block before did leaves no wish to the next one
        while position < len(tokens):
            wanted = wanted or next(lengths)
            if position + wanted > len(tokens):
                break
            sizes.append(wanted)
            position, wanted = position + wanted, None
        self._open, self._wanted = tokens[position:], wanted
        return Pieces(tokens[:position], np.array(sizes, dtype=np.int64))
