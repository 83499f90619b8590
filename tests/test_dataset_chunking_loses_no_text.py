"""Without pairs every token of every document stands in exactly one sample of each duplicate, in order, and no sample crosses documents."""

from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sampling_case import ODD_VOCABULARY, byte_level, documents_of, make_samples, numbered_words, plain_ids, read_shard, wordpiece
from tiny_corpus import make_articles, write_text_shard, write_vocabulary

from dataset.errors import UserError
from dataset.samples import SampleJob, SampleSettings, write_samples
from dataset.sampling import text as blocks
from dataset.sampling.chunks import Chunker
from dataset.sampling.lengths import draw_lengths
from dataset.sampling.tokens import TokenBlock
from dataset.shard_format import read_info
from dataset.tokenizer import load_tokenizer, special_ids


def document_ids(tokenizer, sentences: list[str]) -> list[int]:
    """Sentences after the first follow a space, which byte-level tokenizers keep."""
    return list(chain.from_iterable(plain_ids(tokenizer, [sentences[0], *(f" {sentence}" for sentence in sentences[1:])])))


def check_conservation(shard, documents: list[list[int]], tokenizer, room: int) -> None:
    """Walk through rows and documents together."""
    ids, rows = special_ids(tokenizer), np.arange(len(shard.ids))
    assert (shard.ids[:, 0] == ids.cls).all() and (shard.ids[rows, shard.lengths - 1] == ids.sep).all()
    assert (shard.ids[np.arange(shard.ids.shape[1]) >= shard.lengths[:, None]] == ids.pad).all()
    assert not shard.segments.any() and shard.is_random is None
    row = 0
    for document in documents:
        found = []
        while len(found) < len(document):
            piece = shard.ids[row, 1 : shard.lengths[row] - 1].tolist()
            assert 1 <= len(piece) <= room
            found, row = found + piece, row + 1
        assert found == document, "neither lost nor repeated nor mixed with the next document"
    assert row == len(shard.ids)


