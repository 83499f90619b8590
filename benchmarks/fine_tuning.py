"""Fine-tuning by our loop against transformers' own Trainer: same model, data, batch size, schedule and precision, in turns in one process.

Both batch by length (theirs by `train_sampling_strategy="group_by_length"`), both have tokenised before the clock starts, both train with
fused AdamW, and neither logs, saves or scores while the clock runs. The first turn of each is a warm-up and not counted. Processor time is
told beside wall time: on a machine that others use it is the one to believe, for a GPU it means nothing.

    python -m benchmarks.fine_tuning MODEL_FOLDER --glue_dir glue --task_name rte --rounds 3

Trainer needs the package accelerate, which nothing else here does.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar
from unittest.mock import patch

from benchmarks.common import describe_machine
from dataset.errors import UserError, run_command
from dataset.files import write_json
from evaluation.fine_tuning.checks import check_fine_tuning
from evaluation.fine_tuning.settings import FineTuningSettings, add_flags
from evaluation.tasks.table import load_task, select_tasks
from evaluation.tasks.task import TaskData

T = TypeVar("T")
OURS, THEIRS = "ours", "Trainer"
Turn = tuple[float, float, float]
"""Seconds of training, of processor time in it, and the mean loss."""


def parse_flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("model", type=Path, help="folder of an encoder")
    parser.add_argument("--glue_dir", type=Path, required=True)
    parser.add_argument("--task_name", default="rte", help="a classification")
    parser.add_argument("--rounds", type=int, default=3, help="timed trainings of each; medians are reported")
    parser.add_argument("--json", type=Path, help="write every number there")
    add_flags(parser)
    parser.set_defaults(num_train_epochs=1.0)
    return parser.parse_args()


def clocked(train: Callable[..., T], times: list[float]) -> Callable[..., T]:
    """`train`, which puts its seconds and its seconds of processor time into `times`."""

    def call(*arguments: object) -> T:
        wall, processor = time.perf_counter(), time.process_time()
        result = train(*arguments)
        times[:] = time.perf_counter() - wall, time.process_time() - processor
        return result

    return call


def train_ours(folder: Path, data: TaskData, settings: FineTuningSettings) -> Turn:
    from evaluation.fine_tuning import training

    times: list[float] = []
    with patch.object(training, "train", clocked(training.train, times)):
        outcome = training.fine_tune(folder, data, settings, say=lambda line: None)
    return times[0], times[1], statistics.fmean(outcome.losses)


class Trainer:
    """transformers' Trainer on the same task; tokenised once."""

    def __init__(self, folder: Path, data: TaskData, settings: FineTuningSettings, place: Path) -> None:
        import datasets
        from transformers import AutoTokenizer

        self.folder, self.data, self.settings, self.place = folder, data, settings, place
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        examples = data.train.first(settings.max_train_samples)
        encoded = self.tokenizer(*examples.texts, truncation="longest_first", max_length=settings.max_seq_length)
        self.train_set = datasets.Dataset.from_dict({**encoded, "labels": examples.labels})

    def train(self) -> Turn:
        import torch
        import transformers

        settings = self.settings
        transformers.set_seed(settings.seed)
        model = transformers.AutoModelForSequenceClassification.from_pretrained(
            self.folder, num_labels=self.data.task.outputs, dtype=torch.float32, ignore_mismatched_sizes=True)
        arguments = transformers.TrainingArguments(
            output_dir=str(self.place), learning_rate=settings.learning_rate, num_train_epochs=settings.num_train_epochs,
            max_steps=settings.max_steps, per_device_train_batch_size=settings.per_device_train_batch_size,
            gradient_accumulation_steps=settings.gradient_accumulation_steps, weight_decay=settings.weight_decay,
            max_grad_norm=settings.max_grad_norm, warmup_steps=settings.warmup_steps or settings.warmup_ratio,
            lr_scheduler_type=settings.lr_scheduler_type, seed=settings.seed, train_sampling_strategy="group_by_length",
            bf16=settings.precision == "bf16", fp16=settings.precision == "fp16", optim="adamw_torch_fused", save_strategy="no",
            eval_strategy="no", logging_strategy="no", report_to="none", disable_tqdm=True, use_cpu=not torch.cuda.is_available(),
        )
        trainer = transformers.Trainer(
            model=model, args=arguments, train_dataset=self.train_set, processing_class=self.tokenizer,
            data_collator=transformers.DataCollatorWithPadding(self.tokenizer))
        trainer.remove_callback(transformers.trainer_callback.PrinterCallback)
        times: list[float] = []
        result = clocked(trainer.train, times)()
        return times[0], times[1], float(result.training_loss)


