"""Where a rank can be made to die: `install(point, count)` makes this process SIGKILL itself when the point is reached for the
`count`-th time.

Production code has no hooks for this. A point is an event of the interpreter's audit trail (a file is about to be opened, renamed,
removed) or a function of the standard library, torch or safetensors that writes, told apart by the path; so the points stay where
they are when our functions move. "Half-way" means that half of the bytes are in the file, as the kernel would keep them after a kill.
Two points are named after functions of ours, inside which no file is touched. `PATCHES` are other things that a test does to a process.
"""

import builtins
import io
import json
import os
import re
import shutil
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Countdown:
    """`reached()` returns True at its `count`-th call."""

    def __init__(self, count: int) -> None:
        self.left = count

    def reached(self) -> bool:
        self.left -= 1
        return self.left == 0

    def die_if_reached(self) -> None:
        if self.reached():
            die()


def _text(path: Any) -> str:
    return os.fsdecode(path) if isinstance(path, (str, bytes, os.PathLike)) else ""


def before(event: str, pattern: str) -> Callable[[Countdown], None]:
    """Before the audit event `event` ("open" counts for writing only) on a path that `pattern` finds; of a rename, the new path."""
    def install(countdown: Countdown) -> None:
        def hook(name: str, arguments: tuple) -> None:
            if name != event:
                return
            if name == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return
            if re.search(pattern, _text(arguments[1 if name == "os.rename" else 0])):
                countdown.die_if_reached()

        sys.addaudithook(hook)

    return install


def after(functions: tuple[str, ...], pattern: str) -> Callable[[Countdown], None]:
    """After a function of `os` whose last path `pattern` finds."""
    def install(countdown: Countdown) -> None:
        for name in functions:
            setattr(os, name, _dying_after(getattr(os, name), pattern, countdown))

    return install


def _dying_after(plain: Callable, pattern: str, countdown: Countdown) -> Callable:
    def wrapped(*arguments: Any, **named: Any) -> Any:
        result = plain(*arguments, **named)
        paths = [_text(argument) for argument in arguments if not isinstance(argument, int)]
        if paths and re.search(pattern, paths[-1]):
            countdown.die_if_reached()
        return result

    return wrapped


