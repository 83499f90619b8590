"""What a sweep knows between calls: `sweep.json` beside its runs, and the states that the runs' own folders tell.

The record holds what no run's folder says: the flags with which a run was first started, and why the last attempt failed. Whether a run is
finished, and how long it trained, is read from its folder alone, so that a call that was killed, or a run that was started by hand, leaves
nothing to mend.
"""

import fcntl
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dataset.errors import UserError, one_line
from dataset.files import write_json
from evaluation.sweep.recipe import Recipe
from evaluation.sweep.runs import Run
from pretraining.args.parser import INFO
from pretraining.run_folder import UNFINISHED_REASONS, RunFolder

FILE_NAME, LOCK_NAME = "sweep.json", ".sweep.lock"
DYING_S = 1.0
"""A program that was killed keeps its lock for a moment."""
TAIL = 65536
"""Bytes at the end of metrics.jsonl that hold its last line."""

RESOLVED = frozenset({
    "method", "model_type", "tokenizer_name", "layer_selection", "student_layer_selection", "student_layers", "relation_heads",
    "encoder_ln_mode", "layernorm_embedding", "initializer_range", "precision", "gradient_accumulation_steps",
})
"""Flags that args.yaml holds as teacher, shards and device resolved them (`last` -> 5), and not as they were given."""


@dataclass(frozen=True)
class State:
    """`kind`: waiting, unfinished, failed or finished. `hours`: trained so far, on the budget's clock. `why`: exit reason or last words."""

    kind: str
    hours: float = 0.0
    why: str = ""

    @property
    def is_finished(self) -> bool:
        return self.kind == "finished"

    def __str__(self) -> str:
        return f"{self.kind} ({self.why})" if self.why else self.kind


class Record:
    """`sweep.json` of one sweep: run id -> {"flags", "failure": why the last attempt failed, or null}."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe, self.path = recipe, recipe.folder / FILE_NAME
        self.launcher, self.runs = recipe.launcher, {}
        if self.path.is_file():
            try:
                content = json.loads(self.path.read_text(encoding="utf-8"))
                self.launcher, self.runs = content["launcher"], dict(content["runs"])
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(f"{self.path}: not the record of a sweep ({one_line(error)}); move it away, the runs stay") from None

    def started(self, run: Run) -> None:
        self.runs[run.id] = {"flags": run.decisive, "failure": None}
        self._write()

    def failed(self, run: Run, why: str) -> None:
        self.runs[run.id]["failure"] = why
        self._write()

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, {"launcher": self.launcher, "runs": self.runs})

    def state(self, run: Run) -> State:
        """What the folder says; a run that its last attempt left unfinished with an error is failed."""
        state = folder_state(run.folder)
        failure = self.runs.get(run.id, {}).get("failure")
        return state if state.is_finished or failure is None else State("failed", state.hours, failure)

    def spent(self, runs: Sequence[Run]) -> float:
        """Hours trained by `runs` and by those of earlier recipes of this sweep, none counted beyond what it asked for."""
        known = {run.id: min(folder_state(run.folder).hours, run.hours) for run in runs}
        former = [folder_state(self.recipe.folder / name).hours for name in self.runs if name not in known]
        return sum(known.values()) + sum(former)

    def check(self, runs: Sequence[Run]) -> None:
        """UserError where a run that exists was made with other flags than the recipe gives it now."""
        if self.runs and self.launcher != self.recipe.launcher:
            raise self._changed("launcher", self.launcher, self.recipe.launcher, f"the {len(self.runs)} runs")
        for run in runs:
            now = run.decisive
            if run.id in self.runs:
                found = self.runs[run.id]["flags"]
            else:
                found = _stored_flags(run.folder, now)
            for name, value in now.items():
                old = found.get(name, INFO[name].default if run.id in self.runs else value)
                if old != value:
                    raise self._changed(name, old, value, run.id)

    def _changed(self, name: str, found: Any, now: Any, who: str) -> UserError:
        return UserError(f"{self.recipe.path}: {name}: {who} in {self.recipe.folder} began with {found}, now it is {now}; bring {found} "
                         "back, or give another output_dir (or name)")


def folder_state(folder: Path) -> State:
    """waiting, unfinished or finished, as the folder of a run tells."""
    run = RunFolder(folder)
    if run.summary.is_file():
        try:
            summary = json.loads(run.summary.read_text(encoding="utf-8"))
            reason, hours = str(summary["exit_reason"]), float(summary["hours"])
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{run.summary}: not a summary of a run; move {folder} aside") from None
        return State("unfinished" if reason in UNFINISHED_REASONS else "finished", hours, reason)
    if run.metrics.is_file():
        return State("unfinished", _last_hours(run.metrics))
    return State("waiting")


def _last_hours(metrics: Path) -> float:
    """The budget's clock at the last whole line; 0 where there is none."""
    with metrics.open("rb") as file:
        file.seek(max(0, metrics.stat().st_size - TAIL))
        lines = file.read().split(b"\n")[:-1]
    for line in reversed(lines):
        try:
            return float(json.loads(line)["hours"])
        except (ValueError, KeyError, TypeError):
            continue
    return 0.0


def _stored_flags(folder: Path, now: dict[str, Any]) -> dict[str, Any]:
    """What the args.yaml of a run that was started by hand says of flags that the recipe gives and no file resolves."""
    path = folder / "args.yaml"
    if not path.is_file():
        return {}
    try:
        stored = dict(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, ValueError):
        raise UserError(f"{path}: not the flags of a run; move {folder} aside") from None
    return {name: stored[name] for name, value in now.items() if name in stored and value is not None and name not in RESOLVED}


class Lock:
    """One call at a time in a sweep's folder; children inherit it, so it holds for as long as a run of a killed sweep lives."""

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = (folder / LOCK_NAME).open("a+")
        except OSError as error:
            raise UserError(f"output_dir: {folder} cannot be made ({error.strerror}); give a folder that can be written") from None
        deadline = time.monotonic() + DYING_S
        while not self._taken():
            if time.monotonic() > deadline:
                self._file.seek(0)
                holders = " and ".join(self._file.read().split()) or "unknown"
                raise UserError(f"{folder}: another sweep works here, or a run that it started (process {holders}); wait for it, or end it")
            time.sleep(0.02)
        self.hold()

    def _taken(self) -> bool:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    @property
    def descriptor(self) -> int:
        return self._file.fileno()

    def hold(self, *children: int) -> None:
        """Write down who works here."""
        self._file.seek(0)
        self._file.truncate()
        self._file.write("\n".join(map(str, (os.getpid(), *children))))
        self._file.flush()

    def close(self) -> None:
        self._file.close()