def main() -> None:
    flags = parse_flags()
    known = {item.name for item in fields(FineTuningSettings)}
    settings = FineTuningSettings(**{name: value for name, value in vars(flags).items() if name in known})
    task = select_tasks([flags.task_name])[0]
    if task.kind != "classification":
        raise UserError(f"--task_name {flags.task_name}: a {task.kind}; a classification such as rte or sst2 would work")
    check_fine_tuning(flags.model, task, settings)
    data = load_task(task, flags.glue_dir)
    if find_spec("accelerate") is None:
        raise UserError("transformers' Trainer needs accelerate, which is not installed; pip install accelerate would work")
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    from evaluation.fine_tuning.training import select_precision, torch

    if settings.precision == "auto":
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        settings = replace(settings, precision=select_precision("auto", device)[0].name)
    rows = {OURS: [], THEIRS: []}
    with tempfile.TemporaryDirectory() as temporary:
        trainer = Trainer(flags.model, data, settings, Path(temporary))
        for turn in range(flags.rounds + 1):
            # Who goes first changes, so that a machine that warms up or slows down favours neither.
            for name in (OURS, THEIRS) if turn % 2 else (THEIRS, OURS):
                row = train_ours(flags.model, data, settings) if name == OURS else trainer.train()
                if turn:
                    rows[name].append(row)
    report(flags, settings, len(trainer.train_set), rows)


def report(flags: argparse.Namespace, settings: FineTuningSettings, examples: int, rows: dict[str, list[Turn]]) -> None:
    """Print the table, and write it where asked."""
    done = round(examples * settings.num_train_epochs) if settings.max_steps < 1 else (
        settings.max_steps * settings.per_device_train_batch_size * settings.gradient_accumulation_steps)
    medians = {name: [statistics.median(row[at] for row in turns) for at in (0, 1)] for name, turns in rows.items()}
    ratios = [medians[THEIRS][at] / medians[OURS][at] for at in (0, 1)]
    print(f"{describe_machine()}; {flags.model.name}, {flags.task_name}, {examples} examples, "
          f"batch {settings.per_device_train_batch_size}, length {settings.max_seq_length}, {settings.precision}, {flags.rounds} rounds\n")
    print(f"{'loop':<8}  {'seconds':>8}  {'least':>8}  {'most':>8}  {'processor':>9}  {'examples/s':>10}")
    for name, turns in rows.items():
        seconds = [row[0] for row in turns]
        wall, processor = medians[name]
        print(f"{name:<8}  {wall:8.2f}  {min(seconds):8.2f}  {max(seconds):8.2f}  {processor:9.2f}  {done / wall:10.1f}")
    each = ", ".join(f"{theirs[0] / ours[0]:.2f}" for ours, theirs in zip(rows[OURS], rows[THEIRS], strict=True))
    print(f"\nours is {ratios[0]:.2f} times as fast as Trainer (rounds: {each}), by processor time {ratios[1]:.2f} times")
    if flags.json is not None:
        write_json(flags.json, {
            "machine": describe_machine(), "model": str(flags.model), "task": flags.task_name, "examples": examples,
            "settings": asdict(settings), "wall_ratio": ratios[0], "processor_ratio": ratios[1],
            "rounds": {name: [dict(zip(("seconds", "processor_seconds", "loss"), row, strict=True)) for row in turns]
                       for name, turns in rows.items()},
        })


if __name__ == "__main__":
    run_command(main)
