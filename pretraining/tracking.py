"""What a run tells: metrics.jsonl always, TensorBoard or W&B when asked. Rank 0 only.

metrics.jsonl is appended a whole line at a time, so a kill can at most cut the last one; on resume it is cut back to the checkpoint.
"""

import errno
import importlib.util
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from dataset.errors import UserError
from dataset.files import fsync_path, reason
from pretraining.console import say

_NOT_METRICS = ("event", "step")


class Tracker(Protocol):
    def log(self, event: dict[str, Any]) -> None: ...

    def close(self) -> None: ...


class MetricsFile:
    """One JSON object per line and event; `event` and `step` come first.

    Lines that the disk refuses are kept and written with the next one: a full disk ends no run.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._length = path.stat().st_size if path.exists() else 0
        self._waiting = b""

    def log(self, event: dict[str, Any]) -> None:
        line = json.dumps({name: finite(value) for name, value in event.items()}) + "\n"
        refused = bool(self._waiting)
        self._waiting += line.encode()
        try:
            with self._path.open("ab", buffering=0) as file:
                if os.fstat(file.fileno()).st_size > self._length:
                    file.truncate(self._length)  # what a refused write left of a line
                # One call: a kill cuts a line or leaves it whole.
                written = file.write(self._waiting)
                if written != len(self._waiting):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            if not refused:
                say(f"warning: {self._path}: {error.strerror}; its lines are kept until there is room")
            return
        self._length += len(self._waiting)
        self._waiting = b""

    def position(self) -> int:
        """Bytes written so far, which are on the disk from now on: a checkpoint will rely on them."""
        if self._path.exists():
            fsync_path(self._path)
        return self._length

    def close(self) -> None:
        if self._waiting:
            lost = self._waiting.count(b"\n")
            say(f"warning: {self._path} lacks its last {lost} lines, which the disk refused")


class TensorBoardTracker:
    """`first_step`: what an earlier piece of the run wrote from that step on is hidden."""

    def __init__(self, folder: Path, first_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(log_dir=str(folder / "tensorboard"), purge_step=first_step)

    def log(self, event: dict[str, Any]) -> None:
        for name, value in _scalars(event).items():
            self._writer.add_scalar(f"{event['event']}/{name}", value, event["step"])

    def close(self) -> None:
        self._writer.close()


class WandbTracker:
    """Online, or offline where WANDB_MODE=offline says so; the run's id is kept so that a resumed run goes on in the same plot."""

    def __init__(self, folder: Path, project: str, group: str, name: str, flags: dict[str, Any], run_id: str | None) -> None:
        import wandb

        self._run = wandb.init(project=project, group=group, name=name, config=flags, dir=str(folder), id=run_id,
                               resume="allow" if run_id else None)
        self.run_id: str = self._run.id

    def log(self, event: dict[str, Any]) -> None:
        values = {f"{event['event']}/{name}": value for name, value in _scalars(event).items()}
        self._run.log({**values, "step": event["step"]})

    def close(self) -> None:
        self._run.finish()


def _scalars(event: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in event.items() if isinstance(value, (int, float)) and name not in _NOT_METRICS}


def check_tracker(report_to: str) -> None:
    """UserError where the tracker that --report_to names is not installed; before anything is trained."""
    package = {"tensorboard": "tensorboard", "wandb": "wandb"}.get(report_to)
    if package is not None and importlib.util.find_spec(package) is None:
        raise UserError(f"--report_to {report_to}: the package {package} is not installed; pip install {package}, or leave the flag out")


class Tracking:
    """metrics.jsonl, and the tracker beside it if there is one, behind one `log`. What goes wrong in a tracker ends no run."""

    def __init__(self, metrics: Path, other: Tracker | None) -> None:
        self.metrics = MetricsFile(metrics)
        self._other = other
        self.wandb_id: str | None = getattr(other, "run_id", None)

    def log(self, event: dict[str, Any]) -> None:
        self.metrics.log(event)
        self._try(lambda tracker: tracker.log(event))

    def close(self) -> None:
        self.metrics.close()
        self._try(lambda tracker: tracker.close())

    def _try(self, work: Callable[[Tracker], None]) -> None:
        if self._other is None:
            return
        try:
            work(self._other)
        except Exception as error:  # of packages and networks that are not ours
            say(f"warning: {type(self._other).__name__} failed ({reason(error)}) and gets no more events; metrics.jsonl has them all")
            self._other = None


def finite(value: Any) -> Any:
    """`value`, or None for NaN and infinities, which JSON does not know."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def cut_metrics(path: Path, length: int) -> None:
    """Cut metrics.jsonl back to the `length` bytes that it had when the checkpoint was saved, or to its last whole line."""
    if not path.is_file():
        return
    size = path.stat().st_size
    if size < length:
        say(f"warning: {path} has {size} bytes, {length} when the checkpoint was saved: some of its events are lost")
        length = path.read_bytes().rfind(b"\n") + 1
    if size > length:
        os.truncate(path, length)


def environment() -> dict[str, Any]:
    """Versions and hardware, for environment.json."""
    import platform

    import deepspeed
    import numpy
    import torch
    import transformers

    return {
        "python": platform.python_version(), "torch": torch.__version__, "deepspeed": deepspeed.__version__,
        "transformers": transformers.__version__, "numpy": numpy.__version__, "platform": platform.platform(),
        "cpu_count": os.cpu_count(), "torch_threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "world_size": int(os.environ["WORLD_SIZE"]),
    }
