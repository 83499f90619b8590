"""Run steps one after another, each in a process of its own, and remember which are done, so that a killed recipe goes on where it was.

`steps/NAME.json` in the output folder holds the command line of a finished step and which runs of other steps it read. A step is done where
that line is the same, what it read has not been made anew, and its output is there; each step can itself go on after a kill.
"""

import json
import shlex
import subprocess
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dataset.errors import UserError
from dataset.files import write_json
from task_distillation.recipe.steps import Step

SCRIPT = Path(__file__).resolve().parents[2] / "run_task_distillation.py"
STEPS = "steps"
REQUEUE = 75


class Runner:
    """Runs the steps of one output folder. `launcher`: words before the script for `distil`, such as torchrun's."""

    def __init__(self, output_dir: Path, launcher: Sequence[str]) -> None:
        self.folder, self.launcher = output_dir / STEPS, list(launcher)

    def check(self, steps: Sequence[Step]) -> None:
        """UserError where a finished step was done by another command line: its result is not what is asked for now."""
        for step in steps:
            record = self._record(step)
            if record is None or record["words"] == step.words or not step.output.exists():
                continue
            old, new = record["words"], step.words
            at = next((place for place, pair in enumerate(zip(old, new, strict=False)) if pair[0] != pair[1]), min(len(old), len(new)))
            shown = [" ".join(words[max(0, at - 1) : at + 1]) or "nothing" for words in (old, new)]
            raise UserError(f"{step.output}: made with {shown[0]}, not with {shown[1]}; another --output_dir would work, or remove it")

    def run(self, step: Step) -> None:
        """Do the step unless it is done; UserError where it fails, and SystemExit(75) where it was asked to stop and can go on."""
        inputs = {name: self._serial(name) for name in step.inputs}
        record = self._record(step)
        is_stale = record is not None and record["inputs"] != inputs
        if record is not None and not is_stale and record["words"] == step.words and step.output.exists():
            print(f"{step.name}: done before", flush=True)
            return
        line = [str(SCRIPT), *step.line(is_stale)]
        print(f"{step.name}: python {shlex.join(line)}", flush=True)
        launched = self.launcher if step.command == "distil" and self.launcher else [sys.executable]
        status = subprocess.run([*launched, *line], check=False).returncode
        if status == REQUEUE:
            raise SystemExit(REQUEUE)
        if status < 0 or status > 128:
            raise UserError(f"{step.name}: ended by signal {-status if status < 0 else status - 128}; the same command goes on")
        if status or not step.output.exists():
            raise UserError(f"{step.name}: failed with status {status}; mend what it says above, the same command goes on")
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self._path(step.name), {"words": step.words, "inputs": inputs, "serial": uuid.uuid4().hex})

    def _path(self, name: str) -> Path:
        return self.folder / f"{name.replace(' ', '_')}.json"

    def _record(self, step: Step) -> dict[str, Any] | None:
        return self._read(step.name)

    def _serial(self, name: str) -> str | None:
        """Which run of the step made what is there."""
        record = self._read(name)
        return None if record is None else record["serial"]

    def _read(self, name: str) -> dict[str, Any] | None:
        path = self._path(name)
        if not path.is_file():
            return None
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            return {key: record[key] for key in ("words", "inputs", "serial")}
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{path}: not what a recipe writes; remove it, and the step is done again") from None
