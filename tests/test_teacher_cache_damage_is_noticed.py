"""Stored outputs that are no numbers are not written, damaged ones are not learnt from, and a message costs one file and not all."""

import json
import resource
import shutil

import h5py
import numpy as np
import pytest
from cache_case import extract, make_place, plan_of, run_flags, stored_reader
from safetensors.numpy import load_file, save_file
from tiny import make_shards, make_teacher

from dataset.errors import UserError, run_command
from pretraining import precision
from pretraining.batches.order import Segment
from pretraining.teacher_cache import run_extraction, writer
from pretraining.teacher_cache.format import HASH, read_header, samples_hash

STORED = ("--truncation_factor", "5", "--hidden_layers", "1,3")
FILE = "train_shard_0.teacher_cache"
AGAIN = "delete it and run extract_teacher_outputs.py again without --overwrite"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = make_place(tmp_path_factory.mktemp("damage"))
    extract(place, "cache", *STORED)
    return place


@pytest.fixture
def copy(place, tmp_path_factory):
    """A copy of the stored outputs, and the path of one of its files."""
    folder = tmp_path_factory.mktemp("copy") / "cache"
    shutil.copytree(place / "cache", folder)
    return folder / FILE


def read(place, folder) -> None:
    """The first training shard with its outputs, as a run reads it."""
    plan = plan_of(run_flags(place, "1", "--teacher_cache", str(folder), "--method", "soft_ce,hidden_mse", "--layer_selection", "1,3"))
    stored_reader(plan).read([Segment(0, 0, np.arange(24))])


@pytest.mark.parametrize("what", [("--truncation_factor", "5"), ("--sampled", "5"),
                                  ("--sampled", "5", "--sampling_temperature", "1e-40")], ids=["largest", "drawn", "cold"])
def test_what_is_no_number_is_not_stored(place, what):
    teacher = "teacher"
    if len(what) == 2:
        teacher = "spoilt"
        shutil.copytree(place / "teacher", place / teacher, dirs_exist_ok=True)
        weights = load_file(place / teacher / "model.safetensors")
        name = next(name for name in weights if "layer.3" in name and name.endswith("dense.weight"))
        weights[name][0, 0] = np.nan
        save_file(weights, place / teacher / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=f"{what[0]}: .*_shard_0.hdf5.* no number"):
        extract(place, "nothing", *what, teacher=teacher)
    assert not list((place / "nothing").glob("*"))


def test_automatic_precision_goes_on_in_that_of_the_folder(place, copy, capsys, monkeypatch):
    copy.unlink()
    monkeypatch.setattr(precision, "available", lambda device: {"fp32": True, "bf16": True, "fp16": False})
    extract(copy.parents[1], "cache", *STORED, "--precision", "auto", shards=place / "shards", teacher=place / "teacher")
    assert {read_header(path).precision for path in copy.parent.iterdir()} == {"fp32"}
    assert "note: --precision auto: fp32, as " in capsys.readouterr().err
    for path in copy.parent.iterdir():
        with h5py.File(path, "r+") as file:
            file.attrs["precision"] = "fp16"
    copy.unlink()
    with pytest.raises(UserError, match=r"would hold outputs in fp16, which this cpu cannot give.*another --output_dir"):
        extract(copy.parents[1], "cache", *STORED, "--precision", "auto", shards=place / "shards", teacher=place / "teacher")


def test_one_damaged_file_is_one_file_to_make_again(place, copy, capsys):
    kept = {path: path.stat().st_mtime_ns for path in copy.parent.iterdir() if path != copy}
    copy.write_bytes(copy.read_bytes()[:3000])
    with pytest.raises(UserError, match=AGAIN):
        extract(copy.parents[1], "cache", *STORED, shards=place / "shards", teacher=place / "teacher")
    copy.unlink()
    extract(copy.parents[1], "cache", *STORED, shards=place / "shards", teacher=place / "teacher")
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert "1 files written" in capsys.readouterr().err
    with h5py.File(copy) as ours, h5py.File(place / "cache" / FILE) as theirs:
        assert ours["hidden_3"].attrs[HASH] == theirs["hidden_3"].attrs[HASH]


def verify(place, copy) -> None:
    extract(copy.parents[1], "cache", *STORED, "--verify", shards=place / "shards", teacher=place / "teacher")


def test_every_damaged_file_is_named_when_asked(place, copy, capsys):
    verify(place, copy)
    assert "3 files are whole, 0 are missing" in capsys.readouterr().err
    other = copy.with_name("train_shard_1.teacher_cache")
    with h5py.File(copy) as file:
        place_of_states = file["hidden_3"].id.get_offset() + 101
    content = bytearray(copy.read_bytes())
    content[place_of_states] ^= 1  # the lowest bit of one number
    copy.write_bytes(content)
    with h5py.File(other, "r+") as file:
        del file["hidden_1"].attrs[HASH]
        file["hidden_1"][4, 4] = np.inf
    with pytest.raises(UserError, match=rf"2 of 3 files cannot be used: {FILE}, {other.name}; .*hidden_3 is not what was written; {AGAIN}"):
        verify(place, copy)
    copy.unlink()
    shutil.copy(place / "cache" / other.name, other)
    with h5py.File(other, "r+") as file:
        del file["hidden_1"].attrs[HASH]  # as files were before
    verify(place, copy)
    assert f"2 files are whole, 1 are missing; hidden states of {other.name} were written without a hash" in capsys.readouterr().err


