"""A run that was killed and continued ends with the bits of one that was not."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from launching import ROOT, SCRIPT, clean_environment, summary, train, without_times
from safetensors.torch import load_file
from stops_case import make_place

EXIT_REQUEUE = 75


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return make_place(tmp_path_factory.mktemp("resume"))


def flags(place: Path, run: str, *more: str) -> list[str]:
    """60 steps over 2 shards of 40 samples: a checkpoint after every second shard, a marker at half of the budget."""
    return ["--dataset_path", str(place / "shards"), "--teacher_path", str(place / "teacher"), "--distillation", "--method",
            "hidden_mse:1.0,mlm:0.5", "--student_initialize", "--num_hidden_layers", "2", "--layer_selection", "1,3", "--train_batch_size",
            "8", "--train_micro_batch_size_per_gpu", "4", "--lr", "1e-3", "--output_dir", str(place / "out"), "--current_run_id", run,
            "--job_name", "job", "--num_epochs_between_checkpoints", "2", "--print_steps", "7", "--do_validation", "--clock",
            "simulated:60", "--total_training_time", "1", "--finetune_time_markers", "0.5", "--layer_norm_type", "pytorch", *more]


def same_bits(straight: Path, pieces: Path) -> None:
    assert summary(straight)["markers"] == summary(pieces)["markers"]
    for marker in summary(straight)["markers"]:
        first, second = (load_file(run / "finetune" / marker / "model.safetensors") for run in (straight, pieces))
        assert all(torch.equal(first[name], second[name]) for name in first), marker
    ours = [event for event in without_times(pieces) if event["event"] != "resume"]
    assert ours == without_times(straight)


def start_and_signal(place: Path, run: str, number: int, *more: str) -> int:
    """Start a run, send it a signal as soon as its first checkpoint is complete, return its status."""
    process = subprocess.Popen([sys.executable, SCRIPT, *flags(place, run, *more)], cwd=ROOT, env=clean_environment(),
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    latest = place / "out" / "job" / run / "checkpoints" / "latest"
    deadline = time.monotonic() + 120
    while not latest.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(number)
    return process.wait(timeout=120)


# Kills of a run in fp32 are in test_killed_runs_end_with_the_same_weights.py too, and SIGTERM below.
@pytest.mark.slow
@pytest.mark.parametrize(("precision", "stage"), [("fp32", "0"), ("bf16", "2")])
def test_killed_and_resumed_runs_end_with_the_same_bits(place, precision, stage):
    more = ("--precision", precision, "--zero_stage", stage)
    straight, killed = f"straight_{precision}_{stage}", f"killed_{precision}_{stage}"
    train(flags(place, straight, *more))
    assert start_and_signal(place, killed, signal.SIGKILL, *more) == -signal.SIGKILL
    assert not (place / "out" / "job" / killed / "summary.json").exists()
    refused = train(flags(place, killed, *more), status=2)
    assert "--resume goes on with it" in refused.stderr
    train(flags(place, killed, *more, "--resume"))
    same_bits(place / "out" / "job" / straight, place / "out" / "job" / killed)


def test_a_terminated_run_saves_itself_and_goes_on(place):
    """SIGTERM, a damaged newest checkpoint, a changed flag: in one run."""
    more = ("--precision", "fp32")
    run = place / "out" / "job" / "terminated"
    assert start_and_signal(place, "terminated", signal.SIGTERM, *more) == EXIT_REQUEUE
    assert summary(run)["exit_reason"] == "signal"
    changed = train(flags(place, "terminated", *more, "--resume", "--lr", "2e-3"), status=2)
    assert "lr: 0.001 -> 0.002" in changed.stderr
    assert "lr: 0.001\n" in (run / "args.yaml").read_text(), "a refused call changes nothing"
    extra = place / "shards" / "train_shard_9.hdf5"
    shutil.copy(place / "shards" / "train_shard_0.hdf5", extra)
    assert "the train shards are others" in train(flags(place, "terminated", *more, "--resume"), status=2).stderr
    extra.unlink()
    newest = run / "checkpoints" / (run / "checkpoints" / "latest").read_text().strip()
    states = newest / "deepspeed" / "mp_rank_00_model_states.pt"
    content = bytearray(states.read_bytes())
    content[len(content) // 2] ^= 1
    states.write_bytes(content)
    resumed = train(flags(place, "terminated", *more, "--resume"))
    assert f"{newest} is damaged" in resumed.stderr
    straight = place / "out" / "job" / "straight_fp32_0"
    if not straight.exists():
        train(flags(place, "straight_fp32_0", *more))
    same_bits(straight, run)
