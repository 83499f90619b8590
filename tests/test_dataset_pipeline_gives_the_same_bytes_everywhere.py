"""One seed, one set of bytes: with any number of processes, on a Dask cluster, in two runs, after a kill or a missing file."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from dask_case import scheduler, workers
from sampling_case import read_shard
from tiny_corpus import ROOT, folder_bytes, make_articles, write_text_shard, write_vocabulary

from dataset import generate_samples, process_data, shard_data


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Text shards of different sizes, more than two processes can do at once."""
    folder = tmp_path_factory.mktemp("corpus")
    for number in range(5):
        write_text_shard(folder / "text" / f"training{number}.txt", make_articles(100 + 40 * number, seed=number))
    write_text_shard(folder / "text" / "test0.txt", make_articles(20, seed=9))
    write_vocabulary(folder / "tok")
    return folder


def flags_of(folder, output, *flags):
    places = ["--dir", folder / "text", "-o", folder / output, "--model_name", folder / "tok"]
    return [str(flag) for flag in (*places, "--max_seq_length", 32, "--max_predictions_per_seq", 5, "--dup_factor", 3, *flags)]


def generate(folder, output, *flags):
    generate_samples.main(flags_of(folder, output, *flags))
    return folder_bytes(folder / output)


@pytest.fixture(scope="module")
def undisturbed(corpus):
    return generate(corpus, "one", "--n_processes", 1)


def test_processes_and_clusters_change_nothing(corpus, undisturbed, tmp_path):
    names = {"train": 15, "test": 3}
    assert {*undisturbed} == {f"{split}_shard_{number}.hdf5" for split, count in names.items() for number in range(count)}
    assert generate(corpus, "two", "--n_processes", 2) == undisturbed
    assert generate(corpus, "eight", "--n_processes", 8) == undisturbed
    with scheduler(tmp_path) as address, workers(tmp_path, address, processes=2, threads=2):
        assert generate(corpus, "dask", "--dask_address", address) == undisturbed
    assert generate(corpus, "seed", "--n_processes", 2, "--seed", 556).keys() == undisturbed.keys()
    assert not {*folder_bytes(corpus / "seed").values()} & {*undisturbed.values()}


def test_duplicates_have_the_same_tokens_and_other_masks(corpus, undisturbed):
    for number in range(5):
        shards = [read_shard(corpus / "one" / f"train_shard_{number + 5 * duplicate}.hdf5") for duplicate in range(3)]
        texts = [shard.ids[(shard.ids > 4)].tolist() for shard in shards]
        assert texts[0] == texts[1] == texts[2]
        masks = [np.flatnonzero((shard.shown == 4)[shard.ids > 4]).tolist() for shard in shards]
        assert masks[0] != masks[1] != masks[2] != masks[0] and all(len(mask) > 100 for mask in masks)


def test_a_rerun_makes_the_missing_file_of_one_duplicate_and_no_other(corpus, undisturbed, capsys):
    gone, kept = corpus / "one" / "train_shard_7.hdf5", corpus / "one" / "train_shard_2.hdf5"
    gone.unlink()
    before = {path.name: path.stat().st_mtime_ns for path in (corpus / "one").iterdir()}
    assert generate(corpus, "one", "--n_processes", 1) == undisturbed
    assert "17 shards are there" in capsys.readouterr().out and kept.exists()
    assert {path.name: path.stat().st_mtime_ns for path in (corpus / "one").iterdir() if path != gone} == before


def test_a_killed_run_leaves_whole_files_and_the_next_one_finishes(corpus, undisturbed):
    """Killed with all its processes as soon as the first shards have their names."""
    script = [sys.executable, str(ROOT / "dataset" / "generate_samples.py"), *flags_of(corpus, "killed", "--n_processes", "1")]
    run = subprocess.Popen(script, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 60
    while not list((corpus / "killed").glob("t*.hdf5")) and run.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    os.killpg(run.pid, signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    time.sleep(0.2)
    there = {path.name: path.read_bytes() for path in (corpus / "killed").glob("t*.hdf5")}
    assert 0 < len(there) < len(undisturbed) and there.items() <= undisturbed.items()
    found = generate(corpus, "killed", "--n_processes", "2")
    assert {name: content for name, content in found.items() if not name.startswith(".partial_")} == undisturbed


def test_the_whole_pipeline_twice(tmp_path):
    text = "\n\n".join("\n".join(article) for article in make_articles(80, seed=4))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text(text, encoding="utf-8")
    vocabulary = write_vocabulary(tmp_path / "tok")
    folders = []
    for name, processes in (("first", "1"), ("second", "2")):
        place = tmp_path / name
        process_data.main(["--type", "text", "-f", str(tmp_path / "in" / "a.txt"), "-o", str(place / "processed")])
        numbers = ["--num_train_shards", "2", "--num_test_shards", "1", "--seed", "7", "--n_processes", processes]
        shard_data.main(["--dir", str(place / "processed"), "-o", str(place / "text"), *numbers])
        generate_samples.main([
            "--dir", str(place / "text"), "-o", str(place / "samples"), "--vocab_file", str(vocabulary), "--seed", "7",
            "--max_seq_length", "32", "--n_processes", processes,
        ])  # fmt: skip
        folders.append([folder_bytes(place / stage) for stage in ("processed", "text", "samples")])
    assert folders[0] == folders[1] and [len(folder) for folder in folders[0]] == [1, 3, 3]
