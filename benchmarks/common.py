"""What the benchmarks share: BERT-base inputs with random weights, our trainer's step, clocks, memory, the matrix-multiply peak."""

import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dataset.shard_format import write_shard

if TYPE_CHECKING:
    from pretraining.trainer import Trainer

LENGTH, VOCABULARY, TEACHER_LAYERS, STUDENT_LAYERS = 128, 30522, 12, 6
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
Step = Callable[[], int]  # takes one optimizer step and returns its real tokens


def make_inputs(folder: Path) -> tuple[Path, Path]:
    """(a random BERT-base folder with its MLM head, shards of full and padded random sequences with next-sentence labels)."""
    import torch
    import transformers

    torch.manual_seed(0)
    teacher, shards = folder / "teacher", folder / "shards"
    transformers.BertForMaskedLM(transformers.BertConfig()).save_pretrained(teacher)
    words = SPECIAL + [f"w{index}" for index in range(VOCABULARY - len(SPECIAL))]
    (teacher / "vocab.txt").write_text("\n".join(words) + "\n")
    rng = np.random.default_rng(0)
    rows, predictions = 1024, 20
    lengths = rng.integers(LENGTH // 2, LENGTH + 1, rows)
    mask = np.arange(LENGTH) < lengths[:, None]
    positions = np.sort(np.argsort(rng.random((rows, LENGTH // 2 - 2)), axis=1)[:, :predictions] + 1, axis=1)
    ids = np.where(mask, rng.integers(1000, VOCABULARY, (rows, LENGTH)), 0)
    ids[:, 0] = SPECIAL.index("[CLS]")
    shards.mkdir()
    for split in ("train", "test"):
        write_shard(shards / f"{split}_shard_0.hdf5", {
            "input_ids": ids, "input_mask": mask.astype(np.int8),
            "segment_ids": np.zeros((rows, LENGTH), np.int8), "masked_lm_positions": positions,
            "masked_lm_ids": rng.integers(1000, VOCABULARY, positions.shape),
            "next_sentence_labels": rng.integers(0, 2, rows).astype(np.int8)}, {})
    return teacher, shards


def our_trainer(flags: list[str]) -> "Trainer":
    """The real trainer, built as `run_pretraining.py` builds it, as the only rank of this process."""
    from pretraining import assemble
    from pretraining.args.parser import parse
    from pretraining.args.resolve import resolve
    from pretraining.control import Control
    from pretraining.engine import select_device, start_ranks
    from pretraining.export import load_hf_tokenizer
    from pretraining.launch import read_launch
    from pretraining.models.loading import quiet_transformers
    from pretraining.precision import select_precision
    from pretraining.preflight import make_plan
    from pretraining.stopping import StopSignal

    plan = make_plan(resolve(parse(flags), read_launch(-1)))
    device = select_device(plan.resolved.launch)
    precision, _ = select_precision(plan.resolved.args.engine.precision, device)
    quiet_transformers()
    start_ranks(device)
    return assemble.prepare(plan, load_hf_tokenizer(plan.tokenizer_source), Control(0, 1), precision, device, StopSignal())


def our_step(flags: list[str]) -> Step:
    """One optimizer step of the real trainer at a time."""
    from pretraining.signals import Unit

    trainer = our_trainer(flags)

    def step() -> int:
        batches = next(trainer.loader)
        counts = {unit: sum(batch.counts[unit] for batch in batches) for unit in Unit}
        trainer.step(batches, trainer.control.exchange(trainer.clock.hours(), counts, signalled=False, deadline_near=False))
        return counts[Unit.TOKENS]

    return step


def base_flags(shards: Path, folder: Path, teacher: Path, precision: str, micro_batch: int, accumulation: int) -> list[str]:
    """Flags of a 12-to-6-layer run that are common to all objectives."""
    return ["--dataset_path", str(shards), "--output_dir", str(folder / "runs"), "--tokenizer_name", str(teacher / "vocab.txt"),
            "--train_batch_size", str(micro_batch * accumulation), "--train_micro_batch_size_per_gpu", str(micro_batch),
            "--precision", precision, "--gradient_clipping", "0", "--lr", "1e-4", "--layer_norm_type", "pytorch"]


def timed(step: Step, steps: int) -> tuple[float, float]:
    """(tokens per second, seconds per optimizer step) over `steps` steps."""
    import torch

    synchronize = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    synchronize()
    started = time.perf_counter()
    tokens = sum(step() for _ in range(steps))
    synchronize()
    seconds = time.perf_counter() - started
    return tokens / seconds, seconds / steps


def matmul_peak(dtype_name: str) -> float:
    """FLOP/s of the best of several large matrix products in this process, of the kinds that a training step is made of."""
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[dtype_name]
    best = 0.0
    for rows, inner, columns in ((1024, 768, 3072), (1024, 3072, 768), (2048, 2048, 2048)):
        left = torch.randn(rows, inner, device=device).to(dtype)
        right = torch.randn(columns, inner, device=device).to(dtype)

        def product(left: torch.Tensor = left, right: torch.Tensor = right) -> int:
            torch.nn.functional.linear(left, right)
            return 0

        timed(product, 3)
        best = max(best, *(2.0 * rows * inner * columns / timed(product, 10)[1] for _ in range(3)))
    return best


def step_flops(tokens: int, teacher_layers: int, student_layers: int) -> float:
    """Matrix-product FLOPs of layers of BERT-base width for `tokens` tokens: 2 a weight forward, 6 forward and backward."""
    weights = 4 * 768 * 768 + 2 * 768 * 3072
    return float(tokens * weights * (2 * teacher_layers + 6 * student_layers))


def peak_memory_gb() -> float:
    """Peak of the device where there is one, else of this process."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def describe_processor() -> str:
    """The processor, and how many cores this process may use."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = "CPU"
    return f"{name}, {len(os.sched_getaffinity(0))} cores"


def describe_machine() -> str:
    """The GPU where there is one, else the processor."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else describe_processor()
