"""Of two runs into one folder the second is refused and the first loses nothing; what killed runs left is taken away."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sampling_case import Here
from test_dataset_convert_reads_tfrecords import make_samples, write_records
from tiny_corpus import ROOT, folder_bytes, make_articles, run_script, write_articles, write_text_shard, write_vocabulary

from dataset import convert_samples, generate_samples, jobs, merge_shards, process_data, shard_data, split_text
from dataset.errors import UserError
from dataset.files import LOCK_NAME, locked

SCRIPTS = {
    "process_data": process_data, "shard_data": shard_data, "generate_samples": generate_samples, "merge_shards": merge_shards,
    "split_text": split_text, "convert_samples": convert_samples,
}  # fmt: skip


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    articles = make_articles(40)
    write_articles(folder / "processed" / "wiki.txt", articles)
    for number in range(4):
        write_text_shard(folder / "text" / f"training{number}.txt", articles[number::4])
    write_vocabulary(folder / "tok")
    (folder / "records").mkdir()
    write_records(folder / "records" / "train_0.tfrecord", make_samples(5, 1))
    return folder


def flags_of(name: str, inputs: Path, output: Path) -> list[str]:
    flags = {
        "process_data": ["--type", "lines", "-f", inputs / "processed", "-o", output],
        "shard_data": ["--dir", inputs / "processed", "-o", output, "--num_train_shards", 3, "--num_test_shards", 1],
        "generate_samples": ["--dir", inputs / "text", "-o", output, "--model_name", inputs / "tok", "--max_seq_length", 32],
        "merge_shards": ["--data", inputs / "text", "--output_dir", output, "--ratio", 2],
        "split_text": ["--read_file", inputs / "text" / "training0.txt", "--split_number", 3, "--folder", output, "--name_base", "train"],
        "convert_samples": ["--format", "tfrecord", "--input", inputs / "records", "-o", output],
    }[name]  # fmt: skip
    return [str(flag) for flag in flags]


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_run_into_a_folder_that_another_writes_is_refused_and_touches_nothing(name, inputs, tmp_path):
    target = "lines_one_article_per_line.txt" if name == "process_data" else ""
    (tmp_path / "out" / ".partial_texts").mkdir(parents=True)
    (tmp_path / "out" / ".partial_texts" / "training0.txt").write_text("of the run that is writing")
    told = rf"out\S*: process {os.getpid()} of \S+ is writing there; .* would work"
    with locked(tmp_path / "out", target), pytest.raises(UserError, match=told):
        SCRIPTS[name].main([*flags_of(name, inputs, tmp_path / "out"), *(["--overwrite"] if name == "merge_shards" else [])])
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".partial_texts"]
    assert (tmp_path / "out" / ".partial_texts" / "training0.txt").exists()


def test_two_real_runs_at_once_lose_no_article(inputs, tmp_path):
    """The first is stopped in its work, the second one refused, the first goes on: it writes what it would have written alone."""
    shard_data.main(flags_of("shard_data", inputs, tmp_path / "alone"))
    flags = flags_of("shard_data", inputs, tmp_path / "out")
    first = subprocess.Popen([sys.executable, str(ROOT / "dataset" / "shard_data.py"), *flags], stdout=subprocess.DEVNULL)
    wait_for(lambda: (tmp_path / "out" / ".partial_texts").exists())
    first.send_signal(signal.SIGSTOP)
    try:
        second = run_script("shard_data", *flags)
    finally:
        first.send_signal(signal.SIGCONT)
    assert second.returncode == 2
    assert f"{tmp_path / 'out'}: process {first.pid} of " in second.stderr and second.stderr.count("\n") == 1
    assert first.wait(timeout=60) == 0
    assert folder_bytes(tmp_path / "out") == folder_bytes(tmp_path / "alone")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(folder_bytes(tmp_path / "alone"))


def test_many_runs_at_the_same_moment_leave_one_whole_set(inputs, tmp_path):
    for number in range(8):
        output = tmp_path / f"out{number}"
        flags = flags_of("merge_shards", inputs, output)
        statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in [fork(merge_shards.main, flags) for _ in range(4)]]
        assert sorted(statuses) == [0, 2, 2, 2], "one writes, the others are told"
        assert [path.name for path in sorted(output.iterdir())] == ["training0.txt", "training1.txt"]
        assert sum(text.count(b"Bara no ") for text in folder_bytes(output).values()) == 40


def test_a_lock_is_held_by_one_process_at_a_time(tmp_path):
    """A number in a file is read, waited with and written: any two holders at once would lose one."""
    count = tmp_path / "count"
    count.write_text("0")

    def add(_) -> None:
        done = 0
        while done < 30:
            try:
                with locked(tmp_path / "out"):
                    number = int(count.read_text())
                    time.sleep(0.0005)
                    count.write_text(str(number + 1))
                    done += 1
            except UserError:
                continue

    for child in [fork(add, []) for _ in range(4)]:
        assert os.waitpid(child, 0)[1] == 0
    assert count.read_text() == "120" and list((tmp_path / "out").iterdir()) == []


def test_a_killed_holder_keeps_nobody_out(tmp_path):
    def hold(_) -> None:
        with locked(tmp_path):
            os.kill(os.getpid(), signal.SIGKILL)

    os.waitpid(fork(hold, []), 0)
    assert (tmp_path / LOCK_NAME).exists()
    with locked(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_killed_runs_left_of_the_planned_files_goes_and_nothing_else(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "ProcessExecutor", Here)
    for name, left, kept in (
        ("generate_samples", ".partial_7_train_shard_2.hdf5", ".partial_7_notes.hdf5"),
        ("convert_samples", ".partial_7_train_shard_0.hdf5", ".partial_7_train_shard_9.hdf5"),
        ("process_data", ".partial_7_lines_one_article_per_line.txt", ".partial_7_wiki_one_article_per_line.txt"),
    ):
        output = tmp_path / name
        output.mkdir()
        for file in (left, kept):
            (output / file).write_text("half")
        SCRIPTS[name].main(flags_of(name, inputs, output))
        assert [path.name for path in output.iterdir() if path.name.startswith(".")] == [kept]


def fork(work, flags) -> int:
    """The id of a child that does `work(flags)` and ends with 0, or with 2 after a UserError, or with 1."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        with Path(os.devnull).open("w") as nothing:
            os.dup2(nothing.fileno(), 1)
            os.dup2(nothing.fileno(), 2)
        work(flags)
        status = 0
    except UserError:
        status = 2
    finally:
        os._exit(status)


def wait_for(condition) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)
