"""Next-sentence pairs: true labels, half of them random where another document is at hand, and no token of any document lost or repeated.

Every word of these texts occurs once, so a token tells its document and its place there.
"""

import random
from collections import defaultdict
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sampling_case import Shard, make_samples, numbered_words

from dataset.errors import UserError
from dataset.samples import SampleSettings
from dataset.sampling import text as blocks
from dataset.sampling.pairs import PairChunker
from dataset.sampling.tokens import TokenBlock

CLS, SEP, MASK, FIRST = 2, 3, 4, 5


@dataclass(frozen=True)
class Corpus:
    """`sizes`: sentences of each document, by their numbers of words."""

    sizes: list[list[int]]

    @property
    def text(self) -> bytes:
        number, parts = 0, []
        for document in self.sizes:
            for size in document:
                parts.append(" ".join(f"w{word}" for word in range(number, number + size)))
                number += size
            parts.append("")
        return ("\n".join(parts) + "\n").encode()

    @property
    def document_of(self) -> np.ndarray:
        """Document of each token."""
        return np.repeat(np.arange(len(self.sizes)), [sum(document) for document in self.sizes])

    @property
    def sentence_starts(self) -> set[int]:
        sizes = [size for document in self.sizes for size in document]
        return set(np.cumsum([0, *sizes]).tolist())


def read_pairs(shard: Shard) -> list[tuple[list[int], list[int], bool]]:
    """(first part, second part, is random) of each row, as numbers of words, after a check of everything around them."""
    pairs = []
    for row, length, segments, is_random in zip(shard.ids, shard.lengths, shard.segments, shard.is_random, strict=True):
        separators = np.flatnonzero(row == SEP).tolist()
        middle, last = separators
        assert row[0] == CLS and last == length - 1 and not row[length:].any()
        assert segments.tolist() == [0] * (middle + 1) + [1] * (last - middle) + [0] * (len(row) - length)
        first, second = row[1:middle] - FIRST, row[middle + 1 : last] - FIRST
        for part in (first, second):
            assert len(part) and part.min() >= 0 and (np.diff(part) == 1).all(), "text as it stands in its document"
        pairs.append((first.tolist(), second.tolist(), bool(is_random)))
    return pairs


def check_pairs(shard: Shard, corpus: Corpus) -> list[tuple[list[int], list[int], bool]]:
    document_of, own = corpus.document_of, defaultdict(list)
    pairs = read_pairs(shard)
    for first, second, is_random in pairs:
        documents = {document_of[word] for word in first}, {document_of[word] for word in second}
        assert all(len(found) == 1 for found in documents), "no part crosses documents"
        if is_random:
            assert documents[0] != documents[1]
        else:
            assert documents[0] == documents[1] and second[0] == first[-1] + 1
        own[next(iter(documents[0]))] += first if is_random else first + second
    in_order = [word for document in sorted(own) for word in own[document]]
    assert in_order == list(range(len(document_of))), "every token once as its document's own text, in order"
    assert [document_of[first[0]] for first, _, _ in pairs] == sorted(document_of[first[0]] for first, _, _ in pairs)
    return pairs


def settings_of(length: int, **changes) -> SampleSettings:
    return SampleSettings(**{"max_seq_length": length, "masking": "none", "nsp": True, "short_seq_prob": 0.1, **changes})


def documents(sizes: list[int]) -> st.SearchStrategy[list[list[int]]]:
    return st.lists(st.lists(st.sampled_from(sizes), min_size=1, max_size=12), min_size=1, max_size=8)


