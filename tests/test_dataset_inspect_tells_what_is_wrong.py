"""An inspection counts what is in shards, finds texts that are there twice, and names every broken file; its status says so."""

import json

import h5py
import numpy as np
import pytest

from dataset.errors import UserError
from dataset.inspect_samples import main
from dataset.shard_format import write_shard
from tests.tiny_corpus import SPECIAL, WORDS, run_script, write_vocabulary

PAD, UNK, CLS, SEP, MASK = range(len(SPECIAL))
LENGTH, PREDICTIONS, VOCABULARY = 16, 3, 62
FIRST_WORD = len(SPECIAL) + 2
IDS = {"cls_token_id": CLS, "sep_token_id": SEP, "pad_token_id": PAD, "mask_token_id": MASK}
KNOWN = {"format_version": 1, "vocab_size": VOCABULARY, **IDS}


def make_arrays(texts: list[list[int]], shown: int = MASK) -> dict[str, np.ndarray]:
    """Rows of `texts`; the first and the third token of each are predicted, the first hidden by `shown`."""
    arrays = {key: np.zeros((len(texts), LENGTH), dtype=np.int64) for key in ("input_ids", "input_mask", "segment_ids")}
    arrays |= {key: np.zeros((len(texts), PREDICTIONS), dtype=np.int64) for key in ("masked_lm_positions", "masked_lm_ids")}
    for row, text in enumerate(texts):
        arrays["input_ids"][row, : len(text) + 2] = [CLS, *text, SEP]
        arrays["input_mask"][row, : len(text) + 2] = 1
        arrays["masked_lm_positions"][row, :2] = 1, 3
        arrays["masked_lm_ids"][row, :2] = text[0], text[2]
        arrays["input_ids"][row, 1] = shown
    return arrays


def make_texts(count: int, seed: int) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(FIRST_WORD, VOCABULARY, size).tolist() for size in rng.integers(5, LENGTH - 1, count)]


def inspect(capsys, *flags) -> tuple[int, dict]:
    capsys.readouterr()
    status = main([*map(str, flags), "--json"])
    return status, json.loads(capsys.readouterr().out)


