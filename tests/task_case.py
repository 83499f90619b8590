"""A small distillation that tests start, stop and look at: 20 steps under a simulated clock, markers at a half and at the end."""

import random
from pathlib import Path

import numpy as np
from tiny_glue import write_rte, write_sst2

from evaluation.tasks.table import load_task, select_tasks
from evaluation.tasks.task import Task, TaskData
from task_distillation.logits_file import LogitsChunk, logits_writer
from task_distillation.transfer_set import read_transfer_set, text_hash, transfer_writer

CALL = "run_task_distillation:main"


def make_task(place: Path, name: str = "sst2") -> TaskData:
    """GLUE files, with a transfer set of the training rows and as many without a label, and logits that follow one word's class."""
    {"sst2": write_sst2, "rte": write_rte}[name](place / "glue")
    data = load_task(select_tasks([name])[0], place / "glue")
    source = random.Random(3)
    with transfer_writer(place / "texts.tsv", data.task) as writer:
        for row in zip(*data.train.texts, data.train.labels, strict=True):
            writer.write(row[:-1], row[-1])
        for row in zip(*data.train.texts, strict=True):
            writer.write([" ".join([*text.split(), source.choice(("film", "plot"))]) for text in row])
    label(place, data.task)
    return data


def label(place: Path, task: Task, name: str = "logits.parquet", texts: str = "texts.tsv") -> np.ndarray:
    """Logits (N, C) for `texts`, in a file of their own."""
    rows = list(read_transfer_set(place / texts, task))
    good = np.array([any(word in ("good", "fine") for text in row.texts for word in text.split()) for row in rows], np.float32)
    noise = np.random.default_rng(5).normal(size=(len(rows), task.outputs)).astype(np.float32)
    values = np.stack([2 - 4 * good, 4 * good - 2], axis=1)[:, : task.outputs] + noise / 4
    with logits_writer(place / name, task) as writer:
        writer.write(LogitsChunk(0, [text_hash(row.texts) for row in rows], values.astype(np.float32)))
    return values


def flags(place: Path, run: str, *more: str, task: str = "sst2") -> list[str]:
    return ["distil", "--task_name", task, "--glue_dir", str(place / "glue"), "--transfer_set", str(place / "texts.tsv"),
            "--logits", str(place / "logits.parquet"), "--output_dir", str(place / "out"), "--job_name", "job", "--current_run_id", run,
            "--hidden_size", "16", "--fc_size", "16", "--embedding_size", "32", "--train_batch_size", "32",
            "--train_micro_batch_size_per_gpu", "8", "--lr", "0.02", "--clock", "simulated:60", "--total_training_time", "0.333333",
            "--finetune_time_markers", "0.5,1.0", "--steps_between_checkpoints", "4", "--print_steps", "2", "--precision", "fp32", *more]


def run_of(place: Path, name: str) -> Path:
    return place / "out" / "job" / name
