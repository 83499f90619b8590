"""DistilBERT's pickles become shards without masks: its rules for sequences, no text in both splits, and one line for what does not fit."""

import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest

from dataset.convert_samples import main
from dataset.errors import UserError
from dataset.shard_format import find_shards, read_info
from dataset.token_counts import read_token_counts
from dataset.tokenizer import load_tokenizer, vocabulary_sha256, vocabulary_size
from tests.tiny_corpus import SPECIAL, folder_bytes, write_vocabulary

PAD, UNK, CLS, SEP, MASK = range(len(SPECIAL))
LENGTH = 16


def convert(folder: Path, sequences: list, *flags, output: str = "samples") -> Path:
    (folder / "text.pickle").write_bytes(pickle.dumps([np.array(sequence, dtype=np.uint16) for sequence in sequences]))
    vocabulary = write_vocabulary(folder)
    main(["--format", "distilbert", "--input", str(folder / "text.pickle"), "-o", str(folder / output), "--vocab_file", str(vocabulary),
          "--max_seq_length", str(LENGTH), *map(str, flags)])  # fmt: skip
    return folder / output


def rows_of(paths: list[Path]) -> list[list[int]]:
    """Samples without padding."""
    rows = []
    for path in paths:
        with h5py.File(path) as file:
            for ids, mask in zip(file["input_ids"][:], file["input_mask"][:], strict=True):
                assert (ids[mask == 0] == PAD).all() and (np.diff(mask) <= 0).all()
                rows.append(ids[mask == 1].tolist())
    return rows


def make_sequences(count: int, longest: int, seed: int = 0) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [[CLS, *rng.integers(7, 60, size).tolist(), SEP] for size in rng.integers(1, longest, count)]


ALL_TRAIN = ("--num_train_shards", 1, "--num_test_shards", 0)


def test_long_ones_are_cut_and_short_or_unknown_ones_dropped(tmp_path, capsys):
    inside = list(range(7, 40))  # 33 tokens: pieces of 14, 14 and 5
    sequences = [
        [CLS, *inside, SEP],
        [CLS, *range(7, 17), SEP],  # 12 with the special tokens: just long enough
        [CLS, *range(7, 16), SEP],  # 11: too short
        [CLS, *[UNK] * 6, *range(20, 24), SEP],  # half of 12 unknown
        [CLS, *[UNK] * 5, *range(20, 25), SEP],
        [CLS, *range(7, 21), SEP],  # fills a sample
    ]
    output = convert(tmp_path, sequences, *ALL_TRAIN)
    assert rows_of([output / "train_shard_0.hdf5"]) == [
        [CLS, *inside[:14], SEP],
        [CLS, *inside[14:28], SEP],
        sequences[1],
        sequences[4],
        sequences[5],
    ]
    printed = capsys.readouterr().out
    for told in ("6 sequences became 5 train samples", "1 were cut", "2 pieces shorter than 12 (18 of ", "1 of unknown tokens by half"):
        assert told in printed
    info = read_info(output / "train_shard_0.hdf5")
    assert info.masking == "none" and info.attributes["masked_lm_prob"] == 0.15 and info.attributes["max_predictions_per_seq"] == 2
    assert info.attributes["mask_token_id"] == MASK and info.attributes["split"] == "train"
    output = convert(tmp_path, sequences, *ALL_TRAIN, "--min_length", 3, output="all")
    assert sum(map(len, rows_of([output / "train_shard_0.hdf5"]))) == sum(map(len, sequences)) + 4 - 12  # two more pieces, one unknown


def test_every_token_of_kept_sequences_is_in_one_sample_and_no_text_in_both_splits(tmp_path, monkeypatch):
    monkeypatch.setattr("dataset.converters.sequences.ROWS_AT_A_TIME", 7)
    base = make_sequences(400, 60)
    sequences = [*base, *base]  # every text twice
    flags = ("--min_length", 3, "--num_train_shards", 3, "--num_test_shards", 2, "--frac_test", 0.3, "--seed", 4)
    output = convert(tmp_path, sequences, *flags)
    train, test = find_shards(output)
    assert (len(train), len(test)) == (3, 2)
    train_rows, test_rows = rows_of(train), rows_of(test)
    assert all(row[0] == CLS and row[-1] == SEP and len(row) <= LENGTH for row in train_rows + test_rows)
    tokens = sorted(token for row in train_rows + test_rows for token in row[1:-1])
    assert tokens == sorted(token for sequence in sequences for token in sequence[1:-1])
    long = {tuple(row) for row in train_rows if len(row) > 6}
    assert not any(tuple(row) in long for row in test_rows)
    share = len(test_rows) / len(train_rows + test_rows)
    assert 0.22 < share < 0.38
    sizes = [read_info(path).rows for path in train]
    assert max(sizes) - min(sizes) <= 1
    whole = {tuple(sequence) for sequence in base if len(sequence) <= LENGTH and tuple(sequence) in set(map(tuple, test_rows))}
    again = convert(tmp_path, sequences[::-1], *flags, output="reversed")
    assert whole <= set(map(tuple, rows_of(find_shards(again)[1])))  # the split is of the text, not of its place

    same = convert(tmp_path, sequences, *flags, output="again")
    assert folder_bytes(same) == folder_bytes(output)
    other = convert(tmp_path, sequences, *flags[:-1], 5, output="other")
    assert sorted(map(tuple, rows_of(find_shards(other)[1]))) != sorted(map(tuple, test_rows))


