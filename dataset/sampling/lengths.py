"""How many tokens each sample aims at: all there is room for, or with probability `short_seq_prob` a random number from 2 on.

Drawn per sample; the original drew it per document, so that one draw turned a long document into hundreds of tiny samples.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from dataset.masking import WordStream

DRAWS_AT_A_TIME = 4096


def draw_lengths(room: int, short_seq_prob: float, key: Sequence[int]) -> Iterator[int]:
    """Endless numbers of tokens in [2, room], a pure function of the arguments."""
    stream, limit = WordStream(key), round(short_seq_prob * 2**32)
    while True:
        luck, words = stream.take(DRAWS_AT_A_TIME, 2).astype(np.int64).T
        yield from np.where(luck < limit, 2 + (words * (room - 1) >> 32), room).tolist()
