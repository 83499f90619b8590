"""A real Dask scheduler and its workers on loopback, started far from the project, for tests."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SECONDS_TO_START = 60


def start(folder: Path, *command: str) -> subprocess.Popen:
    """`dask` with `command` in `folder`, with nothing of the project on its path; its output goes to a file there."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = (sys.executable, "-m", "dask", *command)
    with (folder / f"{command[3]}.log").open("ab") as log:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)


def stop(process: subprocess.Popen) -> None:
    """End a process of `start` and all it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextmanager
def scheduler(folder: Path) -> Iterator[str]:
    """Yield the address of a scheduler without workers; `folder` is empty and gets its process id, file "pid"."""
    file = folder / "scheduler.json"
    process = start(folder, "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file))
    (folder / "pid").write_text(str(process.pid))
    try:
        deadline = time.monotonic() + SECONDS_TO_START
        while not (file.exists() and file.read_text().endswith("}")):
            assert process.poll() is None and time.monotonic() < deadline, (folder / "scheduler.log").read_text()
            time.sleep(0.05)
        yield json.loads(file.read_text())["address"]
    finally:
        stop(process)


@contextmanager
def workers(folder: Path, address: str, processes: int = 2, threads: int = 1) -> Iterator[None]:
    """Workers of the scheduler at `address`, for as long as the context lasts."""
    from distributed import Client

    command = ("worker", address, "--no-dashboard", "--nworkers", str(processes), "--nthreads", str(threads), "--host", "127.0.0.1")
    process = start(folder, *command)
    try:
        with Client(address, set_as_default=False) as client:
            client.wait_for_workers(processes, timeout=SECONDS_TO_START)
        yield
    finally:
        stop(process)
