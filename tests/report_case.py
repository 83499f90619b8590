"""Hand-made runs and scores for the report's tests: the files that a trainer and run_glue.py write, with numbers that a formula gives."""

import json
import math
from pathlib import Path
from typing import Any

import yaml

from evaluation.fine_tuning.model_folder import fingerprint

QUICK = {"name": "quick", "version": 1, "sha256": "ab12cd34" * 8, "changed": [], "aggregate": "mean"}
SETTINGS = {"learning_rate": 5e-5, "num_train_epochs": 2.0}
FLOORS = {"SST-2": 0.509, "RTE": 0.527, "MRPC": 0.812, "CoLA": 0.0, "QNLI": 0.505, "QQP": 0.632, "MNLI": 0.355, "STS-B": 0.0}
HEADLINES = {"MRPC": "f1", "QQP": "f1", "CoLA": "matthews", "STS-B": "pearson"}
HOURS = 2.0


def train_event(step: int, steps: int, terms: tuple[str, ...] = ("hidden_mse",), **more: Any) -> dict[str, Any]:
    share = step / steps
    losses = {f"loss/{term}": (number + 1) * (0.02 + 0.3 * math.exp(-6 * share)) * (1 + 0.1 * math.sin(step))
              for number, term in enumerate(terms)}
    return {"event": "train", "step": step, "samples": 32 * step, "tokens": 4000 * step, "hours": HOURS * share, "progress": share,
            "loss": sum(losses.values()), **losses, "lr": 5e-4 * (1 - share), "grad_norm": 0.1, "samples_per_s": 30.0,
            "tokens_per_s": 3800.0 + 200 * math.sin(step / 3), "step_s": 1.0, **more}


def make_run(
    folder: Path, steps: int = 40, markers: int = 4, terms: tuple[str, ...] = ("hidden_mse",), finished: bool = True,
    mfu: float | None = None, seed: int = 0, **flags: Any,
) -> Path:
    """A run of two hours: all files, and `markers` marker folders with weights of their own."""
    folder.mkdir(parents=True)
    flags = {"output_dir": "runs", "current_run_id": folder.name, "method": "+".join(terms), "num_hidden_layers": 3, "hidden_size": 384,
             "distillation": True, "teacher_path": "models/teacher", "total_training_time": HOURS, "lr": 5e-4, "seed": 42, "aug": False,
             "cache_dir": None, **flags}
    (folder / "args.yaml").write_text(yaml.safe_dump(flags, sort_keys=False))
    environment = {"python": "3.11.7", "torch": "2.13.0", "deepspeed": "0.19.8", "transformers": "5.23.0", "cpu_count": 16,
                   "gpus": ["NVIDIA H200"] if mfu else [], "world_size": 2}
    (folder / "environment.json").write_text(json.dumps(environment))
    events = [{"event": "start", "step": 0, "samples": 0, "tokens": 0, "hours": 0.0, "progress": 0.0}]
    for step in range(1, steps + 1):
        event = train_event(step, steps, terms, **({"mfu": mfu} if mfu else {}))
        events.append(event)
        if step % max(1, steps // 8) == 0:
            events.append({**{key: event[key] for key in ("step", "samples", "tokens", "hours", "progress")}, "event": "validation",
                           **{key: 1.1 * value for key, value in event.items() if key.startswith("loss")}})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    names = []
    for number in range(1, markers + 1):
        share = number / markers
        names.append(f"progress_{share:.4g}_step_{round(steps * share)}")
        marker = make_weights(folder / "finetune" / names[-1], f"{folder.name} {number} {seed}")
        state = {"progress": share, "step": round(steps * share), "hours": HOURS * share, "validation_loss": 0.1}
        (marker / "run_state.json").write_text(json.dumps(state))
    if finished:
        summary = {"exit_reason": "time_budget", "why": None, "hours": HOURS + 0.001, "closing_s": 3.5, "steps": steps,
                   "samples": 32 * steps, "tokens": 4000 * steps, "losses": {"held-out loss": 0.0234}, "tokens_per_s": 3812.5,
                   "markers": names}
        (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def make_weights(folder: Path, content: str) -> Path:
    """A folder that has the names of a model's files: enough to be hashed."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "bert"}')
    (folder / "model.safetensors").write_bytes(content.encode())
    return folder


def row(model: str, folder: Path, task: str, value: float, seed: int = 1, role: str = "model", **more: Any) -> dict[str, Any]:
    """A complete row of glue.json; a marker's place comes from its run_state.json."""
    headline = HEADLINES.get(task, "accuracy")
    place = {}
    if role == "marker":
        state = json.loads((folder / "run_state.json").read_text())
        place = {"fraction": state["progress"], "step": state["step"], "hours": state["hours"], "validation_loss": 0.1}
    return {"model": model, "role": role, "folder": str(folder), "task": task, "task_version": 1, **place, "headline": headline,
            "seed": seed, "settings": {**SETTINGS, "seed": seed}, "protocol": QUICK, "weights_sha256": fingerprint(folder),
            "metric_names": [headline], "data_sha256": "da7a" * 16, "mode": "fine_tuning",
            "teacher_sha256": None, "start": None, "metrics": {headline: value},
            "constant_metrics": {headline: FLOORS[task]}, "diverged": False, "selected_on_dev": False, "best_step": None, "history": [],
            "train_size": 2500, "dev_size": 872, "train_seconds": 36.0, "precision": "fp32", "device": "cpu", "new_weights": [],
            "parameters": 1000, "versions": {"torch": "2.13.0", "transformers": "5.23.0"}, **more}


def marker_rows(run: Path, tasks: list[str], seeds: int = 3, gain: float = 0.0, **more: Any) -> list[dict[str, Any]]:
    """Scores of every marker: they rise with the hours, and differ by seed."""
    rows = []
    for folder in sorted(path for path in (run / "finetune").iterdir() if path.name.startswith("progress")):
        hours = json.loads((folder / "run_state.json").read_text())["hours"]
        for number, task in enumerate(tasks):
            base = FLOORS[task] + (0.9 - FLOORS[task]) * (1 - math.exp(-1.5 * hours)) * (0.9 - 0.03 * number) + gain
            rows += [row(folder.name, folder, task, base + 0.01 * math.sin(10 * seed + 7 * hours + number), seed, "marker", **more)
                     for seed in range(1, seeds + 1)]
    return rows


def reference_rows(folder: Path, name: str, role: str, tasks: list[str], value: float, seeds: int = 3) -> list[dict[str, Any]]:
    return [row(name, folder, task, value - 0.02 * number + 0.004 * seed, seed, role)
            for number, task in enumerate(tasks) for seed in range(1, seeds + 1)]


def write_rows(folder: Path, rows: list[dict[str, Any]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "glue.json").write_text(json.dumps(rows))
    return folder
