"""A small run that is stopped and goes on in many tests: 20 steps under a simulated clock, a checkpoint after every fourth, a marker at
half of them.
"""

from pathlib import Path

import torch
from launching import summary
from safetensors.torch import load_file
from tiny import make_shards, make_teacher

from pretraining.checkpoint import complete_checkpoints

EXIT_REQUEUE = 75


def make_place(folder: Path) -> Path:
    """A teacher and shards."""
    make_teacher(folder / "teacher")
    make_shards(folder / "shards", rows=40, masking="none")
    return folder


def run_of(place: Path, name: str) -> Path:
    return place / "out" / "job" / name


def flags(place: Path, run: str, *more: str, clock: str = "simulated:60") -> list[str]:
    return ["--dataset_path", str(place / "shards"), "--teacher_path", str(place / "teacher"), "--distillation", "--method",
            "hidden_mse:1.0,mlm:0.5", "--student_initialize", "--num_hidden_layers", "2", "--layer_selection", "1,3", "--train_batch_size",
            "8", "--train_micro_batch_size_per_gpu", "4", "--lr", "1e-3", "--output_dir", str(place / "out"), "--current_run_id", run,
            "--job_name", "job", "--steps_between_checkpoints", "4", "--print_steps", "2", "--clock", clock, "--total_training_time",
            "0.333333", "--finetune_time_markers", "0.5", "--layer_norm_type", "pytorch", "--precision", "fp32", *more]


def last_export(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "finetune" / summary(run)["markers"][-1] / "model.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def names(run: Path) -> list[str]:
    return [path.name for path in complete_checkpoints(run / "checkpoints")]
