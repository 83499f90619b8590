"""Scores as text: one line for each model, one column for each task and metric, in percent."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dataset.files import write_text
from evaluation.scoring.panels import conditions
from evaluation.scoring.protocols import OWN_HEAD
from evaluation.scoring.statistics import Score, Spread, average, retention

CSV_NAME = "glue.csv"
NO_VALUE = "-"
COLUMNS = (
    "model", "role", "hours", "step", "task", "metric", "value", "aggregate", "mean", "median", "deviation", "low", "high", "constant",
    "seeds", "diverged_seeds", "protocol", "version", "protocol_sha256", "changed", "grid_point", "selected_on_dev", "start", "mode",
    "teacher_sha256", "train_size", "dev_size", "data_sha256", "weights_sha256",
)


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
    marks = ("*" if score.selected_on_dev else "") + ("!" if score.diverged else "")
    marks += "?" if metric == score.headline and not score.has_learnt else ""
    marks += (f" (from {score.start})" if score.start else "") + (" (distilled)" if score.rows[0]["teacher_sha256"] else "")
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
    notes += [f"* {score.task} of {score.model}: {grid_point_text(score)}" for score in scores if score.rows[0].get("grid_point")]
    floors = {score.task: 100 * score.constant_metrics[score.headline] for score in scores if score.metrics and not score.has_learnt}
    notes += [f"? not above always giving the same answer, which has {floor:.1f} on {task}" for task, floor in floors.items()]
    notes += [f"! {score.task} of {score.model}: seeds {', '.join(map(str, score.diverged))} diverged and are left out"
              for score in scores if score.diverged]
    precisions = sorted({f"{row['precision']} on {row['device']}" for score in scores for row in score.rows})
    if len(precisions) > 1:
        notes.append(f"computed in {' and '.join(precisions)}, which round differently")
    return notes


def grid_point_text(score: Score) -> str:
    """The point of the grid that was chosen: `learning_rate 3e-05, warmup_ratio 0.1`."""
    return ", ".join(f"{name} {value}" for name, value in score.rows[0]["grid_point"].items())


def how_scored(score: Score) -> str:
    """`quick v1 (3f2a9c01), mean ± deviation of seeds 1, 2, 3`, with the values of what flags changed."""
    if score.protocol["name"] == OWN_HEAD:
        return "as it is, with its own head"
    seeds = f"{score.protocol['aggregate']} ± deviation of seeds" if len(score.seeds) > 1 else "seed"
    return f"{conditions(score.protocol, score.settings)}, {seeds} {', '.join(map(str, score.seeds))}"


def write_csv(scores: Sequence[Score], path: Path) -> None:
    """One line for each model, task and metric, fractions at full precision: what a spreadsheet or pandas reads."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for score in scores:
        for metric, spread in (score.metrics or {score.headline: None}).items():
            writer.writerow(_line(score, metric, spread))
    write_text(path, text.getvalue())


def _line(score: Score, metric: str, spread: Spread | None) -> list:
    """Without numbers where every seed diverged."""
    low, high = (spread.interval if spread else None) or ("", "")
    mean, median, deviation = (spread.mean, spread.median, spread.deviation) if spread else ("", "", None)
    protocol, first = score.protocol, score.rows[0]
    return [
        score.model, score.role, "" if score.hours is None else score.hours, score.place.get("step", ""), score.task, metric,
        score.aggregate(metric) if spread else "", protocol["aggregate"], mean, median, "" if deviation is None else deviation,
        low, high, score.constant_metrics.get(metric, ""), " ".join(map(str, score.seeds)), " ".join(map(str, score.diverged)),
        protocol["name"], protocol["version"], protocol["sha256"], " ".join(protocol["changed"]),
        grid_point_text(score) if first.get("grid_point") else "", score.selected_on_dev, score.start or "", first["mode"],
        first["teacher_sha256"] or "", first["train_size"], first["dev_size"], first["data_sha256"], first["weights_sha256"],
    ]
