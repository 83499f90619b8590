"""From a checked plan to files: device, precision, then the estimate or the extraction."""

import sys
import time
from dataclasses import replace

from tqdm import tqdm

from dataset.errors import is_printing_rank
from pretraining.engine import select_device
from pretraining.memory import keep_freed_memory
from pretraining.models.loading import quiet_transformers
from pretraining.precision import select_precision
from pretraining.teacher_cache.estimate import check_space, describe, measure
from pretraining.teacher_cache.extraction import Extractor, extract_shard
from pretraining.teacher_cache.extraction_plan import ExtractionPlan


def run(plan: ExtractionPlan) -> None:
    """Print the estimate, or write the files of this rank. UserError for what device or disk cannot do."""
    device = select_device(plan.launch)
    if device.type == "cpu":
        keep_freed_memory()
    precision, line = select_precision(plan.precision, device)
    if line is not None and is_printing_rank():
        print(f"note: {line}", file=sys.stderr)
    quiet_transformers()
    plan.header = replace(plan.header, precision=precision.name)
    waiting = [info for info in (plan.shards if plan.estimate else plan.own_shards) if not plan.is_done(info)]
    if plan.estimate and plan.launch.rank > 0:
        return
    extractor = Extractor(plan, precision, device)
    if plan.estimate:
        print(describe(plan, measure(extractor, (waiting or plan.shards)[0])))
        return
    if waiting:
        check_space(plan, measure(extractor, waiting[0], batches=1))
    _extract(plan, extractor, len(waiting))


def _extract(plan: ExtractionPlan, extractor: Extractor, waiting: int) -> None:
    """Write the files of this rank; rank 0 tells what became of its share."""
    own, rank, world = plan.own_shards, plan.launch.rank, plan.launch.world_size
    share = "" if world == 1 else f" (rank 0 of {world})"
    started, written, samples = time.monotonic(), 0, 0
    with tqdm(total=sum(info.rows for info in own), desc=f"samples{share}", unit="samples", disable=None if rank == 0 else True) as bar:
        for info in own:
            size = extract_shard(extractor, info, bar)
            written, samples = written + size, samples + info.rows * (size > 0)
    if rank == 0:
        rate = samples / max(time.monotonic() - started, 1e-9)
        told = f", {rate:.0f} samples/s, {written / samples:.0f} bytes a sample" if samples else ""
        print(f"{plan.output_dir}{share}: {waiting} files written of {samples} samples{told}; {len(own) - waiting} kept", file=sys.stderr)
