"""One fine-tuning as a job, and many of them over devices: one after another in this process, or one process for each of several devices.

A job that fails is told to whoever asked and the others go on; a process that is killed costs its own job alone. Results come back as they
are ready, so that the caller can keep each at once.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from dataset.errors import UserError, one_line
from dataset.jobs import ProcessExecutor, core_count
from evaluation.fine_tuning.settings import FineTuningSettings
from evaluation.scoring.results import Row
from evaluation.tasks.task import Task, TaskData

FINE_TUNING, AS_IT_IS = "fine_tuning", "as_it_is"


@dataclass(frozen=True)
class Source:
    """Where tasks have their data: a folder of official files, or a `datasets` data set by name; `test`: with the sets to predict."""

    glue_dir: Path | None = None
    dataset_name: str | None = None
    test: bool = False

    def load(self, task: Task) -> TaskData:
        """The data of `task`, read once in a process; UserError for anything wrong with them."""
        return _load(task, self)


@cache
def _load(task: Task, source: Source) -> TaskData:
    from evaluation.tasks.table import load_task

    return load_task(task, source.glue_dir, dataset_name=source.dataset_name, test=source.test)


@dataclass(frozen=True)
class Job:
    """`row`: all that is known before; `folder`: what is fine-tuned, or with `as_it_is` scored; the others as in `fine_tune`."""

    row: Row
    folder: Path
    task: Task
    source: Source
    settings: FineTuningSettings
    mode: str = FINE_TUNING
    teacher: Path | None = None
    save_to: Path | None = None
    submit_to: Path | None = None

    @property
    def name(self) -> str:
        return f"{self.row['task']}  {self.row['model']} seed {self.row['seed']}"


@dataclass(frozen=True)
class Done:
    """What became of a job: the MEASURED fields and lines worth saying once, or why it failed in one line."""

    job: Job
    fields: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()
    failure: str | None = None


def select_devices(text: str) -> list[str]:
    """Device names of `--devices`: `auto` is every CUDA device that is visible, or the CPU once; `cpu,cpu` are two processes."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if text == "auto":
        return [f"cuda:{number}" for number in range(count)] or ["cpu"]
    names = ["cuda:0" if name.strip() == "cuda" else name.strip() for name in text.split(",")]
    for name in names:
        kind, _, number = name.partition(":")
        is_there = name == "cpu" or (kind == "cuda" and number.isdecimal() and int(number) < count)
        if not is_there:
            here = ", ".join(["cpu", *(f"cuda:{number}" for number in range(count))])
            raise UserError(f"--devices {text}: {name or 'an empty name'} is not here; auto, or a list of {here} would work")
    return names


def run_jobs(jobs: Iterable[Job], devices: list[str]) -> Iterator[Done]:
    """Yield what became of every job as it is ready; with several `devices` each has a process of its own and takes the next job."""
    if len(devices) == 1:
        for job in jobs:
            yield _attempt(job, devices[0])
        return
    waiting = deque(jobs)
    threads = max(1, core_count() // devices.count("cpu")) if "cpu" in devices else None
    with ExitStack() as stack:
        executors = [stack.enter_context(ProcessExecutor(1)) for _ in devices]
        running = {}
        free = deque(zip(executors, devices, strict=True))
        while waiting or running:
            while waiting and free:
                executor, device = free.popleft()
                job = waiting.popleft()
                running[executor.submit(_attempt, job, device, threads if device == "cpu" else None)] = job, executor, device
            ready, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in ready:
                job, executor, device = running.pop(future)
                free.append((executor, device))
                try:
                    yield replace(future.result(), job=job)  # the caller's own object, not the copy that was sent
                except BrokenExecutor:
                    yield Done(job, failure="its process was killed (out of memory?); fewer --devices may work")
                except Exception as error:  # what cannot be sent back
                    yield Done(job, failure=_failure(error))


def _attempt(job: Job, device: str, threads: int | None = None) -> Done:
    """Do a job; an error becomes a line, because the next job may well work. `threads`: of torch, in a process of its own."""
    try:
        if threads is not None:
            import torch

            torch.set_num_threads(threads)
        return _measure(job, device)
    except Exception as error:  # of a model that nobody foresaw: it must not cost the others their scores
        return Done(job, failure=_failure(error))


def _failure(error: Exception) -> str:
    return one_line(error) if isinstance(error, UserError) else f"{type(error).__name__}: {one_line(error)[:300]}"


def _measure(job: Job, device: str) -> Done:
    import torch
    import transformers

    from evaluation.fine_tuning.training import fine_tune, score_only
    from evaluation.tasks.submission import write_submission

    data = job.source.load(job.task)
    notes: list[str] = []
    if job.mode == AS_IT_IS:
        outcome = score_only(job.folder, data, job.settings, device=device, say=notes.append)
        if job.row["start"] is not None:  # settings without effect here had it on the training before
            notes = [note for note in notes if "no effect" not in note]
    else:
        outcome = fine_tune(job.folder, data, job.settings, teacher=job.teacher, device=device, save_to=job.save_to, say=notes.append)
    if job.submit_to is not None and outcome.diverged:
        notes.append(f"{job.name}: diverged, so there is nothing to submit")
    elif job.submit_to is not None:
        for name, examples in data.test.items():
            write_submission(job.task, name, examples, outcome.test_outputs[name], job.submit_to)
    fields = {
        "metrics": outcome.metrics, "constant_metrics": outcome.constant_metrics, "diverged": bool(outcome.diverged),
        "selected_on_dev": bool(outcome.selected_on_dev), "best_step": outcome.best_step, "history": outcome.history,
        "train_size": outcome.train_size, "dev_size": outcome.dev_size, "train_seconds": round(outcome.train_seconds, 3),
        "precision": outcome.precision, "device": outcome.device, "new_weights": outcome.new_weights, "parameters": outcome.parameters,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }
    # What holds for every job is said once; evaluations are this one's.
    return Done(job, fields, tuple(f"{job.name}, {note}" if note.startswith("step ") else note for note in notes))