def test_existing_shards_are_kept_or_in_the_way(tmp_path, capsys):
    sequences = make_sequences(50, 14)
    output = convert(tmp_path, sequences, *ALL_TRAIN)
    before = folder_bytes(output)
    convert(tmp_path, sequences, *ALL_TRAIN)
    assert "all 1 shards are there" in capsys.readouterr().out and folder_bytes(output) == before
    with pytest.raises(UserError, match="was made with seed 555, now it is 6; another --output_dir or --overwrite would work"):
        convert(tmp_path, sequences, *ALL_TRAIN, "--seed", 6)
    with pytest.raises(UserError, match="was made with source_sha256"):
        convert(tmp_path, sequences[1:], *ALL_TRAIN)
    (output / "train_shard_9.hdf5").write_bytes(before["train_shard_0.hdf5"])
    with pytest.raises(UserError, match=r"train_shard_9\.hdf5 is no shard of this run"):
        convert(tmp_path, sequences, *ALL_TRAIN)
    convert(tmp_path, sequences, *ALL_TRAIN, "--overwrite")
    assert folder_bytes(output) == before


def test_pickled_token_counts_become_ours(tmp_path):
    tokenizer = load_tokenizer(write_vocabulary(tmp_path))
    counts = list(range(vocabulary_size(tokenizer)))
    path = tmp_path / "counts.pickle"
    path.write_bytes(pickle.dumps(counts))
    output = convert(tmp_path, make_sequences(40, 14), *ALL_TRAIN, "--token_counts", path)
    read = read_token_counts(output / "token_counts.json")
    assert read.counts.tolist() == counts and read.tokenizer_sha256 == vocabulary_sha256(tokenizer) and read.samples is None
    negative = [-1, *counts[1:]]
    for wrong, message in (([1, 2], "counts 2 tokens, the tokenizer has 62"), (negative, "holds -1"), (["a"], "expected an integer")):
        path.write_bytes(pickle.dumps(wrong))
        with pytest.raises(UserError, match=message):
            convert(tmp_path, make_sequences(40, 14), *ALL_TRAIN, "--token_counts", path, output="x")
        assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("sequence", "flags", "message"),
    [
        ([50256, *range(7, 20), 50256], (), "sequence 20 holds an id outside 0 to 61"),
        ([9, *range(7, 20), SEP], (), r"sequence 20 begins with id 9, expected 2 .*GPT-2"),
        ([CLS, *range(7, 20), 9], (), "sequence 20 ends with id 9, expected 3"),
        ([], (), "sequence 20 is empty"),
        ([CLS, *range(7, 20), SEP], ("--num_train_shards", 200), "samples are too few for 200 train shards"),
        ([CLS, *range(7, 20), SEP], ("--frac_test", 0), "both 0 or none would work"),
        ([CLS, *range(7, 20), SEP], ("--num_train_shards", 0), "--num_train_shards 0; 1 to 256 would work"),
        ([CLS, *range(7, 20), SEP], ("--split", "train"), "--split is no flag of --format distilbert"),
        ([CLS, *range(7, 20), SEP], ("--input", "missing.pickle"), "no file missing.pickle"),
    ],
)
def test_what_does_not_fit_is_one_line_and_leaves_no_shard(tmp_path, sequence, flags, message):
    with pytest.raises(UserError, match=message) as caught:
        convert(tmp_path, [*make_sequences(20, 40), sequence], *flags)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "samples").glob("*")) and not list((tmp_path / "samples").glob(".*"))


def test_a_tokenizer_is_asked_for(tmp_path):
    (tmp_path / "text.pickle").write_bytes(pickle.dumps([]))
    with pytest.raises(UserError, match="no tokenizer given"):
        main(["--format", "distilbert", "--input", str(tmp_path / "text.pickle"), "-o", str(tmp_path / "samples")])
