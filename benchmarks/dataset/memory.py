"""Peak memory of process_data, shard_data and generate_samples at several sizes of text: it must not grow with the text.

The text is repeated as it is, with the same number of shards for every size, so that a single shard grows with the corpus as well.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from benchmarks.dataset.commands import Command, Peak, Row, peak_memory, script
from benchmarks.dataset.inputs import Inputs, write_articles

WORKERS = 2
SPLIT = ("--num_train_shards", 8, "--num_test_shards", 2, "--frac_test", 0.1)


def memory_rows(inputs: Inputs, sizes: Sequence[int], input_type: str) -> list[Row]:
    """`sizes` in MB, ascending; `input_type`: the --type that process_data reads the text with."""
    peaks: dict[str, list[Peak]] = {}
    for size in sizes:
        work = inputs.work / f"memory_{size}"
        source = next(write_articles(work / "text", inputs.articles, size * 10**6).iterdir())
        for name, command in _commands(source, work, inputs.vocab_file, input_type).items():
            peaks.setdefault(name, []).append(peak_memory(command))
        shutil.rmtree(work)
    rows = []
    for name, found in peaks.items():
        for kind, values in (("largest process", [peak.largest for peak in found]), ("all processes", [peak.total for peak in found])):
            rows += [Row("memory", f"{name} of {size} MB, {kind}", value, "MB", asked="under 1000")
                     for size, value in zip(sizes, values, strict=True)]
            if len(sizes) > 1:
                rows.append(Row("memory", f"{name}, {kind}, {sizes[-1]} MB of text against {sizes[0]}", values[-1] / values[0], "times",
                                asked="at most 1.1"))
    return rows


def _commands(source: Path, work: Path, vocab_file: Path, input_type: str) -> dict[str, Command]:
    articles, shards, samples = (work / name for name in ("articles", "shards", "samples"))
    return {
        "process_data": script("process_data", "-f", source, "-o", articles, "--type", input_type),
        "shard_data": script("shard_data", "--dir", articles, "-o", shards, *SPLIT, "--n_processes", WORKERS),
        "generate_samples": script("generate_samples", "--dir", shards, "-o", samples, "--vocab_file", vocab_file,
                                   "--max_seq_length", 128, "--n_processes", WORKERS),
    }
