"""How large and how long an extraction will be, from a few batches that are computed, packed and thrown away.

Batches are drawn evenly from one shard, so that their lengths are its lengths; what corpora differ in from shard to shard is not seen, nor
what else will run on the machine.
"""

import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
import torch

from dataset.errors import UserError
from dataset.shard_format import ShardInfo
from pretraining.batches.order import Segment
from pretraining.console import clock_text
from pretraining.teacher_cache.extraction import Extractor
from pretraining.teacher_cache.extraction_plan import ExtractionPlan, row_lengths
from pretraining.teacher_cache.format import samples_hash
from pretraining.teacher_cache.writer import CacheWriter

BATCHES = 4
SAFETY = 1.05  # files of other shards may be a little larger


@dataclass(frozen=True)
class Estimate:
    """Of one sample, on one rank."""

    bytes_per_sample: float
    seconds_per_sample: float


def measure(extractor: Extractor, info: ShardInfo, batches: int = BATCHES) -> Estimate:
    """Run some batches of a shard, after one that warms up, and write what comes of them to a file in memory."""
    plan, reader, lengths = extractor.plan, extractor.reader(info), row_lengths(info)
    count = min(info.rows, batches * plan.batch_size)
    rows = np.arange(count) * info.rows // count
    rows = rows[np.argsort(-lengths[rows], kind="stable")]
    header = plan.header_of(info, samples_hash({}, plan.header.input))
    groups = [np.sort(group) for group in np.array_split(rows, min(batches, count))]
    extractor.outputs(groups[0], reader.read([Segment(0, 0, groups[0])]), header).get()
    started = time.perf_counter()
    results = [extractor.outputs(group, reader.read([Segment(0, 0, group)]), header) for group in groups]
    outputs = [result.get() for result in results]
    if extractor.device.type == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    # The chosen rows as if they were a shard of their own.
    place = np.zeros(info.rows, np.int64)
    place[np.sort(rows)] = np.arange(count)
    with h5py.File("estimate", "w", driver="core", backing_store=False, block_size=512) as file:
        writer = CacheWriter(plan.path(info), file, replace(header, rows=count), lengths[np.sort(rows)])
        writer.begin(0, count)
        for one in outputs:
            writer.add(replace(one, rows=place[one.rows]))
        writer.end()
        file.flush()
        size = file.id.get_filesize()
    return Estimate(size / count, seconds / count)


def size_text(size: float) -> str:
    """196_400 bytes -> 196 KB; in powers of 1000."""
    power = next((power for power in (4, 3, 2, 1) if size >= 0.9995 * 1000**power), 0)
    return f"{size / 1000**power:.3g} {('bytes', 'KB', 'MB', 'GB', 'TB')[power]}"


def check_space(plan: ExtractionPlan, estimate: Estimate) -> None:
    """UserError where the files that are missing, of all ranks, will not fit on the disk."""
    pending = sum(info.rows for info in plan.shards if not plan.is_done(info))
    needed, (place, free) = pending * estimate.bytes_per_sample * SAFETY, _free(plan)
    if free < needed:
        raise UserError(f"--output_dir: {size_text(free)} free at {place}, the outputs of {pending} samples need about "
                        f"{size_text(needed)}; free some, choose another disk, or give a smaller --truncation_factor or fewer "
                        "--hidden_layers")


def describe(plan: ExtractionPlan, estimate: Estimate) -> str:
    """Size and time of all that is missing, in one line."""
    waiting = [info for info in plan.shards if not plan.is_done(info)]
    samples, world = sum(info.rows for info in waiting), plan.launch.world_size
    share = max((sum(info.rows for info in waiting if info in plan.shards[rank::world]) for rank in range(world)), default=0)
    size, (place, free) = samples * estimate.bytes_per_sample, _free(plan)
    return (f"{len(waiting)} of {len(plan.shards)} files to write, {samples} samples: about {size_text(size)} ("
            f"{estimate.bytes_per_sample:.0f} bytes a sample; {size_text(free)} free at {place}), if the machine is free about "
            f"{clock_text(share * estimate.seconds_per_sample / 3600)} on {world} rank(s) at {1 / estimate.seconds_per_sample:.0f} "
            "samples/s each")


def _free(plan: ExtractionPlan) -> tuple[Path, int]:
    place = next(path for path in (plan.output_dir.absolute(), *plan.output_dir.absolute().parents) if path.exists())
    return place, shutil.disk_usage(place).free