@pytest.mark.parametrize("name, row, value, line", [
    ("hidden_3", 7, np.inf, "hidden_3 holds what is no number"), ("hidden_1", 0, np.nan, "hidden_1 holds what is no number"),
    ("offsets", 3, -5, "offsets are not those of its shard's rows"), ("offsets", 3, 1, "offsets are not those of its shard's rows"),
    ("topk_logprobs", 2, np.nan, "topk_logprobs or rest_logprob holds what is no number"),
    ("rest_logprob", 2, np.nan, "rest_logprob holds what is no number"),
])
def test_damage_is_not_learnt_from(place, copy, name, row, value, line):
    with h5py.File(copy, "r+") as file:
        file[name][row] = value
    with pytest.raises(UserError, match=f"{line}; {AGAIN}"):
        read(place, copy.parent)


def test_a_damaged_head_is_one_line(place, copy):
    read(place, copy.parent)
    whole, said = copy.read_bytes(), set()
    for at in (*range(0, 150, 37), *range(703, 1900, 37)):  # further on HDF5 may ask for 80 GB before it sees
        copy.write_bytes(whole[:at] + b"\xff" * 5 + whole[at + 5:])
        try:
            read_header(copy)
        except UserError as error:
            assert AGAIN in str(error) and "\n" not in str(error), error
            said.add(str(error).split("(")[0])
    assert any("attributes are damaged" in line for line in said) and any("cannot be read" in line for line in said)


@pytest.mark.parametrize("margin, limit", [(1 << 18, 40_000), (1 << 13, 60_000)], ids=["at_once", "half_way"])
def test_a_disk_that_fills_up_ends_in_one_line(place, monkeypatch, margin, limit):
    """A process that may write no file beyond a size gets the same refusals from the system."""
    monkeypatch.setattr(writer, "MARGIN_BYTES", margin)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(UserError, match=r"refused/\w+_shard_0.teacher_cache cannot be written \(File too large\)"):
            extract(place, "refused", "--truncation_factor", "100", "--hidden_layers", "0,1,2,3")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list((place / "refused").glob("*"))


def test_an_estimate_needs_no_disk(place, capsys):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        extract(place, "estimated", *STORED, "--estimate")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "3 of 3 files to write" in capsys.readouterr().out


def test_files_are_no_larger_than_what_is_in_them(place):
    for path in (place / "cache").iterdir():
        with h5py.File(path) as file:
            held = sum(file[name].id.get_storage_size() for name in file)
        assert held < path.stat().st_size < held + 30_000


def test_a_rank_that_fails_alone_says_so(place, monkeypatch, capsys):
    def refuse(*_: object) -> None:
        raise UserError("its own shard is damaged")

    monkeypatch.setattr(run_extraction, "extract_shard", refuse)
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as end:
        run_command(lambda: extract(place, "alone", *STORED))
    assert end.value.code == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert len(said) == 1 and said[0].startswith("error: rank 1 (") and said[0].endswith("its own shard is damaged")
    with pytest.raises(SystemExit):  # what all ranks find is rank 0's to say
        run_command(lambda: extract(place, "alone", "--hidden_layers", "99"))
    assert "error" not in capsys.readouterr().err


def test_another_teacher_of_the_same_weights_does_not_go_on(place, copy):
    shutil.copytree(place / "teacher", copy.parents[1] / "relu")
    settings = json.loads((copy.parents[1] / "relu" / "config.json").read_text())
    (copy.parents[1] / "relu" / "config.json").write_text(json.dumps(settings | {"hidden_act": "relu", "transformers_version": "1"}))
    copy.unlink()
    with pytest.raises(UserError, match="the teacher's hidden_act was gelu, expected relu"):
        extract(copy.parents[1], "cache", *STORED, shards=place / "shards", teacher="relu")


def test_masks_that_are_undone_belong_to_the_text(place):
    """A causal teacher reads what the masks of a file hide."""
    make_teacher(place / "gpt", layers=2, family="gpt2")
    make_shards(place / "hiding", train=1, test=1, rows=6)
    extract(place, "unmasked", "--hidden_layers", "1", shards="hiding", teacher="gpt")
    path = place / "hiding" / "train_shard_0.hdf5"
    with h5py.File(path, "r+") as file:
        file["masked_lm_ids"][2, 0] = 9 + (file["masked_lm_ids"][2, 0] == 9)
    with pytest.raises(UserError, match="shard_head is"):
        extract(place, "unmasked", "--hidden_layers", "1", shards="hiding", teacher="gpt")
    arrays = {"input_ids": np.ones((1, 2)), "masked_lm_ids": np.ones((1, 2))}
    assert samples_hash(arrays, "masked") == samples_hash({"input_ids": np.ones((1, 2))}, "masked") != samples_hash(arrays, "unmasked")
