"""What a stored teacher saves, and what storing it costs, at BERT-base shapes: ratios in one run, loops in turns.

    python -m benchmarks.teacher_cache                      # ratios, and bytes a sample
    python -m benchmarks.teacher_cache --tiny --rounds 1    # in a minute, with a model of two layers, to see that it runs

- training: optimizer steps of a 6-layer student from stored targets (soft_ce, K of --truncation_factor) against the same steps with the
  teacher in the loop, each the real trainer in a process of its own. Samples per second.
- extraction: what `extract_teacher_outputs.py` does, writing included, against the bare forward pass of the same teacher over the same
  batches, with logits at masked positions and nothing kept.
- reading: the loader's batches with nothing done to them, against the training step that uses them; above 1 it is never the bottleneck.

Weights and text are random: speed does not depend on them, the size of packed log-probabilities a little.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.common import SPECIAL, STUDENT_LAYERS, Step, base_flags, describe_machine, make_inputs, our_step, our_trainer
from benchmarks.workers import Worker
from dataset.errors import run_command
from dataset.shard_format import open_shard, write_shard

TINY_WORDS = 2000


def parse_flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="fp32")
    parser.add_argument("--micro_batch", type=int, default=8)
    parser.add_argument("--accumulation", type=int, default=2)
    parser.add_argument("--truncation_factor", type=int, default=64)
    parser.add_argument("--rows", type=int, default=256, help="samples of the shard that is extracted")
    parser.add_argument("--rounds", type=int, default=3, help="timed turns; medians are reported, the first one warms up")
    parser.add_argument("--tiny", action="store_true", help="a teacher of 2 layers of 64 and a small vocabulary, and a student of 1")
    return parser.parse_args()


def student_flags(tiny: bool) -> list[str]:
    layers, width, heads = ("1", "64", "2") if tiny else (str(STUDENT_LAYERS), "768", "12")
    return ["--distillation", "--method", "soft_ce", "--model_type", "bert-mlm", "--encoder_ln_mode", "post-ln", "--layernorm_embedding",
            "--num_hidden_layers", layers, "--hidden_size", width, "--num_attention_heads", heads,
            "--intermediate_size", str(4 * int(width))]


def make_loop(taught_by: tuple[str, ...], inputs: tuple[Path, Path], flags: argparse.Namespace, folder: Path) -> Step:
    teacher, shards = inputs
    return our_step([*base_flags(shards, folder, teacher, flags.precision, flags.micro_batch, flags.accumulation),
                     *student_flags(flags.tiny), *taught_by])


def make_reading(taught_by: tuple[str, ...], inputs: tuple[Path, Path], flags: argparse.Namespace, folder: Path) -> Step:
    """The cached run's loader alone."""
    from pretraining.signals import Unit

    teacher, shards = inputs
    trainer = our_trainer([*base_flags(shards, folder, teacher, flags.precision, flags.micro_batch, flags.accumulation),
                           "--num_workers", "0", *student_flags(flags.tiny), *taught_by])
    return lambda: sum(batch.counts[Unit.TOKENS] for batch in next(trainer.loader))


def measure_training(inputs: tuple[Path, Path], cache: Path, flags: argparse.Namespace) -> dict[str, float]:
    """Samples per second of each loop."""
    teacher, kept = inputs[0], ("--truncation_factor", str(flags.truncation_factor))
    makers = {"live": partial(make_loop, ("--teacher_path", str(teacher), *kept), inputs, flags),
              "cached": partial(make_loop, ("--teacher_cache", str(cache)), inputs, flags),
              "reading": partial(make_reading, ("--teacher_cache", str(cache)), inputs, flags)}
    with ExitStack() as stack:
        workers = {name: stack.enter_context(Worker(maker, flags.precision)) for name, maker in makers.items()}
        turns = [{name: worker.step()[1] for name, worker in workers.items()} for _ in range(flags.rounds + 1)][1:]
    batch = flags.micro_batch * flags.accumulation
    return {name: batch / statistics.median(turn[name] for turn in turns) for name in makers}


