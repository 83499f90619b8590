"""Independent jobs on several processes: all are awaited; a failure is named and costs no other job its result.

New processes are spawned, not forked: a fork of a process with threads (a test runner that loaded torch, say) may hang.
A job starts in about a third of a second, so a job should be worth more.
"""

import os
from collections.abc import Callable, Mapping
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import Any

from tqdm import tqdm

from dataset.errors import UserError

FAILURES_NAMED = 3


def core_count() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_jobs(work: Callable[..., Any], jobs: Mapping[str, tuple], n_processes: int, what: str) -> dict[str, Any]:
    """`work(*arguments)` for every name -> arguments, on up to `n_processes` processes; name -> result in given order.

    All jobs run even if some fail; then UserError (the user's mistake, memory, disk) or RuntimeError (ours) names the
    failed ones. `what` is the plural noun for messages and the progress bar.
    """
    results, failures = {}, {}
    context = get_context("spawn")
    # Each process tokenizes with one thread; the processes are the parallelism.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    executor = ProcessPoolExecutor(max_workers=min(n_processes, max(1, len(jobs))), mp_context=context)
    try:
        names = {executor.submit(work, *arguments): name for name, arguments in jobs.items()}
        for future in tqdm(as_completed(names), total=len(names), desc=what, disable=None):
            error = future.exception()
            if error is None:
                results[names[future]] = future.result()
            else:
                failures[names[future]] = error
    finally:
        executor.shutdown(wait=True, cancel_futures=True)
    if failures:
        _raise(failures, len(jobs), what)
    return {name: results[name] for name in jobs}


def _raise(failures: dict[str, BaseException], total: int, what: str) -> None:
    shown = [f"{name}: {_reason(error)}" for name, error in list(failures.items())[:FAILURES_NAMED]]
    if len(failures) > FAILURES_NAMED:
        shown.append(f"and {len(failures) - FAILURES_NAMED} more")
    message = f"{len(failures)} of {total} {what} failed, the others are done: {'; '.join(shown)}"
    theirs = UserError | OSError | MemoryError | BrokenExecutor
    ours = [error for error in failures.values() if not isinstance(error, theirs)]
    if ours:
        raise RuntimeError(message) from ours[0]
    raise UserError(message)


def _reason(error: BaseException) -> str:
    if isinstance(error, BrokenExecutor):
        return "a process was killed (out of memory?); fewer --n_processes may work"
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