@pytest.mark.parametrize("style", ["bert", "roberta"])
@pytest.mark.parametrize(("length", "short_seq_prob"), [(4, 0.0), (4, 1.0), (16, 0.1), (128, 1.0), (128, 0.1), (512, 0.0)])
def test_the_samples_of_a_file_undo_to_its_documents(tmp_path, monkeypatch, style, length, short_seq_prob):
    articles = make_articles(40, seed=3)
    articles[4] = articles[4] * 40  # one document of many samples
    articles += [["Bara"], ["doso"], articles[0] + ["Last one."]]
    write_text_shard(tmp_path / "text.txt", articles)
    text = (tmp_path / "text.txt").read_bytes().removesuffix(b"\n\n")  # no line feed at the end
    tokenizer = byte_level() if style == "roberta" else load_tokenizer(write_vocabulary(tmp_path / "tok"))
    documents = [document_ids(tokenizer, article) for article in articles]
    assert documents == [tokenizer.encode(" ".join(article), add_special_tokens=False).ids for article in articles], "running text"
    settings = SampleSettings(length, max_predictions_per_seq=length, short_seq_prob=short_seq_prob)
    counts, shards = make_samples(tmp_path, text, tokenizer, settings, duplicates=3)
    for shard in shards:
        check_conservation(shard, documents, tokenizer, length - 2)
        assert (shard.shown != shard.ids).any()
    assert counts.samples == sum(len(shard.ids) for shard in shards) and counts.tokens == 3 * sum(map(len, documents))
    assert not (shards[0].shown[: len(shards[1].ids)] == shards[1].shown[: len(shards[0].ids)]).all(), "duplicates are masked differently"
    if not short_seq_prob:
        assert len(shards[0].ids) == sum(-(-len(document) // (length - 2)) for document in documents)
    (tmp_path / "none").mkdir()
    _, (plain,) = make_samples(tmp_path / "none", text, tokenizer, SampleSettings(length, "none", short_seq_prob=short_seq_prob))
    assert plain.positions is None
    assert (plain.shown == shards[0].ids).all(), "what the trainer masks is what static masks hide"
    before = (tmp_path / "train_shard_1.hdf5").read_bytes()
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 100)
    make_samples(tmp_path, text, tokenizer, settings, duplicates=3)
    assert (tmp_path / "train_shard_1.hdf5").read_bytes() == before, "the size of blocks shows nowhere"


lines = st.sampled_from(["", "", " ", "\t", "Bara", "doso ing un", "É!", "a" * 101, "b." * 9, "\x01", "\u2003", "[SEP]", "x y z" * 3])


@settings(deadline=None, derandomize=True, max_examples=40)
@given(
    st.lists(lines, max_size=25), st.sampled_from([4, 5, 16]), st.sampled_from([0.0, 0.1, 1.0]), st.booleans(),
    st.sampled_from([4, 9, 1 << 22]),
)  # fmt: skip
@example(["Bara"], 4, 0.0, True, 1 << 22)
@example(["", " ", "\x01", ""], 4, 0.0, True, 1 << 22)
def test_documents_of_any_shape(lines, length, short_seq_prob, has_end, block_bytes):
    text = "\n".join(lines) + "\n" * has_end
    tokenizer = wordpiece(ODD_VOCABULARY)
    documents = [ids for ids in (list(chain.from_iterable(plain_ids(tokenizer, document))) for document in documents_of(text)) if ids]
    settings = SampleSettings(length, max_predictions_per_seq=3, short_seq_prob=short_seq_prob)
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory() as folder:
        patch.setattr(blocks, "BLOCK_BYTES", block_bytes)
        if not documents:
            with pytest.raises(UserError, match=r"training0\.txt( holds no text|: the tokenizer .* made no token)"):
                make_samples(Path(folder), text.encode(), tokenizer, settings)
            assert [path.name for path in Path(folder).iterdir()] == ["training0.txt"]
            return
        _, shards = make_samples(Path(folder), text.encode(), tokenizer, settings, duplicates=2)
        for shard in shards:
            check_conservation(shard, documents, tokenizer, length - 2)


def test_short_samples_are_as_frequent_as_asked_and_of_every_length():
    tokens = np.arange(200_000, dtype=np.int32)
    chunker = Chunker(draw_lengths(20, 0.3, (1,)))
    pieces = chunker.cut(TokenBlock(tokens, np.array([len(tokens)]), np.array([1])))
    assert pieces.first.tolist() == tokens.tolist()
    sizes = pieces.first_sizes[:-1]
    assert (sizes.min(), sizes.max()) == (2, 20) and len(np.unique(sizes)) == 19
    assert (sizes < 20).mean() == pytest.approx(0.3 * 18 / 19, abs=0.02)
    shorts = np.bincount(sizes)[2:20]
    assert ((shorts - shorts.mean()) ** 2 / shorts.mean()).sum() < 40.8, "chi-square with 17 degrees of freedom, p = 0.001"


def test_text_that_spells_a_special_token_stays_text(tmp_path):
    tokenizer = load_tokenizer(write_vocabulary(tmp_path))
    (tmp_path / "test_0.txt").write_text("Bara [MASK] doso [SEP] luti.\n", encoding="utf-8")
    target = tmp_path / "test_shard_0.hdf5"
    settings = SampleSettings(16, "none", short_seq_prob=0)
    write_samples(SampleJob(tmp_path / "test_0.txt", "test", 0, ((0, target),)), settings, tokenizer.to_str())
    ids, shard = special_ids(tokenizer), read_shard(target)
    tokens = shard.shown[0, : shard.lengths[0]].tolist()
    assert ids.mask not in tokens and tokens.count(ids.sep) == 1
    info = read_info(target)
    assert (info.masking, info.predictions, info.split, info.rows) == ("none", None, "test", 1)


def test_documents_end_at_blank_lines_only(tmp_path):
    text = "\n\nw1\u2028w2\nw3\r\n \n\n\x0b\nw4\x0bw5\rw6\n"
    tokenizer = numbered_words(10)
    _, (shard,) = make_samples(tmp_path, text.encode(), tokenizer, SampleSettings(16, "none", short_seq_prob=0))
    # A vertical tab is a control character, which BERT's normalizer deletes; "w4w5" is no known word.
    assert [row[row != 0].tolist() for row in shard.shown] == [[2, 6, 7, 8, 3], [2, 1, 11, 3]]
