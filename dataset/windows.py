"""Split articles in windows, which bounds what lies in memory (sizes) and twice on disk (text), and dealing a window out to the shards.

A window ends after the same article whatever blocks and processes the articles came from.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

WINDOW_ARTICLES = 1 << 18
WINDOW_BYTES = 1 << 30
BUFFER_BYTES = 64 << 20


@dataclass(frozen=True)
class Part:
    """A file of split articles from byte `offset` on: sentences and bytes of each article (int64, one entry an article).

    `damaged`: lines of the block in which bytes that are no UTF-8 were replaced.
    """

    path: Path
    offset: int
    sentences: np.ndarray
    bytes: np.ndarray
    damaged: int = 0

    def cut(self, articles: int) -> tuple["Part", "Part"]:
        """The first `articles` articles, and the others."""
        end = self.offset + int(self.bytes[:articles].sum())
        return (
            Part(self.path, self.offset, self.sentences[:articles], self.bytes[:articles], self.damaged),
            Part(self.path, end, self.sentences[articles:], self.bytes[articles:]),
        )


def windows(parts: Iterable[Part], least: int) -> Iterator[list[Part]]:
    """Consecutive articles of `parts` in lots: WINDOW_ARTICLES articles or WINDOW_BYTES bytes, but at least `least` articles.

    The last lot is what is left, so the first one may have fewer too.
    """
    window: list[Part] = []
    articles = size = 0
    for part in parts:
        rest = part
        if not len(rest.sentences):
            rest.path.unlink()
        while len(rest.sentences):
            by_count = max(least, WINDOW_ARTICLES) - articles
            by_bytes = int(np.searchsorted(np.cumsum(rest.bytes), WINDOW_BYTES - size)) + 1
            needed = min(by_count, max(by_bytes, least - articles))
            head, rest = rest.cut(needed)
            window.append(head)
            articles += len(head.sentences)
            size += int(head.bytes.sum())
            if len(head.sentences) == needed:
                yield window
                window, articles, size = [], 0, 0
    if window:
        yield window


def deal_out(window: list[Part], shard_of: np.ndarray, shards: list[Path]) -> None:
    """Append article number i of the window to `shards[shard_of[i]]`, in order; each part is removed when all of it is dealt.

    Text is gathered in memory and appended file by file, as more shards than a process may hold open are usual.
    """
    targets = iter(shard_of.tolist())
    waiting: dict[int, list[bytes]] = {}
    waiting_bytes = 0
    for part in window:
        with part.path.open("rb") as file:
            file.seek(part.offset)
            for size in part.bytes.tolist():
                waiting.setdefault(next(targets), []).append(file.read(size))
                waiting_bytes += size
                if waiting_bytes >= BUFFER_BYTES:
                    _append(waiting, shards)
                    waiting_bytes = 0
            used_up = not file.read(1)
        if used_up:
            part.path.unlink()
    _append(waiting, shards)


def _append(waiting: dict[int, list[bytes]], shards: list[Path]) -> None:
    for shard, texts in waiting.items():
        with shards[shard].open("ab") as file:
            file.writelines(texts)
    waiting.clear()


def largest_deviation(sizes: np.ndarray) -> float:
    """Largest distance of a shard's sentences from the mean, as a share of the mean."""
    return float(np.abs(sizes / sizes.mean() - 1).max())
