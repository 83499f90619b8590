"""What a run's events show over its hours: loss terms, learning rate, throughput and share of peak, thinned out for drawing.

Thinning keeps the smallest and the largest value of every stretch, so that no peak is lost, and the gaps where a value was not finite.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.report.run import Run, number

MOST_POINTS = 600
MEASURES = {
    "lr": ("Learning rate", "learning rate"),
    "tokens_per_s": ("Throughput", "non-padding tokens per second"),
    "mfu": ("Share of peak", "share of matrix-multiply peak (%)"),
}
"""Key of a `train` event -> (title, axis)."""


@dataclass(frozen=True)
class Line:
    """Values of one run over hours, both float64 of one length; NaN where a value was not finite. `held_out`: of validation events."""

    run: str
    held_out: bool
    hours: np.ndarray
    values: np.ndarray
    logged: int
    """Events before thinning."""

    @property
    def is_thinned(self) -> bool:
        return len(self.hours) < self.logged


@dataclass(frozen=True)
class Chart:
    """One chart: a Line or two for each run."""

    key: str
    title: str
    axis: str
    lines: tuple[Line, ...]

    @property
    def is_logarithmic(self) -> bool:
        """A loss that is positive and spans more than a factor of 20; rates and shares start at zero."""
        if not self.key.startswith("loss"):
            return False
        values = np.concatenate([line.values[np.isfinite(line.values)] for line in self.lines])
        return bool(len(values) and values.min() > 0 and values.max() > 20 * values.min())


def thin(hours: np.ndarray, values: np.ndarray, most: int = MOST_POINTS) -> tuple[np.ndarray, np.ndarray]:
    """At most about `most` points of a curve: of each of most/2 stretches the smallest and the largest value, and a gap if it has one.

    The first and the last point stay.
    """
    if len(hours) <= most:
        return hours, values
    kept = {0, len(hours) - 1}
    for stretch in np.array_split(np.arange(len(hours)), most // 2):
        finite = stretch[np.isfinite(values[stretch])]
        if len(finite) < len(stretch):
            kept.add(int(stretch[~np.isfinite(values[stretch])][0]))
        if len(finite):
            kept |= {int(finite[values[finite].argmin()]), int(finite[values[finite].argmax()])}
    index = np.array(sorted(kept))
    return hours[index], values[index]


def loss_charts(runs: Sequence[Run]) -> list[Chart]:
    """One chart for each loss term, of every run that has it, and one of the weighted sum for each objective of several terms."""
    charts = [_chart(runs, f"loss/{term}", f"Loss term {term}", "loss") for term in _terms(runs)]
    objectives: dict[str, list[Run]] = {}
    for run in runs:
        if len(_terms([run])) != 1 and any("loss" in event for event in run.events):
            objectives.setdefault(objective(run), []).append(run)
    charts += [_chart(group, "loss", f"Loss, weighted sum: {name}" if name else "Loss, weighted sum", "loss")
               for name, group in objectives.items()]
    return [chart for chart in charts if chart.lines]


def measure_charts(runs: Sequence[Run]) -> list[Chart]:
    """Learning rate, throughput, and share of peak where it is known."""
    charts = [_chart(runs, key, title, axis, 100.0 if key == "mfu" else 1.0) for key, (title, axis) in MEASURES.items()]
    return [chart for chart in charts if chart.lines]


def objective(run: Run) -> str:
    """The --method of a run; "" where its flags do not say."""
    return str(run.flags.get("method") or "")


def _terms(runs: Sequence[Run]) -> list[str]:
    return list(dict.fromkeys(key.removeprefix("loss/") for run in runs for event in [*run.of("train"), *run.of("validation")]
                              for key in event if key.startswith("loss/")))


def _chart(runs: Sequence[Run], key: str, title: str, axis: str, factor: float = 1.0) -> Chart:
    lines = (_line(run, key, kind, factor) for run in runs for kind in ("train", "validation"))
    return Chart(key, title, axis, tuple(line for line in lines if line is not None))


def _line(run: Run, key: str, kind: str, factor: float) -> Line | None:
    """None where no event has a finite value under `key`."""
    found = [(number(event.get("hours")), factor * number(event[key])) for event in run.of(kind) if key in event]
    found = [(hour, value if math.isfinite(value) else math.nan) for hour, value in found if math.isfinite(hour)]
    if not any(math.isfinite(value) for _, value in found):
        return None
    hours, values = (np.array(column) for column in zip(*found, strict=True))
    return Line(run.name, kind == "validation", *thin(hours, values), len(found))
