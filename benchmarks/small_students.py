"""What a student of a million parameters gains from its teacher: students of labels alone beside those of recipes, over the same seeds.

    python -m benchmarks.small_students benchmarks/task_recipes/sst2/lite.yaml benchmarks/task_recipes/sst2/heavy.yaml \\
        --model models/teacher --glue_dir glue --output_dir work/small_students/sst2

The first recipe's `teach` makes the teacher of all; `labels` is the same `distil` on the task's training set and its labels. Recipes differ
in their transfer sets alone, which is checked. The same command goes on after a kill.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataset.errors import OneLineParser, UserError, run_command
from evaluation.fine_tuning.settings import FineTuningSettings
from evaluation.scoring.statistics import Spread, spread
from evaluation.tasks.table import load_task
from evaluation.tasks.task import Examples, Task, TaskData
from task_distillation.recipe.child import start
from task_distillation.recipe.read import Recipe, read_recipe
from task_distillation.recipe.run import REQUEUE, SCRIPT
from task_distillation.recipe.steps import student_run
from task_distillation.task_flags import select_task
from task_distillation.teaching.label import label_settings
from task_distillation.teaching.label import make_parser as label_parser

LABELS = "labels"
ROWS = 64
"""Of one forward pass of a student."""


@dataclass(frozen=True)
class Arm:
    """A row of the table, over seeds: `agreement`, the share of the dev rows on which student and teacher say the same."""

    name: str
    scores: Spread
    agreement: Spread


def parse_flags(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = OneLineParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("recipes", type=Path, nargs="+", help="recipes that differ in their transfer sets; a file's name names its row")
    parser.add_argument("--model", type=Path, required=True, help="the encoder that is fine-tuned as the teacher")
    parser.add_argument("--glue_dir", type=Path, required=True, help="folder of GLUE's official files")
    parser.add_argument("--output_dir", type=Path, required=True, help="gets the teacher and a folder for each row")
    return parser.parse_args(arguments)


def read_recipes(paths: list[Path]) -> dict[str, Recipe]:
    """Name -> recipe; UserError where they differ in more than their transfer sets."""
    recipes = {path.stem: read_recipe(path, [], None) for path in paths}
    if len(recipes) < len(paths) or {LABELS, "teacher"} & set(recipes):
        raise UserError(f"{', '.join(map(str, paths))}: recipes with different names, and none called {LABELS} or teacher, would work")
    first = recipes[paths[0].stem]
    for recipe in recipes.values():
        if recipe.task_name is None:
            raise UserError(f"{recipe.path}: a task of one's own; task_name: SST-2, or another of GLUE, would work")
        for key in ("task_name", "seeds"):
            if getattr(recipe, key) != getattr(first, key):
                raise UserError(f"{recipe.path}: another {key} than in {first.path}; scores of equal ones can be compared")
        for section in ("teach", "label", "distil"):
            if recipe.sections[section] != first.sections[section]:
                raise UserError(f"{recipe.path}: {section} is not that of {first.path}; scores of equal ones can be compared")
    return recipes


def run_step(*words: str | Path) -> None:
    """A subcommand of run_task_distillation.py; UserError where it fails, SystemExit(75) where it was asked to stop and can go on."""
    status, asked = start([sys.executable, str(SCRIPT), *map(str, words)])
    if asked:
        raise SystemExit(REQUEUE)
    if status:
        raise UserError(f"{words[0]}: status {status}; the same command goes on")


def train_on_labels(recipe: Recipe, flags: argparse.Namespace) -> list[Path]:
    """The students of the task's training set and its labels; their runs."""
    words = recipe.words("distil")
    if "--method" in words:
        at = words.index("--method")
        del words[at : at + 2]
    runs = [flags.output_dir / LABELS / f"seed_{seed}" for seed in recipe.seeds]
    for seed, run in zip(recipe.seeds, runs, strict=True):
        run_step("distil", "--task_name", recipe.task_name, "--glue_dir", flags.glue_dir, "--output_dir", flags.output_dir,
                 "--job_name", LABELS, "--current_run_id", run.name, "--seed", str(seed), *words, "--method", "labels", "--resume")
    return runs


