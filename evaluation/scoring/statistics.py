"""What several seeds say together: one Score for each model, task and protocol, with the spread over its seeds.

Seeds are never pooled over models or protocols, and of a grid the point is chosen by its aggregate over seeds, not by its luckiest run;
a score that was chosen by looking at the dev set says so. The interval is Student's t for the mean of few runs; one seed has none.
"""

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from evaluation.scoring.results import MARKER_FIELDS, Row

AGGREGATES = ("median", "mean")
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Spread:
    """Values of one metric over seeds, in the order of the seeds; fractions like the values."""

    values: tuple[float, ...]
    mean: float
    median: float
    deviation: float | None
    """Sample standard deviation (n - 1 below the sum of squares); None for one value."""
    interval: tuple[float, float] | None
    """Of the mean, two-sided, CONFIDENCE, by Student's t with n - 1 degrees of freedom; None for one value."""


def spread(values: Sequence[float]) -> Spread:
    """The Spread of at least one finite value."""
    mean = statistics.fmean(values)
    if len(values) == 1:
        return Spread(tuple(values), mean, mean, None, None)
    deviation = statistics.stdev(values)
    from scipy.special import stdtrit  # Student's quantile; scipy.stats has it too and takes a second to import

    half = float(stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2)) * deviation / math.sqrt(len(values))
    return Spread(tuple(values), mean, statistics.median(values), deviation, (mean - half, mean + half))


@dataclass(frozen=True)
class Score:
    """One model on one task under one protocol: every metric with its spread over the seeds that did not diverge."""

    model: str
    role: str
    folder: str
    task: str
    headline: str
    protocol: dict[str, Any]
    """name, version, sha256, changed, aggregate."""
    settings: dict[str, Any]
    """Of the chosen grid point, without `seed`."""
    seeds: tuple[int, ...]
    diverged: tuple[int, ...]
    """Seeds whose training did not stay finite; they are in no metric."""
    metrics: dict[str, Spread]
    """Empty where every seed diverged."""
    constant_metrics: dict[str, float]
    selected_on_dev: bool
    """True where a grid point, or the best of several evaluations, was chosen by the dev set that is reported."""
    start: str | None
    """Task whose fine-tuned weights it began with."""
    place: dict[str, Any]
    """`fraction`, `step`, `hours`, `validation_loss` of a marker, else {}."""
    rows: tuple[Row, ...]

    @property
    def value(self) -> float | None:
        """The headline metric, aggregated as the protocol says; None where every seed diverged."""
        return self.aggregate(self.headline)

    def aggregate(self, metric: str) -> float | None:
        found = self.metrics.get(metric)
        return None if found is None else getattr(found, self.protocol["aggregate"])

    @property
    def has_learnt(self) -> bool:
        """Whether the headline is above that of always giving the same answer."""
        return self.value is not None and self.value > self.constant_metrics.get(self.headline, -math.inf)

    @property
    def hours(self) -> float | None:
        """Training time on the budget's clock of a marker, else None."""
        return self.place.get("hours")


def has_score(rows: Sequence[Row]) -> list[Row]:
    """Rows that were scored, or would have been had they not diverged."""
    return [row for row in rows if row["metrics"] or row["diverged"]]


def summarise(rows: Sequence[Row]) -> list[Score]:
    """Scores by model, then task, in the order in which `rows` (complete ones) first name them; of a grid only the best point.

    A row of a set without labels (predicted for a submission) is no score.
    """
    points: dict[tuple, list[Row]] = {}
    for row in has_score(rows):
        points.setdefault(_point(row), []).append(row)
    candidates: dict[tuple, list[Score]] = {}
    for found in points.values():
        score = _score(list({row["seed"]: row for row in found}.values()))
        candidates.setdefault(_same_question(found[0]), []).append(score)
    chosen = [_best(scores) for scores in candidates.values()]
    models = list(dict.fromkeys(score.model for score in chosen))
    return sorted(chosen, key=lambda score: models.index(score.model))


def canonical(value: Any) -> str:
    """Equal for equal values, to group by."""
    return json.dumps(value, sort_keys=True)


def _same_question(row: Row) -> tuple:
    """What grid points of one score share."""
    start = row["start"] and {name: value for name, value in row["start"].items() if name != "settings"}
    return (row["model"], row["task"], row["weights_sha256"], row["data_sha256"], row["mode"], row["teacher_sha256"],
            canonical([row["protocol"], start]))


def _point(row: Row) -> tuple:
    """What rows that differ in their seed alone share."""
    settings = {name: value for name, value in row["settings"].items() if name != "seed"}
    return *_same_question(row), canonical(settings)


def _score(rows: list[Row]) -> Score:
    first = rows[0]
    rows = sorted(rows, key=lambda row: row["seed"])
    finite = [row for row in rows if not row["diverged"]]
    names = list(finite[0]["metrics"]) if finite else []
    return Score(
        model=first["model"], role=first["role"], folder=first["folder"], task=first["task"], headline=first["headline"],
        protocol=first["protocol"], settings={name: value for name, value in first["settings"].items() if name != "seed"},
        seeds=tuple(row["seed"] for row in rows), diverged=tuple(row["seed"] for row in rows if row["diverged"]),
        metrics={name: spread([row["metrics"][name] for row in finite]) for name in names},
        constant_metrics=first["constant_metrics"], selected_on_dev=any(row["selected_on_dev"] for row in rows),
        start=first["start"]["task"] if first.get("start") else None,
        place={name: first[name] for name in MARKER_FIELDS if name in first}, rows=tuple(rows),
    )


def _best(points: list[Score]) -> Score:
    """The grid point with the best headline among those with the fewest seeds that diverged; the first of equals."""
    best = max(points, key=lambda score: (-len(score.diverged), -math.inf if score.value is None else score.value))
    return best if len(points) == 1 else Score(**{**vars(best), "selected_on_dev": True})


def average(scores: Sequence[Score], tasks: Sequence[str]) -> float | None:
    """Unweighted mean of one model's headline metrics over `tasks`; None where one is missing, so that no two averages differ in tasks."""
    values = {score.task: score.value for score in scores}
    found = [values.get(task) for task in tasks]
    return None if not found or None in found else statistics.fmean(found)


def retention(score: Score, teacher: Score) -> float | None:
    """The share of the teacher's headline that a model keeps; None where either has none, or the teacher's says nothing: it is not above
    0, or not above a constant prediction."""
    if score.value is None or teacher.value is None or teacher.value <= 0 or not teacher.has_learnt:
        return None
    return score.value / teacher.value
