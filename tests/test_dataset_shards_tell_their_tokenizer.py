"""Shards say how their tokenizer makes ids of text, not only what ids mean: a rerun with other rules is refused, and training says what
it cannot check or what does not fit."""

import fcntl
import json
from pathlib import Path

import h5py
import pytest
from cli_case import command_line, write_teacher
from sampling_case import Here, wordpiece
from test_dataset_convert_reads_tfrecords import make_samples, write_records
from tiny import VOCABULARY, make_shards
from tiny_corpus import SPECIAL, folder_bytes, make_articles, write_text_shard
from tokenizers import Tokenizer, models, pre_tokenizers

from dataset import convert_samples, generate_samples, jobs
from dataset.errors import UserError
from dataset.shard_format import ATTRIBUTE_RULES
from dataset.token_counts import write_token_counts
from dataset.tokenizer import load_tokenizer, rules_sha256, vocabulary_sha256
from pretraining.args.parser import parse
from pretraining.args.resolve import resolve
from pretraining.launch import read_launch
from pretraining.preflight import make_plan

WORDS = ["bara", "no", "caf\u00e9", "cafe", "doso", "##s", "."]


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(jobs, "ProcessExecutor", Here)
    write_text_shard(tmp_path / "text" / "training0.txt", [["Bara caf\u00e9 no doso."], *make_articles(5)])
    return tmp_path


def save(tokenizer: Tokenizer, path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    tokenizer.save(str(path))
    return path


def generate(place: Path, tokenizer: Path, *flags: str) -> dict[str, bytes]:
    generate_samples.main(["--dir", str(place / "text"), "-o", str(place / "out"), "--model_name", str(tokenizer), "--max_seq_length", "32",
                           *flags])  # fmt: skip
    return folder_bytes(place / "out")


def test_rules_agree_where_every_text_gets_the_same_ids_and_only_there():
    plain = wordpiece([*SPECIAL, *WORDS], lowercase=True)
    same = Tokenizer.from_str(json.dumps(json.loads(plain.to_str())))
    same.enable_padding(length=32)
    same.enable_truncation(16)
    assert rules_sha256(same) == rules_sha256(plain)
    accents = wordpiece([*SPECIAL, *WORDS], lowercase=True, strip_accents=False)
    split = wordpiece([*SPECIAL, *WORDS], lowercase=True)
    split.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    for other in (accents, split):
        assert vocabulary_sha256(other) == vocabulary_sha256(plain) and rules_sha256(other) != rules_sha256(plain)
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, "a", "b", "c", "ab", "bc"])}
    merges = [Tokenizer(models.BPE(vocabulary, order)) for order in ([("a", "b"), ("b", "c")], [("b", "c"), ("a", "b")])]
    assert vocabulary_sha256(merges[0]) == vocabulary_sha256(merges[1]) and rules_sha256(merges[0]) != rules_sha256(merges[1])


def test_a_rerun_with_other_rules_is_refused_and_keeps_what_is_there(place):
    plain = save(wordpiece([*SPECIAL, *WORDS], lowercase=True), place / "plain" / "tokenizer.json")
    other = save(wordpiece([*SPECIAL, *WORDS], lowercase=True, strip_accents=False), place / "other" / "tokenizer.json")
    made = generate(place, plain)
    with pytest.raises(UserError, match=f"was made with {ATTRIBUTE_RULES} .* --overwrite would work"):
        generate(place, other)
    padded = load_tokenizer(plain)
    padded.enable_padding(length=64)
    assert generate(place, save(padded, place / "padded" / "tokenizer.json")) == made
    assert generate(place, other, "--overwrite") != made


def test_a_cut_off_shard_is_made_anew(place, capsys):
    tokenizer = save(wordpiece([*SPECIAL, *WORDS], lowercase=True), place / "plain" / "tokenizer.json")
    made = generate(place, tokenizer)
    shard = place / "out" / "train_shard_0.hdf5"
    for broken in (made[shard.name][:3000], b""):
        shard.write_bytes(broken)
        capsys.readouterr()
        assert generate(place, tokenizer) == made
        assert f"made anew: {shard} " in capsys.readouterr().err
    with shard.open("rb") as file:  # somebody else is writing to it, so that HDF5 has its lock: not broken
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UserError, match=r"train_shard_0.hdf5 cannot be read \(.*lock"):
            generate(place, tokenizer)
    assert folder_bytes(place / "out") == made
    with h5py.File(shard, "w") as file:  # whole, but nothing that this script made
        file["mine"] = [1]
    with pytest.raises(UserError, match="key input_ids not found"):
        generate(place, tokenizer)


