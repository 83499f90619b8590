"""The pipeline's commands as a user runs them, in processes of their own: their time on one core, or their memory.

Every part of `benchmarks.dataset` measures commands through this file, so that start-up, workers and files count as they do for a user.
"""

import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
POLL_SECONDS = 0.02
ONE_THREAD = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1"}
Command = list[str]
Makers = Mapping[str, Callable[[Path], Command]]  # name -> the command that writes to the given folder


@dataclass(frozen=True)
class Row:
    """One line of the report. `ratio`: times the reference's; `asked`: what the project asks for; `note`: what the number rests on."""

    part: str
    what: str
    value: float
    unit: str
    ratio: float | None = None
    asked: str = ""
    note: str = ""


@dataclass(frozen=True)
class Peak:
    """Megabytes (10^6 bytes) of resident memory: of the largest process, and of all at the worst moment.

    `total` counts pages that processes share once for each of them, so it is an upper bound.
    """

    largest: float
    total: float


def script(name: str, *flags: object) -> Command:
    """The command that runs `dataset/{name}.py` by path."""
    return [sys.executable, str(ROOT / "dataset" / f"{name}.py"), *map(str, flags)]


def module(name: str, *flags: object) -> Command:
    """The command that runs `python -m {name}` from the project's root."""
    return [sys.executable, "-m", name, *map(str, flags)]


def run(command: Command) -> float:
    """Seconds that `command` took; RuntimeError with its output if it failed."""
    started = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, env=os.environ | ONE_THREAD, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
    return seconds


def best_seconds(commands: Makers, rounds: int, work: Path) -> dict[str, float]:
    """Shortest seconds of each command over `rounds` rounds, in each of which every command has its turn.

    What the last round wrote stays in `work / name`.
    """
    seconds: dict[str, float] = {}
    for _ in range(rounds):
        for name, make in commands.items():
            target = work / name
            shutil.rmtree(target, ignore_errors=True)
            seconds[name] = min(seconds.get(name, float("inf")), run(make(target)))
    return seconds


@contextmanager
def one_core() -> Iterator[None]:
    """This process and those it starts run on a single core; on systems that cannot bind processes nothing changes."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def best_of(work: Callable[[], object], rounds: int) -> float:
    """Shortest seconds of `work()` in this process."""
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def peak_memory(command: Command) -> Peak:
    """Peak memory of `command` and of all processes below it, asked for 50 times a second.

    The largest process is exact but for its last moment, as the kernel keeps each one's peak; RuntimeError if the command failed.
    """
    with tempfile.TemporaryFile("w+") as said:
        process = psutil.Popen(command, cwd=ROOT, env=os.environ | ONE_THREAD, stdout=said, stderr=said)
        largest = total = 0
        while process.poll() is None:
            sizes = [_resident(one) for one in [process, *_below(process)]]
            total = max(total, sum(now for now, _ in sizes))
            largest = max(largest, *(peak for _, peak in sizes))
            time.sleep(POLL_SECONDS)
        said.seek(0)
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}: {said.read().strip()}")
    return Peak(largest / 1e6, total / 1e6)


def _below(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _resident(process: psutil.Process) -> tuple[int, int]:
    """(bytes now, most bytes so far); where the kernel does not tell the second, it is the first."""
    try:
        now = process.memory_info().rss
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
    except psutil.NoSuchProcess:
        return 0, 0
    except OSError:
        return now, now
    peak = next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM")), now)
    return now, max(now, peak)


def in_fresh_process(work: Callable[..., Any], *arguments: Sequence | str | Path | int) -> Any:
    """`work(*arguments)` in a new interpreter, whose imports and memory are not this one's."""
    with ProcessPoolExecutor(max_workers=1, mp_context=multiprocessing.get_context("spawn")) as executor:
        return executor.submit(work, *arguments).result()
