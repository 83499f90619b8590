"""Starting the real trainer as a user would, and reading what it left."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = str(ROOT / "run_pretraining.py")
LAUNCHER_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "GROUP_RANK", "LOCAL_WORLD_SIZE")


def clean_environment(**more: str) -> dict[str, str]:
    """This process's environment without a launcher's variables, offline, one thread per process."""
    kept = {name: value for name, value in os.environ.items() if name not in LAUNCHER_VARIABLES}
    binaries = str(Path(sys.executable).parent)
    return {**kept, "PATH": f"{binaries}:{kept['PATH']}", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **more}


def launch(command: list[str], status: int = 0, timeout: float = 300, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `command` in the project's root and assert its exit status."""
    done = subprocess.run(command, cwd=ROOT, env=clean_environment(**environment), capture_output=True, text=True, timeout=timeout)
    assert done.returncode == status, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done


def train(flags: list[str], status: int = 0, launcher: tuple[str, ...] = (), **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the trainer under plain python, or behind `launcher`."""
    return launch([*(launcher or (sys.executable,)), SCRIPT, *flags], status, **environment)


def torchrun(processes: int) -> tuple[str, ...]:
    return (sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(processes), "--master_port", "0",
            "--rdzv_backend", "c10d", "--rdzv_endpoint", "127.0.0.1:0")


def events(run: Path, kind: str = "train") -> list[dict[str, Any]]:
    """The events of one kind in a run's metrics.jsonl."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == kind]


def losses(run: Path) -> list[float]:
    return [event["loss"] for event in events(run)]


def summary(run: Path) -> dict[str, Any]:
    return json.loads((run / "summary.json").read_text(encoding="utf-8"))


def without_times(run: Path) -> list[dict[str, Any]]:
    """All events but for what the wall clock decides."""
    timed = ("samples_per_s", "tokens_per_s", "step_s", "mfu")
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{name: value for name, value in json.loads(line).items() if name not in timed} for line in lines]