def measure_extraction(inputs: tuple[Path, Path], cache: Path, flags: argparse.Namespace) -> tuple[float, float, float]:
    """(samples per second with everything, of the bare forward pass, bytes a sample of the file)."""
    import torch
    from tqdm import tqdm

    from pretraining.batches.loader import collate
    from pretraining.batches.order import Segment
    from pretraining.models.loading import quiet_transformers
    from pretraining.precision import Precision
    from pretraining.teacher_cache.extraction import Extractor, batches_of, extract_shard
    from pretraining.teacher_cache.extraction_plan import plan_extraction, row_lengths

    teacher, shards = inputs
    quiet_transformers()
    environment = dict(os.environ)  # a launch's variables are not for the loops that follow
    plan = plan_extraction(["--dataset_path", str(shards), "--teacher_path", str(teacher), "--output_dir", str(cache), "--overwrite",
                            "--truncation_factor", str(flags.truncation_factor), "--precision", flags.precision])
    os.environ.clear()
    os.environ.update(environment)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    synchronize = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    extractor, info = Extractor(plan, Precision(flags.precision), device), plan.shards[0]
    cache.mkdir(exist_ok=True)
    groups = list(batches_of(row_lengths(info), 0, info.rows, plan.batch_size * info.max_seq_length))
    reader = extractor.reader(info)
    batches = [collate(reader.read([Segment(0, 0, rows)]), 0).to(device) for rows in groups]
    times: dict[str, list[float]] = {"all": [], "bare": []}
    size = 0
    for _ in range(flags.rounds + 1):
        synchronize()
        started = time.perf_counter()
        with tqdm(disable=True) as bar:
            size = extract_shard(extractor, info, bar)
        times["all"].append(time.perf_counter() - started)
        started = time.perf_counter()
        for batch in batches:
            extractor.run_teacher(batch)
        synchronize()
        times["bare"].append(time.perf_counter() - started)
    seconds = {name: statistics.median(found[1:]) for name, found in times.items()}
    return info.rows / seconds["all"], info.rows / seconds["bare"], size / info.rows


def make_tiny_teacher(folder: Path) -> None:
    """In the place of BERT-base, with ids below TINY_WORDS."""
    import transformers

    config = transformers.BertConfig(
        vocab_size=TINY_WORDS, hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=256)
    transformers.BertForMaskedLM(config).save_pretrained(folder)
    words = SPECIAL + [f"w{index}" for index in range(TINY_WORDS - len(SPECIAL))]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")


def prepare(folder: Path, flags: argparse.Namespace) -> tuple[Path, Path]:
    """(teacher, shards of --rows samples)."""
    teacher, shards = make_inputs(folder)
    if flags.tiny:
        make_tiny_teacher(teacher)
    for path in shards.iterdir():
        with open_shard(path) as file:
            arrays = {key: file[key][: flags.rows] for key in file}
        if flags.tiny:
            arrays |= {key: arrays[key] % TINY_WORDS for key in ("input_ids", "masked_lm_ids")}
        write_shard(path, arrays, {})
    return teacher, shards


def main() -> None:
    flags = parse_flags()
    with tempfile.TemporaryDirectory(prefix="benchmark_") as name:
        folder = Path(name)
        inputs, cache = prepare(folder, flags), folder / "cache"
        extracted, bare, size = measure_extraction(inputs, cache, flags)
        rates = measure_training(inputs, cache, flags)
    result: dict[str, Any] = {
        "machine": describe_machine(), "precision": flags.precision, "tiny": flags.tiny, "K": flags.truncation_factor,
        "extraction_samples_per_s": round(extracted, 2), "bare_forward_samples_per_s": round(bare, 2),
        "extraction_share_of_bare": round(extracted / bare, 3), "bytes_per_sample": round(size),
        **{f"{name}_samples_per_s": round(rate, 2) for name, rate in rates.items()},
        "cached_over_live": round(rates["cached"] / rates["live"], 3),
        "reading_over_training": round(rates["reading"] / rates["cached"], 1),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    run_command(main)
