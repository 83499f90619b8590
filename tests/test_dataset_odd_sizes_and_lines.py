"""Sizes, numbers and lines at the edge: text without a full stop, blank lines of other scripts, caps above a sample, hidden and empty
files, the largest seed."""

import time

import pytest
from sampling_case import Here, read_shard
from tiny_corpus import folder_bytes, make_articles, write_text_shard, write_vocabulary

from dataset import convert_samples, generate_samples, jobs, merge_shards, process_data, shard_data, split_text
from dataset.articles import split_sentences
from dataset.errors import UserError
from dataset.flags import LARGEST_SEED
from dataset.shard_format import read_info


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "ProcessExecutor", Here)
    write_vocabulary(tmp_path / "tok")
    return tmp_path


def generate(place, *flags):
    generate_samples.main(["--dir", str(place / "text"), "-o", str(place / "out"), "--model_name", str(place / "tok"), *map(str, flags)])


def test_time_grows_with_the_length_of_a_sentence_not_with_its_square():
    text = "word " * 3_200_000
    start = time.process_time()
    assert split_sentences(text, "en") == [text.strip()]
    assert time.process_time() - start < 2, "a quarter of a second; copying what was read for every span took 6"


@pytest.mark.parametrize("blank", ["", " \t", "\u3000", "\u00a0\u2003", "\u2028", "\x85"])
def test_every_script_ends_a_document_at_the_same_lines(place, blank):
    """process_data, split_text and generate_samples agree on what a blank line is."""
    documents = ["Bara doso.\nLuti!", "Bara.", "Doso luti.", "Luti."]
    (place / "text").mkdir()
    (place / "text" / "train.txt").write_bytes(f"\n{blank}\n".join(documents).encode())
    process_data.main(["--type", "text", "-f", str(place / "text"), "-o", str(place / "processed")])
    processed = (place / "processed" / "text_one_article_per_line.txt").read_text(encoding="utf-8")
    assert processed.split("\n\n") == [*(document.replace("\n", " ") for document in documents), ""]
    split_text.main(["--read_file", str(place / "text" / "train.txt"), "--split_number", "4", "--folder", str(place / "parts"),
                     "--name_base", "train"])  # fmt: skip
    parts = folder_bytes(place / "parts")
    assert [parts[f"train_{number}.txt"].decode().split("\n\n")[0] for number in range(4)] == documents
    generate(place, "--max_seq_length", 32, "--masking", "none", "--short_seq_prob", 0)
    assert len(read_shard(place / "out" / "train_shard_0.hdf5").ids) == len(documents)


def test_a_cap_above_a_sample_is_brought_down_and_said(place, capsys):
    write_text_shard(place / "text" / "training0.txt", make_articles(9))
    for flags, special in (([], 2), (["--nsp"], 3)):
        generate(place, "--max_seq_length", 16, "--max_predictions_per_seq", 100_000, "--overwrite", *flags)
        info = read_info(place / "out" / "train_shard_0.hdf5")
        assert info.predictions == info.attributes["max_predictions_per_seq"] == 16 - special
        said = f"--max_predictions_per_seq 100000: a sample has {16 - special} tokens of text, so {16 - special}"
        assert said in capsys.readouterr().err
    generate(place, "--max_seq_length", 16, "--max_predictions_per_seq", 14, "--overwrite")
    assert "tokens of text" not in capsys.readouterr().err
    flags = ["--format", "distilbert", "--input", place / "no", "-o", place / "converted", "--vocab_file", place / "tok" / "vocab.txt"]
    with pytest.raises(UserError, match="no file"):
        convert_samples.main([*map(str, flags), "--max_seq_length", "16", "--max_predictions_per_seq", "15"])
    assert "--max_predictions_per_seq 15: a sample has 14 tokens of text, so 14" in capsys.readouterr().err


def test_hidden_files_and_folders_are_no_text_shards(place):
    write_text_shard(place / "text" / "training0.txt", make_articles(5))
    (place / "text" / "._training0.txt").write_bytes(b"\x00\x05\x16\x07\xff Mac OS X")
    (place / "text" / ".training1.txt.swp.txt").write_text("half")
    (place / "text" / "test.txt").mkdir()
    assert generate_samples.list_sources(place / "text") == [("train", 0, place / "text" / "training0.txt")]


def test_empty_text_shards_are_left_out_of_merging(place, capsys):
    for number, text in enumerate(["Bara doso.\n\n", "", "\ufeff\n \n\u3000\n", "Luti.\n\n"]):
        (place / "text").mkdir(exist_ok=True)
        (place / "text" / f"training{number}.txt").write_text(text, encoding="utf-8")
    (place / "text" / "test0.txt").write_text("\n")
    merge_shards.main(["--data", str(place / "text"), "--output_dir", str(place / "merged")])
    assert folder_bytes(place / "merged") == {"training0.txt": b"Bara doso.\n\n", "training1.txt": b"Luti.\n\n"}
    said = capsys.readouterr().err
    assert all(f"left out: {place / 'text' / name} holds no text" in said for name in ("training1.txt", "training2.txt", "test0.txt"))
    with pytest.raises(UserError, match="holds no text shard of test"):
        merge_shards.main(["--data", str(place / "text"), "--output_dir", str(place / "merged"), "--grep", "test", "--overwrite"])


def test_the_largest_seed_works_and_a_larger_one_is_refused(place):
    (place / "articles").mkdir()
    (place / "articles" / "a.txt").write_text("Bara doso.\n\nLuti no.\n\nBara luti.\n")
    shards = ["--dir", str(place / "articles"), "-o", str(place / "text"), "--num_train_shards", "1", "--num_test_shards", "1"]
    shard_data.main([*shards, "--seed", str(LARGEST_SEED)])
    generate(place, "--seed", LARGEST_SEED, "--max_seq_length", 16)
    assert read_info(place / "out" / "train_shard_0.hdf5").attributes["seed"] == LARGEST_SEED
    generate(place, "--seed", LARGEST_SEED, "--max_seq_length", 16)
    for attempt in (lambda: shard_data.main([*shards, "--seed", str(2**64)]), lambda: generate(place, "--seed", 2**64)):
        with pytest.raises(UserError, match="--seed 18446744073709551616; 0 to 18446744073709551615 would work"):
            attempt()