def test_numbers_are_those_of_the_samples(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("dataset.shard_blocks.TOKENS_AT_A_TIME", 5 * LENGTH)
    texts = make_texts(30, 1)
    lengths = np.array([len(text) + 2 for text in texts])
    write_shard(tmp_path / "train_shard_0.hdf5", make_arrays(texts[:20]), {**KNOWN, "seed": 1, "source": "a"})
    nsp = {"next_sentence_labels": np.array([1, 0, 0, 0])}
    write_shard(tmp_path / "train_shard_1.hdf5", make_arrays(texts[20:], shown=FIRST_WORD), {**KNOWN, "seed": 2, "source": "b"})
    write_shard(tmp_path / "test_shard_0.hdf5", {**make_arrays(make_texts(4, 2)), **nsp}, {**KNOWN, "seed": 1})
    status, found = inspect(capsys, tmp_path)
    train = found["splits"]["train"]
    assert (train["files"], train["samples"], train["tokens"], train["padded_length"]) == (2, 30, int(lengths.sum()), [LENGTH])
    assert train["padding"] == pytest.approx(1 - lengths.sum() / (30 * LENGTH))
    assert train["length"]["min"] == lengths.min() and train["length"]["max"] == lengths.max()
    assert train["length"]["mean"] == pytest.approx(lengths.mean())
    for name, share in (("p5", 5), ("median", 50), ("p95", 95)):
        assert train["length"][name] == np.percentile(lengths, share, method="inverted_cdf")
    assert train["masked"] == pytest.approx(60 / lengths.sum())
    same = sum(text[0] == FIRST_WORD for text in texts[20:])
    assert train["masked_shown_as"] == pytest.approx({"mask": 20 / 60, "same": (30 + same) / 60, "other": (10 - same) / 60})
    assert found["splits"]["test"]["random_next"] == 0.25 and train["random_next"] is None
    assert [value["value"] for value in found["differing_attributes"]["seed"]] == [1, 2] and "source" not in found["differing_attributes"]
    assert status == 1 and found["problems"] == ["next_sentence_labels differs: False (train_shard_0.hdf5), True (test_shard_0.hdf5)"]
    (tmp_path / "test_shard_0.hdf5").unlink()
    assert inspect(capsys, tmp_path)[0] == 0


def test_texts_that_are_there_twice_are_found_whatever_their_masks(tmp_path, capsys):
    texts, others = make_texts(40, 1), make_texts(40, 2)
    write_shard(tmp_path / "train_shard_0.hdf5", make_arrays(texts[:20]), {**KNOWN, "duplicate": 0})
    write_shard(tmp_path / "train_shard_1.hdf5", make_arrays([*texts[20:], texts[3], texts[3]], shown=9), {**KNOWN, "duplicate": 0})
    write_shard(tmp_path / "train_shard_2.hdf5", make_arrays([*texts[:20], others[35]], shown=12), {**KNOWN, "duplicate": 1})
    tests = [*others[:30], others[5], texts[7], others[35]]
    write_shard(tmp_path / "test_shard_0.hdf5", make_arrays(tests), KNOWN)
    _, found = inspect(capsys, tmp_path)
    duplicates = found["duplicates"]
    assert duplicates["within_train"]["samples"] == 2
    assert duplicates["within_train"]["example"] == [{"file": "train_shard_0.hdf5", "row": 3}, {"file": "train_shard_1.hdf5", "row": 20}]
    assert duplicates["within_test"]["samples"] == 1
    assert duplicates["within_test"]["example"] == [{"file": "test_shard_0.hdf5", "row": 5}, {"file": "test_shard_0.hdf5", "row": 30}]
    assert duplicates["test_in_train"]["samples"] == 2
    assert duplicates["test_in_train"]["example"] == [{"file": "test_shard_0.hdf5", "row": 31}, {"file": "train_shard_0.hdf5", "row": 7}]
    assert duplicates["by_dup_factor"] == 20
    assert found["problems"] == ["2 of 33 test samples stand in train as well, more than --max_shared 0.01 of them"]
    assert inspect(capsys, tmp_path, "--max_shared", "0.1")[0] == 0


def test_special_tokens_make_no_difference_and_rows_without_text_are_no_duplicates(tmp_path, capsys):
    words = make_texts(1, 1)[0]
    write_shard(tmp_path / "train_shard_0.hdf5", make_arrays([words, [*words[:3], SEP, *words[3:]]]), KNOWN)
    bare = make_arrays([[20, 21, 22]] * 3)
    bare["input_ids"][:, 1:] = [SEP] + [PAD] * 14
    bare["input_mask"][:, 2:] = bare["masked_lm_positions"][:] = bare["masked_lm_ids"][:] = 0
    write_shard(tmp_path / "train_shard_1.hdf5", bare, KNOWN)
    _, found = inspect(capsys, tmp_path)
    assert found["duplicates"]["within_train"]["samples"] == 1
    assert found["problems"] == [f"{tmp_path / 'train_shard_1.hdf5'}: no token but special ones in 3 rows, first in row 0"]


def change(arrays: dict[str, np.ndarray], key: str, row: int, place: int, value: int) -> dict[str, np.ndarray]:
    values = arrays[key].copy()
    values[row, place] = value
    return {**arrays, key: values}


BROKEN = {
    "input_ids outside 0 to 61 in row 4": ("input_ids", 4, 2, 62),
    "masked_lm_ids outside 0 to 61 in row 4": ("masked_lm_ids", 4, 1, 99),
    "input_mask neither 0 nor 1 in row 5": ("input_mask", 5, 1, 2),
    "input_mask has holes in row 6": ("input_mask", 6, 2, 0),
    "segment_ids neither 0 nor 1 in row 0": ("segment_ids", 0, 2, 3),
    "input_ids does not begin with the start token 2 in row 9": ("input_ids", 9, 0, 20),
    "masked_lm_positions outside 0 to 15 in row 3": ("masked_lm_positions", 3, 1, 16),
    "masked_lm_positions not ascending in row 3": ("masked_lm_positions", 3, 1, 1),
    "masked_lm_positions go on after the 0 that ends them in row 2": ("masked_lm_positions", 2, 0, 0),
    "padding is predicted in row 1": ("masked_lm_positions", 1, 1, 15),
    "masked_lm_ids go on after the positions in row 1": ("masked_lm_ids", 1, 2, 30),
    "special tokens are predicted in row 8": ("masked_lm_ids", 8, 1, SEP),
}


def test_every_broken_rule_is_named_and_the_other_files_still_counted(tmp_path, capsys):
    texts = [text[:10] for text in make_texts(12, 1)]
    good = make_arrays(texts)
    write_shard(tmp_path / "train_shard_0.hdf5", good, KNOWN)
    for number, place in enumerate(BROKEN.values(), 1):
        write_shard(tmp_path / f"train_shard_{number}.hdf5", change(good, *place), KNOWN)
    empty = {key: values.copy() for key, values in good.items()}
    empty["input_mask"][[2, 7]] = 0
    write_shard(tmp_path / "train_shard_20.hdf5", empty, KNOWN)
    bare = {key: values.copy() for key, values in good.items()}
    bare["input_ids"][5, 1:] = [SEP] + [PAD] * 14
    bare["input_mask"][5, 2:] = bare["masked_lm_positions"][5] = bare["masked_lm_ids"][5] = 0
    write_shard(tmp_path / "train_shard_21.hdf5", bare, KNOWN)
    whole = (tmp_path / "train_shard_0.hdf5").read_bytes()
    (tmp_path / "train_shard_30.hdf5").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "train_shard_31.hdf5").write_bytes(b"text")
    write_shard(tmp_path / "train_shard_32.hdf5", good, {**KNOWN, "split": "test"})
    write_shard(tmp_path / "shard_33.hdf5", good, KNOWN)
    with h5py.File(tmp_path / "train_shard_0.hdf5") as file:
        chunk = file["input_ids"].id.get_chunk_info(0)
    damaged = whole[: chunk.byte_offset] + bytes(chunk.size) + whole[chunk.byte_offset + chunk.size :]
    (tmp_path / "train_shard_34.hdf5").write_bytes(damaged)
    status, found = inspect(capsys, tmp_path)
    assert status == 1
    alone = {path: inspect(capsys, path)[1]["problems"] for path in sorted(tmp_path.iterdir())}
    problems = {path.name: [line.removeprefix(f"{path}: ") for line in lines] for path, lines in alone.items()}
    assert not problems["train_shard_0.hdf5"]
    for number, rule in enumerate(BROKEN, 1):
        assert rule in problems[f"train_shard_{number}.hdf5"]
    assert "input_mask has no 1: no token in 2 rows, first in row 2" in problems["train_shard_20.hdf5"]
    assert problems["train_shard_21.hdf5"] == ["no token but special ones in row 5"]
    for number, message in ((30, "was cut short"), (31, "is no HDF5 file"), (32, "split is 'test'"), (34, "cannot be read")):
        assert message in problems[f"train_shard_{number}.hdf5"][0]
    assert "neither file name nor attribute" in problems["shard_33.hdf5"][0]
    assert len(found["problems"]) < sum(map(len, problems.values()))
    assert found["files"] == 1 + len(BROKEN) + 2 + 5 and found["splits"]["train"]["samples"] == 12 * (1 + len(BROKEN) + 2)


