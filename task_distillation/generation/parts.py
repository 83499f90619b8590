"""Chunks of drawn texts as files, made by several processes; a killed run goes on with the chunks that are missing.

A chunk is decided by the seed, its number and the model alone, so neither the number of processes nor a kill changes a byte. On a CPU
every process computes with one thread, because a matrix product's last bit may depend on the number of threads.
"""

import json
import time
from collections import deque
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from dataset.errors import UserError
from dataset.files import reason, write_json
from dataset.jobs import ProcessExecutor
from dataset.progress import progress
from evaluation.fine_tuning.heads import quiet_transformers
from evaluation.fine_tuning.repeatable import repeatable
from pretraining.precision import Precision
from task_distillation.devices import one_thread
from task_distillation.generation.flags import SamplingSettings, TrainingSettings
from task_distillation.generation.language_model import LanguageModel, load
from task_distillation.generation.prefixes import Prefixes
from task_distillation.generation.sampling import draw_chunk
from task_distillation.record import check_same, read_record

SETTINGS = "settings.json"


@dataclass(frozen=True)
class Source:
    """All that a process needs to draw. `ends`: ends of text of a row. `precision`: fp32 or bf16, of weights and products."""

    language_model: Path
    prefixes: Path
    settings: SamplingSettings
    ends: int
    precision: str


def draw_parts(source: Source, identity: dict[str, Any], folder: Path, chunks: int, devices: list[str]) -> tuple[int, float]:
    """Draw the chunks 0 to `chunks` - 1 that `folder` has not yet, one process for each device; (finished texts, seconds).

    `identity` is kept beside them. UserError where the folder holds parts of another, for what `draw_chunk` raises and for a process that
    was killed; what others have drawn stays.
    """
    _claim(folder, identity)
    missing = deque(number for number in range(chunks) if not part_path(folder, number).is_file())
    size, begun = source.settings.sample_batch_size, len(missing)
    started = time.perf_counter()
    with progress(total=chunks * size, initial=(chunks - len(missing)) * size, desc="drawing", unit=" samples") as bar:
        if len(devices) == 1:
            try:
                while missing:
                    number = missing.popleft()
                    _draw(source, part_path(folder, number), number, devices[0])
                    bar.update(size)
            finally:
                _load.cache_clear()  # the folder may hold another model at the next call
        else:
            _draw_in_processes(source, folder, missing, devices, bar)
    return begun * size, time.perf_counter() - started


def part_path(folder: Path, number: int) -> Path:
    return folder / f"part_{number:06d}.json"


def read_part(path: Path) -> dict[str, Any]:
    """{"texts": rows of 1 or 2 texts, "drawn", "unfinished": counts}; UserError for a file that is not one."""
    try:
        part = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(part["texts"], list) and isinstance(part["drawn"], int) and isinstance(part["unfinished"], int):
            return part
    except OSError as error:
        raise UserError(f"{path}: {reason(error)}; a folder that can be read would work") from None
    except (ValueError, KeyError, TypeError):
        pass
    raise UserError(f"{path}: not what this command wrote; remove it, and the next run draws it again")


def _claim(folder: Path, identity: dict[str, Any]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        there = read_record(folder / SETTINGS)
        if there is None:
            write_json(folder / SETTINGS, {"identity": identity})
        else:
            check_same(folder / SETTINGS, there["identity"], identity)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({reason(error)}); another --output_dir would work") from None


def _draw_in_processes(source: Source, folder: Path, missing: deque[int], devices: list[str], bar: tqdm) -> None:
    with ExitStack() as stack:
        free = deque((stack.enter_context(ProcessExecutor(1)), device) for device in devices[: len(missing)])
        running: dict[Future, tuple[ProcessExecutor, str]] = {}
        while missing or running:
            while missing and free:
                executor, device = free.popleft()
                number = missing.popleft()
                running[executor.submit(_draw, source, part_path(folder, number), number, device)] = executor, device
            ready, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in ready:
                free.append(running.pop(future))
                try:
                    future.result()
                except BrokenExecutor:
                    raise UserError("a process was killed (out of memory?); fewer --devices, or a smaller --sample_batch_size, may work; "
                                    "what was drawn is kept") from None
                bar.update(source.settings.sample_batch_size)


def _draw(source: Source, path: Path, number: int, device: str) -> None:
    place = torch.device(device)
    try:
        with one_thread() if place.type == "cpu" else nullcontext(), repeatable(source.settings.seed, place), quiet_transformers():
            lm, prefixes = _load(source, device)
            chunk = draw_chunk(lm, prefixes, source.settings, source.ends, number)
        texts = [lm.codec.sides(sequence) for sequence in chunk.sequences]
        write_json(path, {"drawn": chunk.drawn, "unfinished": chunk.unfinished, "texts": texts})
    except torch.OutOfMemoryError:
        raise UserError(f"{device}: out of memory; a smaller --sample_batch_size would work; what was drawn is kept") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({reason(error)}); what was drawn is kept") from None


@lru_cache(maxsize=1)
def _load(source: Source, device: str) -> tuple[LanguageModel, Prefixes]:
    lm = load(source.language_model, TrainingSettings(max_length=2), source.settings)
    lm.model.to(device=device, dtype=Precision(source.precision).dtype)
    return lm, Prefixes.read(source.prefixes)
