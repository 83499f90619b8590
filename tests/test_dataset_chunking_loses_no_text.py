"""Every token of every document stands in exactly one sample, in order; samples never cross documents."""

import random

import h5py
import numpy as np
import pytest
from tiny_corpus import make_articles, write_text_shard, write_vocabulary
from tokenizers import Tokenizer, models, pre_tokenizers

from dataset.masking import generator
from dataset.samples import (
    SampleJob,
    SampleSettings,
    cut_document,
    read_documents,
    tokenize_document,
    write_samples,
)
from dataset.shard_format import read_info
from dataset.tokenizer import load_tokenizer, special_ids


def byte_level_tokenizer() -> Tokenizer:
    """A RoBERTa-style tokenizer of single bytes: padding is 1, and 0 is the start token."""
    names = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate([*names, *letters])}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens(names)
    return tokenizer


def unmask(file: h5py.File) -> np.ndarray:
    """The input ids as they were before masking."""
    ids, positions, labels = (file[key][:] for key in ("input_ids", "masked_lm_positions", "masked_lm_ids"))
    rows, slots = np.nonzero(positions)
    ids[rows, positions[rows, slots]] = labels[rows, slots]
    return ids


@pytest.mark.parametrize("style", ["bert", "roberta"])
@pytest.mark.parametrize("short_seq_prob", [0.0, 0.5])
def test_the_samples_of_a_file_undo_to_its_documents(tmp_path, style, short_seq_prob):
    articles = make_articles(12, seed=3)
    articles[4] = articles[4] * 8  # one document of many samples
    source, target = tmp_path / "training0.txt", tmp_path / "train_shard_0.hdf5"
    write_text_shard(source, articles)
    tokenizer = byte_level_tokenizer() if style == "roberta" else load_tokenizer(write_vocabulary(tmp_path / "tok"))
    ids = special_ids(tokenizer)
    settings = SampleSettings(max_seq_length=32, max_predictions_per_seq=5, short_seq_prob=short_seq_prob)
    rows = write_samples(SampleJob(source, target, "train", 0, 0), settings, tokenizer.to_str())

    with h5py.File(target) as file:
        originals, input_mask = unmask(file), file["input_mask"][:]
        assert not file["segment_ids"][:].any() and "next_sentence_labels" not in file
    lengths = input_mask.sum(axis=1)
    assert rows == len(originals) and lengths.max() == 32
    assert (input_mask == (np.arange(32) < lengths[:, None])).all()
    assert (originals[:, 0] == ids.cls).all()
    assert (originals[np.arange(rows), lengths - 1] == ids.sep).all()
    assert (originals[input_mask == 0] == ids.pad).all()

    texts = [" ".join(sentences) for sentences in articles]
    expected = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
    row = 0
    for document in expected:
        found = []
        while len(found) < len(document):
            found += originals[row, 1 : lengths[row] - 1].tolist()
            row += 1
        assert found == document  # neither lost nor repeated, and the next sample starts with the next document
    assert row == rows
    if not short_seq_prob:
        assert rows == sum(-(-len(document) // 30) for document in expected)


def test_short_samples_are_as_frequent_as_asked_and_of_every_length():
    tokens = np.arange(200_000)
    pieces = list(cut_document(tokens, 20, 0.3, generator((1,))))
    assert np.concatenate(pieces).tolist() == tokens.tolist()
    sizes = np.array([len(piece) for piece in pieces[:-1]])
    assert (sizes.min(), sizes.max()) == (2, 20) and len(np.unique(sizes)) == 19
    assert (sizes < 20).mean() == pytest.approx(0.3 * 18 / 19, abs=0.02)


def test_text_that_spells_a_special_token_stays_text(tmp_path):
    source, target = tmp_path / "test_0.txt", tmp_path / "test_shard_0.hdf5"
    source.write_text("Bara [MASK] doso [SEP] luti.\n", encoding="utf-8")
    tokenizer = load_tokenizer(write_vocabulary(tmp_path))
    write_samples(SampleJob(source, target, "test", 0, 0), SampleSettings(16, "none"), tokenizer.to_str())
    ids = special_ids(tokenizer)
    with h5py.File(target) as file:
        tokens = file["input_ids"][0][file["input_mask"][0] == 1].tolist()
    assert ids.mask not in tokens and tokens.count(ids.sep) == 1
    info = read_info(target)
    assert (info.masking, info.predictions, info.split, info.rows) == ("none", None, "test", 1)


def test_documents_end_at_blank_lines_only(tmp_path):
    path = tmp_path / "training0.txt"
    path.write_bytes("\n\na\u2028b\nc\r\n \n\nd\x0be\n".encode())
    assert list(read_documents(path)) == [["a\u2028b", "c"], ["d\x0be"]]


def test_sentences_give_the_tokens_of_the_running_text():
    tokenizer = byte_level_tokenizer()
    sentences = make_articles(1, seed=random.Random(5).randint(1, 9))[0] + ["Last one."]
    running = tokenizer.encode(" ".join(sentences), add_special_tokens=False).ids
    assert tokenize_document(tokenizer, sentences).tolist() == running
