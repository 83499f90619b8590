"""Steps of micro-batches, prepared ahead of training by one thread.

Which samples a step uses is decided by its number alone, so the loader has no state worth saving. A thread and not processes: reading
HDF5 and NumPy's indexing release the interpreter lock, batches need no pickling, and nothing is left behind when a run is killed.

A rank reads its own samples of a step at once, so that each shard is visited once. Where the whole global batch decides (grouping by
length, smoothed masks) every rank looks at all of its samples first; a batch of at most two shards, as many as are kept in memory, is
still read once, a larger one twice.
"""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from pretraining.batches.order import GlobalOrder, Segment, at_places, longest_first
from pretraining.batches.samples import SampleRows, ShardReader
from pretraining.signals import Batch, StoredOutputs
from pretraining.teacher_cache.reader import TeacherRows


@dataclass(frozen=True)
class Share:
    """This rank's part of every global batch. Micro-batch m of the step is number m·world + rank of the global batch.

    With `group_by_length` the global batch is sorted by length before it is cut: micro-batches are the same for any number of ranks,
    and those that the ranks work on at the same time are neighbours.
    """

    rank: int
    world_size: int
    micro_batch: int
    accumulation: int
    group_by_length: bool = False

    @property
    def global_batch(self) -> int:
        return self.micro_batch * self.accumulation * self.world_size

    def places(self, widths: np.ndarray | None) -> np.ndarray:
        """Places in the global batch of this rank's samples, (accumulation, micro_batch); `widths` (B,) for grouping by length."""
        order = np.arange(self.global_batch) if widths is None else longest_first(widths)
        return order.reshape(self.accumulation, self.world_size, self.micro_batch)[:, self.rank]


def collate(rows: SampleRows, micro_index: int) -> Batch:
    """One micro-batch from its rows, cut to its longest sequence (rounded up to a multiple of 8, which matrix units like)."""
    width = min(rows.input_ids.shape[1], -(-int(rows.widths.max()) // 8) * 8)
    used = np.arange(rows.positions.shape[1]) < rows.predictions[:, None]
    row_of, slot_of = np.nonzero(used)
    masked_index = row_of * width + rows.positions[row_of, slot_of]
    next_sentence = rows.next_sentence_labels
    return Batch.make(
        input_ids=torch.from_numpy(rows.input_ids[:, :width].astype(np.int64)),
        token_type_ids=torch.from_numpy(rows.segment_ids[:, :width].astype(np.int64)),
        mask=torch.from_numpy(rows.mask[:, :width] != 0),
        masked_index=torch.from_numpy(masked_index.astype(np.int64)),
        labels=torch.from_numpy(rows.labels[row_of, slot_of].astype(np.int64)),
        next_sentence_labels=None if next_sentence is None else torch.from_numpy(next_sentence.astype(np.int64)),
        micro_index=micro_index,
        stored=None if rows.stored is None else _stored(rows.stored, row_of, slot_of),
    )


def _stored(rows: TeacherRows, row_of: np.ndarray, slot_of: np.ndarray) -> StoredOutputs:
    """Outputs of the masked positions at these rows and slots (M,), and of all real tokens."""
    hidden = {layer: torch.from_numpy(np.ascontiguousarray(states)) for layer, states in rows.hidden.items()}
    if rows.ids is None:
        return StoredOutputs(hidden=hidden)
    return StoredOutputs(
        torch.from_numpy(rows.ids[row_of, slot_of].astype(np.int32)), torch.from_numpy(rows.values[row_of, slot_of]),
        None if rows.rest is None else torch.from_numpy(rows.rest[row_of, slot_of]), hidden)


class RowReader(Protocol):
    """What gives the rows of segments of the global order; rows have `take(numbers)`, as `SampleRows` has.

    `looks_ahead`: whether `read` must be told what `survey` found in the whole global batch.
    """

    looks_ahead: bool

    def survey(self, segments: Iterable[Segment]) -> tuple[np.ndarray, np.ndarray | None]: ...

    def read(self, segments: Iterable[Segment], chosen: np.ndarray | None = None) -> Any: ...


class StepLoader:
    """Iterates over steps from sample `first_sample` on; each item is this rank's list of `accumulation` micro-batches.

    `ahead` steps are prepared by a thread (0: none). Errors of the thread are raised where the batch is asked for. `collate` makes a
    micro-batch of the reader's rows and of its number in the global batch.
    """

    def __init__(
        self, order: GlobalOrder, reader: RowReader, share: Share, first_sample: int, ahead: int, pin: bool,
        collate: Callable[[Any, int], Any] = collate,
    ) -> None:
        self.order, self.reader, self.share, self.pin, self.collate = order, reader, share, pin, collate
        self._position = first_sample
        self._queue: queue.Queue[list | BaseException] = queue.Queue(maxsize=max(1, ahead))
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._produce, name="loader", daemon=True) if ahead > 0 else None
        if self._thread is not None:
            self._thread.start()

    def __iter__(self) -> Iterator[list]:
        return self

    def __next__(self) -> list:
        if self._thread is None:
            return self._build_next()
        item = self._queue.get()
        if isinstance(item, BaseException):
            self._queue.put(item)  # the thread has ended: whoever asks again would wait for ever
            raise item
        return item

    def close(self) -> None:
        """Stop the thread; needed before the shards may be moved."""
        self._closing.set()
        if self._thread is not None:
            while self._thread.is_alive():
                try:
                    self._queue.get_nowait()
                except queue.Empty:
                    self._thread.join(timeout=0.05)

    def _build_next(self) -> list:
        share, start = self.share, self._position
        self._position += share.global_batch
        segments = list(self.order.segments(start, share.global_batch))
        widths = chosen = None
        if share.group_by_length or self.reader.looks_ahead:
            widths, chosen = self.reader.survey(segments)
        places = share.places(widths if share.group_by_length else None)
        own = np.sort(places, axis=None)
        rows = self.reader.read(at_places(segments, own), None if chosen is None else chosen[own])
        batches = []
        for micro_step, part in enumerate(np.searchsorted(own, places)):
            batch = self.collate(rows.take(part), micro_step * share.world_size + share.rank)
            batches.append(batch.pin_memory() if self.pin else batch)
        return batches

    def _produce(self) -> None:
        while not self._closing.is_set():
            try:
                item: list | BaseException = self._build_next()
            except BaseException as error:
                item = error
            while not self._closing.is_set():
                try:
                    self._queue.put(item, timeout=0.1)
                    break
                except queue.Full:
                    continue
            if isinstance(item, BaseException):
                return


def validation_batches(reader: ShardReader, samples: int | None, micro_batch: int, rank: int, world_size: int) -> Iterator[Batch]:
    """This rank's micro-batches of the fixed held-out set: every row of the shards, or `samples` rows evenly spread over them.

    The set and its cut into micro-batches do not depend on the number of ranks; ranks take turns.
    """
    sizes = [info.rows for info in reader.shards]
    total = sum(sizes)
    wanted = total if samples is None else min(samples, total)
    chosen = np.arange(wanted, dtype=np.int64) * total // wanted
    starts = np.concatenate([[0], np.cumsum(sizes)])
    for index, first in enumerate(range(0, wanted, micro_batch)):
        if index % world_size != rank:
            continue
        part = chosen[first : first + micro_batch]
        shard_of = np.searchsorted(starts, part, side="right") - 1
        segments = [Segment(0, int(shard), part[shard_of == shard] - starts[shard]) for shard in np.unique(shard_of)]
        yield collate(reader.read(segments), index)