def test_a_complaint_of_many_files_is_one_line(tmp_path, capsys):
    good = make_arrays([text[:10] for text in make_texts(6, 1)])
    for number in range(5):
        write_shard(tmp_path / f"train_shard_{number}.hdf5", change(good, "input_ids", number, 2, 62), KNOWN)
    _, found = inspect(capsys, tmp_path)
    places = ", ".join(f"{tmp_path}/train_shard_{number}.hdf5 row {number}" for number in range(3))
    assert found["problems"][0] == f"input_ids outside 0 to 61 in 5 rows of 5 files: {places}, ..."


def test_another_tokenizers_samples_are_not_shown_as_this_ones_text(tmp_path, capsys):
    words = [FIRST_WORD + WORDS.index("bara"), FIRST_WORD + WORDS.index("doti"), UNK]
    arrays = make_arrays([words] * 3)
    arrays["input_ids"][:, 0] = start = FIRST_WORD + 9
    made = {**KNOWN, "tokenizer_sha256": "other", "lowercase": 1, "cls_token_id": start}
    for number in range(5):
        write_shard(tmp_path / f"train_shard_{number}.hdf5", arrays, made)
    vocabulary = write_vocabulary(tmp_path)
    assert main([str(tmp_path), "--vocab_file", str(vocabulary), "--max_shared", "1"]) == 1
    printed = capsys.readouterr().out
    assert "start token" not in printed, "the shards have their own"
    assert "bara" not in printed and "doti" not in printed and "samples of 5 files are not shown" in printed
    assert printed.count("made with another tokenizer (62 tokens, lower-casing, tokenizer_sha256 other) than the one given (62 tokens") == 1
    (tmp_path / "foreign").mkdir()
    write_shard(tmp_path / "foreign" / "train.hdf5", {**arrays, "input_ids": arrays["input_ids"] + 1}, {})
    _, found = inspect(capsys, tmp_path / "foreign", "--vocab_file", vocabulary)
    assert not found["examples"] and "does not begin with the start token 2 in 3 rows" in found["problems"][0]


