"""A small sweep for tests: 2 objectives x 2 seeds on a teacher and shards that only the checks look at, and ways to call it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from cli_case import write_teacher
from launching import ROOT, clean_environment
from tiny import make_shards

STAND_IN = Path(__file__).with_name("stand_in_trainer.py")
ONE, TWO = "method=hidden_mse", "method=att_mse"


def make_place(folder: Path) -> Path:
    """A teacher without usable weights, and shards."""
    write_teacher(folder / "teacher")
    make_shards(folder / "shards", rows=16, masking="none")
    return folder


def recipe(place: Path, **changes: Any) -> Path:
    """A recipe in `place`, whose runs the stand-in plays; a change of ... takes the key out, one of `flags` is merged."""
    flags = {"dataset_path": str(place / "shards"), "teacher_path": str(place / "teacher"), "distillation": True,
             "student_initialize": True, "num_hidden_layers": 2, "layer_norm_type": "pytorch", "train_batch_size": 8,
             "train_micro_batch_size_per_gpu": 8, "total_training_time": 0.5, **changes.pop("flags", {})}
    flags = {name: value for name, value in flags.items() if value is not ...}
    content = {"name": "tiny", "output_dir": str(place / "out"), "launcher": f"{sys.executable} {STAND_IN}", "flags": flags,
               "grid": {"method": ["hidden_mse", "att_mse"]}, "seeds": [1, 2], **changes}
    path = place / "recipe.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in content.items() if value is not ...}, sort_keys=False), encoding="utf-8")
    return path


def start(path: Path, *flags: str, play: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """`python -m evaluation.sweep` in a session of its own, so that a signal to it reaches it alone."""
    return subprocess.Popen([sys.executable, "-m", "evaluation.sweep", str(path), *flags], cwd=ROOT, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, start_new_session=True, env=clean_environment(PLAY=json.dumps(play or {})))


def events(run: Path) -> list[str]:
    return [json.loads(line)["event"] for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
