"""Running a teacher once over sample shards, and one file of its outputs for each.

Ranks need not talk: shard i is rank i mod world's, a file is written by one process, and a file that is there and belongs is kept, so the
same command goes on where a killed one stopped. Rows are grouped by length inside a window of a shard, so that little is padding, and a
batch of short ones has more of them. Three things go on at a time: a thread reads the next batch, the device computes, a thread packs and
writes what was computed.
"""

import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from tqdm import tqdm

from dataset.errors import UserError
from dataset.masking import generator
from dataset.shard_format import ShardInfo
from pretraining.batches.loader import collate
from pretraining.batches.order import Segment
from pretraining.batches.samples import SampleRows, ShardReader
from pretraining.models.loading import BuiltModel, load_model
from pretraining.models.teacher import Teacher
from pretraining.objectives.truncated import keep_largest
from pretraining.precision import Precision
from pretraining.signals import Batch, ModelNeeds, Signals
from pretraining.teacher_cache.drawing import draw
from pretraining.teacher_cache.extraction_plan import ExtractionPlan, content_hash, row_lengths
from pretraining.teacher_cache.format import AGAIN, MASKED, NO_TARGETS, SAMPLED, TOPK, CacheHeader, is_finite, is_number, read_header
from pretraining.teacher_cache.writer import RowOutputs, cache_writer, window_rows

AHEAD, WAITING = 4, 4  # batches read ahead, and batches of results that wait for the writer
_LARGEST_HALF = 65504.0


class Extractor:
    """The teacher on its device, and what of it is stored."""

    def __init__(self, plan: ExtractionPlan, precision: Precision, device: torch.device) -> None:
        self.plan, self.device = plan, device
        header, folder = plan.header, plan.teacher
        self._needs = ModelNeeds(hidden=frozenset(header.hidden_layers), logits=header.kind != NO_TARGETS)
        built = BuiltModel(*load_model(folder.path, "--teacher_path", folder.architecture))
        self._teacher = Teacher(built, folder.architecture, self._needs, precision, device)

    def reader(self, info: ShardInfo) -> ShardReader:
        """The shard's text as the teacher reads it: with the masks that are stored, or without any."""
        plan = self.plan
        return ShardReader([info], plan.teacher.config["vocab_size"], None, None, causal=plan.header.input != MASKED)

    def run_teacher(self, batch: Batch) -> Signals:
        """The forward pass on a batch that is on the device."""
        return self._teacher(batch, self._needs)

    def outputs(self, rows: np.ndarray, samples: SampleRows, header: CacheHeader) -> "PendingOutputs":
        """Start to compute what is stored of the shard's `rows` (n,)."""
        batch = collate(samples, 0)
        slots = np.nonzero(np.arange(samples.positions.shape[1]) < samples.predictions[:, None])
        on_device = batch.to(self.device)
        signals = self.run_teacher(on_device)
        tensors: dict[str, torch.Tensor] = {}
        if header.kind == TOPK:
            targets = keep_largest(signals.logits, header.k)
            tensors = {"ids": targets.ids.int(), "values": targets.logprobs.half(), "rest": targets.rest.half()}
        elif header.kind != NO_TARGETS:
            uniform = _uniform(header, rows, samples.positions.shape[1])[slots]
            ids, weights = draw(signals.logits, torch.from_numpy(uniform).to(self.device), header.sampling_temperature)
            tensors = {"ids": ids.int(), "values": weights.half()}
        for layer in header.hidden_layers:
            states = signals.hidden[layer].flatten(0, 1).index_select(0, on_device.token_index)
            tensors[f"hidden_{layer}"] = states.half()
        return PendingOutputs(rows, *slots, tensors, self.device, header)


