"""Loops to compare, each in a process of its own, stepped in turns: what one does to its process (how memory is kept, threads, caches)
neither helps nor hurts another, and its peak memory is its own."""

import multiprocessing
import tempfile
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.common import Step, matmul_peak, peak_memory_gb, timed

Maker = Callable[[Path], Step]  # builds a loop; the folder is the process's own and goes with it


def _serve(pipe: Connection, make: Maker, precision: str) -> None:
    with tempfile.TemporaryDirectory(prefix="benchmark_") as folder:
        try:
            step = make(Path(folder))
            pipe.send(None)
        except BaseException as error:
            pipe.send(f"{type(error).__name__}: {error}")
            return
        while (asked := pipe.recv()) != "stop":
            pipe.send({"step": lambda: timed(step, 1), "memory": peak_memory_gb, "peak": lambda: matmul_peak(precision)}[asked]())


class Worker:
    """A loop in its process. `make` must be picklable (a function or a partial of one)."""

    def __init__(self, make: Maker, precision: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, make, precision), daemon=True)
        self._process.start()
        other.close()
        problem = self._pipe.recv()
        if problem is not None:
            raise RuntimeError(problem)

    def _ask(self, what: str) -> Any:
        self._pipe.send(what)
        return self._pipe.recv()

    def step(self) -> tuple[float, float]:
        """(tokens per second, seconds) of one optimizer step."""
        return self._ask("step")

    def memory_gb(self) -> float:
        """Peak so far; ask before `peak`, whose matrices count."""
        return self._ask("memory")

    def peak(self) -> float:
        """FLOP/s of the fastest large matrix product in this process."""
        return self._ask("peak")

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._pipe.send("stop")
        self._process.join(timeout=20)
        self._process.kill()
