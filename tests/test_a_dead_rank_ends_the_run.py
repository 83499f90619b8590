"""A rank that dies ends the run on all others within seconds, by name, also where their main threads are stuck; an orderly end is none."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from launching import ROOT, SCRIPT, clean_environment, events, launch, summary, torchrun, without_times
from safetensors.torch import load_file
from tiny import make_shards, make_teacher

DRIVER = str(Path(__file__).with_name("drive_watch.py"))
SOON = 5.0
KILLED = "died: its process was killed (out of memory?) or crashed"
GOES_ON = "; the run goes on from its newest checkpoint with --resume\n"


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    """What became of three ranks with nothing but a watch, by case of the driver."""
    return json.loads(launch([sys.executable, DRIVER, str(tmp_path_factory.mktemp("watch"))]).stdout)


@pytest.mark.parametrize(("name", "lost", "speaker", "what", "statuses"), [
    ("kill_0", 0, 1, KILLED, [-9, 1, 1]),
    ("kill_1", 1, 0, KILLED, [1, -9, 1]),
    ("kill_2", 2, 0, KILLED, [1, 1, -9]),
    ("fail_alone", 1, 0, "failed: shard 3 is broken second line", [1, 7, 1]),
    ("fail_and_pull_others_down", 2, 0, "failed: the disk is full", [1, 1, 7]),
    ("ask_for_verdict", 1, 0, KILLED, [1, -9, 1]),
    ("leave_a_child", 1, 0, KILLED, [1, -9, 1]),
    ("leave_while_others_work", 2, 0, KILLED, [1, 0, -9]),
])
def test_a_lost_rank_ends_the_others_and_one_of_them_says_so(cases, name, lost, speaker, what, statuses):
    case = cases[name]
    text = f"process {case['processes'][lost]}) {what}"
    assert case["statuses"] == statuses
    assert case["seconds"] < SOON
    for rank, said in enumerate(case["stderr"]):
        if rank == speaker:
            cure = GOES_ON if what == KILLED else "\n"
            assert said.startswith(f"error: rank {lost} (host ") and said.endswith(text + cure) and said.count("\n") == 1
        else:
            assert said == "", f"rank {rank}"
    assert len(case["on_lost"]) == 1 and case["on_lost"][0].endswith(text)


@pytest.mark.parametrize("name", ["leave_in_every_order", "be_slow"])
def test_slow_ranks_and_orderly_ends_are_no_deaths(cases, name):
    case = cases[name]
    assert (case["statuses"], case["stderr"], case["on_lost"]) == ([0] * 3, [""] * 3, [])


def test_ranks_that_cannot_reach_one_another_train_all_the_same(cases):
    case = cases["dial_elsewhere"]
    assert case["statuses"] == [0, 0, 0] and case["seconds"] < SOON and case["on_lost"] == []
    assert case["stderr"][0].startswith("note: ranks cannot watch each other (rank 2: ") and case["stderr"][0].count("\n") == 1
    assert case["stderr"][1:] == ["", ""]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    make_teacher(folder / "teacher")
    make_shards(folder / "shards", masking="none")
    return folder


def flags(place: Path, run: str, *more: str) -> list[str]:
    """60 steps with a checkpoint after every fifth."""
    return ["--dataset_path", str(place / "shards"), "--teacher_path", str(place / "teacher"), "--distillation", "--method",
            "hidden_mse:1.0,mlm:0.5", "--student_initialize", "--num_hidden_layers", "2", "--layer_selection", "1,3", "--train_batch_size",
            "8", "--train_micro_batch_size_per_gpu", "2", "--lr", "1e-3", "--output_dir", str(place), "--job_name", "job",
            "--current_run_id", run, "--steps_between_checkpoints", "5", "--print_steps", "3", "--clock", "simulated:60",
            "--total_training_time", "1", "--finetune_checkpoint_at_end", "true", "--layer_norm_type", "pytorch", "--precision", "fp32",
            *more]


@pytest.fixture(scope="module")
def straight(place, zygote):
    """The folder of a run that nobody disturbed."""
    zygote.run(flags(place, "straight"), ranks=2)
    return place / "job" / "straight"


def wait_for_checkpoint(run: Path, after: str = "", seconds: float = 120) -> str:
    """The name of the newest checkpoint as soon as it is another than `after`."""
    latest, until = run / "checkpoints" / "latest", time.monotonic() + seconds
    while time.monotonic() < until:
        if latest.exists() and latest.read_text().strip() != after:
            return latest.read_text().strip()
        time.sleep(0.002)
    raise AssertionError(f"no checkpoint in {run}")


def assert_same(run: Path, straight: Path) -> None:
    """Every number of the metrics and every weight at the end."""
    assert [event for event in without_times(run) if event["event"] != "resume"] == without_times(straight)
    (name,) = summary(run)["markers"]
    first, second = (load_file(folder / "finetune" / name / "model.safetensors") for folder in (run, straight))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_trainer_ends_by_name_and_resumes(place, zygote, straight):
    """Each of two ranks dies in turn; no launcher is there to notice."""
    run, newest = place / "job" / "killed", ""
    for victim in (1, 0):
        life = zygote.start(flags(place, "killed", "--resume"), ranks=2)
        newest = wait_for_checkpoint(run, newest)
        life.send(signal.SIGKILL, [victim])
        assert life.ended([1 - victim], SOON), life.stderr()
        assert life.statuses[1 - victim] == 1
        line = f", process {life.pids[victim]}) {KILLED}"
        assert f"{line}{GOES_ON}" in life.stderr() and life.stderr().count("error: ") == 1
        done = summary(run)
        assert done["exit_reason"] == "rank_failure" and done["why"].endswith(line), done
        life.wait()
    zygote.run(flags(place, "killed", "--resume"), ranks=2)
    assert_same(run, straight)


def test_torchrun_starts_again_and_the_run_continues_by_itself(place, straight):
    run = place / "job" / "restarted"
    command = [*torchrun(2), "--max_restarts", "2", SCRIPT, *flags(place, "restarted", "--resume")]
    launcher = subprocess.Popen(command, cwd=ROOT, env=clean_environment(), stderr=subprocess.PIPE, text=True)
    wait_for_checkpoint(run)
    (victim,) = (worker.pid for worker in psutil.Process(launcher.pid).children() if worker.environ().get("RANK") == "1")
    os.kill(victim, signal.SIGKILL)
    _, stderr = launcher.communicate(timeout=120)
    assert launcher.returncode == 0, stderr[-4000:]
    assert f", process {victim}) {KILLED}{GOES_ON}" in stderr
    assert len(events(run, "resume")) == 1
    assert_same(run, straight)
