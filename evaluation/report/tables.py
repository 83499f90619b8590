"""The tables of a report: what each cell says, and the number behind it, ready for the template; those of runs here.

Scores are percent in the text and fractions in the number, as in glue.json.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from evaluation.report.run import Run, number
from evaluation.scoring.panels import counted

NONE = "–"
MISSING = object()
VERSIONS = ("python", "torch", "deepspeed", "transformers")


@dataclass(frozen=True)
class Cell:
    """`value`: the number as the files have it; None for words. `about`: said below it in small."""

    text: str
    value: float | None = None
    about: str = ""


@dataclass(frozen=True)
class Line:
    """A row of a table. `name` is its head; `owner` the run or model whose colour it bears."""

    name: str
    owner: str
    cells: tuple[Cell, ...]
    about: str = ""


@dataclass(frozen=True)
class Table:
    """`kinds`: "number" or "words" for each column after the head."""

    title: str
    head: tuple[str, ...]
    kinds: tuple[str, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()


EMPTY = Cell(NONE)


def count(value: float | None) -> Cell:
    """A whole number, digits in threes."""
    return EMPTY if value is None else Cell(f"{value:,.0f}", value)


def hours(value: float | None) -> Cell:
    """Hours, and minutes where they are few."""
    if not value:
        return EMPTY if value is None else Cell("0 h", 0.0)
    return Cell(f"{value:.4f} h" if value < 1 else f"{value:.2f} h", value, f"{60 * value:.1f} min" if value < 2 else "")


def place_hours(value: float | None) -> Cell:
    """Hours in a column that says so."""
    return EMPTY if value is None else Cell(f"{value:.4f}" if 0 < value < 0.1 else f"{value:.3f}", value)


def loss(value: float | None) -> Cell:
    return EMPTY if value is None or not math.isfinite(value) else Cell(f"{value:.4g}", value)


def percent(value: float | None, digits: int = 1) -> Cell:
    """A fraction as percent."""
    return EMPTY if value is None else Cell(f"{100 * value:.{digits}f}", value)


def facts(run: Run) -> list[tuple[str, Cell]]:
    """What a run did and on what: label and cell."""
    environment = run.environment
    versions = ", ".join(f"{name} {environment[name]}" for name in VERSIONS if environment.get(name))
    return [
        ("ended", Cell(run.end)), ("training time", hours(run.hours)), ("steps", count(run.latest("step"))),
        ("samples", count(run.latest("samples"))), ("non-padding tokens", count(run.latest("tokens"))),
        ("tokens per second", count(run.latest("tokens_per_s"))), ("devices", Cell(run.device_name)),
        ("versions", Cell(versions or "unknown")),
    ]


def purpose(run: Run) -> str:
    """What was trained from what, in one line, as far as the flags say it."""
    flags = run.flags
    parts = [f"{flags['num_hidden_layers']} layers of {flags['hidden_size']}"] if {"num_hidden_layers", "hidden_size"} <= set(flags) else []
    parts += [f"objective {flags['method']}"] if flags.get("method") else []
    parts += [f"teacher {flags['teacher_path']}"] if flags.get("distillation") and flags.get("teacher_path") else []
    parts += [f"budget {flags['total_training_time']} h"] if flags.get("total_training_time") is not None else []
    return " · ".join(parts)


def run_table(runs: Sequence[Run]) -> Table:
    """Runs side by side."""
    head = ("run", *(label for label, _ in facts(runs[0])[:-1]), "held-out loss", "objective")
    lines = [Line(run.name, run.name, (
        Cell(str(run.summary.get("exit_reason") or "unfinished")),
        *(cell for _, cell in facts(run)[1:-1]), loss(held_out_loss(run)), Cell(str(run.flags.get("method") or NONE)))) for run in runs]
    kinds = ("words", *["number"] * 5, "words", "number", "words")
    return Table("Runs", head, kinds, tuple(lines), ("Losses of different objectives are on different scales.",))


def held_out_loss(run: Run) -> float | None:
    """The last one that was measured, by the summary or by the last validation."""
    losses = run.summary.get("losses")
    said = [losses.get("held-out loss")] if isinstance(losses, dict) else []
    said += [event.get("loss") for event in reversed(run.of("validation"))]
    return next((value for value in map(number, said[:1] or said) if math.isfinite(value)), None)


def cost_table(runs: Sequence[Run], fine_tuning_seconds: dict[str, float]) -> Table:
    """Hours times devices, closing work and scoring apart; energy where the run's files tell."""
    lines = []
    for run in runs:
        spent, devices, closing = run.hours, run.devices, number(run.summary.get("closing_s"))
        energy = run.energy_kwh
        seconds = fine_tuning_seconds.get(run.name)
        lines.append(Line(run.name, run.name, (
            hours(spent), count(devices), Cell(run.device_name), hours(spent * devices) if spent is not None and devices else EMPTY,
            Cell(f"{closing:.1f} s", closing) if math.isfinite(closing) else EMPTY,
            Cell("unknown") if energy is None else Cell(f"{energy:.3f} kWh", energy),
            EMPTY if seconds is None else Cell(hours(seconds / 3600).text, seconds / 3600))))
    return Table("Cost", ("run", "training", "devices", "kind", "hours × devices", "closing work", "energy", "fine-tuning for scores"),
                 ("number", "number", "words", "number", "number", "words", "number"), tuple(lines), (
        "Training: the budget's clock, with validation, checkpoints and exports. Closing work came after the last step. Energy is what "
        "the run's own files say; nothing is guessed from nominal power. Fine-tuning: of the markers that are shown, all seeds.",))


def flag_lines(values: dict[str, Any]) -> list[tuple[str, str]]:
    """Flags or environment as text."""
    return [(str(name), _text(value)) for name, value in values.items()]


def differing_flags(runs: Sequence[Run]) -> Table:
    """Only the flags in which the runs differ, a column for each run."""
    names = list(dict.fromkeys(name for run in runs for name in run.flags))
    lines = []
    for name in names:
        found = [run.flags.get(name, MISSING) for run in runs]
        if any(value != found[0] or type(value) is not type(found[0]) for value in found):
            lines.append(Line(str(name), "", tuple(Cell(NONE if value is MISSING else _text(value)) for value in found)))
    same = counted(len(names) - len(lines), "other flag")
    return Table("Flags that differ", ("flag", *(run.name for run in runs)), ("words",) * len(runs), tuple(lines),
                 (f"The same in all of these runs: {same}.",))


def _text(value: Any) -> str:
    return {None: "null", True: "true", False: "false"}[value] if value is None or isinstance(value, bool) else str(value)
