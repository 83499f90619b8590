"""DeepSpeed's files on their way to the disk: hashed while they are written, flushed by the rank that wrote them, errors kept back.

Inside DeepSpeed's `save_checkpoint` the ranks wait for one another, so an exception on one of them would leave the others waiting for
ever. Here a rank that cannot write remembers why and goes on, and tells the others afterwards. torch.save writes through `_HashedFile`
and not to a path: its own writer answers a full disk with anything from a RuntimeError to the end of the process.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch
import xxhash
from deepspeed.runtime.checkpoint_engine import TorchCheckpointEngine

from dataset.files import reason
from pretraining.engine import Written

_BUFFER = 1 << 20  # small pieces are joined; tensors are larger and are handed on as they are


class CheckpointWriter(TorchCheckpointEngine):
    """DeepSpeed's own format and reader behind a writer that never raises; `written` tells what came of it."""

    def __init__(self) -> None:
        super().__init__()
        self.written = Written()

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        try:
            super().makedirs(path, exist_ok)
        except OSError as error:
            self._failed(error)

    def save(self, state_dict: dict[str, Any], path: str) -> None:
        if self.written.error is not None:
            return
        try:
            with Path(path).open("wb", buffering=_BUFFER) as raw:
                file = _HashedFile(raw)
                torch.save(state_dict, file)
                file.finish()
        except (OSError, RuntimeError, MemoryError) as error:
            self._failed(error)
        else:
            self.written.files[path] = (file.bytes, file.hash.hexdigest())

    def _failed(self, error: Exception) -> None:
        if self.written.error is None:
            self.written.error = reason(error)


class _HashedFile:
    """What torch.save needs of a file. `write` and `flush` keep an OSError back, as no exception can pass torch's writer."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.hash, self.bytes = file, xxhash.xxh3_128(), 0
        self._error: OSError | None = None

    def write(self, data: bytes | memoryview) -> int:
        size = memoryview(data).nbytes
        self.hash.update(data)
        self.bytes += size
        self._try(self._file.write, data)
        return size

    def flush(self) -> None:
        self._try(self._file.flush)

    def finish(self) -> None:
        """Wait until all of it is on the disk; raises the first error that was kept back."""
        self.flush()
        self._try(os.fsync, self._file.fileno())
        if self._error is not None:
            raise self._error

    def _try(self, call: Callable[..., Any], *arguments: Any) -> None:
        if self._error is None:
            try:
                call(*arguments)
            except OSError as error:
                self._error = error