# A document of one token that is alone in its block has no partner; blocks so small exist in tests only.
cases = st.one_of(
    st.tuples(documents([1, 1, 2, 3, 7, 12, 40]), st.just(1 << 22)), st.tuples(documents([2, 3, 4, 12, 40]), st.sampled_from([40, 200]))
)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(cases, st.sampled_from([6, 7, 16, 64]), st.sampled_from([0.0, 0.1, 1.0]), st.booleans())
@example(([[4]], 1 << 22), 6, 0.0, True)
@example(([[1]], 1 << 22), 6, 0.0, True)
@example(([[40, 1], [1]], 1 << 22), 6, 1.0, False)
@example(([[61 * 3 + 1]], 1 << 22), 64, 0.0, False)
def test_documents_of_any_shape(case, length, short_seq_prob, has_blank_line):
    sizes, block_bytes = case
    corpus = Corpus(sizes)
    words = sum(map(sum, sizes))
    text = corpus.text if has_blank_line else corpus.text.rstrip(b"\n")
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory() as folder:
        patch.setattr(blocks, "BLOCK_BYTES", block_bytes)
        if words == 1:
            with pytest.raises(UserError, match=r"training0\.txt( holds no text|: the tokenizer .* made no token)"):
                make_samples(Path(folder), text, numbered_words(words), settings_of(length))
            return
        counts, (shard,) = make_samples(Path(folder), text, numbered_words(words), settings_of(length, short_seq_prob=short_seq_prob))
    pairs = check_pairs(shard, corpus)
    assert counts.samples == len(pairs) and counts.tokens == words
    if len(sizes) == 1:
        assert not any(is_random for _, _, is_random in pairs)
    elif block_bytes == 1 << 22:
        assert counts.without_other == 0


def prose(documents: int, seed: int = 0) -> Corpus:
    rng = random.Random(seed)
    return Corpus([[rng.randint(3, 30) for _ in range(rng.randint(1, 60))] for _ in range(documents)])


def test_half_of_the_pairs_are_random_and_random_text_comes_from_everywhere(tmp_path):
    corpus = prose(150)
    words = sum(map(sum, corpus.sizes))
    counts, (shard, other) = make_samples(tmp_path, corpus.text, numbered_words(words), settings_of(128, short_seq_prob=0), duplicates=2)
    pairs, document_of, starts = check_pairs(shard, corpus), corpus.document_of, corpus.sentence_starts
    rows = min(len(shard.ids), len(other.ids))
    assert (shard.is_random[:rows] != other.is_random[:rows]).mean() > 0.4, "every duplicate has pairs of its own"
    assert len(pairs) > 800 and counts.without_other == 0
    # A document's end of one sentence has no true continuation; such samples are 4 % here.
    assert 0.47 < np.mean([is_random for _, _, is_random in pairs]) < 0.56
    sources = [document_of[second[0]] for _, second, is_random in pairs if is_random]
    expected = len(sources) / len(corpus.sizes)
    assert ((np.bincount(sources, minlength=150) - expected) ** 2 / expected).sum() < 205, "149 degrees of freedom, p = 0.0015"
    assert all(second[0] in starts for _, second, is_random in pairs if is_random), "random text begins with a sentence"
    assert np.mean([first[0] in starts for first, _, _ in pairs]) > 0.4, "the rest of a cut sentence begins the next sample"
    cuts = np.array([len(first) for first, second, _ in pairs if len(first) + len(second) == 125])
    assert len(cuts) > 0.75 * len(pairs) and cuts.min() < 25 and cuts.max() > 100, "the first part is a random number of sentences"
    assert max(shard.lengths) == 128


def test_lengths_are_short_as_often_as_asked(tmp_path):
    corpus = Corpus([[400] * 40, [300] * 40])
    _, (shard,) = make_samples(tmp_path, corpus.text, numbered_words(28_000), settings_of(64, short_seq_prob=0.5))
    check_pairs(shard, corpus)
    totals = shard.lengths - 3
    assert totals.max() == 61 and totals.min() == 2
    assert (totals < 61).mean() == pytest.approx(0.5 * 59 / 60, abs=0.05)


def test_a_file_of_one_document_has_true_pairs_only_and_counts_them(tmp_path):
    corpus = Corpus([[5, 9, 1, 14, 100, 3] * 40])
    words = sum(corpus.sizes[0])
    counts, (shard,) = make_samples(tmp_path, corpus.text, numbered_words(words), settings_of(32))
    pairs = check_pairs(shard, corpus)
    assert not shard.is_random.any()
    assert 0.4 * len(pairs) < counts.without_other < 0.95 * len(pairs)


