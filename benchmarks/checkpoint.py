"""What it costs that a run can be killed: a checkpoint against a plain `torch.save` of the same state, and the bookkeeping of a step.

    python -m benchmarks.checkpoint

A 6-layer student of BERT-base width (66 M parameters) with AdamW's state, saved in turns by ours (DeepSpeed's files, hashed, fsynced,
renamed) and by one `torch.save` and fsync of weights and optimizer. Removing an old checkpoint, which comes on top where one is due, is
timed apart. Then a run of 8 x 128 tokens per step: the share of
the loop's time outside steps and outside waiting for data (message, clock, budget, what is due), and the message between two ranks.
"""

import argparse
import multiprocessing
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.common import base_flags, describe_machine, make_inputs, our_trainer
from dataset.files import fsync_path, remove_folder

if TYPE_CHECKING:
    from pretraining.trainer import Trainer

MESSAGES = 500


def seconds_of(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def bytes_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def plain_save(trainer: "Trainer", file: Path) -> None:
    """The least that holds the state: weights and optimizer in one file, on the disk."""
    import torch

    torch.save({"module": trainer.engine.module.state_dict(), "optimizer": trainer.engine.deepspeed.optimizer.state_dict()}, file)
    fsync_path(file)


def compare_saving(trainer: "Trainer", folder: Path, rounds: int) -> None:
    ours, plain, removals, file = [], [], [], folder / "plain.pt"
    for _ in range(rounds):
        trainer.progress.step += 1  # another step, another folder
        ours.append(seconds_of(lambda: trainer.outputs.save(trainer.engine, trainer.progress, 0.0, 0)))
        plain.append(seconds_of(lambda: plain_save(trainer, file)))
        size = file.stat().st_size
        file.unlink()
        newest = trainer.outputs.folder.checkpoints / f"step_{trainer.progress.step}"
        written = bytes_below(newest)
        removals.append(seconds_of(partial(remove_folder, newest)))
    ratio = statistics.median(ours) / statistics.median(plain)
    print(f"checkpoint: {statistics.median(ours):.2f} s, torch.save and fsync: {statistics.median(plain):.2f} s (medians of {rounds}), "
          f"ratio {ratio:.2f}; {written / 1e6:.0f} MB against {size / 1e6:.0f} MB, ratio {written / size:.3f}; removing one "
          f"{statistics.median(removals):.2f} s")


def measure_bookkeeping(trainer: "Trainer") -> None:
    """Runs the trainer to its end; what the loop does between the first step's beginning and the last one's end."""
    plain_step, plain_next = trainer.step, type(trainer.loader).__next__
    steps, waits, ends, starts = [], [], [], []

    def step(*inputs: object) -> None:
        starts.append(time.perf_counter())
        plain_step(*inputs)
        ends.append(time.perf_counter())
        steps.append(ends[-1] - starts[-1])

    def next_batches(loader: object) -> list:
        started = time.perf_counter()
        batches = plain_next(loader)
        if ends:
            waits.append(time.perf_counter() - started)
        return batches

    trainer.step = step
    type(trainer.loader).__next__ = next_batches
    trainer.run()
    type(trainer.loader).__next__ = plain_next
    whole = ends[-1] - starts[0]
    other = whole - sum(steps) - sum(waits[:-1])
    print(f"bookkeeping: {other / (len(steps) - 1) * 1e6:.0f} µs a step of {statistics.mean(steps):.2f} s = {other / whole:.5%}")
    message = _exchange_seconds(2)
    print(f"message between two ranks: {message * 1e6:.0f} µs = {message / statistics.mean(steps):.5%} of that step")


def _exchange_seconds(ranks: int) -> float:
    """Median seconds of one message between `ranks` processes that have nothing else to do."""
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    with tempfile.TemporaryDirectory(prefix="benchmark_") as folder:
        processes = [context.Process(target=_exchange, args=(rank, ranks, f"file://{folder}/meet", results)) for rank in range(ranks)]
        for process in processes:
            process.start()
        seconds = results.get()
        for process in processes:
            process.join()
    return seconds


def _exchange(rank: int, ranks: int, meet: str, results: object) -> None:
    import torch.distributed as dist

    from pretraining.control import Control
    from pretraining.signals import UNITS

    dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=ranks)
    control, counts = Control(rank, ranks), dict.fromkeys(UNITS, 1)
    taken = [seconds_of(lambda: control.exchange(1.0, counts, signalled=False, deadline_near=False)) for _ in range(MESSAGES)]
    if rank == 0:
        results.put(statistics.median(taken))
    dist.barrier()
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="checkpoints of each kind")
    parser.add_argument("--steps", type=int, default=20, help="steps of the run whose bookkeeping is measured")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="benchmark_", dir=Path.cwd()))  # on the disk that runs are on, not in a memory file system
    try:
        print(describe_machine())
        teacher, shards = make_inputs(folder)
        flags = base_flags(shards, folder, teacher, "auto", 8, 1)
        trainer = our_trainer([
            *flags, "--distillation", "--teacher_path", str(teacher), "--method", "hidden_mse", "--layer_selection", "11",
            "--student_initialize", "--num_hidden_layers", "6", "--lr_schedule", "constant_step", "--num_warmup_steps", "0",
            "--max_steps", str(asked.steps), "--print_steps", str(asked.steps), "--no_finetune_checkpoint_at_end"])
        measure_bookkeeping(trainer)
        compare_saving(trainer, folder, asked.rounds)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
