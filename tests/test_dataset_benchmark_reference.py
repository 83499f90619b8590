"""The references of `benchmarks.dataset` follow the published rules, and the benchmark counts right: else its ratios say nothing."""

import random
import sys
from collections import Counter

import h5py
import numpy as np
import pytest
from tiny_corpus import STEMS, make_articles, write_text_shard, write_vocabulary

from benchmarks.dataset import commands, reference
from benchmarks.dataset.commands import module, peak_memory, run
from benchmarks.dataset.sample_statistics import count_tokens, measure
from benchmarks.dataset.sentences import boundary_scores
from benchmarks.dataset.sharding_reference import deal
from dataset import generate_samples
from dataset.tokenizer import load_tokenizer

LENGTH = 64
AWKWARD = ["Bara, kited!", "lusoed  unknown Körper 東京 ba'ra", "a-ra\u00a0do\tso.", f"[unused0] x{'y' * 120}", "bara\u200bso \u0301kis"]
PIECES = [*STEMS, "##s", "##ed", "##so", "##ra", "ba", "a", "-", "'", ".", "!", ",", "東", "x", "korper"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """(folder of one text shard, vocabulary, its tokens, folder of the reference's samples, folder of ours)."""
    folder = tmp_path_factory.mktemp("benchmark")
    vocabulary, shards = write_vocabulary(folder), folder / "shards"
    write_text_shard(shards / "training0.txt", make_articles(250))
    flags = ["--vocab_file", str(vocabulary), "--max_seq_length", str(LENGTH)]
    run(module("benchmarks.dataset.reference", shards, folder / "reference", *flags))
    generate_samples.main(["--dir", str(shards), "-o", str(folder / "ours"), *flags, "--n_processes", "1"])
    return shards, vocabulary, count_tokens(shards, vocabulary), folder / "reference", folder / "ours"


def test_the_reference_and_our_samples_have_the_same_statistics_but_for_what_we_mend(corpus):
    _, vocabulary, tokens, *folders = corpus
    theirs, ours = (measure(folder, vocabulary, tokens) for folder in folders)
    assert ours.kept == 1 and 0.8 < theirs.kept < 0.97
    assert ours.wrong_random == 0 and 0.02 < theirs.wrong_random < 0.3
    assert theirs.samples > 200
    for name, tolerance in (("mask_rate", 0.004), ("masked", 0.03), ("random", 0.025), ("same", 0.025), ("mean_position", 0.02)):
        assert getattr(ours, name) == pytest.approx(getattr(theirs, name), abs=tolerance), name
    assert ours.mean_length == pytest.approx(theirs.mean_length, rel=0.15)
    assert ours.samples == pytest.approx(theirs.samples, rel=0.25)


def test_the_references_samples_hold_the_texts_own_tokens(corpus):
    shards, vocabulary, _, folder, _ = corpus
    tokenizer = load_tokenizer(vocabulary)
    lines = (shards / "training0.txt").read_text().split("\n")
    text = [token for line in lines for token in tokenizer.encode(line, add_special_tokens=False).ids]
    runs = {tuple(text[start : start + 5]) for start in range(len(text))}
    with h5py.File(folder / "train_shard_0.hdf5") as file:
        ids, mask, positions, labels = (file[key][:] for key in ("input_ids", "input_mask", "masked_lm_positions", "masked_lm_ids"))
    rows, slots = np.nonzero(positions)
    ids[rows, positions[rows, slots]] = labels[rows, slots]
    for row, length in zip(ids[:40], mask[:40].sum(axis=1), strict=True):
        assert row[0] == tokenizer.token_to_id("[CLS]") and row[length - 1] == tokenizer.token_to_id("[SEP]") and not row[length:].any()
        inner = row[1 : length - 1].tolist()
        assert all(tuple(inner[start : start + 5]) in runs for start in range(len(inner) - 4))


def test_both_tokenizers_of_the_reference_give_the_tokenizers_pieces(tmp_path):
    vocabulary = write_vocabulary(tmp_path, PIECES)
    tokenizer, slow = load_tokenizer(vocabulary), reference.slow_tokenizer(vocabulary)
    fast = reference.fast_tokenizer(vocabulary)
    for text in AWKWARD:
        pieces = tokenizer.encode(text, add_special_tokens=False).tokens
        assert fast(text) == pieces
        assert slow is None or slow(text) == pieces, text
    ids = reference.read_vocabulary(vocabulary)
    assert all(tokenizer.token_to_id(token) == index for token, index in ids.items())


def test_chunks_are_gathered_and_cut_as_published():
    sentences = [[f"{number}.{place}" for place in range(size)] for number, size in enumerate([10, 10, 12, 40, 5, 3])]
    rule = reference.Rule(max_seq_length=32, short_seq_prob=0.0)
    for seed in range(20):
        first, second, third = reference.chunk_document(sentences, rule, random.Random(seed))
        # 32 tokens where 30 fit; one sentence of 40; what is left. Only ends are lost.
        for chunk, members, size in ((first, sentences[:3], 30), (second, sentences[3:4], 30), (third, sentences[4:], 8)):
            whole = [token for sentence in members for token in sentence]
            assert len(chunk) == size and any(whole[start : start + size] == chunk for start in range(len(whole)))
    starts = {reference.chunk_document(sentences, rule, random.Random(seed))[1][0] for seed in range(50)}
    assert len(starts) > 3
    # Drawn per document: a short aim makes many short chunks.
    short = reference.Rule(max_seq_length=32, short_seq_prob=1.0)
    counts = {len(reference.chunk_document([["a"]] * 60, short, random.Random(seed))) for seed in range(30)}
    assert min(counts) <= 3 and max(counts) >= 15


def test_masks_are_drawn_as_published():
    rule, words = reference.Rule(), [f"w{number}" for number in range(50)]
    kinds, places = Counter(), Counter()
    for seed in range(1500):
        chunk = [f"t{place}" for place in range(38)]
        instance = reference.mask_tokens(chunk, rule, words, random.Random(seed))
        assert len(instance.positions) == 6 and instance.positions == sorted(set(instance.positions))
        assert instance.labels == [f"t{position - 1}" for position in instance.positions]
        shown = [instance.tokens[position] for position in instance.positions]
        kinds.update("mask" if token == "[MASK]" else "random" if token in words else "same" for token in shown)
        places.update(instance.positions)
        untouched = set(range(40)) - set(instance.positions)
        assert all(instance.tokens[place] == ["[CLS]", *chunk, "[SEP]"][place] for place in untouched)
    shares = [kinds[kind] / 9000 for kind in ("mask", "random", "same")]
    assert shares == [pytest.approx(0.8, abs=0.015), pytest.approx(0.1, abs=0.012), pytest.approx(0.1, abs=0.012)]
    mean = 9000 / 38
    assert sum((places[place] - mean) ** 2 / mean for place in range(1, 39)) < 75  # chi-square, 37 degrees of freedom: 2 in 10,000
    assert len(reference.mask_tokens(["a"] * 126, rule, words, random.Random(0)).positions) == 19
    assert len(reference.mask_tokens(["a"] * 400, rule, words, random.Random(0)).positions) == 20
    assert len(reference.mask_tokens(["a"], rule, words, random.Random(0)).positions) == 1


def test_statistics_count_what_is_in_a_file_of_the_originals_layout(tmp_path):
    vocabulary = write_vocabulary(tmp_path)
    ids = reference.read_vocabulary(vocabulary)
    instances = [
        reference.Instance(["[CLS]", "bara", "[MASK]", "baso", "[SEP]"], [2], ["bati"]),
        reference.Instance(["[CLS]", "[MASK]", "[SEP]", "banu", "baso", "dora", "doso", "[SEP]"], [1, 2, 4], ["bara", "bati", "baso"])]
    arrays = reference.to_arrays(instances, reference.Rule(), ids)
    reference.write_originals_layout(tmp_path / "train_shard_0.hdf5", arrays)
    found = measure(tmp_path, vocabulary, text_tokens=12)
    assert (found.samples, found.kept, found.mean_length, found.mask_rate) == (2, 9 / 12, 13 / 2, 4 / 13)
    assert (found.masked, found.random, found.same, found.wrong_random) == (1 / 2, 1 / 4, 1 / 4, 1)
    assert found.mean_position == pytest.approx((2 / 4 + 1 / 7 + 2 / 7 + 4 / 7) / 4)
    with h5py.File(tmp_path / "train_shard_0.hdf5") as file:
        kinds = {key: (data.compression, data.shuffle, str(data.dtype), data.shape[1]) for key, data in file.items()}
    assert kinds == {
        "input_ids": ("gzip", False, "int32", 128), "input_mask": ("gzip", False, "int8", 128), "segment_ids": ("gzip", False, "int8", 128),
        "masked_lm_positions": ("gzip", False, "int32", 20), "masked_lm_ids": ("gzip", False, "int32", 20)}


def test_the_sharding_reference_deals_every_article_out_once():
    rng = random.Random(0)
    sizes = [rng.randint(1, 40) for _ in range(300)]
    shards = deal(sizes, 8, 2, 0.1)
    assert sorted(article for shard in shards for article in shard) == list(range(300))
    counts = [sum(sizes[article] for article in shard) for shard in shards]
    assert sum(counts[8:]) / sum(counts) == pytest.approx(0.1, abs=0.03)
    assert max(counts[:8]) - min(counts[:8]) < 0.1 * max(counts[:8])


def test_boundaries_are_scored_by_where_they_are():
    gold = ["A b.", "C d.", "E f.", "G h."]
    assert boundary_scores(gold, lambda _: ["A b.", "C  d.", "E f.", "G h."]) == (1, 1, 1)
    assert boundary_scores(gold, lambda text: [text])[1:] == (0, 0)
    precision, recall, f1 = boundary_scores(gold, lambda _: ["A b.", "C", "d. E f. G h."])
    assert (precision, recall, f1) == (1 / 2, 1 / 3, pytest.approx(0.4))


def test_peak_memory_sees_processes_below_the_command_and_what_they_gave_back(monkeypatch):
    monkeypatch.setattr(commands, "POLL_SECONDS", 0.3)  # the text below lives between two looks
    held = "import time; text = b'x' * 150_000_000; del text; time.sleep(0.6)"
    peak = peak_memory([sys.executable, "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {held!r}])"])
    assert 150 < peak.largest < 220
    assert peak.total > 10
    with pytest.raises(RuntimeError, match="no such luck"):
        peak_memory([sys.executable, "-c", "raise SystemExit('no such luck')"])
