"""An extraction that was killed goes on: finished files stay as they are, none is half-written, and the end is that of one that was not."""

import errno
import itertools
import os
import re
import shutil
import signal
import time
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from cache_case import extract, extraction, make_place
from tiny import make_shards, make_teacher

from dataset.errors import Terminated, UserError
from pretraining.teacher_cache import run_extraction, writer
from pretraining.teacher_cache.estimate import Estimate, size_text
from pretraining.teacher_cache.extraction import batches_of

EXTRACT = "extract_teacher_outputs:main"
STORED = ("--truncation_factor", "5", "--hidden_layers", "2")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = make_place(tmp_path_factory.mktemp("killed"))
    make_shards(place / "many", train=11, test=1, rows=30)
    return place


@pytest.fixture(scope="module")
def whole(place):
    return extract(place, "whole", *STORED, shards="many")


def finished(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob("*.teacher_cache")) if not path.name.startswith(".")]


def contents(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    """Datasets and attributes of every file."""
    found = {}
    for path in finished(folder):
        with h5py.File(path) as file:
            found[path.name] = {**{name: file[name][:] for name in file}, **dict(file.attrs)}
    return found


def same(first: Path, second: Path) -> None:
    ours, theirs = contents(first), contents(second)
    assert ours.keys() == theirs.keys() and ours
    for name, values in ours.items():
        assert values.keys() == theirs[name].keys()
        for key, value in values.items():
            np.testing.assert_array_equal(value, theirs[name][key], err_msg=f"{name}: {key}")


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_killed_extraction_goes_on(place, whole, zygote, ranks):
    folder = place / f"killed_{ranks}"
    words = extraction(place, folder.name, *STORED, shards="many")
    life = zygote.start(words, ranks=ranks, call=EXTRACT)
    deadline = time.monotonic() + 120
    while len(finished(folder)) < 2 and life.alive() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert set(life.kill()) == {-signal.SIGKILL}
    before = {path.name: path.stat().st_mtime_ns for path in finished(folder)}
    assert 2 <= len(before) < 12
    (folder / ".partial_12345_train_shard_10.teacher_cache").write_bytes(b"what a killed one left")
    again = zygote.start(words, ranks=ranks, call=EXTRACT)
    assert again.wait() == [0] * ranks, again.stderr()
    assert {name: (folder / name).stat().st_mtime_ns for name in before} == before
    # Locks of a killed process are free; the sign of one stays where its file was finished.
    assert all(path.name.startswith(".partial_lock_") for path in folder.glob(".*"))
    same(folder, whole)


def test_files_do_not_depend_on_the_batch_and_the_window(place, whole, monkeypatch):
    monkeypatch.setattr(writer, "WINDOW_BYTES", 1)
    monkeypatch.setattr(writer, "CHUNK_BYTES", 500)  # some rows to a chunk, and a chunk to a window
    other = extract(place, "windows", *STORED, "--batch_size", "2", shards="shards")
    monkeypatch.undo()
    ours, theirs = contents(other), contents(extract(place, "one", *STORED, shards="shards"))
    for name, values in ours.items():
        np.testing.assert_array_equal(values["topk_ids"], theirs[name]["topk_ids"])
        np.testing.assert_allclose(values["topk_logprobs"].astype(float), theirs[name]["topk_logprobs"].astype(float), rtol=2e-3)
        np.testing.assert_allclose(values["hidden_2"].astype(float), theirs[name]["hidden_2"].astype(float), rtol=2e-3, atol=1e-3)


def test_batches_hold_every_row_once_and_little_padding():
    lengths = np.random.default_rng(0).integers(4, 65, 300)
    batches = list(batches_of(lengths, 100, 250, 256))
    assert sorted(np.concatenate(batches).tolist()) == list(range(100, 250))
    padded = [len(rows) * int(-(-lengths[rows].max() // 8) * 8) for rows in batches]
    assert max(padded) <= 256
    assert sum(padded) < 1.2 * lengths[100:250].sum()


def test_a_changed_shard_or_teacher_is_noticed_and_overwritten_when_asked(place, capsys):
    make_shards(place / "few", train=1, test=1, rows=80)
    folder = extract(place, "few_cache", "--truncation_factor", "5", shards="few")
    extract(place, "few_cache", "--truncation_factor", "5", shards="few")
    assert "2 kept" in capsys.readouterr().err
    with pytest.raises(UserError, match="k is 5, expected 6"):
        extract(place, "few_cache", "--truncation_factor", "6", shards="few")
    make_teacher(place / "second", seed=1)
    with pytest.raises(UserError, match=r"teacher_hash is .*--overwrite makes all files anew"):
        extract(place, "few_cache", "--truncation_factor", "5", shards="few", teacher="second")
    with h5py.File(place / "few" / "train_shard_0.hdf5", "r+") as shard:
        shard["input_ids"][70, 1] = 9  # past the rows whose hash the header has
    with pytest.raises(UserError, match=r"its shard was another one.*delete it"):
        extract(place, "few_cache", "--truncation_factor", "5", shards="few")
    extract(place, "few_cache", "--truncation_factor", "5", "--overwrite", shards="few")
    assert "2 files written" in capsys.readouterr().err
    with h5py.File(folder / "train_shard_0.teacher_cache") as file:
        assert file.attrs["k"] == 5


def test_a_disk_that_is_full_is_told_before_and_leaves_nothing_behind(place, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1, 1, 1000))
    with pytest.raises(UserError, match=r"1 KB free at .* 73 samples need about"):
        extract(place, "full", *STORED)
    assert not (place / "full").exists()
    monkeypatch.undo()

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(run_extraction, "measure", lambda *_, **__: Estimate(1.0, 1.0))
    monkeypatch.setattr(writer, "write_rows", refuse)
    with pytest.raises(UserError, match=r"no space left on the disk.*without --overwrite the same command goes on"):
        extract(place, "full", *STORED)
    assert list((place / "full").iterdir()) == []


def test_an_estimate_writes_nothing_and_is_near_what_comes(place, whole, capsys):
    extract(place, "estimated", *STORED, "--estimate", "--batch_size", "30", shards="many")
    told = capsys.readouterr().out
    assert not (place / "estimated").exists()
    assert "12 of 12 files to write, 360 samples" in told and "if the machine is free about 0:" in told
    assert re.search(r"360 samples: about [\d.]+ KB \(", told), told
    size = sum(path.stat().st_size for path in finished(whole)) / 360
    per_sample = float(told.split("bytes a sample")[0].rsplit("(", 1)[1])
    assert per_sample == pytest.approx(size, rel=0.25)


def test_sizes_are_told_in_units_that_people_read():
    assert [size_text(size) for size in (0, 12, 1000, 196_400, 999_999, 2.5e6, 7e9, 1.2e13)] == [
        "0 bytes", "12 bytes", "1 KB", "196 KB", "1 MB", "2.5 MB", "7 GB", "12 TB"]


def test_a_log_has_a_line_for_every_file_and_says_how_to_go_on(place, monkeypatch, capsys):
    make_shards(place / "told", train=3, test=1, rows=30)
    extract_shard, calls = run_extraction.extract_shard, []

    def ended_in_the_third(*arguments: object) -> int:
        calls.append(arguments)
        if len(calls) == 3:
            raise Terminated(signal.SIGTERM)
        return extract_shard(*arguments)

    monkeypatch.setattr(run_extraction, "extract_shard", ended_in_the_third)
    ticks = itertools.count(0, 10)  # a file every ten seconds
    monkeypatch.setattr(run_extraction, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
    with pytest.raises(Terminated):
        extract(place, "told_cache", "--truncation_factor", "5", shards="told")
    first, second, last = capsys.readouterr().err.splitlines()
    assert first.endswith("told_cache: 1 of 4 files, 0:00:30 left") and second.endswith("told_cache: 2 of 4 files, 0:00:20 left")
    assert last.endswith("told_cache: the same command goes on; 2 of 4 files kept")
    extract(place, "told_cache", "--truncation_factor", "5", shards="told")
    *files, last = capsys.readouterr().err.splitlines()
    assert [line.partition("told_cache: ")[2] for line in files] == ["3 of 4 files, 0:00:10 left", "4 of 4 files, 0:00:00 left"]
    assert last.endswith("; 2 kept")


def test_every_rank_tells_of_its_share(place, monkeypatch, capsys):
    make_shards(place / "shared", train=3, test=1, rows=10)
    for name, word in {"WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, word)
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        extract(place, "shared_cache", "--truncation_factor", "5", shards="shared")
        assert f"shared_cache (rank {rank} of 2): 2 files written of 20 samples" in capsys.readouterr().err