class PendingOutputs:
    """Results on their way from the device."""

    def __init__(self, rows: np.ndarray, row_of: np.ndarray, slot_of: np.ndarray, tensors: dict[str, torch.Tensor],
                 device: torch.device, header: CacheHeader) -> None:
        self._place, self._header = (rows, row_of, slot_of), header
        self._event = None
        if device.type == "cuda":
            pinned = {name: torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True) for name, tensor in tensors.items()}
            for name, tensor in tensors.items():
                pinned[name].copy_(tensor, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()
            tensors = pinned
        self._tensors = tensors

    def get(self) -> RowOutputs:
        """Wait for them; UserError where they are no numbers, or half precision cannot hold them."""
        if self._event is not None:
            self._event.synchronize()
        arrays = {name: tensor.numpy() for name, tensor in self._tensors.items()}
        hidden = {int(name.rpartition("_")[2]): array for name, array in arrays.items() if name.startswith("hidden_")}
        for layer, states in hidden.items():
            if not is_finite(states):
                raise UserError(f"--hidden_layers {layer}: half precision ends at {_LARGEST_HALF:.0f}, and a hidden state of this layer "
                                f"for {self._header.shard} is beyond it or no number; other layers may work")
        values, rest = arrays.get("values"), arrays.get("rest")
        if self._header.kind == SAMPLED and not is_finite(values):
            raise UserError(f"--sampled: a weight for {self._header.shard} is infinite or no number; the teacher gives no numbers there, "
                            f"or --sampling_temperature {self._header.sampling_temperature:g} is too far from 1")
        if self._header.kind == TOPK and not (is_number(values) and is_number(rest)):
            raise UserError(f"--truncation_factor: the teacher's log-probabilities for {self._header.shard} are no numbers; its weights "
                            "may be damaged, or --precision fp32 may help")
        return RowOutputs(*self._place, arrays.get("ids"), values, rest, hidden)


def batches_of(lengths: np.ndarray, first: int, stop: int, tokens: int) -> Iterator[np.ndarray]:
    """The rows `first` to before `stop`, the longest first, in batches of about `tokens` tokens with what is padded."""
    rows = first + np.argsort(-lengths[first:stop], kind="stable")
    while len(rows):
        width = -(-int(lengths[rows[0]]) // 8) * 8
        count = max(1, tokens // width)
        yield np.sort(rows[:count])
        rows = rows[count:]


def extract_shard(extractor: Extractor, info: ShardInfo, bar: tqdm) -> int:
    """Write the file for one shard; returns its bytes, 0 where it was there. UserError for what cannot be read or written."""
    plan = extractor.plan
    path, shard_hash = plan.path(info), content_hash(info, plan.header.input)
    if plan.is_done(info):
        if read_header(path).shard_hash != shard_hash:
            raise UserError(f"{path}: its shard was another one when it was made; {AGAIN}")
        bar.update(info.rows)
        return 0
    header, lengths = plan.header_of(info, shard_hash), row_lengths(info)
    reader, step = extractor.reader(info), window_rows(header)
    windows = [(first, min(first + step, info.rows)) for first in range(0, info.rows, step)]
    writer = _Writing(lambda results: _write(plan, info, header, lengths, results))
    try:
        for first, stop in windows:
            writer.put((first, stop))
            for rows, samples in _read_ahead(reader, batches_of(lengths, first, stop, plan.batch_size * info.max_seq_length)):
                writer.put(extractor.outputs(rows, samples, header))
                bar.update(len(rows))
        writer.put(None)
        writer.finish()
    except BaseException:
        writer.abandon()
        raise
    return path.stat().st_size


def _write(plan: ExtractionPlan, info: ShardInfo, header: CacheHeader, lengths: np.ndarray, results: queue.Queue) -> None:
    """Take (first, stop) of a window, its outputs, the next window, ..., None, and write the file."""
    with cache_writer(plan.path(info), header, lengths) as writer:
        is_open = False
        while (item := results.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            if isinstance(item, tuple):
                if is_open:
                    writer.end()
                writer.begin(*item)
                is_open = True
            else:
                writer.add(item.get())
        writer.end()


class _Abandoned(Exception):
    """The file will not be finished."""


class _Writing:
    """A thread that writes what is put; its error is raised where the next thing is put, or at the end."""

    def __init__(self, work: object) -> None:
        self._results: queue.Queue = queue.Queue(maxsize=WAITING)
        self._error: BaseException | None = None

        def run() -> None:
            try:
                work(self._results)
            except BaseException as error:
                self._error = error

        self._thread = threading.Thread(target=run, name="writer", daemon=True)
        self._thread.start()

    def put(self, item: object) -> None:
        while self._thread.is_alive():
            try:
                self._results.put(item, timeout=0.1)
                return
            except queue.Full:
                continue
        self.finish()

    def finish(self) -> None:
        """Wait for the end."""
        self._thread.join()
        if self._error is not None:
            raise self._error

    def abandon(self) -> None:
        """End the thread without a file."""
        while self._thread.is_alive():
            try:
                self._results.put(_Abandoned(), timeout=0.1)
                break
            except queue.Full:
                continue
        self._thread.join()


def _read_ahead(reader: ShardReader, batches: Iterator[np.ndarray]) -> Iterator[tuple[np.ndarray, SampleRows]]:
    """(rows, their samples), read by a thread before they are asked for."""
    with ThreadPoolExecutor(1, thread_name_prefix="reader") as pool:
        waiting = []
        try:
            for rows in batches:
                waiting.append((rows, pool.submit(reader.read, [Segment(0, 0, rows)])))
                if len(waiting) > AHEAD:
                    rows, samples = waiting.pop(0)
                    yield rows, samples.result()
            while waiting:
                rows, samples = waiting.pop(0)
                yield rows, samples.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _uniform(header: CacheHeader, rows: np.ndarray, positions: int) -> np.ndarray:
    """(n, P, N) float64 in [0, 1) that depend on the seed, the shard and the row alone."""
    shard = int(header.shard_hash[:15], 16)
    return np.stack([generator((header.seed, shard, int(row))).random((positions, header.k)) for row in rows])
