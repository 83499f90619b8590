"""One table of a sweep: objective x initialisation x hours, every number with its deviation over seeds, nothing missing in silence.

A row is a point of the grid at one marker: the last export of its runs (`end`), and every earlier marker that was scored. A run's value
is what the protocol makes of its fine-tunings (mean or median); the row's is the mean of the runs' values, its deviation the sample
standard deviation over the seeds of training. Teacher and baselines are one model each: theirs is over the seeds of fine-tuning. An
average is of the same tasks for all, or there is none.
"""

import json
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dataset.errors import UserError
from evaluation.fine_tuning.model_folder import fingerprint
from evaluation.scoring.candidates import markers_there
from evaluation.scoring.results import Row, is_complete, read_results
from evaluation.scoring.statistics import Score, Spread, average, retention, spread, summarise
from evaluation.sweep.recipe import Recipe
from evaluation.sweep.record import Record
from evaluation.sweep.runs import Run
from evaluation.sweep.scoring import BESIDE, Scoring

END = "end"


@dataclass(frozen=True)
class Line:
    """One row. `values`: task -> its spread; None where no run has it. Fractions; hours on the budget's clock."""

    kind: str
    """point, teacher or baseline."""
    name: str
    labels: dict[str, str]
    """Axis -> value of a point, else {}."""
    marker: str
    """`end`, or the share of the budget as in the exports' names; "" for what is no run."""
    hours: Spread | None
    wanted: int
    """Values that each spread should have: seeds of a point; 0 for what is no run."""
    aggregate: str
    """What of a spread is the value: `mean` of a point's runs, of teacher and baselines what the protocol says."""
    values: dict[str, Spread | None]
    average: Spread | None
    retention: float | None
    """Mean over the tasks of the share of the teacher's value; None where a task or the teacher is missing."""


@dataclass(frozen=True)
class Table:
    """`missing`: one sentence for every run whose cells are not there; `notes`: what the numbers are."""

    title: str
    axes: tuple[str, ...]
    tasks: tuple[str, ...]
    lines: tuple[Line, ...]
    missing: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Scored:
    """What is known of one run at one marker."""

    hours: float
    scores: dict[str, Score]

    def value(self, task: str) -> float | None:
        return self.scores[task].value if task in self.scores else None


def make_table(recipe: Recipe, scoring: Scoring, runs: Sequence[Run], record: Record) -> Table:
    """The table of all that is scored under the recipe's protocol, with the settings that the recipe gives it."""
    tasks = tuple(task.name for task in scoring.tasks)
    taught = None if scoring.wanted.teacher is None else fingerprint(scoring.wanted.teacher)
    rows = _on_one_data({run.id: _rows(run, scoring, taught) for run in runs})
    other = sum(len(read_results(run.folder)) for run in runs) - sum(map(len, rows.values()))
    beside = _beside([row for found in rows.values() for row in found if row["role"] in BESIDE])
    teacher = next((scores for scores in beside.values() if next(iter(scores.values())).role == "teacher"), {})
    lines = [_beside_line(name, scores, tasks, teacher) for name, scores in beside.items()]
    missing = [f"{name}: {', '.join(lost)} not scored" for name, scores in beside.items()
               if (lost := [task for task in tasks if task not in scores])]
    missing += [f"{name}: not scored" for name in recipe.baselines if name not in beside]
    for point in dict.fromkeys(run.point.id for run in runs):
        own = [run for run in runs if run.point.id == point]
        scored = {run.seed: _markers(run, rows[run.id]) for run in own}
        places = sorted({place for found in scored.values() for place in found if place != END}, key=float)
        lines += [_point_line(own, place, [found.get(place) for found in scored.values()], tasks, teacher)
                  for place in [*places, END]]
        missing += [text for run in own for text in _missing(run, scored[run.seed], places, tasks, record)]
    notes = ["in percent; ± is the standard deviation over seeds of training, of teacher and baselines over seeds of fine-tuning",
             _protocol(scoring)]
    if any(row["selected_on_dev"] for found in rows.values() for row in found) or scoring.protocol.grid:
        notes.append("the best grid point or evaluation was chosen on the dev sets that are shown, so the scores are optimistic")
    if other:
        notes.append(f"{other} results under other protocols, settings, seeds, tasks or data, of other teachers or older weights are "
                     "left out")
    return Table(recipe.name, tuple(recipe.grid), tasks, tuple(lines), tuple(missing), tuple(notes))


def _protocol(scoring: Scoring) -> str:
    protocol = scoring.protocol
    name = "settings from flags" if protocol.name == "flags" else f"protocol {protocol.name} v{protocol.version}"
    changed = f" with other {', '.join(protocol.changed)}" if protocol.changed else ""
    teacher = "" if scoring.wanted.teacher is None else f", distilled from {scoring.wanted.teacher} on the way"
    return (f"{name}{changed} ({protocol.sha256[:8]}), {protocol.aggregate} of seeds {', '.join(map(str, protocol.seeds))} of fine-tuning"
            f"{teacher}")


def _rows(run: Run, scoring: Scoring, taught: str | None) -> list[Row]:
    """The complete rows of a run's glue.json that the recipe asks for: its protocol (settings and starts included), seeds, tasks, way of
    scoring, and the teacher in fine-tuning whose fingerprint is `taught`. Of a model whose weights have changed only the newest.
    """
    tasks, protocol = {task.name for task in scoring.tasks}, scoring.protocol.describe()
    wanted = {"protocol": protocol, "mode": scoring.wanted.mode, "teacher_sha256": taught}
    found = [row for row in read_results(run.folder)
             if row["task"] in tasks and row["seed"] in scoring.protocol.seeds and is_complete(row)
             and all(row.get(name) == value for name, value in wanted.items())]
    newest = {row["model"]: row["weights_sha256"] for row in found if row["role"] not in BESIDE}
    return [row for row in found if row["role"] in BESIDE or row["weights_sha256"] == newest[row["model"]]]