def teacher_answers(teacher: Path, data: TaskData, settings: FineTuningSettings) -> np.ndarray:
    """(N,) class numbers that the teacher gives to the first dev set, read as `label` reads texts."""
    from evaluation.fine_tuning.training import score_only

    return score_only(teacher, data, settings, say=lambda line: None).outputs[first_dev(data)[0]].argmax(axis=1)


def student_answers(folder: Path, data: TaskData) -> np.ndarray:
    """(N,) class numbers that the student in `folder` gives to the first dev set."""
    import torch

    from task_distillation.students.build import encode
    from task_distillation.students.folder import load_student
    from task_distillation.students.part import collate_parts

    student, examples = load_student(folder), first_dev(data)[1]
    parts, found = encode(student.config, student.tokenizer, examples.texts), []
    for rows in np.array_split(np.arange(len(examples)), max(1, len(examples) // ROWS)):
        with torch.inference_mode():
            found.append(student.module(collate_parts(parts, rows, student.module.pad_token_id)).argmax(dim=1).numpy())
    return np.concatenate(found)


def first_dev(data: TaskData) -> tuple[str, Examples]:
    return next(iter(data.dev.items()))


def arm_of(name: str, runs: list[Path], data: TaskData, teacher: np.ndarray) -> Arm:
    """The row of `runs`, one for each seed; UserError where one has no score."""
    from task_distillation.recipe.summary import last_marker, student_score

    rows = [student_score(run, data.task) for run in runs]
    missing = next((run for run, row in zip(runs, rows, strict=True) if row is None), None)
    if missing is not None:
        raise UserError(f"{missing}: no score of its last student; remove it and run this again")
    alike = [float((student_answers(last_marker(run), data) == teacher).mean()) for run in runs]
    return Arm(name, spread([row["metrics"][data.task.headline] for row in rows]), spread(alike))


def table(task: Task, teacher: float, arms: list[Arm]) -> list[str]:
    """`arms`: that of labels first. In percent; `gain` is over labels, `deviation` of one run, over seeds."""
    base = arms[0].scores.mean
    lines = [f"{task.name}, {task.headline}, teacher {100 * teacher:.1f}", "",
             "| student of | mean | deviation | gain | seeds | agrees with teacher |", "|:--|--:|--:|--:|:--|--:|"]
    for arm in arms:
        deviation = "" if arm.scores.deviation is None else f"{100 * arm.scores.deviation:.1f}"
        gain = "" if arm is arms[0] else f"{100 * (arm.scores.mean - base):+.1f}"
        lines.append(f"| {arm.name} | {100 * arm.scores.mean:.1f} | {deviation} | {gain} | "
                     f"{', '.join(f'{100 * value:.1f}' for value in arm.scores.values)} | {100 * arm.agreement.mean:.1f} |")
    return lines


def main(arguments: list[str] | None = None) -> None:
    flags = parse_flags(arguments)
    recipes = read_recipes(flags.recipes)
    first = next(iter(recipes.values()))
    task = select_task(argparse.Namespace(task_name=first.task_name, task_file=None))
    if task.kind != "classification":
        raise UserError(f"{task.name}: a regression; a task with classes, on which student and teacher may agree, would work")
    teacher = flags.output_dir / "teacher"
    run_step("teach", "--task_name", first.task_name, "--glue_dir", flags.glue_dir, "--model", flags.model, "--output_dir", teacher,
             *first.words("teach"))
    data = load_task(task, flags.glue_dir)
    asked = ["--teacher_path", str(teacher), "--transfer_set", "-", "--output", "-", *first.words("label")]
    answers = teacher_answers(teacher, data, label_settings(label_parser().parse_args(asked)))
    arms = [arm_of(LABELS, train_on_labels(first, flags), data, answers)]
    for name, recipe in recipes.items():
        folder = flags.output_dir / name
        run_step("recipe", recipe.path, "--teacher_path", teacher, "--glue_dir", flags.glue_dir, "--output_dir", folder)
        arms.append(arm_of(name, [student_run(folder, seed) for seed in recipe.seeds], data, answers))
    score = json.loads((teacher / "teach.json").read_text(encoding="utf-8"))["metrics"][task.headline]
    print("\n" + "\n".join(table(task, score, arms)))


if __name__ == "__main__":
    run_command(main)
