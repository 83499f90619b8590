"""Independent jobs on several processes of this machine or on a Dask cluster: a failure is named and costs no other job its result.

Both are a `concurrent.futures` executor with the same work and the same bytes out. On this machine every thread of a pool drives one
spawned process (a fork of a process that has threads may hang), so a process that the system kills takes one job with it and no more.
A process starts in about a third of a second, so a job should be worth more.
"""

import _thread
import multiprocessing
import os
import pickle
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed, wait
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, NoReturn

from tqdm import tqdm

from dataset.errors import UserError, one_line
from dataset.files import reason
from dataset.progress import progress

FAILURES_NAMED = 3
IN_FLIGHT_PER_WORKER = 2
GRACE_SECONDS = 3.0  # what an interrupted job has to remove its temporary files


@dataclass(frozen=True)
class Job:
    """Arguments of one call; `name` stands in messages, `size` is its bytes of text (for the progress bar)."""

    name: str
    arguments: tuple
    size: int = 1


def core_count() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Workers:
    """`n_processes` processes, or with a Dask scheduler's address its workers. A context manager; UserError where nobody answers.

    `work` must be a function at the top level of a module of this project. Leaving by KeyboardInterrupt stops jobs that run.
    """

    def __init__(self, n_processes: int, dask_address: str | None = None) -> None:
        self._n_processes, self._dask_address = n_processes, dask_address

    def __enter__(self) -> "Workers":
        if self._dask_address is None:
            self._executor: Any = ProcessExecutor(self._n_processes)
        else:
            from dataset.dask_cluster import DaskExecutor  # half a second of imports that most runs do without

            self._executor = DaskExecutor(self._dask_address)
        return self

    def __exit__(self, *error: Any) -> None:
        self._executor.__exit__(*error)

    def run(self, work: Callable[..., Any], jobs: Sequence[Job], what: str) -> dict[str, Any]:
        """`work(*job.arguments)` for every job; name -> result in the order of `jobs`, whose names must differ.

        All jobs run even if some fail; then UserError (the user's mistake, memory, disk, a missing package) or RuntimeError (ours)
        names the failed ones. `what` is the plural noun for messages and the progress bar.
        """
        results: dict[str, Any] = {}
        failures: dict[str, BaseException] = {}
        with _bar(sum(job.size for job in jobs), what) as bar:
            waiting = {self._executor.submit(work, *job.arguments): job for job in jobs}
            for future in as_completed(list(waiting)):
                job = waiting.pop(future)
                try:
                    results[job.name] = self._executor.value(future)
                except (Exception, CancelledError) as error:
                    failures[job.name] = error
                bar.update(job.size)
        for job in jobs:
            # Killed, most likely for want of memory: now that nothing else runs it may fit.
            if isinstance(failures.get(job.name), BrokenExecutor):
                try:
                    results[job.name] = _alone(work, job)
                    del failures[job.name]
                except Exception as error:
                    failures[job.name] = error
        if failures:
            ordered = [(job.name, failures[job.name]) for job in jobs if job.name in failures]
            shown = [f"{name}: {self._reason(error)}" for name, error in ordered[:FAILURES_NAMED]]
            if len(ordered) > FAILURES_NAMED:
                shown.append(f"and {len(ordered) - FAILURES_NAMED} more")
            others = ", the others are done" if len(ordered) < len(jobs) else ""
            self._raise(f"{len(ordered)} of {len(jobs)} {what} failed{others}: {'; '.join(shown)}", [error for _, error in ordered])
        return {job.name: results[job.name] for job in jobs}

    def in_order(self, work: Callable[..., Any], jobs: Iterable[Job], what: str, total: int) -> Iterator[Any]:
        """Results of `work(*job.arguments)` in the order of `jobs`, of which a bounded number is in flight.

        The first failure is raised, named, as by `run`, when its turn comes; jobs that have not begun are given up. `total`: bytes of
        all jobs.
        """
        most = IN_FLIGHT_PER_WORKER * self._executor.workers
        source = iter(jobs)
        flying: deque[tuple[Job, Future]] = deque()
        with _bar(total, what) as bar:
            try:
                while True:
                    while len(flying) < most and (job := next(source, None)) is not None:
                        flying.append((job, self._executor.submit(work, *job.arguments)))
                    if not flying:
                        return
                    job, future = flying.popleft()
                    yield self._value_or_raise(work, job, future, [other for _, other in flying])
                    bar.update(job.size)
            finally:
                for _, future in flying:
                    future.cancel()

    def _value_or_raise(self, work: Callable[..., Any], job: Job, future: Future, others: list[Future]) -> Any:
        try:
            try:
                return self._executor.value(future)
            except BrokenExecutor:
                wait(others)
                return _alone(work, job)
        except (Exception, CancelledError) as error:
            self._raise(f"{job.name}: {self._reason(error)}", [error])

    def _reason(self, error: BaseException) -> str:
        if isinstance(error, UserError | ImportError):
            return one_line(error)
        if isinstance(error, BrokenExecutor):
            return "a process was killed (out of memory?); fewer --n_processes may work"
        if isinstance(error, OSError):
            return f"{error.filename}: {reason(error)}" if error.filename else reason(error)
        if isinstance(error, MemoryError):
            return "out of memory; fewer --n_processes may work"
        return self._executor.reason(error) or f"{type(error).__name__}: {one_line(error)}"

    def _raise(self, message: str, errors: list[BaseException]) -> NoReturn:
        """UserError, or RuntimeError from the first error that no user can mend."""
        theirs = UserError | OSError | MemoryError | ImportError | BrokenExecutor
        ours = [error for error in errors if not isinstance(error, theirs) and self._executor.reason(error) is None]
        if ours:
            raise RuntimeError(message) from ours[0]
        raise UserError(message)


