"""What is known of logits on their way to a file: who asked for them, what of them is there, and whether that belongs together. No torch.

Beside OUTPUT lies, while it is made, the folder OUTPUT.parts: `identity.json`, and one whole file of fp32 logits for every chunk of rows
that is done. Afterwards OUTPUT.json lies there, which says what OUTPUT was made from. Logits of two teachers, texts or settings are never
mixed, and nothing that took hours is replaced without --overwrite.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from dataset.errors import UserError
from dataset.files import file_hash, reason, remove_folder, whole_file, write_json
from evaluation.tasks.task import Task
from task_distillation.logits_file import LogitsChunk, logits_writer
from task_distillation.record import first_difference, other_making, read_record, write_record
from task_distillation.transfer_set import read_transfer_set, text_hash

IDENTITY = "identity.json"
MOST_CHUNK_ROWS, LEAST_CHUNK_ROWS, CHUNKS_OF_A_SMALL_SET = 20_000, 1_000, 16
Columns = tuple[list[str], ...]


@dataclass(frozen=True)
class Survey:
    """What a whole transfer set is: its rows, and a hash of all their texts in their order."""

    rows: int
    texts: str


def survey(path: Path, task: Task) -> Survey:
    """Read the whole file; UserError as from `read_transfer_set`, before a teacher is asked anything."""
    rows, digest = 0, xxhash.xxh3_128()
    for row in read_transfer_set(path, task):
        rows += 1
        digest.update(text_hash(row.texts).encode())
    return Survey(rows, digest.hexdigest())


def usual_chunk_rows(rows: int) -> int:
    """Rows of a chunk where none are asked for. It depends on the set alone, so that the batches do; a small set is cut into chunks for
    several processes all the same."""
    return min(MOST_CHUNK_ROWS, max(LEAST_CHUNK_ROWS, -(-rows // CHUNKS_OF_A_SMALL_SET)))


@dataclass(frozen=True)
class Chunk:
    """Rows `first` to `first` + `count` - 1 of a transfer set, with their texts by column."""

    first: int
    columns: Columns

    @property
    def count(self) -> int:
        return len(self.columns[0])


def chunks(path: Path, task: Task, chunk_rows: int) -> Iterator[Chunk]:
    """The transfer set in its order, `chunk_rows` rows at a time."""
    rows = read_transfer_set(path, task)
    first = 0
    while texts := [row.texts for row in islice(rows, chunk_rows)]:
        yield Chunk(first, tuple(list(column) for column in zip(*texts, strict=True)))
        first += len(texts)


class Labelling:
    """One file of logits with its parts and its record. `identity`: all that decides the logits, but for the machine."""

    def __init__(self, output: Path, task: Task, identity: dict[str, Any]) -> None:
        self.output, self.task, self.identity = output, task, identity
        self.parts = output.with_name(f"{output.name}.parts")

    def is_done(self) -> bool:
        """Whether the output is there, whole and what is wanted."""
        return self.output.is_file() and other_making(self.output, self.identity) is None

    def prepare(self, overwrite: bool) -> None:
        """Make room for what is wanted; UserError where something else is in its place and `overwrite` is not asked for."""
        there = read_record(self.parts / IDENTITY)
        goes_on = there is not None and there["identity"] == self.identity
        if not overwrite:
            if not goes_on and any(self.parts.glob("rows_*")):
                made = "what is not known" if there is None else first_difference(there["identity"], self.identity)
                raise UserError(f"{self.parts}: begun with {made}; another --output, or --overwrite to begin anew, would work")
            if self.output.exists() and not goes_on:
                made = other_making(self.output, self.identity)
                raise UserError(f"{self.output}: there already, {made}; another --output, or --overwrite, would work")
        try:
            if not goes_on and self.parts.exists():
                remove_folder(self.parts)
            self.parts.mkdir(exist_ok=True)
        except OSError as error:
            raise UserError(f"{self.parts}: cannot be made ({reason(error)}); another --output would work") from None

    def begin(self, computed: dict[str, str]) -> None:
        """Note how the parts are computed (device and precision); UserError where those that are there were computed otherwise."""
        path = self.parts / IDENTITY
        there = read_record(path)
        if there is None:
            write_json(path, {"identity": self.identity, "computed": computed})
        elif there.get("computed") != computed:
            old, new = (" in ".join(map(str, said.values())) for said in (there["computed"], computed))
            raise UserError(f"{self.parts}: begun on {old}, and this would be on {new}; the same --devices and --precision, or "
                            f"--overwrite with another --precision, would work")

    def part(self, first: int) -> Path:
        """The file of the chunk that begins with row `first`."""
        return self.parts / f"rows_{first:012d}.npy"

    def has(self, first: int, count: int) -> bool:
        """Whether the chunk of `count` rows from `first` on is done."""
        try:
            return np.load(self.part(first), mmap_mode="r").shape == (count, self.task.outputs)
        except (OSError, ValueError, EOFError):
            return False

    def merge(self, transfer_set: Path, size: Survey, chunk_rows: int, more: dict[str, Any]) -> None:
        """Write the output from all parts and then its record; the parts go.

        UserError where the transfer set is no longer what was labelled.
        """
        digest = xxhash.xxh3_128()
        with logits_writer(self.output, self.task) as writer:
            for chunk in chunks(transfer_set, self.task, chunk_rows):
                hashes = [text_hash(texts) for texts in zip(*chunk.columns, strict=True)]
                digest.update("".join(hashes).encode())
                if not self.has(chunk.first, chunk.count):
                    break
                writer.write(LogitsChunk(chunk.first, hashes, np.load(self.part(chunk.first))))
            if digest.hexdigest() != size.texts:
                raise UserError(f"{transfer_set}: changed while it was labelled; label it again with --overwrite")
        write_record(self.output, {"identity": self.identity, "xxh3": file_hash(self.output), **more})
        remove_folder(self.parts)


def save_part(path: Path, values: np.ndarray) -> None:
    """Write one part, whole or not at all."""
    try:
        with whole_file(path) as partial:
            np.save(partial, values)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({reason(error)}); the same command goes on when it can") from None
