"""Shards as files: their size against the originals' layout, the time to read them whole, and the time to a first batch."""

import time
from functools import partial
from pathlib import Path

import h5py
import numpy as np

from benchmarks.dataset.commands import Row, best_of, in_fresh_process, run, script
from benchmarks.dataset.inputs import Inputs, bytes_below, make_shard, write_articles
from benchmarks.dataset.reference import write_originals_layout
from dataset.shard_format import read_info

SAMPLES = 10_000
LENGTHS = (128, 512)
BATCH = 32
THEIRS = "originals' layout"


def size_rows(inputs: Inputs) -> list[Row]:
    """The same samples, masked, as our command writes them and as the originals lay them out."""
    ours, originals = inputs.work / "size_ours", inputs.work / "size_originals.hdf5"
    run(script("generate_samples", "--dir", inputs.shard_folder, "-o", ours, "--vocab_file", inputs.vocab_file, "--max_seq_length", 128,
               "--n_processes", 1))
    shard = next(ours.glob("*.hdf5"))
    arrays = _read_whole(shard)
    write_originals_layout(originals, arrays)
    files = {THEIRS: originals, "ours": shard}
    sizes = {name: path.stat().st_size for name, path in files.items()}
    seconds = {name: best_of(partial(_read_whole, path), inputs.rounds) for name, path in files.items()}
    plain = sum(values.nbytes for values in arrays.values())
    samples = len(arrays["input_ids"])
    return [
        *(Row("size", name, sizes[name] / samples, "bytes a sample", note=f"{samples} samples of 128, {plain / samples:.0f} in memory")
          for name in files),
        Row("size", f"ours of {THEIRS}", sizes["ours"] / sizes[THEIRS], "times", asked="at most 0.8"),
        *(Row("size", f"reading {name} whole", samples / seconds[name], "samples/s", seconds[THEIRS] / seconds[name],
              note=f"{plain / 1e6 / seconds[name]:.0f} MB/s of arrays") for name in files),
    ]


def opening_rows(inputs: Inputs) -> list[Row]:
    """From a path to the first batch, with the trainer's own loader, for a shard of about 10,000 samples."""
    rows = []
    for length in LENGTHS:
        shard = _shard_of(inputs, length)
        found = [in_fresh_process(first_batch_seconds, shard) for _ in range(inputs.rounds)]
        samples = read_info(shard).rows
        note = f"{samples} samples, batch of {BATCH}, best of {inputs.rounds} new processes"
        for place, name in enumerate(("first in its process", "again in that process")):
            rows.append(Row("opening", f"L = {length}, {name}", 1000 * min(seconds[place] for seconds in found), "ms",
                            asked="under 100", note=note))
    return rows


def first_batch_seconds(shard: Path) -> tuple[float, float]:
    """Seconds from the path of a shard to a batch of it as tensors, for the first and the second time in this process."""
    from pretraining.batches.loader import Share, StepLoader
    from pretraining.batches.order import GlobalOrder
    from pretraining.batches.samples import ShardReader

    def first_batch() -> None:
        info = read_info(shard)
        reader = ShardReader([info], int(info.attributes["vocab_size"]), info.predictions, None)
        loader = StepLoader(GlobalOrder(0, [info.rows]), reader, Share(0, 1, BATCH, 1), first_sample=0, ahead=0, pin=False)
        next(loader)

    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        first_batch()
        seconds.append(time.perf_counter() - started)
    return seconds[0], seconds[1]


def _shard_of(inputs: Inputs, length: int) -> Path:
    """A shard of about SAMPLES samples: the text is repeated as often as a first try on it as it is says."""
    counted = read_info(_samples_of(inputs, None, length, "try")).rows
    return _samples_of(inputs, bytes_below(inputs.article_folder) * SAMPLES // counted, length, "full")


def _samples_of(inputs: Inputs, size: int | None, length: int, name: str) -> Path:
    """A shard of the articles, repeated or cut to `size` bytes where one is given."""
    work = inputs.work / f"opening_{length}_{name}"
    shards = make_shard(write_articles(work / "articles", inputs.articles, size), work / "shards")
    run(script("generate_samples", "--dir", shards, "-o", work / "samples", "--vocab_file", inputs.vocab_file, "--max_seq_length", length,
               "--max_predictions_per_seq", round(0.15 * length) + 1, "--n_processes", 1))
    return next((work / "samples").glob("*.hdf5"))


def _read_whole(path: Path) -> dict[str, np.ndarray]:
    with h5py.File(path, "r") as file:
        return {key: file[key][:] for key in file}
