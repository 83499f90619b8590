"""Scores as text: one line for each model, one column for each task and metric, in percent."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dataset.files import write_text
from evaluation.scoring.panels import protocol_text
from evaluation.scoring.statistics import Score, Spread, average, retention

CSV_NAME = "glue.csv"
NO_VALUE = "-"


@dataclass(frozen=True)
class _Column:
    task: str
    metric: str

    @property
    def title(self) -> str:
        return f"{self.task} {self.metric}"


def table(scores: Sequence[Score]) -> str:
    """Aggregates with their deviation over seeds, an average over the tasks where there are several, retention where there is a teacher."""
    if not scores:
        return "no scores"
    columns = list(dict.fromkeys(_Column(score.task, metric) for score in scores for metric in [*score.metrics] or [score.headline]))
    tasks = list(dict.fromkeys(score.task for score in scores))
    by_model = {model: {score.task: score for score in scores if score.model == model} for model in dict.fromkeys(s.model for s in scores)}
    teacher = next((own for own in by_model.values() if any(score.role == "teacher" for score in own.values())), {})
    has_hours = any(score.hours is not None for score in scores)
    head = ["model", *(["hours"] if has_hours else []), *(column.title for column in columns)]
    head += [f"average of {len(tasks)}"] if len(tasks) > 1 else []
    head += ["kept of teacher"] if teacher and len(by_model) > 1 else []
    lines = [head]
    for model, own in by_model.items():
        hours = next((score.hours for score in own.values() if score.hours is not None), None)
        line = [model, *([NO_VALUE if hours is None else f"{hours:.3f}"] if has_hours else [])]
        line += [_cell(own.get(column.task), column.metric) for column in columns]
        if len(tasks) > 1:
            mean = average(list(own.values()), tasks)
            line.append(NO_VALUE if mean is None else f"{100 * mean:.1f}")
        if teacher and len(by_model) > 1:
            line.append(_kept(own, teacher, tasks))
        lines.append(line)
    widths = [max(len(line[at]) for line in lines) for at in range(len(head))]
    shape = "  ".join([f"{{:<{widths[0]}}}", *(f"{{:>{width}}}" for width in widths[1:])])
    return "\n".join([*(shape.format(*line).rstrip() for line in lines), "", *_footnotes(scores)])


def _cell(score: Score | None, metric: str) -> str:
    if score is None:
        return NO_VALUE
    if metric not in score.metrics:
        return "diverged" if score.diverged else NO_VALUE
    spread = score.metrics[metric]
    wave = "" if spread.deviation is None else f" ±{100 * spread.deviation:.1f}"
    marks = ("*" if score.selected_on_dev else "") + (f" (from {score.start})" if score.start else "") + ("!" if score.diverged else "")
    return f"{100 * score.aggregate(metric):.1f}{wave}{marks}"


def _kept(own: dict[str, Score], teacher: dict[str, Score], tasks: Sequence[str]) -> str:
    shares = [retention(own[task], teacher[task]) for task in tasks if task in own and task in teacher]
    if len(shares) < len(tasks) or None in shares:
        return NO_VALUE
    return f"{100 * sum(shares) / len(shares):.1f}%"


def _footnotes(scores: Sequence[Score]) -> list[str]:
    """What the numbers are: protocols, seeds, and the marks that occur."""
    protocols = list(dict.fromkeys(how_scored(score) for score in scores))
    notes = [f"{protocol}, in percent" for protocol in protocols]
    if any(score.selected_on_dev for score in scores):
        notes.append("* the best grid point or evaluation was chosen on this dev set, so the score is optimistic")
    if any(score.diverged for score in scores):
        notes.append("! some seeds diverged and are left out")
    return notes


def how_scored(score: Score) -> str:
    """`quick v1 (3f2a9c01), mean ± deviation of seeds 1, 2, 3`, with what flags changed."""
    changed = f" with other {', '.join(score.protocol['changed'])}" if score.protocol["changed"] else ""
    seeds = f"{score.protocol['aggregate']} ± deviation of seeds" if len(score.seeds) > 1 else "seed"
    return f"{protocol_text(score.protocol)}{changed}, {seeds} {', '.join(map(str, score.seeds))}"


def write_csv(scores: Sequence[Score], path: Path) -> None:
    """One line for each model, task and metric, fractions at full precision: what a spreadsheet or pandas reads."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["model", "role", "hours", "step", "task", "metric", "value", "aggregate", "mean", "median", "deviation", "low", "high",
                     "seeds", "protocol", "version", "protocol_sha256", "changed", "selected_on_dev", "start", "diverged_seeds"])
    for score in scores:
        for metric, spread in score.metrics.items():
            writer.writerow(_line(score, metric, spread))
    write_text(path, text.getvalue())


def _line(score: Score, metric: str, spread: Spread) -> list:
    low, high = spread.interval or ("", "")
    protocol = score.protocol
    return [
        score.model, score.role, "" if score.hours is None else score.hours, score.place.get("step", ""), score.task, metric,
        score.aggregate(metric), protocol["aggregate"], spread.mean, spread.median, "" if spread.deviation is None else spread.deviation,
        low, high, " ".join(map(str, score.seeds)), protocol["name"], protocol["version"], protocol["sha256"],
        " ".join(protocol["changed"]), score.selected_on_dev, score.start or "", " ".join(map(str, score.diverged)),
    ]
