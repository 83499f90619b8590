"""A run's folder as a report reads it: finished, still going, cut short or damaged. Nothing missing ends a report; it becomes a note.

Only the folder of a run is required, and something of a run in it; every other file adds to the page what it has.
"""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from dataset.errors import UserError, one_line

RUN_FILES = ("metrics.jsonl", "args.yaml", "summary.json", "finetune")
ENDS = {
    "time_budget": "the time budget was used up", "early_exit_marker": "the early-exit time was reached",
    "max_steps": "the last step was done", "early_stop": "the early-stop rule ended it", "diverged": "the training diverged",
    "signal": "a signal stopped it; --resume goes on",
    "deadline": "a deadline stopped it; --resume goes on", "rank_failure": "a rank failed; --resume goes on",
}
ENERGY_KWH = {"energy_kwh": 1.0, "energy_wh": 1e-3, "energy_j": 1 / 3.6e6, "energy_joules": 1 / 3.6e6}
"""Keys under which a tracker may have left the energy of the whole run so far, and the kWh in their unit."""


@dataclass(frozen=True)
class Run:
    """What the files of one run say; each of `flags`, `environment` and `summary` is {} where its file says nothing."""

    name: str
    folder: Path
    flags: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """One line for each thing that is missing, damaged or out of the ordinary."""

    def of(self, event: str) -> list[dict[str, Any]]:
        """Events of a kind, as they were written."""
        return [entry for entry in self.events if entry.get("event") == event]

    def latest(self, key: str) -> float | None:
        """`key` as the summary says it, else as the last event that has it does."""
        said = [self.summary.get(f"{key}s" if key == "step" else key), *(entry.get(key) for entry in reversed(self.events))]
        return next((value for value in map(number, said) if math.isfinite(value)), None)

    @property
    def hours(self) -> float | None:
        """Training time on the budget's clock."""
        return self.latest("hours")

    @property
    def devices(self) -> int | None:
        """Ranks, which is devices."""
        count = self.environment.get("world_size")
        return count if isinstance(count, int) and count > 0 else None

    @property
    def device_name(self) -> str:
        """Such as "2 × NVIDIA H200" or "1 × CPU (2 cores)"."""
        gpus = self.environment.get("gpus")
        if self.devices is None or not isinstance(gpus, list):
            return "unknown"
        kinds = list(dict.fromkeys(map(str, gpus)))
        cores = self.environment.get("cpu_count")
        return f"{self.devices} × {' / '.join(kinds) if kinds else f'CPU ({cores} cores)' if cores else 'CPU'}"

    @property
    def end(self) -> str:
        """Why it ended, in words."""
        reason = self.summary.get("exit_reason")
        if reason is None:
            return "no summary.json: still going, or killed"
        return f"{reason}: {ENDS[reason]}" if reason in ENDS else str(reason)

    @property
    def energy_kwh(self) -> float | None:
        """Of the whole run, where its files tell."""
        for key, factor in ENERGY_KWH.items():
            for source in (self.summary, self.environment, *reversed(self.events)):
                if math.isfinite(value := number(source.get(key))):
                    return value * factor
        return None


