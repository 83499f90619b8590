"""What the tests of stored teachers share: a tiny teacher with its shards, extraction in this process, and a run's plan."""

import os
from pathlib import Path

import torch
from tiny import make_shards, make_teacher

from extract_teacher_outputs import main
from pretraining.args.parser import parse
from pretraining.args.resolve import resolve
from pretraining.batches.samples import ShardReader
from pretraining.launch import Launch
from pretraining.models.catalog import read_model_folder
from pretraining.models.loading import BuiltModel, load_model
from pretraining.models.teacher import Teacher
from pretraining.precision import Precision
from pretraining.preflight import Plan, make_plan
from pretraining.signals import ModelNeeds
from pretraining.teacher_cache.reader import CacheReader

CPU, FP32 = torch.device("cpu"), Precision("fp32")
# A student from scratch, beside a teacher or its stored outputs.
STUDENT = ["--distillation", "--hidden_size", "32", "--num_hidden_layers", "2", "--num_attention_heads", "4", "--intermediate_size", "64",
           "--encoder_ln_mode", "post-ln", "--layernorm_embedding", "--train_batch_size", "8", "--train_micro_batch_size_per_gpu", "4",
           "--precision", "fp32", "--layer_norm_type", "pytorch", "--do_validation", "--print_steps", "1", "--job_name", "job"]


def make_place(folder: Path) -> Path:
    """A teacher of 4 layers in `teacher`, train and test shards of different sizes in `shards`."""
    make_teacher(folder / "teacher")
    make_shards(folder / "shards", rows=24, uneven=True)
    return folder


def extraction(place: Path, cache: str, *more: str, shards: str = "shards", teacher: str = "teacher") -> list[str]:
    return ["--dataset_path", str(place / shards), "--teacher_path", str(place / teacher), "--output_dir", str(place / cache),
            "--precision", "fp32", "--batch_size", "4", *more]


def extract(place: Path, cache: str, *more: str, **folders: str) -> Path:
    """Extract in this process, whose environment stays as it was; returns the folder."""
    before = dict(os.environ)
    try:
        main(extraction(place, cache, *more, **folders))
    finally:
        os.environ.clear()
        os.environ.update(before)
    return place / cache


def run_flags(place: Path, run: str, *more: str, shards: str = "shards") -> list[str]:
    return [*STUDENT, "--dataset_path", str(place / shards), "--tokenizer_name", str(place / "teacher"), "--output_dir", str(place / "out"),
            "--current_run_id", run, *more]


def plan_of(flags: list[str]) -> Plan:
    return make_plan(resolve(parse(flags), Launch(0, 1, 0, False)))


def live_teacher(place: Path, needs: ModelNeeds) -> Teacher:
    folder = read_model_folder(str(place / "teacher"), "--teacher_path")
    return Teacher(BuiltModel(*load_model(folder.path, "--teacher_path", folder.architecture)), folder.architecture, needs, FP32, CPU)


def stored_reader(plan: Plan) -> ShardReader:
    """The training shards with what is stored beside them, as the trainer reads them."""
    stored = CacheReader(plan.cache.folder, plan.cache.targets, plan.cache.layers)
    return ShardReader(plan.train_shards, plan.student.config["vocab_size"], plan.resolved.args.data.max_predictions_per_seq, None,
                       stored=stored)
