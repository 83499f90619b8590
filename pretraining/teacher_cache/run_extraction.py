"""From a checked plan to files: device, precision, then the estimate or the extraction."""

import sys
import time
from dataclasses import replace

from tqdm import tqdm

from dataset.errors import UserError, is_printing_rank, working_alone
from dataset.shard_format import ShardInfo
from pretraining.console import clock_text
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
    try:
        precision, line = select_precision(plan.precision, device)
    except UserError as error:
        raise UserError(f"{plan.output_dir} would hold outputs in {plan.precision}, which this {device.type} cannot give; go on with it on "
                        "a device that can, or begin another --output_dir") if plan.follows else error from None
    for note in [*plan.notes, *([line] if line is not None else [])] if is_printing_rank() else ():
        print(f"note: {note}", file=sys.stderr)
    quiet_transformers()
    plan.header = replace(plan.header, precision=precision.name)
    waiting = [info for info in (plan.shards if plan.estimate else plan.own_shards) if not plan.is_done(info)]
    if plan.estimate and plan.launch.rank > 0:
        return
    extractor = Extractor(plan, precision, device)
    if plan.estimate:
        print(describe(plan, measure(extractor, (waiting or plan.shards)[0])))
        return
    with working_alone():
        estimate = measure(extractor, waiting[0], batches=1) if waiting else None
    if estimate is not None:
        check_space(plan, estimate)
    with working_alone():
        _extract(plan, extractor, waiting)


def _extract(plan: ExtractionPlan, extractor: Extractor, waiting: list[ShardInfo]) -> None:
    """Write the files of this rank, of which `waiting` are missing. Every rank tells what became of its share, and where no terminal has a
    bar, of each file; ended by a signal, how to go on."""
    own, rank, world = plan.own_shards, plan.launch.rank, plan.launch.world_size
    place = f"{plan.output_dir}{'' if world == 1 else f' (rank {rank} of {world})'}"
    has_bar, missing = sys.stderr.isatty(), sum(info.rows for info in waiting)
    started, written, samples, kept = time.monotonic(), 0, 0, len(own) - len(waiting)
    try:
        with tqdm(total=sum(info.rows for info in own), desc="samples", unit="samples", disable=not has_bar or rank > 0) as bar:
            for info in own:
                size = extract_shard(extractor, info, bar)
                if not size:
                    continue
                written, samples, kept = written + size, samples + info.rows, kept + 1
                if not has_bar:
                    hours = (time.monotonic() - started) / 3600 / samples * (missing - samples)
                    print(f"{place}: {kept} of {len(own)} files, {clock_text(hours)} left", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        again = "the same command without --overwrite goes on" if plan.overwrite else "the same command goes on"
        print(f"{place}: {again}; {kept} of {len(own)} files kept", file=sys.stderr, flush=True)
        raise
    rate = samples / max(time.monotonic() - started, 1e-9)
    told = f", {rate:.0f} samples/s, {written / samples:.0f} bytes a sample" if samples else ""
    print(f"{place}: {len(waiting)} files written of {samples} samples{told}; {len(own) - len(waiting)} kept", file=sys.stderr, flush=True)
