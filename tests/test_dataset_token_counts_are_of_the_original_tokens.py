"""Token counts are of the text before masking, each text once, and a file of counts that does not fit is named."""

import json
from collections import Counter

import h5py
import numpy as np
import pytest

from dataset.count_tokens import main
from dataset.errors import UserError
from dataset.masking import MaskRule, mask_rows
from dataset.shard_format import write_shard
from dataset.token_counts import read_token_counts, write_token_counts

VOCABULARY, LENGTH, MASK = 50, 12, 4
KNOWN = {"format_version": 1, "tokenizer_sha256": "aa", "vocab_size": VOCABULARY}


def make_rows(count: int, seed: int) -> tuple[dict[str, np.ndarray], Counter]:
    """Masked rows of random texts, and the counts of their tokens before masking."""
    rng = np.random.default_rng(seed)
    ids, mask = np.zeros((count, LENGTH), dtype=np.int32), np.zeros((count, LENGTH), dtype=np.int8)
    for row, size in enumerate(rng.integers(3, LENGTH + 1, count)):
        ids[row, :size], mask[row, :size] = [2, *rng.integers(5, VOCABULARY, size - 2), 3], 1
    rule = MaskRule(np.arange(5), MASK, VOCABULARY, 0.5, 4)
    masked, positions, labels = mask_rows(ids, mask, rule, [(seed, row) for row in range(count)])
    assert (masked == MASK).any()
    arrays = {"input_ids": masked, "input_mask": mask, "segment_ids": mask * 0, "masked_lm_positions": positions, "masked_lm_ids": labels}
    return arrays, Counter(ids[mask == 1].tolist())


def count(folder, *flags):
    main(["--dir", str(folder), "-o", str(folder / "counts.json"), *map(str, flags)])
    return read_token_counts(folder / "counts.json")


def test_masks_are_undone_and_padding_test_shards_and_duplicates_left_out(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("dataset.shard_blocks.TOKENS_AT_A_TIME", 7 * LENGTH)
    expected = Counter()
    for number in range(3):
        arrays, tokens = make_rows(20, number)
        expected += tokens
        write_shard(tmp_path / f"train_shard_{number}.hdf5", arrays, {**KNOWN, "duplicate": 0})
    write_shard(tmp_path / "train_shard_3.hdf5", make_rows(20, 0)[0], {**KNOWN, "duplicate": 1})
    write_shard(tmp_path / "test_shard_0.hdf5", make_rows(20, 9)[0], KNOWN)
    counts = count(tmp_path)
    assert {token_id: int(number) for token_id, number in enumerate(counts.counts) if number} == dict(expected)
    assert counts.counts[2] == counts.counts[3] == 60 and counts.counts[MASK] == counts.counts[0] == 0
    assert counts.counts.dtype == np.int64 and counts.samples == 60 and counts.tokenizer_sha256 == "aa" and counts.vocab_size == VOCABULARY
    assert counts.source == tuple(f"train_shard_{number}.hdf5" for number in range(3))
    assert "1 shards of further duplicates left out" in capsys.readouterr().out
    assert json.loads((tmp_path / "counts.json").read_text())["tokens"] == sum(expected.values())


def test_shards_of_others_need_the_size_and_ids_are_checked(tmp_path):
    arrays, tokens = make_rows(20, 0)
    with h5py.File(tmp_path / "train_0.hdf5", "w") as file:
        for key, values in arrays.items():
            file[key] = values
    with pytest.raises(UserError, match="--vocab_size"):
        count(tmp_path)
    counts = count(tmp_path, "--vocab_size", 60)
    assert counts.counts.sum() == sum(tokens.values()) and counts.vocab_size == 60 and counts.tokenizer_sha256 is None
    with pytest.raises(UserError, match=r"train_0\.hdf5: row \d+ holds id 4\d, expected 0 to 39"):
        count(tmp_path, "--vocab_size", 40)
    write_shard(tmp_path / "train_1.hdf5", arrays, KNOWN)
    with pytest.raises(UserError, match=r"not one: 50 \(train_1\.hdf5\), 60 \(--vocab_size 60\)"):
        count(tmp_path, "--vocab_size", 60)
    assert count(tmp_path).tokenizer_sha256 is None
    write_shard(tmp_path / "train_2.hdf5", arrays, {**KNOWN, "tokenizer_sha256": "bb"})
    with pytest.raises(UserError, match="different tokenizers"):
        count(tmp_path)
    (tmp_path / "train_0.hdf5").unlink()
    (tmp_path / "train_2.hdf5").unlink()
    write_shard(tmp_path / "train_1.hdf5", arrays, {**KNOWN, "duplicate": 2})
    with pytest.raises(UserError, match="duplicates of texts only"):
        count(tmp_path)


def test_a_file_of_counts_comes_back_or_is_named(tmp_path):
    path = tmp_path / "counts.json"
    write_token_counts(path, [0, 5, 2**62], tokenizer_sha256="ab", samples=3, source=["a"])
    good = json.loads(path.read_text())
    assert read_token_counts(path).counts.tolist() == [0, 5, 2**62] and good["tokens"] == 5 + 2**62
    for changes, message in (
        ({"vocab_size": 4}, "vocab_size is 4 and counts holds 3"),
        ({"counts": [1, -1, 0]}, "count of token 1 is '-1'"),
        ({"counts": [1, 0, 1.5]}, "count of token 2 is '1.5'"),
        ({"counts": [True, 0, 1]}, "count of token 0 is 'True'"),
        ({"counts": [2**63, 0, 1]}, "count of token 0 is"),
        ({"counts": [], "vocab_size": 0}, "counts holds 0 numbers"),
        ({"counts": "1 2 3"}, "has no list 'counts'"),
        ({"format_version": 2}, "format_version is 2, expected 1"),
        ({"tokenizer_sha256": 5}, "tokenizer_sha256 is '5', expected str or null"),
        ({"source": None}, "expected a list of names"),
    ):
        path.write_text(json.dumps({**good, **changes}))
        with pytest.raises(UserError, match=message) as caught:
            read_token_counts(path)
        assert "counts.json" in str(caught.value) and "\n" not in str(caught.value)
    for content in (b"", b"[1, 2", b"\x80\x04]q\x00.", b"[1, 2]"):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"counts\.json (is no JSON|has no list)"):
            read_token_counts(path)
    with pytest.raises(UserError, match="no file of token counts"):
        read_token_counts(tmp_path / "none.json")
    with pytest.raises(UserError, match="cannot be written"):
        write_token_counts(tmp_path / "none" / "counts.json", [1])
