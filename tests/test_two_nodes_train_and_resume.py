"""Two launchers that know of each other only by address and node number train one run, are stopped, and resume it to the same bits."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from launching import ROOT, SCRIPT, clean_environment, events, summary, without_times
from safetensors.torch import load_file
from tiny import make_shards, make_teacher

NODES = 2


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nodes")
    make_teacher(folder / "teacher")
    make_shards(folder / "shards", masking="none")
    (folder / "hostfile").write_text("first_node slots=1\nsecond_node slots=1\n")
    return folder


def flags(place: Path, run: str) -> list[str]:
    return ["--dataset_path", str(place / "shards"), "--teacher_path", str(place / "teacher"), "--distillation", "--method",
            "hidden_mse:1.0,mlm:0.5", "--student_initialize", "--num_hidden_layers", "2", "--layer_selection", "1,3", "--train_batch_size",
            "8", "--train_micro_batch_size_per_gpu", "2", "--lr", "1e-3", "--output_dir", str(place), "--job_name", "job",
            "--current_run_id", run, "--steps_between_checkpoints", "5", "--print_steps", "3", "--clock", "simulated:60",
            "--total_training_time", "1", "--finetune_checkpoint_at_end", "true", "--layer_norm_type", "pytorch", "--precision", "fp32",
            "--resume"]


@pytest.fixture(scope="module")
def straight(place, zygote):
    """The folder of a run of two ranks of one node that nobody disturbed."""
    zygote.run(flags(place, "straight"), ranks=NODES)
    return place / "job" / "straight"


def torch_launch(place: Path, node: int, port: int) -> tuple[list[str], dict[str, str]]:
    """As DistilBERT's README starts a node: its variables exported, and once more as the launcher's flags."""
    exported = {"NODE_RANK": str(node), "N_NODES": str(NODES), "N_GPU_NODE": "1", "WORLD_SIZE": str(NODES), "MASTER_PORT": str(port),
                "MASTER_ADDR": "127.0.0.1"}
    return [sys.executable, "-m", "torch.distributed.launch", "--nproc_per_node=1", f"--nnodes={NODES}", "--node_rank", str(node),
            "--master_addr", "127.0.0.1", "--master_port", str(port)], exported


def deepspeed_hostfile(place: Path, node: int, port: int) -> tuple[list[str], dict[str, str]]:
    """As every node of a hostfile is started where there is no ssh between them."""
    return ["deepspeed", "--hostfile", str(place / "hostfile"), "--no_ssh", "--node_rank", str(node), "--master_addr", "127.0.0.1",
            "--master_port", str(port)], {}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(place: Path, launcher, run: str) -> list[subprocess.Popen]:
    port, nodes = free_port(), []
    for node in range(NODES):
        command, exported = launcher(place, node, port)
        nodes.append(subprocess.Popen([*command, SCRIPT, *flags(place, run)], cwd=ROOT, env=clean_environment(**exported),
                                      stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True))
    return nodes


def told(run: Path) -> list[dict]:
    """All events but those that a stop between two occasions adds."""
    return [event for event in without_times(run) if event["event"] not in ("resume", "checkpoint")]


@pytest.mark.parametrize(("launcher", "number"), [
    pytest.param(torch_launch, signal.SIGTERM, id="torch.distributed.launch"),
    pytest.param(deepspeed_hostfile, signal.SIGKILL, id="deepspeed", marks=pytest.mark.slow),
])
def test_two_launchers_stopped_and_started_again_end_with_the_bits_of_one(place, straight, launcher, number):
    run = place / "job" / launcher.__name__
    nodes, until = start(place, launcher, run.name), time.monotonic() + 120
    while not (run / "checkpoints" / "latest").exists() and time.monotonic() < until:
        time.sleep(0.01)
    for node in nodes:
        # A node that is switched off loses its launcher and its ranks at once.
        (os.killpg if number == signal.SIGKILL else os.kill)(node.pid, number)
    for node in nodes:
        node.communicate(timeout=60)
    assert (run / "summary.json").exists() == (number == signal.SIGTERM)
    if number == signal.SIGTERM:
        assert summary(run)["exit_reason"] == "signal"
    for node in start(place, launcher, run.name):
        _, stderr = node.communicate(timeout=120)
        assert node.returncode == 0, stderr[-4000:]
    assert len(events(run, "resume")) == 1
    assert told(run) == told(straight)
    (name,) = summary(run)["markers"]
    first, second = (load_file(folder / "finetune" / name / "model.safetensors") for folder in (run, straight))
    assert all(torch.equal(first[name], second[name]) for name in first)
