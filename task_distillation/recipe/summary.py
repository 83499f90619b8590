"""What a recipe came to: the teacher's score in every student's run (the line of its report), and one table over seeds."""

import json
from pathlib import Path
from typing import Any

from dataset.errors import UserError
from dataset.files import write_json, write_text
from evaluation.fine_tuning.model_folder import fingerprint
from evaluation.fine_tuning.settings import FineTuningSettings
from evaluation.scoring.candidates import Candidate, find_markers
from evaluation.scoring.jobs import AS_IT_IS, Source
from evaluation.scoring.plan import Wanted
from evaluation.scoring.protocols import flags_only
from evaluation.scoring.results import Row, add_results, read_results
from evaluation.scoring.score import Scorer
from evaluation.scoring.statistics import spread
from evaluation.tasks.task import Task
from task_distillation.protocol import PROTOCOL
from task_distillation.recipe.steps import SERVING, student_run


def score_teacher(
    output_dir: Path, runs: list[Path], teacher: Path, task: Task, settings: FineTuningSettings, glue_dir: Path | None, devices: str,
) -> Row:
    """The teacher's score with its own head as it reads texts, once, and put into the glue.json of every run.

    UserError where it cannot be scored.
    """
    wanted = Wanted(output_dir, Source(glue_dir), AS_IT_IS, None, devices)
    scorer = Scorer([task], flags_only(settings, [0]), wanted)
    rows = scorer.score([Candidate("teacher", teacher, "teacher")])
    if scorer.failures:
        raise UserError(f"the teacher could not be scored: {scorer.failures[0]}")
    row = rows[0] | {"protocol": PROTOCOL.describe()}
    for run in runs:
        add_results(run, [row])
    return row


def last_marker(run: Path) -> Path:
    """The run's last export; UserError where it has none."""
    return find_markers(run)[-1].folder


def student_score(run: Path, task: Task) -> Row | None:
    """The score of the run's last student as it is, and not one that run_glue.py found of its encoder or on another task."""
    weights = fingerprint(last_marker(run))
    return next((row for row in read_results(run) if row["task"] == task.name and row.get("mode") == AS_IT_IS
                 and row.get("weights_sha256") == weights and "metrics" in row), None)


def retention(teacher: float, constant: float, students: float) -> float | None:
    """The share of the teacher's score that students keep; None where either is not above the same answer for every row."""
    return students / teacher if teacher > max(constant, 0) and students > constant else None


def summarise(output_dir: Path, seeds: tuple[int, ...], task: Task, teacher: Row) -> str:
    """Write summary.json and summary.md; the latter's text. Scores are fractions in the first, percent in the second."""
    students = []
    for seed in seeds:
        run = student_run(output_dir, seed)
        row = student_score(run, task)
        serving = json.loads((output_dir / SERVING / f"seed_{seed}" / "serving.json").read_text(encoding="utf-8"))
        students.append({"seed": seed, "run": str(run), "metrics": None if row is None else row["metrics"],
                         "parameters": None if row is None else row["parameters"], "serving": serving})
    content: dict[str, Any] = {"task": task.name, "headline": task.headline, "students": students,
                               "teacher": {"metrics": teacher["metrics"], "parameters": teacher["parameters"]},
                               "constant_metrics": teacher["constant_metrics"]}
    names = list(teacher["metrics"])
    lines = [f"# {task.name}", "", f"| model | parameters | {' | '.join(names)} |", "|:--|--:|" + "--:|" * len(names),
             _line("teacher", teacher["parameters"], [teacher["metrics"]])]
    scored = [student for student in students if student["metrics"] is not None]
    lines += [_line(f"student, seed {student['seed']}", student["parameters"], [student["metrics"]]) for student in scored]
    if len(scored) > 1:
        lines.append(_line(f"students, {len(scored)} seeds, mean ± deviation", scored[0]["parameters"], [one["metrics"] for one in scored]))
    lines += [_line("the same answer for every row", None, [teacher["constant_metrics"]])]
    lines += [f"| student, seed {student['seed']} | | {' | '.join('no score' for _ in names)} |"
              for student in students if student["metrics"] is None]
    lines += ["", "Dev sets, in percent; weights of the end of the training, which no score has chosen."]
    if scored:
        best, floor = (metrics[task.headline] for metrics in (teacher["metrics"], teacher["constant_metrics"]))
        mean = spread([student["metrics"][task.headline] for student in scored]).mean
        content["retention"] = kept = retention(best, floor, mean)
        lines.append(f"The students keep {kept:.1%} of the teacher's {task.headline}." if kept is not None else
                     f"The {'students' if best > floor else 'teacher'} did not learn the task: not above the same answer for every row.")
    serving = students[0]["serving"]
    sizes = ", ".join(f"{name} {found['bytes'] / 1e6:.1f} MB" for name, found in serving["formats"].items())
    lines += [f"{serving['parameters']['without_embeddings']:,} of a student's parameters are not embeddings; to serve: {sizes}."]
    write_json(output_dir / "summary.json", content)
    text = "\n".join(lines) + "\n"
    write_text(output_dir / "summary.md", text)
    return text


def _line(name: str, parameters: int | None, metrics: list[dict[str, float]]) -> str:
    cells = []
    for metric in metrics[0]:
        found = spread([one[metric] for one in metrics])
        cells.append(f"{100 * found.mean:.1f}" + (f" ± {100 * found.deviation:.1f}" if len(metrics) > 1 else ""))
    return f"| {name} |{'' if parameters is None else f' {parameters:,}'} | {' | '.join(cells)} |"
