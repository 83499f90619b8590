"""The whole road from text to HDF5: bytes depend on text, settings and seed, not on processes, place or order."""

import re
import shutil

import h5py
import pytest
from tiny_corpus import (
    folder_bytes,
    make_articles,
    read_text_shard,
    run_script,
    write_articles,
    write_text_shard,
    write_vocabulary,
)

from dataset import generate_samples, shard_data
from dataset.articles import list_blocks, read_lines
from dataset.errors import UserError
from dataset.shard_format import find_shards, read_info


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Two article files, a vocabulary and text shards made from them."""
    folder = tmp_path_factory.mktemp("corpus")
    articles = make_articles(60)
    write_articles(folder / "processed" / "wiki.txt", articles[:40])
    write_articles(folder / "processed" / "books.txt", articles[40:])
    write_vocabulary(folder / "tok")
    shard(folder, "text")
    return folder


def shard(folder, output, *flags):
    shard_data.main([
        "--dir", str(folder / "processed"), "-o", str(folder / output), "--num_train_shards", "3",
        "--num_test_shards", "2", "--frac_test", "0.2", "--n_processes", "1", *flags,
    ])  # fmt: skip


def generate(folder, output, *flags):
    generate_samples.main([
        "--dir", str(folder / "text"), "-o", str(folder / output), "--model_name", str(folder / "tok"),
        "--max_seq_length", "32", "--max_predictions_per_seq", "5", "--n_processes", "1", *flags,
    ])  # fmt: skip


@pytest.fixture(scope="module")
def samples(corpus):
    generate(corpus, "samples", "--dup_factor", "2")
    return corpus / "samples"


def test_text_shards_do_not_depend_on_processes_or_blocks(corpus, monkeypatch):
    shard(corpus, "text_two", "--n_processes", "2")
    monkeypatch.setattr("dataset.articles.BLOCK_BYTES", 700)
    shard(corpus, "text_blocks", "--n_processes", "2")
    expected = folder_bytes(corpus / "text")
    assert len(expected) == 5
    assert folder_bytes(corpus / "text_two") == expected
    assert folder_bytes(corpus / "text_blocks") == expected
    shard(corpus, "text_seed", "--seed", "1")
    assert folder_bytes(corpus / "text_seed") != expected


def test_every_line_belongs_to_exactly_one_block(tmp_path, monkeypatch):
    lines = [b"a\n", b"\n", b"bcd\n", b"efghijkl\n", b"\n", b"no newline"]
    path = tmp_path / "a.txt"
    path.write_bytes(b"".join(lines))
    for size in range(1, 40):
        monkeypatch.setattr("dataset.articles.BLOCK_BYTES", size)
        assert [line for block in list_blocks([path]) for _, line in read_lines(block)] == lines


def test_train_and_test_share_no_article_and_none_is_lost_or_cut(corpus):
    by_name = {path.name: read_text_shard(path) for path in (corpus / "text").iterdir()}
    assert sorted(by_name) == ["test0.txt", "test1.txt", "training0.txt", "training1.txt", "training2.txt"]
    assert all(by_name.values())
    found = [" ".join(article) for articles in by_name.values() for article in articles]
    assert sorted(found) == sorted(" ".join(article) for article in make_articles(60))
    by_size = {name: sum(map(len, articles)) for name, articles in by_name.items()}
    test = sum(size for name, size in by_size.items() if name.startswith("test"))
    assert test / sum(by_size.values()) == pytest.approx(0.2, abs=1 / sum(by_size.values()))


def test_samples_do_not_depend_on_processes(corpus, samples):
    generate(corpus, "samples_two", "--dup_factor", "2", "--n_processes", "2")
    expected = folder_bytes(samples)
    assert len(expected) == 10
    assert folder_bytes(corpus / "samples_two") == expected


def test_samples_do_not_depend_on_the_place(corpus, samples, tmp_path):
    for name in ("text", "tok"):
        shutil.copytree(corpus / name, tmp_path / "else where" / name)
    generate(tmp_path / "else where", "samples", "--dup_factor", "2")
    assert folder_bytes(tmp_path / "else where" / "samples") == folder_bytes(samples)


def test_duplicates_lie_in_different_files_with_other_masks(samples):
    train, test = find_shards(samples)
    assert [path.name for path in train] == [f"train_shard_{index}.hdf5" for index in range(6)]
    assert [path.name for path in test] == [f"test_shard_{index}.hdf5" for index in range(4)]
    first, second = read_info(train[1]).attributes, read_info(train[4]).attributes
    assert first["source"] == second["source"] == "training1.txt"
    assert (first["duplicate"], second["duplicate"]) == (0, 1)
    with h5py.File(train[1]) as one, h5py.File(train[4]) as two:
        assert one["masked_lm_positions"][:9].tolist() != two["masked_lm_positions"][:9].tolist()


def test_train_and_test_files_with_one_text_are_masked_differently(tmp_path):
    for name in ("training0.txt", "test0.txt"):
        write_text_shard(tmp_path / "text" / name, make_articles(10))
    write_vocabulary(tmp_path / "tok")
    generate(tmp_path, "samples", "--short_seq_prob", "0")
    out = tmp_path / "samples"
    with h5py.File(out / "train_shard_0.hdf5") as a, h5py.File(out / "test_shard_0.hdf5") as b:
        assert a["input_mask"][:].tolist() == b["input_mask"][:].tolist()
        assert a["masked_lm_positions"][:].tolist() != b["masked_lm_positions"][:].tolist()


def test_attributes_say_how_a_shard_was_made(samples):
    info = read_info(samples / "test_shard_3.hdf5")
    expected = {
        "format_version": 1, "split": "test", "masking": "static", "vocab_size": 62, "pad_token_id": 0,
        "cls_token_id": 2, "sep_token_id": 3, "mask_token_id": 4, "max_seq_length": 32, "max_predictions_per_seq": 5,
        "masked_lm_prob": 0.15, "short_seq_prob": 0.1, "seed": 555, "duplicate": 1, "source": "test1.txt",
        "lowercase": 0, "file_index": 1,
    }  # fmt: skip
    assert {name: info.attributes[name] for name in expected} == expected
    assert len(info.attributes["tokenizer_sha256"]) == 64
    assert (info.max_seq_length, info.predictions, info.has_nsp, info.is_ours) == (32, 5, False, True)


def test_a_second_run_makes_only_what_is_missing_or_changed(corpus, samples, tmp_path, capsys):
    for name in ("text", "tok", "samples"):
        shutil.copytree(corpus / name, tmp_path / name)
    expected = folder_bytes(samples)
    (tmp_path / "samples" / "train_shard_4.hdf5").unlink()
    kept = tmp_path / "samples" / "train_shard_0.hdf5"
    before = kept.stat().st_mtime_ns
    generate(tmp_path, "samples", "--dup_factor", "2")
    assert folder_bytes(tmp_path / "samples") == expected and kept.stat().st_mtime_ns == before
    assert "9 shards are there" in capsys.readouterr().out
    write_text_shard(tmp_path / "text" / "test1.txt", make_articles(3, seed=9))
    generate(tmp_path, "samples", "--dup_factor", "2")
    changed = {name for name, content in folder_bytes(tmp_path / "samples").items() if content != expected[name]}
    assert changed == {"test_shard_1.hdf5", "test_shard_3.hdf5"}


def test_other_settings_need_overwrite_and_leave_nothing_old_behind(corpus, samples, tmp_path):
    for name in ("text", "tok", "samples"):
        shutil.copytree(corpus / name, tmp_path / name)
    with pytest.raises(UserError, match=r"made with seed 555, now it is 556.*--overwrite"):
        generate(tmp_path, "samples", "--dup_factor", "2", "--seed", "556")
    with pytest.raises(UserError, match=r"test_shard_2.hdf5 is no shard of this run \(there are 5 such\)"):
        generate(tmp_path, "samples")
    assert folder_bytes(tmp_path / "samples") == folder_bytes(samples)
    generate(tmp_path, "samples", "--masking", "none", "--overwrite")
    train, test = find_shards(tmp_path / "samples")
    assert (len(train), len(test)) == (3, 2) and {read_info(path).masking for path in train + test} == {"none"}
    rule = {(read_info(path).attributes["masked_lm_prob"], read_info(path).attributes["max_predictions_per_seq"]) for path in train}
    assert rule == {(0.15, 5)}, "the trainer masks by what the shard says"


def test_text_shards_are_replaced_only_when_asked(corpus, tmp_path):
    shutil.copytree(corpus / "processed", tmp_path / "processed")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "notes.md").write_text("mine")
    for index in (0, 9):
        (tmp_path / "text" / f"training{index}.txt").write_text("old")
    with pytest.raises(UserError, match=r"holds training0.txt and its like already"):
        shard(tmp_path, "text")
    shard(tmp_path, "text", "--overwrite")
    expected = folder_bytes(corpus / "text")
    assert folder_bytes(tmp_path / "text") == {**expected, "notes.md": b"mine"}


def test_a_failing_shard_is_named_and_the_others_are_kept(corpus, tmp_path):
    for name in ("text", "tok"):
        shutil.copytree(corpus / name, tmp_path / name)
    (tmp_path / "text" / "training1.txt").write_bytes(b"caf\xe9\n")
    flags = ["--dir", tmp_path / "text", "-o", tmp_path / "samples", "--vocab_file", tmp_path / "tok" / "vocab.txt"]
    done = run_script("generate_samples", *flags, "--max_seq_length", 32)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "1 of 5 text shards failed, the others are done: training1.txt: " in done.stderr
    assert re.search(r"text/training1\.txt line 1 is not UTF-8 .*--errors replace", done.stderr)
    names = {"test_shard_0.hdf5", "test_shard_1.hdf5", "train_shard_0.hdf5", "train_shard_2.hdf5"}
    assert set(folder_bytes(tmp_path / "samples")) == names