def _data(row: Row) -> str:
    """What a row was scored on and, where its encoder was fine-tuned on something first, began with."""
    start = row["start"] and {name: value for name, value in row["start"].items() if name != "settings"}
    return json.dumps([row["task_version"], row["data_sha256"], start], sort_keys=True)


def _on_one_data(rows: dict[str, list[Row]]) -> dict[str, list[Row]]:
    """Of each task only what was scored on the data, and from the start, of most rows: two dev sets do not belong in one column."""
    data = Counter((row["task"], _data(row)) for found in rows.values() for row in found)
    kept = {task: content for (task, content), _ in reversed(data.most_common())}
    return {name: [row for row in found if _data(row) == kept[row["task"]]] for name, found in rows.items()}


def _beside(rows: Sequence[Row]) -> dict[str, dict[str, Score]]:
    """Teacher and baselines by name, then task, the teacher first; every run's folder may hold them."""
    weights: dict[str, Row] = {}
    for row in rows:
        first = weights.setdefault(row["model"], row)
        if first["weights_sha256"] != row["weights_sha256"]:
            raise UserError(f"{row['folder']}: {row['model']} has scores of two models' weights (the other: {first['folder']}); give "
                            "one of them another name in baselines")
    found: dict[str, dict[str, Score]] = {}
    for score in sorted(summarise(rows), key=lambda score: score.role != "teacher"):
        found.setdefault(score.model, {})[score.task] = score
    return found


def _markers(run: Run, rows: Sequence[Row]) -> dict[str, _Scored]:
    """What is scored of a run, by marker: its last export is `end` wherever the budget ended, so that seeds can be compared."""
    exports = markers_there(run.folder)
    by_name: dict[str, dict[str, Score]] = {}
    for score in summarise([row for row in rows if row["role"] not in BESIDE and "hours" in row]):
        by_name.setdefault(score.model, {})[score.task] = score
    last = exports[-1].name if exports else None
    return {END if name == last else f"{round(next(iter(scores.values())).place['fraction'], 4):g}":
            _Scored(next(iter(scores.values())).hours, scores) for name, scores in by_name.items()}


def _spread(values: Sequence[float | None]) -> Spread | None:
    found = [value for value in values if value is not None]
    return spread(found) if found else None


def _point_line(
    runs: Sequence[Run], place: str, scored: Sequence[_Scored | None], tasks: Sequence[str], teacher: dict[str, Score],
) -> Line:
    known = [one for one in scored if one is not None]
    values = {task: _spread([one.value(task) for one in known]) for task in tasks}
    return Line("point", runs[0].point.id, runs[0].point.labels, place, _spread([one.hours for one in known]), len(runs),
                "mean", values,
                _spread([average(list(one.scores.values()), tasks) for one in known]),
                _kept({task: None if found is None else found.mean for task, found in values.items()}, teacher))


def _beside_line(name: str, scores: dict[str, Score], tasks: Sequence[str], teacher: dict[str, Score]) -> Line:
    """The protocol's aggregate is the value; the spread is that of the fine-tunings."""
    values = {task: scores[task].metrics.get(scores[task].headline) if task in scores else None for task in tasks}
    mean = average(list(scores.values()), tasks)
    kept = [retention(scores[task], teacher[task]) if task in scores and task in teacher else None for task in tasks]
    first = next(iter(scores.values()))
    return Line(first.role, name, {}, "", None, 0, first.protocol["aggregate"], values, None if mean is None else spread([mean]),
                None if None in kept else statistics.fmean(kept))


def _kept(values: dict[str, float | None], teacher: dict[str, Score]) -> float | None:
    shares = []
    for task, value in values.items():
        best = teacher[task].value if task in teacher else None
        if value is None or not best or best <= 0:
            return None
        shares.append(value / best)
    return statistics.fmean(shares)


def _missing(run: Run, scored: dict[str, _Scored], places: Sequence[str], tasks: Sequence[str], record: Record) -> list[str]:
    """Why cells of a run are not there: one sentence for a run without any, else one for each marker."""
    state = record.state(run)
    if not scored:
        return [f"{run.id}: {'finished, not scored' if state.is_finished else state}"]
    texts = []
    for place in [*places, END]:
        one = scored.get(place)
        lost = [task for task in tasks if one is None or task not in one.scores]
        diverged = [task for task in tasks if one is not None and task in one.scores and one.value(task) is None]
        texts += [f"{run.id} at {place}: {', '.join(lost)} not scored"] if lost else []
        texts += [f"{run.id} at {place}: every fine-tuning on {', '.join(diverged)} diverged"] if diverged else []
    return texts


def as_json(table: Table) -> dict[str, Any]:
    """Everything in the table, fractions at full precision."""
    def plain(found: Spread | None) -> dict[str, Any] | None:
        return None if found is None else {"mean": found.mean, "median": found.median, "deviation": found.deviation,
                                           "interval": found.interval, "values": found.values}

    lines = [{"kind": line.kind, "name": line.name, "point": line.labels, "marker": line.marker, "aggregate": line.aggregate,
              "hours": plain(line.hours), "runs": line.wanted, "tasks": {task: plain(found) for task, found in line.values.items()},
              "average": plain(line.average), "retention": line.retention} for line in table.lines]
    return {"name": table.title, "axes": table.axes, "tasks": table.tasks, "rows": lines, "missing": table.missing, "notes": table.notes}
