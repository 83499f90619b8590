"""Run steps one after another, each in a process of its own, and remember which are done, so that a killed recipe goes on where it was.

`steps/NAME.json` in the output folder holds the command line of a finished step, and hashes of what it made and of all that it read. A step
is done where all that it reads is the same and its output is there; each step can itself go on after a kill. `steps/NAME.begun.json` holds
the same of a step that was begun, so that one whose inputs were made anew starts over once, and goes on afterwards.
"""

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dataset.errors import UserError
from dataset.files import write_json
from task_distillation.recipe.child import start
from task_distillation.recipe.outside import Outside
from task_distillation.recipe.steps import Step

SCRIPT = Path(__file__).resolve().parents[2] / "run_task_distillation.py"
STEPS = "steps"
REQUEUE = 75
Inputs = dict[str, str | None]
"""Which content was read, by the name of its step or flag; None where nobody can say."""


def shown(command: str, line: str, launcher: Sequence[str]) -> str:
    """A step's command line for people; `launcher` starts `distil`."""
    return f"{shlex.join(launcher) if command == 'distil' and launcher else 'python'} {SCRIPT.name} {line}"


class Runner:
    """Runs the steps of one output folder. `launcher`: words before the script for `distil`, such as torchrun's."""

    def __init__(self, output_dir: Path, launcher: Sequence[str], outside: Outside) -> None:
        self.folder, self.launcher, self.outside = output_dir / STEPS, list(launcher), outside

    def check(self, steps: Sequence[Step]) -> None:
        """UserError where a finished step was done by another command line, or read what is no longer there: nobody asks for its result."""
        for step in steps:
            record = self._read(step.name)
            if record is None or not step.output.exists():
                continue
            old, new = record["words"], step.words
            if old != new:
                at = next((place for place, pair in enumerate(zip(old, new, strict=False)) if pair[0] != pair[1]), min(len(old), len(new)))
                said = [" ".join(words[max(0, at - 1) : at + 1]) or "nothing" for words in (old, new)]
                raise UserError(f"{step.output}: made with {said[0]}, not with {said[1]}; another --output_dir would work, or remove it")
            other = _first_other(record["inputs"], self.outside.of(step))
            if other is not None:
                what = f"{other} {step.reads[other]}" if other in step.reads else "the task's data"
                raise UserError(f"{step.output}: made when {what} had other content; another --output_dir would work, or remove it")

    def has_done(self, step: Step) -> bool:
        """Whether the step was done by this command line and its work is there; of whatever inputs."""
        record = self._read(step.name)
        return record is not None and record["words"] == step.words and step.is_done()

    def run(self, step: Step) -> None:
        """Do the step unless it is done; UserError where it fails, and SystemExit(75) where it was asked to stop and can go on."""
        inputs = {name: self._serial(name) for name in step.inputs} | self.outside.of(step)
        record = self._read(step.name)
        if record is not None and self.has_done(step) and _first_other(record["inputs"], inputs) is None:
            print(f"{step.name}: done before", flush=True)
            return
        line = step.line(self._starts_over(step, record, inputs))
        print(f"{step.name}: {shown(step.command, shlex.join(line), self.launcher)}", flush=True)
        launched = self.launcher if step.command == "distil" and self.launcher else [sys.executable]
        status, asked = start([*launched, str(SCRIPT), *line])
        if step.has_diverged():
            raise UserError(f"{step.name}: its loss was no number; remove {step.output.parent}, and a lower --set distil.lr=X or "
                            f"--set distil.precision=fp32 may work")
        is_done = status == 0 and step.is_done()
        if is_done:
            write_json(self._path(step.name), {"words": step.words, "inputs": inputs, "serial": step.content()})
            self._path(step.name, begun=True).unlink(missing_ok=True)
        # Under torchrun a run that saved itself and stopped has status 0, and one that a launcher stopped any.
        if asked or status == REQUEUE or (status == 0 and not is_done and step.output.exists()):
            print(f"{step.name}: {'done' if is_done else 'stopped'}; the same command goes on", flush=True)
            raise SystemExit(REQUEUE)
        if status < 0 or status > 128:
            raise UserError(f"{step.name}: ended by signal {-status if status < 0 else status - 128}; the same command goes on")
        if not is_done:
            raise UserError(f"{step.name}: failed with status {status}; mend what it says above, the same command goes on")

    def _starts_over(self, step: Step, record: dict[str, Any] | None, inputs: Inputs) -> bool:
        """Whether what is there was made of other inputs; keeps which ones the step is begun with.

        What it makes after it was begun with them is its own: `mark` tells that it has taken the place over.
        """
        begun, now = self._read(step.name, begun=True), step.mark()
        if begun is not None and _first_other(begun["inputs"], inputs) is None:
            return begun["replaces"] is not None and begun["replaces"] == now
        before = begun or record
        starts_over = before is not None and _first_other(before["inputs"], inputs) is not None
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self._path(step.name, begun=True), {"inputs": inputs, "replaces": now if starts_over else None})
        return starts_over

    def _path(self, name: str, begun: bool = False) -> Path:
        return self.folder / f"{name.replace(' ', '_')}{'.begun' if begun else ''}.json"

    def _serial(self, name: str) -> str | None:
        """What the step made, by content."""
        record = self._read(name)
        return None if record is None else record["serial"]

    def _read(self, name: str, begun: bool = False) -> dict[str, Any] | None:
        path = self._path(name, begun)
        if not path.is_file():
            return None
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            return {key: record[key] for key in (("inputs", "replaces") if begun else ("words", "inputs", "serial"))}
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{path}: not what a recipe writes; remove it, and the step is done again") from None


def _first_other(old: Inputs, new: Inputs) -> str | None:
    """The name of the first input that is known to differ."""
    return next((name for name, value in new.items() if value is not None and old.get(name) != value), None)
