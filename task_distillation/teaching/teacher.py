"""A fine-tuned teacher as a function from texts to raw logits, on one device: what one process of `label` does.

Rows are cut into batches by length within their chunk, so a chunk's logits depend on the chunk and the settings alone, not on which process
computes it or on what came before. On a CPU each process computes with one thread: with another number of threads a matrix product may sum
in another order, and several processes of one thread do more than one process of several.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dataset.errors import UserError
from evaluation.fine_tuning.heads import load_with_own_head
from evaluation.fine_tuning.network import Network
from evaluation.fine_tuning.repeatable import repeatable
from evaluation.fine_tuning.settings import FineTuningSettings
from evaluation.fine_tuning.tokens import Tokenizer
from evaluation.tasks.task import Examples, Task
from pretraining.precision import Precision
from task_distillation.devices import one_thread
from task_distillation.teaching.parts import Chunk, save_part
from task_distillation.transfer_set import MASK_WORD, SHOWN

SEED = 0
"""Nothing is drawn."""


@dataclass(frozen=True)
class Teacher:
    """A model folder as a teacher of `task`; `order` as from `read_head`; `device` and `precision` by name."""

    folder: Path
    task: Task
    order: tuple[int, ...]
    settings: FineTuningSettings
    device: str
    precision: str


class _Tokenizer(Tokenizer):
    """Remembers nothing: no chunk comes twice, and memory is to hold one."""

    def cached(self, what: list, make: Callable[[], Any]) -> Any:
        return make()


@lru_cache(maxsize=1)
def _load(teacher: Teacher) -> Network:
    model, inner = load_with_own_head(teacher.folder, teacher.task)
    tokenizer = _Tokenizer(inner, model, str(teacher.folder))
    return Network(model, tokenizer, teacher.task.kind, teacher.settings, torch.device(teacher.device), Precision(teacher.precision),
                   list(teacher.order))


def forget() -> None:
    """Give back the memory of a teacher that this process loaded."""
    _load.cache_clear()


def ask(teacher: Teacher, chunk: Chunk) -> np.ndarray:
    """fp32 (rows, outputs): the raw logits of every row in the order of the task's classes.

    UserError for a row whose logits are not all finite, and where a batch does not fit into the GPU's memory.
    """
    place = torch.device(teacher.device)
    try:
        with one_thread(), repeatable(SEED, place):
            network = _load(teacher)
            tokens = network.tokenizer.encode(Examples(_with_own_masks(chunk.columns, network), None), teacher.settings.max_seq_length)
            values = network.predict(tokens)
    except torch.OutOfMemoryError:
        raise UserError(f"{place}: out of memory; a smaller --per_device_eval_batch_size would work") from None
    wrong = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(wrong):
        at = int(wrong[0])
        text = " | ".join(column[at] for column in chunk.columns)
        raise UserError(f"the teacher {teacher.folder}: logits of row {chunk.first + at} ({text[:SHOWN]!r}) are not finite in "
                        f"{teacher.precision}; another teacher, or --precision fp32, would work")
    return values


def _with_own_masks(columns: tuple[list[str], ...], network: Network) -> tuple[list[str], ...]:
    """The texts with the teacher's own mask where `augment` wrote [MASK]: others than BERT spell it otherwise, and would read letters."""
    own = network.tokenizer.inner.mask_token or network.tokenizer.inner.unk_token
    if own in (None, MASK_WORD):
        return columns
    return tuple([text.replace(MASK_WORD, own) for text in column] for column in columns)


def label_chunk(teacher: Teacher, chunk: Chunk, path: Path) -> int:
    """Write the logits of `chunk` to `path`; its number of rows."""
    save_part(path, ask(teacher, chunk))
    return chunk.count
