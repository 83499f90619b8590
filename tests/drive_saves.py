"""Run on one or two ranks by test_checkpoints_survive_failed_saves.py: every ZeRO stage saves where it can and where it cannot.

    torchrun ... drive_saves.py FOLDER
"""

import json
import os
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from torch import nn

from pretraining.args.parser import parse
from pretraining.args.resolve import resolve
from pretraining.checkpoint import Keep, SaveError, complete_checkpoints, damage, save_checkpoint
from pretraining.control import Control
from pretraining.engine import Engine, engine_config, select_device, start_ranks, stop_ranks
from pretraining.launch import read_launch
from pretraining.optimizers import build_optimizer
from pretraining.precision import Precision

WIDTH, NOBODY, KEEP = 128, 65534, Keep(2, True)
STATE = {"flags": {"seed": 1}, "marker": None}


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(WIDTH, 512), nn.LayerNorm(512), nn.GELU(), nn.Linear(512, WIDTH))
        self.frozen = nn.Parameter(torch.ones(3), requires_grad=False)

    def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        return self.body(inputs).square().mean(), {}


def make_engine(stage: int) -> Engine:
    world = LAUNCH.world_size
    args = parse(["--output_dir", "x", "--train_batch_size", str(4 * world), "--train_micro_batch_size_per_gpu", "4", "--lr", "0.01",
                  "--zero_stage", str(stage)])
    torch.manual_seed(0)
    model, precision = Model(), Precision("fp32")
    return Engine(model, build_optimizer(model, args.optimization), engine_config(resolve(args, LAUNCH), precision), precision)


def step(engine: Engine) -> None:
    engine.set_learning_rate(0.01)
    engine.forward_backward(torch.randn(4, WIDTH))
    engine.micro_step_done()


def bits(engine: Engine) -> list[torch.Tensor]:
    """Copies of all weights and of this rank's optimizer state."""
    states = engine.deepspeed.optimizer.optimizer.state if engine.stage else engine.deepspeed.optimizer.state
    moments = [value for state in states.values() for value in state.values()]
    assert len(moments) > 2
    return [tensor.clone() for tensor in (*engine.master_weights().values(), *moments)]


def contents(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in sorted(folder.rglob("*")) if path.is_file()}


@contextmanager
def file_size_limit(number_of_bytes: int) -> Iterator[None]:
    """What a full disk and a quota look like to a process: a write that fails half-way."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (number_of_bytes, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


@contextmanager
def no_permission(folder: Path) -> Iterator[None]:
    """Permission bits do not bind root, so root is somebody else for a while."""
    if os.geteuid() == 0:
        os.seteuid(NOBODY)
    else:
        folder.chmod(0o555)
    try:
        yield
    finally:
        if os.getuid() == 0:
            os.seteuid(0)
        else:
            folder.chmod(0o755)


@contextmanager
def disk_error(name: str) -> Iterator[None]:
    """Renaming anything to `name` fails."""
    plain = os.replace

    def replace(source: Path, target: Path) -> None:
        if Path(target).name == name:
            raise OSError(5, "Input/output error")
        plain(source, target)

    with mock.patch("os.replace", replace):
        yield


@contextmanager
def failing_flush() -> Iterator[None]:
    """Some file systems notice only at fsync that what they took cannot be kept."""
    def fsync(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    with mock.patch("os.fsync", fsync):
        yield


def on(rank: int, trouble: Any) -> Any:
    return trouble if CONTROL.rank == rank else nullcontext()


def troubles(folder: Path, number: int) -> Iterator[tuple[str, Path, Any, dict[str, Any]]]:
    """(name, folder to save in, what is wrong there on this rank, the state to save)."""
    last = LAUNCH.world_size - 1
    yield "full on the last rank", folder, on(last, file_size_limit(20_000)), STATE
    yield "full on rank 0", folder, on(0, file_size_limit(20_000)), STATE
    yield "flush fails on the last rank", folder, on(last, failing_flush()), STATE
    yield "full at state.json", folder, on(0, file_size_limit(3_000_000)), {**STATE, "long": "x" * 4_000_000}
    yield "read-only", folder, on(0, no_permission(folder)), STATE
    if os.getuid() == 0:
        yield "read-only on the last rank", folder, on(last, no_permission(folder)), STATE
    yield "a file in its place", folder.with_name("a_file"), nullcontext(), STATE
    yield "too little space", folder, mock.patch("shutil.disk_usage", lambda path: SimpleNamespace(free=9_000_000)), STATE
    yield "rename fails", folder, on(0, disk_error(f"step_{number}")), STATE


def save(engine: Engine, folder: Path, number: int, state: dict[str, Any]) -> str | None:
    """What SaveError says, or None."""
    try:
        save_checkpoint(folder, number, engine, state, CONTROL, KEEP)
    except SaveError as error:
        return str(error)
    return None


def loads_back(engine: Engine, checkpoint: Path) -> bool:
    """Whether weights and optimizer state come back with every bit after another step."""
    before = bits(engine)
    step(engine)
    assert not all(map(torch.equal, before, bits(engine)))
    engine.load(checkpoint)
    return all(map(torch.equal, before, bits(engine)))


def drive(stage: int, place: Path) -> list[dict[str, Any]]:
    """One report per trouble; all of them meet the same engine, the older checkpoint 1, and a good save after each."""
    folder, engine, reports = place / f"zero_{stage}", make_engine(stage), []
    (place / "a_file").touch()
    torch.manual_seed(CONTROL.rank)
    step(engine)
    assert save(engine, folder, 1, STATE) is None
    tensors = CONTROL.sum([float(engine.checkpoint_bytes())])[0]
    number = 1
    cases = len(list(troubles(folder, 0)))
    for case in range(cases):
        step(engine)
        older = complete_checkpoints(folder)[0]
        CONTROL.barrier()
        before = contents(older)
        number += 1
        name, target, trouble, state = list(troubles(folder, number))[case]
        started = time.monotonic()
        with trouble:
            said = save(engine, target, number, state)
        seconds = time.monotonic() - started
        CONTROL.barrier()  # rank 0 may still be removing what is not kept
        report = {"stage": stage, "trouble": name, "said": said, "seconds": seconds, "older": damage(older),
                  "untouched": contents(older) == before, "left": sorted(path.name for path in folder.glob(".*")),
                  "exists": (folder / f"step_{number}").exists(), "tensors": tensors}
        CONTROL.barrier()
        report["next"] = save(engine, folder, number + (said is None), STATE)
        number += said is None
        CONTROL.barrier()
        checkpoint = folder / f"step_{number}"
        report.update(damage=damage(checkpoint), same=loads_back(engine, checkpoint), kept=len(complete_checkpoints(folder)),
                      latest=(folder / "latest").read_text().strip() == checkpoint.name,
                      bytes=sum(path.stat().st_size for path in (checkpoint / "deepspeed").iterdir()),
                      files=sorted(path.name for path in (checkpoint / "deepspeed").iterdir()))
        reports.append(report)
    return reports


LAUNCH = read_launch(-1)
start_ranks(select_device(LAUNCH))
CONTROL = Control(LAUNCH.rank, LAUNCH.world_size)

if __name__ == "__main__":
    reports = CONTROL.gather([report for stage in (0, 1, 2) for report in drive(stage, Path(sys.argv[1]))])
    if CONTROL.rank == 0:
        print("RESULTS" + json.dumps(reports))
    dist.barrier()
    stop_ranks()
