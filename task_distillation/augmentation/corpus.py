"""The training texts as arrays: a number for each word, a number for its part of speech, and the words of each part of speech.

Tagging is nearly all of the time of `augment`, so it is what runs on several processes.
"""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from dataset.jobs import Job, Workers
from task_distillation.augmentation.taggers import load_tagger, tag_words
from task_distillation.augmentation.words import split_words
from task_distillation.transfer_set import MASK_WORD

MASK = 0
ROWS_OF_A_JOB = 1024


@dataclass(frozen=True)
class Corpus:
    """`sides`: sentences of a row, 1 or 2; those of a row follow one another. 4 bytes a word in each of three arrays."""

    sides: int
    words: np.ndarray
    """(vocabulary,) str objects; MASK is the number of MASK_WORD."""
    ids: np.ndarray
    """(tokens,) int32, numbers of words."""
    tags: np.ndarray
    """(tokens,) int32, numbers of parts of speech."""
    starts: np.ndarray
    """(sentences + 1,) int64, where each begins in `ids`."""
    by_tag: np.ndarray
    """(tokens,) int32: the words of part of speech 0 with their repetitions, then those of 1, ...; a uniform draw weighs by frequency."""
    tag_starts: np.ndarray
    """(parts of speech + 1,) int64, where each begins in `by_tag`."""

    @property
    def rows(self) -> int:
        return (len(self.starts) - 1) // self.sides

    def texts(self, first: int, stop: int) -> list[str]:
        """The words of rows `first` to `stop` joined by spaces; two sentences of a row by a tab."""
        bounds = self.starts[first * self.sides : stop * self.sides + 1]
        return self.join(self.ids[bounds[0] : bounds[-1]], bounds[:-1] - bounds[0], bounds[1:] - bounds[0])

    def join(self, ids: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> list[str]:
        """The texts of rows whose sentences are `ids[start:stop]`."""
        words = self.words[ids].tolist()
        texts = [" ".join(words[start:stop]) for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)]
        return texts if self.sides == 1 else [f"{left}\t{right}" for left, right in zip(texts[::2], texts[1::2], strict=True)]


def read_corpus(rows: Sequence[tuple[str, ...]], tagger: str, spacy_model: str, n_processes: int) -> Corpus:
    """Tag `rows`, one or more, of 1 or 2 texts each, none of them empty. UserError as `Workers` raises it."""
    jobs = [
        Job(f"rows from {start + 1}", (texts, tagger, spacy_model), sum(map(len, texts)))
        for start, texts in ((start, _flat(rows[start : start + ROWS_OF_A_JOB])) for start in range(0, len(rows), ROWS_OF_A_JOB))
    ]
    with Workers(min(n_processes, len(jobs)), None) as workers:
        return build_corpus(workers.in_order(tag_texts, jobs, "texts to tag", sum(job.size for job in jobs)), len(rows[0]))


def _flat(rows: Sequence[tuple[str, ...]]) -> list[str]:
    return [text for row in rows for text in row]


def tag_texts(texts: list[str], tagger: str, spacy_model: str) -> tuple[list[list[str]], list[list[str]]]:
    """(words, tags) of each text; the work of one job."""
    sentences = [split_words(text) for text in texts]
    return sentences, tag_words(load_tagger(tagger, spacy_model), sentences)


def build_corpus(tagged: Iterator[tuple[list[list[str]], list[list[str]]]], sides: int) -> Corpus:
    """The corpus of all sentences in their order, which come in pieces (words, tags) as from `tag_texts`."""
    words, names = {MASK_WORD: MASK}, {}
    ids, tags, starts = array("i"), array("i"), array("q", [0])
    for sentences, sentence_tags in tagged:
        for sentence, its_tags in zip(sentences, sentence_tags, strict=True):
            ids.extend([words.setdefault(word, len(words)) for word in sentence])
            tags.extend([names.setdefault(tag, len(names)) for tag in its_tags])
            starts.append(len(ids))
    numbers, parts = np.array(ids, np.int32), np.array(tags, np.int32)
    by_tag = numbers[np.argsort(parts, kind="stable")]
    tag_starts = np.concatenate([[0], np.cumsum(np.bincount(parts, minlength=len(names)))])
    return Corpus(sides, np.array(list(words), object), numbers, parts, np.array(starts, np.int64), by_tag, tag_starts)