def test_a_single_long_sentence_leaves_half_of_a_sample_to_other_text(tmp_path):
    corpus = Corpus([[1000], [10] * 100])
    counts, (shard,) = make_samples(tmp_path, corpus.text, numbered_words(2000), settings_of(128, short_seq_prob=0))
    pairs = check_pairs(shard, corpus)
    long = [pair for pair in pairs if pair[0][0] < 1000]
    assert next(len(first) for first, _, is_random in long if is_random) == 63 and counts.without_other == 0
    assert all(len(first) <= 125 and len(first) + len(second) <= 125 for first, second, _ in pairs)


def test_long_documents_are_cut_the_same_across_blocks_but_for_their_random_text(tmp_path, monkeypatch):
    """A document that lies in many blocks is carried from one to the next."""
    corpus = prose(6, seed=2)
    words = sum(map(sum, corpus.sizes))
    for size in (50, 300, 2000):
        monkeypatch.setattr(blocks, "BLOCK_BYTES", size)
        counts, (shard,) = make_samples(tmp_path, corpus.text, numbered_words(words), settings_of(64))
        document_of = corpus.document_of
        pairs = read_pairs(shard)
        for first, second, is_random in pairs:
            assert (document_of[first[0]] != document_of[second[0]]) == is_random
        check_pairs(shard, corpus)
        assert counts.without_other <= sum(not is_random for _, _, is_random in pairs)


def token_block(first: int, sentences: list[int], document_ends: list[int]) -> TokenBlock:
    ends = np.cumsum(sentences, dtype=np.int64)
    return TokenBlock(np.arange(first, first + sum(sentences), dtype=np.int32), ends, np.array(document_ends, dtype=np.int64))


@pytest.mark.parametrize("wanted", [2, 3, 5, 8])
@pytest.mark.parametrize("last", [[], [1], [4]])
def test_a_document_that_ends_alone_in_its_block_loses_no_last_token(wanted, last):
    """What an earlier block leaves of a document may find no other document beside it."""
    for number in range(1, 12):
        for sentences, document_ends in [([number + 1], []), ([2, 1, number], []), ([4, 2, number], [1]), ([2, 2, number, 1], [1])]:
            chunker = PairChunker(repeat(wanted), (number, wanted))
            own: list[int] = []
            for block in (token_block(0, sentences, document_ends), token_block(sum(sentences), last, [len(last)])):
                pieces = chunker.cut(block)
                firsts = np.split(pieces.first, np.cumsum(pieces.first_sizes))
                seconds = np.split(pieces.second, np.cumsum(pieces.second_sizes))
                for first, second, is_random in zip(firsts, seconds, [*pieces.is_random, True], strict=True):
                    own += first.tolist() if is_random else [*first.tolist(), *second.tolist()]
            assert own == list(range(sum(sentences) + sum(last)))


def test_static_masks_leave_the_pairs_as_they_are_and_never_hide_a_separator(tmp_path):
    corpus = prose(40, seed=1)
    words = sum(map(sum, corpus.sizes))
    plain = settings_of(64)
    masked = settings_of(64, masking="static", masked_lm_prob=0.9, max_predictions_per_seq=64)
    shards = []
    for name, chosen in (("plain", plain), ("masked", masked), ("again", masked)):
        (tmp_path / name).mkdir()
        shards.append(make_samples(tmp_path / name, corpus.text, numbered_words(words), chosen, duplicates=2)[1])
    for duplicate in (0, 1):
        check_pairs(shards[1][duplicate], corpus)
        assert (shards[0][duplicate].shown == shards[1][duplicate].ids).all()
        assert (shards[0][duplicate].is_random == shards[1][duplicate].is_random).all()
        hidden = np.take_along_axis(shards[1][duplicate].ids, shards[1][duplicate].positions, axis=1)[shards[1][duplicate].positions > 0]
        assert len(hidden) > 10_000 and hidden.min() >= FIRST
        assert ((shards[1][duplicate].shown == SEP).sum(axis=1) == 2).all()
    for name in ("train_shard_0.hdf5", "train_shard_1.hdf5"):
        assert (tmp_path / "masked" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    rows = min(len(shard.ids) for shard in shards[0])
    assert (shards[0][0].ids[:rows] != shards[0][1].ids[:rows]).any(), "another duplicate has other pairs"