def _bar(total: int, what: str) -> tqdm:
    return progress(total=total, desc=what, unit="B", unit_scale=True)


def _alone(work: Callable[..., Any], job: Job) -> Any:
    with ProcessExecutor(1) as executor:
        return executor.submit(work, *job.arguments).result()


class ProcessExecutor(ThreadPoolExecutor):
    """Threads that each drive one spawned process, started with its first job and again after it was killed.

    A job whose process is killed fails with BrokenExecutor.
    """

    def __init__(self, n_processes: int) -> None:
        # Children inherit the mask: the terminal's Ctrl-C reaches this process alone, which then ends them.
        super().__init__(n_processes, initializer=signal.pthread_sigmask, initargs=(signal.SIG_BLOCK, {signal.SIGINT}))
        self.workers = n_processes
        self._context = multiprocessing.get_context("spawn")
        self._lifeline, self._held = self._context.Pipe(duplex=False)
        self._own = threading.local()
        self._pools: list[ProcessPoolExecutor] = []

    def submit(self, work: Callable[..., Any], *arguments: Any) -> Future:
        return super().submit(self._in_own_process, work, arguments)

    def _in_own_process(self, work: Callable[..., Any], arguments: tuple) -> Any:
        if not hasattr(self._own, "pool"):
            self._own.pool = ProcessPoolExecutor(1, self._context, initializer=_start, initargs=(self._lifeline,))
            self._pools.append(self._own.pool)
        try:
            return self._own.pool.submit(call, work, arguments).result()
        except BrokenExecutor:
            del self._own.pool
            raise

    def value(self, future: Future) -> Any:
        """The result of a submitted job."""
        return future.result()

    def reason(self, error: BaseException) -> str | None:
        """What this executor knows of an error."""
        return None

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Wait for the jobs that run, or after KeyboardInterrupt and the like end them by KeyboardInterrupt too."""
        if kind is not None and not issubclass(kind, Exception):
            self._held.close()
        self.shutdown(wait=True, cancel_futures=True)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        super().shutdown(wait=wait, cancel_futures=cancel_futures)
        for pool in self._pools:
            pool.shutdown(wait=wait)
        self._held.close()
        self._lifeline.close()


_running = threading.Event()


def _start(lifeline: Connection) -> None:
    """First act of a process: one thread for tokenizers (processes are the parallelism), and an end when its parent ends."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()


def _end_with(lifeline: Connection) -> None:
    lifeline.poll(None)  # returns when the other end is closed, by its owner or by its owner's death
    if _running.is_set():
        _thread.interrupt_main()
        deadline = time.monotonic() + GRACE_SECONDS
        while _running.is_set() and time.monotonic() < deadline:
            time.sleep(0.01)
    os._exit(1)


def call(work: Callable[..., Any], arguments: tuple) -> Any:
    """`work(*arguments)`; an error that would not survive the way back becomes a RuntimeError with its traceback."""
    _running.set()
    try:
        return work(*arguments)
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            raise RuntimeError(traceback.format_exc()) from None
        raise
    finally:
        _running.clear()