def test_unknown_tokens_are_counted_and_too_many_are_wrong(tmp_path, capsys):
    texts = [[FIRST_WORD] * 10] * 8
    texts[3] = [UNK, FIRST_WORD, FIRST_WORD, UNK] + [FIRST_WORD] * 6  # the first one is masked
    arrays = make_arrays(texts)
    write_shard(tmp_path / "train_shard_0.hdf5", arrays, {**KNOWN, "unk_token_id": UNK})
    status, found = inspect(capsys, tmp_path)
    assert found["splits"]["train"]["unknown"] == 2 / 96 and status == 1
    assert found["problems"] == ["2.1 % of the tokens in train are the unknown token, more than --max_unknown 0.01: does the tokenizer fit "
                                 "the text (--do_lower_case, its language)?"]
    assert inspect(capsys, tmp_path, "--max_unknown", "0.03")[0] == 0
    write_shard(tmp_path / "train_shard_0.hdf5", arrays, KNOWN)
    assert inspect(capsys, tmp_path)[1]["splits"]["train"]["unknown"] is None
    assert inspect(capsys, tmp_path, "--vocab_file", write_vocabulary(tmp_path))[1]["splits"]["train"]["unknown"] == 2 / 96


def test_settings_are_told_and_mixtures_are_noted(tmp_path, capsys):
    made = {**KNOWN, "masking": "static", "masked_lm_prob": 0.15, "seed": 7, "lowercase": 1, "whole_word_masking": 0}
    for number in range(2):
        write_shard(tmp_path / f"train_shard_{number}.hdf5", make_arrays(make_texts(9, number)), {**made, "duplicate": number})
    _, found = inspect(capsys, tmp_path)
    assert found["settings"] == {"vocab_size": 62, "lowercase": 1, "masking": "static", "masked_lm_prob": 0.15,
                                 "max_predictions_per_seq": 3, "whole_word_masking": 0,
                                 "next_sentence_labels": False, "dup_factor": 2, "seed": 7}
    assert found["notes"] == []
    main([str(tmp_path)])
    assert "masked_lm_prob 0.15, max_predictions_per_seq 3, whole_word_masking 0" in " ".join(capsys.readouterr().out.split())
    unmasked = {key: values for key, values in make_arrays(make_texts(9, 5)).items() if not key.startswith("masked")}
    write_shard(tmp_path / "train_shard_2.hdf5", unmasked, {**made, "masking": "none", "seed": 8})
    status, found = inspect(capsys, tmp_path)
    assert status == 0 and "seed" not in found["settings"] and "masking" not in found["settings"]
    assert found["notes"] == ["train: some files hold their masks, which are the same in every epoch, and some hold none, so that the "
                              "trainer draws them"]
    write_shard(tmp_path / "train_shard_3.hdf5", unmasked, {**made, "masking": "none", "lowercase": 0})
    assert any(line.startswith("lowercase differs: 1 (train_shard_0.hdf5), 0 (") for line in inspect(capsys, tmp_path)[1]["problems"])


