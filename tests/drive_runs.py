"""Launched on several ranks, twice: for every case of a JSON file, one run straight through and one that is stopped half-way; then, in
new processes, the stopped ones go on.

    torchrun ... drive_runs.py CASES.json first
    torchrun ... drive_runs.py CASES.json REPORT.json

A case is {"name": ..., "flags": [...]}. The report says for each how the runs ended, the losses, and how the two exports differ.
"""

import json
import os
import signal
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file

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

HALF_WAY = 10


def one_run(flags: list[str], stop_at: int | None = None) -> tuple[str, Path]:
    """(exit reason, the run's folder); with `stop_at` every rank sends itself SIGTERM after that step."""
    plan = make_plan(resolve(parse(flags), LAUNCH))
    precision, _ = select_precision(plan.resolved.args.engine.precision, DEVICE)
    trainer = assemble.prepare(plan, load_hf_tokenizer(plan.tokenizer_source), CONTROL, precision, DEVICE)
    if stop_at is not None:
        plain_step = trainer.step

        def step(*inputs: object) -> None:
            plain_step(*inputs)
            if trainer.progress.step == stop_at:
                os.kill(os.getpid(), signal.SIGTERM)

        trainer.step = step
    return trainer.run(), plan.folder.path


def load_export(run: Path) -> tuple[dict[str, torch.Tensor], list[str], str]:
    """(stored weights, what `transformers` misses or does not expect, the class it loads) of the last export."""
    marker = run / "finetune" / json.loads((run / "summary.json").read_text())["markers"][-1]
    name = json.loads((marker / "config.json").read_text())["architectures"][0]
    model, info = getattr(transformers, name).from_pretrained(marker, output_loading_info=True)
    wrong = [entry for kind in ("missing_keys", "unexpected_keys", "mismatched_keys") for entry in info[kind]]
    return load_file(marker / "model.safetensors"), wrong, type(model).__name__


def base_flags(case: dict) -> list[str]:
    return [*case["flags"], "--job_name", case["name"]]


def first(case: dict) -> None:
    straight, _ = one_run([*base_flags(case), "--current_run_id", "straight"])
    stopped, _ = one_run([*base_flags(case), "--current_run_id", "resumed", "--resume"], stop_at=HALF_WAY)
    assert (straight, stopped) == ("max_steps", "signal"), (case["name"], straight, stopped)


def second(case: dict) -> dict:
    reason, run = one_run([*base_flags(case), "--current_run_id", "resumed", "--resume"])
    if CONTROL.rank != 0:
        return {}
    (others, _, _), (weights, wrong, model) = load_export(run), load_export(run.with_name("straight"))
    events = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    train = [event for event in events if event["event"] == "train"]
    return {
        "name": case["name"], "reason": reason, "wrong": wrong, "model": model, "weights": sorted(weights),
        "differ": [name for name in weights.keys() | others.keys()
                   if name not in weights or name not in others or not torch.equal(weights[name], others[name])],
        "losses": [event["loss"] for event in train],
        "terms": sorted({key for event in train for key in event if key.startswith("loss/")}),
    }


LAUNCH = read_launch(-1)
DEVICE = select_device(LAUNCH)
quiet_transformers()
start_ranks(DEVICE)
CONTROL = Control(LAUNCH.rank, LAUNCH.world_size)

if __name__ == "__main__":
    cases = json.loads(Path(sys.argv[1]).read_text())
    if sys.argv[2] == "first":
        for case in cases:
            first(case)
    else:
        reports = [second(case) for case in cases]
        if CONTROL.rank == 0:
            Path(sys.argv[2]).write_text(json.dumps(reports))
    torch.distributed.destroy_process_group()