def number(value: Any) -> float:
    """`value` as a float, NaN where it is none: metrics.jsonl has null where a loss was not finite."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def read_runs(folders: list[Path]) -> list[Run]:
    """The runs in the order given, each under a name of its own; UserError for a folder that holds no run, and for one given twice."""
    resolved = [folder.resolve() for folder in folders]
    twice = next((folder for folder, path in zip(folders, resolved, strict=True) if resolved.count(path) > 1), None)
    if twice is not None:
        raise UserError(f"{twice}: given twice; give each run once")
    return [_read_run(folder, name) for folder, name in zip(folders, _names(resolved), strict=True)]


def is_run(folder: Path) -> bool:
    """Whether `folder` holds something of a run."""
    return any((folder / file).exists() for file in RUN_FILES)


def _names(folders: list[Path]) -> list[str]:
    """JOB/RUN, or as many folders above as it takes to tell the runs apart."""
    depth = 2
    while True:
        names = ["/".join(folder.parts[1:][-depth:]) for folder in folders]
        if len(set(names)) == len(names):
            return names
        depth += 1


def _read_run(folder: Path, name: str) -> Run:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give the folder of a run, OUTPUT_DIR/JOB_NAME/CURRENT_RUN_ID")
    if not is_run(folder):
        below = sorted({path.parent for path in [*folder.glob("*/metrics.jsonl"), *folder.glob("*/*/metrics.jsonl")]})
        hint = f"did you mean {below[0]}?" if below else "give the folder of a run, OUTPUT_DIR/JOB_NAME/CURRENT_RUN_ID"
        raise UserError(f"{folder}: none of {', '.join(RUN_FILES)} in it, and no glue.json or sweep.json; {hint}")
    notes: list[str] = []
    run = Run(name, folder, _read_mapping(folder / "args.yaml", notes), _read_mapping(folder / "environment.json", notes),
              _read_mapping(folder / "summary.json", notes, "the run is still going, or was killed"),
              _read_events(folder / "metrics.jsonl", notes), notes)
    notes.extend(_oddities(run))
    return run


def _read_mapping(path: Path, notes: list[str], meaning: str = "what it says is missing here") -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        value = yaml.safe_load(text) if path.suffix == ".yaml" else json.loads(text)
    except FileNotFoundError:
        notes.append(f"no {path.name}: {meaning}")
        return {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        notes.append(f"{path.name} cannot be read ({one_line(error)[:150]}): what it says is missing here")
        return {}
    if not isinstance(value, dict):
        notes.append(f"{path.name} is not a mapping: what it says is missing here")
        return {}
    return value


def _read_events(path: Path, notes: list[str]) -> list[dict[str, Any]]:
    """Every whole event; a last line without its end is what a kill leaves, any other bad line is named."""
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        notes.append("no metrics.jsonl: no curves of losses and speed")
        return []
    events, bad = [], []
    for place, line in enumerate(lines, start=1):
        try:
            event = json.loads(line) if line.strip() else None
        except ValueError:
            event = ()
        if isinstance(event, dict) and isinstance(event.get("event"), str):
            events.append(event)
        elif event is not None:
            bad.append(place)
    if bad and bad[-1] == len(lines):
        bad.pop()
        notes.append(f"metrics.jsonl line {len(lines)} is cut short and left out, as after a kill or while a run writes")
    if bad:
        notes.append(f"metrics.jsonl line{'s' if len(bad) > 1 else ''} {', '.join(map(str, bad[:5]))}{' ...' if bad[5:] else ''} "
                     "cannot be read as an event; left out")
    return events


def _oddities(run: Run) -> list[str]:
    notes = []
    train = run.of("train")
    if run.summary.get("exit_reason") == "diverged":
        why = run.summary.get("why")
        notes.append(f"the training diverged{f' ({why})' if why else ''}")
    for event, what in (("train", "training"), ("validation", "held-out")):
        lost = [entry for entry in run.of(event) if "loss" in entry and not math.isfinite(number(entry["loss"]))]
        if lost:
            notes.append(f"the {what} loss was not finite in {len(lost)} of {len(run.of(event))} events, first at step "
                         f"{lost[0].get('step')}")
    resumed = run.of("resume")
    if resumed:
        steps = ", ".join(str(entry.get("step")) for entry in resumed[:8])
        notes.append(f"resumed {len(resumed)} time{'s' if len(resumed) > 1 else ''}, at step {steps}{' ...' if resumed[8:] else ''}; "
                     "hours leave out the time the run was down")
    superseded = sorted(path.name for path in run.folder.glob("finetune/superseded/*") if path.is_dir())
    if superseded:
        notes.append(f"{len(superseded)} marker{'s' if len(superseded) > 1 else ''} superseded by going on from an earlier checkpoint, not "
                     f"drawn: {', '.join(superseded[:4])}{' ...' if superseded[4:] else ''}")
    if run.events and not train:
        notes.append("no training step is logged yet")
    return notes
