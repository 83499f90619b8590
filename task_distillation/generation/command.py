"""A transfer set from a language model (d-heavy): fine-tune a causal one on the task's training texts, then draw texts from it.

    python run_task_distillation.py generate --task_name sst2 --glue_dir glue --lm_path gpt2 --output_dir generated --num_samples 800000

OUTPUT_DIR gets language_model/ with language_model.json and prefix_sampler.json beside it, transfer_set.tsv and generation.json. Given
again after a kill, the command goes on from the last whole epoch, or with the chunks of texts that are missing.
"""

import argparse
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataset.files import locked
from evaluation.fine_tuning.model_folder import TOKENIZERS, fingerprint
from evaluation.tasks.task import TaskData
from task_distillation.generation.flags import (
    FINE_TUNE,
    SAMPLE,
    SamplingSettings,
    TrainingSettings,
    parse_flags,
    sampling_settings,
    training_settings,
    without_effect,
)
from task_distillation.generation.lm_folder import check_lm_folder, check_tokenizer_folder, read_new_config
from task_distillation.task_flags import read_task


@dataclass(frozen=True)
class Plan:
    """All that flags and files said. `new_config`: what to train from scratch, else None and `lm_path` is a folder."""

    data: TaskData
    output_dir: Path
    devices: str
    precision: str
    training: TrainingSettings
    sampling: SamplingSettings
    num_samples: int
    keep_originals: bool
    lm_path: Path | None
    lm_config: Path | None
    lm_tokenizer: Path | None
    new_config: dict[str, Any] | None
    source_sha256: str
    trains: bool
    draws: bool


def main(arguments: list[str]) -> int | None:
    """Run `generate`; UserError for anything that flags, data and folders show to be wrong, before torch is imported."""
    plan = make_plan(arguments)
    with locked(plan.output_dir):
        from task_distillation.generation.run import run

        run(plan)
    return None


def read_source(flags: argparse.Namespace) -> tuple[dict[str, Any] | None, str]:
    """(the configuration to train from scratch, if that is asked for; a hash of what is begun with); UserError for what cannot be."""
    training, sampling = training_settings(flags), sampling_settings(flags)
    if flags.lm_path is not None:
        check_lm_folder(flags.lm_path, training, sampling)
        return None, fingerprint(flags.lm_path)
    new_config = read_new_config(flags.lm_config, training, sampling)
    if flags.lm_tokenizer is not None:
        check_tokenizer_folder(flags.lm_tokenizer)
    return new_config, _hash_of_new(new_config, flags.lm_tokenizer)


def make_plan(arguments: list[str]) -> Plan:
    """Parse and check; says which flags have no effect."""
    flags = parse_flags(arguments)
    training, sampling = training_settings(flags), sampling_settings(flags)
    new_config, source = read_source(flags)
    data = read_task(flags)
    for line in without_effect(flags):
        print(line)
    return Plan(
        data, flags.output_dir, flags.devices, flags.precision, training, sampling, flags.num_samples, flags.keep_originals, flags.lm_path,
        flags.lm_config, flags.lm_tokenizer, new_config, source, trains=flags.only != SAMPLE, draws=flags.only != FINE_TUNE)


def _hash_of_new(config: dict[str, Any], tokenizer: Path | None) -> str:
    """Of a configuration and of the tokenizer's files."""
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name in TOKENIZERS:
        if tokenizer is not None and (tokenizer / name).is_file():
            digest.update(hashlib.sha256((tokenizer / name).read_bytes()).digest())
    return digest.hexdigest()