def half_of_a_write(pattern: str) -> Callable[[Countdown], None]:
    """In the middle of a `write` to a file that was opened under a path that `pattern` finds."""
    def install(countdown: Countdown) -> None:
        plain_open = io.open

        def patched(file: Any, mode: str = "r", *arguments: Any, **named: Any) -> Any:
            opened = plain_open(file, mode, *arguments, **named)
            if set(mode) & set("wax+") and re.search(pattern, _text(file)):
                plain_write = opened.write

                def write(content: Any) -> int:
                    if countdown.reached():
                        plain_write(content[: max(1, len(content) // 2)])
                        opened.flush()
                        die()
                    return plain_write(content)

                opened.write = write
            return opened

        io.open = builtins.open = patched

    return install


def half_of_torch_save(countdown: Countdown) -> None:
    """In the middle of one of DeepSpeed's files."""
    import torch

    plain = torch.save

    def save(content: Any, file: Any, *arguments: Any, **named: Any) -> None:
        if not countdown.reached():
            return plain(content, file, *arguments, **named)
        buffer = io.BytesIO()
        plain(content, buffer, *arguments, **named)
        half = buffer.getvalue()[: buffer.tell() // 2]
        if isinstance(file, (str, os.PathLike)):
            Path(file).write_bytes(half)
        else:
            file.write(half)
            file.flush()
        die()

    torch.save = save


def half_of_safetensors(countdown: Countdown) -> None:
    """In the middle of model.safetensors, which is written outside Python."""
    import safetensors.torch

    plain = safetensors.torch.serialize_file

    def serialize_file(tensors: Any, path: Any, *arguments: Any, **named: Any) -> None:
        plain(tensors, path, *arguments, **named)
        if countdown.reached():
            os.truncate(path, Path(path).stat().st_size // 2)
            die()

    safetensors.torch.serialize_file = serialize_file


def half_of_a_removal(pattern: str) -> Callable[[Countdown], None]:
    """After the second file of a folder that `shutil.rmtree` removes under a path that `pattern` finds."""
    def install(countdown: Countdown) -> None:
        removed: list[int] = []  # files removed so far, one entry for each folder that counts

        def hook(name: str, arguments: tuple) -> None:
            if name == "os.remove" and removed and countdown.left == 0:
                removed[-1] += 1
                if removed[-1] > 2:
                    die()

        plain = shutil.rmtree

        def rmtree(path: Any, *arguments: Any, **named: Any) -> None:
            if re.search(pattern, _text(path)) and Path(path).exists() and countdown.reached():
                removed.append(0)
            plain(path, *arguments, **named)

        sys.addaudithook(hook)
        shutil.rmtree = rmtree

    return install


def at_call(module: str, path: str) -> Callable[[Countdown], None]:
    """Where a function of ours is called."""
    def install(countdown: Countdown) -> None:
        owner: Any = sys.modules[module]
        *outer, name = path.split(".")
        for part in outer:
            owner = getattr(owner, part)
        plain = getattr(owner, name)

        def wrapped(*arguments: Any, **named: Any) -> Any:
            countdown.die_if_reached()
            return plain(*arguments, **named)

        setattr(owner, name, wrapped)

    return install


def at_held_out_batch(countdown: Countdown) -> None:
    """Inside validation, before the `count`-th batch of this rank."""
    import pretraining.validation

    plain = pretraining.validation.validation_batches

    def validation_batches(*arguments: Any) -> Iterator[Any]:
        for batch in plain(*arguments):
            countdown.die_if_reached()
            yield batch

    pretraining.validation.validation_batches = validation_batches


CHECKPOINT, EXPORT = r"checkpoints/step_\d+$", r"finetune/progress_[^/]*$"
POINTS: dict[str, Callable[[Countdown], None]] = {
    # Saving a checkpoint, in the order in which it happens.
    "partial checkpoint made": after(("mkdir",), r"checkpoints/\.partial_[^/]*$"),
    "half of a state file": half_of_torch_save,
    "before the manifest": before("open", r"checkpoints/.*manifest\.json$"),
    "half of the manifest": half_of_a_write(r"checkpoints/.*manifest\.json$"),
    "before the checkpoint's rename": before("os.rename", CHECKPOINT),
    "after the checkpoint's rename": after(("replace", "rename"), CHECKPOINT),
    "half of latest": half_of_a_write(r"checkpoints/[^/]*latest$"),
    "before latest's rename": before("os.rename", r"checkpoints/latest$"),
    "half of a checkpoint's removal": half_of_a_removal(r"checkpoints/[^/]*step_\d+"),
    # Between a marker's checkpoint and its export, and the export itself.
    "before the export": before("os.mkdir", r"finetune/\.partial_[^/]*$"),
    "half of the exported weights": half_of_safetensors,
    "before run_state.json": before("open", r"finetune/.*run_state\.json$"),
    "before the export's rename": before("os.rename", EXPORT),
    "after the export's rename": after(("replace", "rename"), EXPORT),
    "gathering weights for the export": at_call("pretraining.engine", "Engine.master_weights"),
    # The rest.
    "validation": at_held_out_batch,
    "half of a metrics line": half_of_a_write(r"metrics\.jsonl$"),
    "cutting the metrics": before("os.truncate", r"metrics\.jsonl$"),
    "moving an export aside": before("os.rename", r"finetune/superseded/[^/]*$"),
    "half of the summary": half_of_a_write(r"summary\.json$"),
    "before the summary's rename": before("os.rename", r"/summary\.json$"),
}


def install(point: str, count: int) -> None:
    POINTS[point](Countdown(count))


def slow_steps(pace: dict[str, float]) -> None:
    """Every optimizer step takes `seconds` longer; after `most` steps of this process the next never ends.

    Somebody who kills at a random moment then meets steps and saves more often than the start of Python, and no run gets far meanwhile.
    """
    from pretraining.trainer import Trainer

    plain, left = Trainer.step, Countdown(int(pace["most"]) + 1)

    def step(self: Trainer, *arguments: Any) -> None:
        time.sleep(1e6 if left.reached() else pace["seconds"])
        plain(self, *arguments)

    Trainer.step = step


def signal_after(order: dict[str, int]) -> None:
    """Send this process the signal `number` after the optimizer step `step`; with `rank`, on that rank alone."""
    from pretraining.trainer import Trainer

    plain = Trainer.step

    def step(self: Trainer, *arguments: Any) -> None:
        plain(self, *arguments)
        if self.progress.step == order["step"] and self.control.rank == order.get("rank", self.control.rank):
            os.kill(os.getpid(), order["number"])

    Trainer.step = step


def record_samples(folder: str) -> None:
    """Write, for every optimizer step, the step and the epoch, shard and rows of its samples to a file of this rank in `folder`.

    The loader reads ahead; its reads, one for each step, are used in the order in which they were made.
    """
    from pretraining.batches.samples import ShardReader
    from pretraining.trainer import Trainer

    plain_read, plain_step, reads = ShardReader.read, Trainer.step, deque()

    def read(self: ShardReader, segments: Any, *more: Any) -> Any:
        segments = list(segments)
        if self.shards[0].split == "train":
            reads.append([[segment.epoch, segment.shard, segment.rows.tolist()] for segment in segments])
        return plain_read(self, segments, *more)

    def step(self: Trainer, batches: list, *arguments: Any) -> None:
        with (Path(folder) / f"{self.control.rank}.jsonl").open("a") as file:
            file.writelines(json.dumps([self.progress.step, *segment]) + "\n" for segment in reads.popleft())
        plain_step(self, batches, *arguments)

    ShardReader.read, Trainer.step = read, step


def record_masks(folder: str) -> None:
    """Write epoch, shard, row, token ids as they are shown, masked positions and labels of every training sample that this rank reads."""
    from pretraining.batches.samples import ShardReader

    plain_read = ShardReader.read

    def read(self: ShardReader, segments: Any, *more: Any) -> Any:
        segments = list(segments)
        rows = plain_read(self, segments, *more)
        if self.shards[0].split == "train":
            samples = [(segment.epoch, segment.shard, row) for segment in segments for row in segment.rows.tolist()]
            with (Path(folder) / f"{os.getpid()}.jsonl").open("a") as file:
                for index, sample in enumerate(samples):
                    used = int(rows.predictions[index])
                    file.write(json.dumps([*sample, rows.input_ids[index].tolist(), rows.positions[index, :used].tolist(),
                                           rows.labels[index, :used].tolist()]) + "\n")
        return rows

    ShardReader.read = read


PATCHES: dict[str, Callable[[Any], None]] = {
    "slow_steps": slow_steps, "signal_after": signal_after, "record_samples": record_samples, "record_masks": record_masks,
}