def test_a_tokenizer_shows_samples_as_text_and_is_compared(tmp_path, capsys):
    text = [FIRST_WORD + WORDS.index(word) for word in ("bara", "##s", "doti", "##ed", "kiso", ".")]
    arrays = make_arrays([text, text])
    arrays["input_ids"][1, 1] = FIRST_WORD + WORDS.index("luso")
    write_shard(tmp_path / "train_shard_0.hdf5", arrays, {"format_version": 1})
    vocabulary = write_vocabulary(tmp_path)
    assert main([str(tmp_path), "--vocab_file", str(vocabulary)]) == 0
    printed = capsys.readouterr().out
    assert "[CLS] [MASK:bara]s [SAME:doti]ed" in printed and "[luso:bara]s" in printed and "nothing is wrong" in printed
    assert printed.isascii() and max(map(len, printed.splitlines())) < 180
    _, found = inspect(capsys, tmp_path)
    assert found["examples"][0]["text"].split()[:2] == [str(CLS), f"[{MASK}:{text[0]}]"]
    write_shard(tmp_path / "train_shard_1.hdf5", arrays, {"format_version": 1, "tokenizer_sha256": "other", "vocab_size": 7})
    status, found = inspect(capsys, tmp_path, "--vocab_file", vocabulary)
    message = f"{tmp_path / 'train_shard_1.hdf5'}: made with another tokenizer (7 tokens, tokenizer_sha256 other) than the one given (62"
    assert status == 1 and found["problems"][0].startswith(message)


def test_processes_and_files_by_name_give_the_same_and_the_status_is_the_scripts(tmp_path, capsys, monkeypatch):
    write_shard(tmp_path / "train_shard_0.hdf5", make_arrays(make_texts(20, 1)), KNOWN)
    write_shard(tmp_path / "train_shard_1.hdf5", make_arrays(make_texts(20, 2)), KNOWN)
    write_shard(tmp_path / "test_shard_0.hdf5", make_arrays(make_texts(20, 3)), {**KNOWN, "vocab_size": 99})
    one = inspect(capsys, tmp_path, "--n_processes", "1")
    monkeypatch.setattr("dataset.inspect_samples.WORTH_PROCESSES", 0)
    assert inspect(capsys, tmp_path, "--n_processes", "2") == one
    files = sorted(tmp_path.iterdir())
    named = inspect(capsys, *files, "--n_processes", "1")[1]
    assert {**named, "path": one[1]["path"]} == one[1]
    done = run_script("inspect_samples", tmp_path)
    assert done.returncode == 1 and "vocab_size differs: 62 (train_shard_0.hdf5), 99 (test_shard_0.hdf5)" in done.stdout and not done.stderr
    for flags, message in (([tmp_path / "none"], "no file or folder"), ([tmp_path, "--samples", "-1"], "0 or more would work")):
        with pytest.raises(UserError, match=message):
            inspect(capsys, *flags)