def test_capitals_that_become_unknown_are_said(place, capsys):
    small = save(wordpiece([*SPECIAL, *WORDS], lowercase=False), place / "small" / "tokenizer.json")
    generate(place, small)
    assert "its vocabulary has no capital letter: words with one become unknown tokens; --do_lower_case 1" in capsys.readouterr().err
    generate(place, small, "--do_lower_case", "1", "--overwrite")
    generate(place, save(wordpiece([*SPECIAL, *WORDS, "Bara"], lowercase=False), place / "cased" / "tokenizer.json"), "--overwrite")
    generate(place, save(wordpiece([*SPECIAL, "\u4e2d"], lowercase=False), place / "no_case" / "tokenizer.json"), "--overwrite")
    assert "no capital letter" not in capsys.readouterr().err


def notes(place: Path, **flags: object) -> list[str]:
    good = {"distillation": None, "method": "hidden_mse", "teacher_path": place / "teacher", "student_initialize": None,
            "num_hidden_layers": 2, "layer_selection": "1,3", "dataset_path": place / "shards", "output_dir": place / "runs",
            "job_name": "job", "current_run_id": "1", "train_batch_size": 8, "train_micro_batch_size_per_gpu": 4,
            "layer_norm_type": "pytorch", "precision": "fp32", "do_validation": None}  # fmt: skip
    return make_plan(resolve(parse(command_line(good | flags)), read_launch(-1))).resolved.notes


def change(place: Path, **attributes: object) -> None:
    """Change attributes of the first train shard; None takes one away."""
    with h5py.File(place / "shards" / "train_shard_0.hdf5", "a") as file:
        for name, value in attributes.items():
            if value is None:
                del file.attrs[name]
            else:
                file.attrs[name] = value


def test_training_says_which_shards_it_cannot_check_and_whose_casing_differs(tmp_path):
    write_teacher(tmp_path / "teacher")
    make_shards(tmp_path / "shards", rows=20)
    before = notes(tmp_path)
    assert not [note for note in before if "shards" in note]
    lowercases = bool(load_tokenizer(tmp_path / "teacher").normalizer.lowercase)
    change(tmp_path, lowercase=int(lowercases))
    assert notes(tmp_path) == before
    change(tmp_path, lowercase=int(not lowercases))
    said = [note for note in notes(tmp_path) if note not in before]
    made, does = ("without", "lower-cases") if lowercases else ("with", "does not lower-case")
    assert len(said) == 1 and f"1 of 3 shards were made {made} lower-casing and the tokenizer {tmp_path / 'teacher'}" in said[0]
    assert ": it would give" in said[0] and f"student, {does}:" in said[0]

    change(tmp_path, lowercase=None, tokenizer_sha256=None, vocab_size=None)  # as convert_samples without a tokenizer
    said = [note for note in notes(tmp_path) if note not in before]
    assert said == ["1 of 3 shards do not say which tokenizer made them (converted without one): tokenizer and masking cannot be checked, "
                    "ids are"]
    with h5py.File(tmp_path / "shards" / "train_shard_0.hdf5", "a") as file:
        file["input_ids"][3, 1] = 30000
    with pytest.raises(UserError, match=r"train_shard_0.hdf5: input_ids holds 30000, expected numbers below"):
        notes(tmp_path)


def test_counts_that_would_mask_nothing_are_refused(tmp_path):
    write_teacher(tmp_path / "teacher")
    make_shards(tmp_path / "shards", masking="none")
    change(tmp_path, masked_lm_prob=0.0)
    write_token_counts(tmp_path / "counts.json", [1] * VOCABULARY)
    mlm = {"method": "mlm,hidden_mse", "token_counts": tmp_path / "counts.json"}
    with pytest.raises(UserError, match=r"masked_lm_prob is 0 in .*train_shard_0.hdf5, so that nothing would be masked; .* above 0"):
        notes(tmp_path, **mlm)


def test_converting_without_a_tokenizer_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(jobs, "ProcessExecutor", Here)
    records = write_records(tmp_path / "train_0.tfrecord", make_samples(4, 1))
    convert_samples.main(["--format", "tfrecord", "--input", str(records), "-o", str(tmp_path / "out")])
    assert "no tokenizer given: neither this nor training can check" in capsys.readouterr().err
