"""Whether every step would take its flags and their values: each step's own checks, as far as they need no work of another step."""

from collections.abc import Callable, Sequence
from typing import Any

from dataset.flags import parse
from evaluation.tasks.task import Task
from pretraining.args.flag_set import parse_flags
from pretraining.launch import Launch
from task_distillation.augmentation import command as augment
from task_distillation.distilling.flags import TaskArgs
from task_distillation.distilling.resolve import resolve
from task_distillation.generation import flags as generate
from task_distillation.recipe.read import Recipe, check_words
from task_distillation.recipe.steps import Step
from task_distillation.serving import command as export
from task_distillation.students.plan import plan_student
from task_distillation.teaching import label, teach

ALONE = Launch(rank=0, world_size=1, local_rank=0, launched=False)
"""How many ranks there will be is known to the launcher."""


def check_steps(recipe: Recipe, task: Task, steps: Sequence[Step]) -> None:
    """UserError, with the recipe's name and the step, for a flag that its step does not know and a value that it would refuse."""
    def distil(words: list[str]) -> None:
        args = parse_flags(TaskArgs, words)
        resolve(args, ALONE)
        plan_student(args.student, task)

    checks: dict[str, Callable[[list[str]], Any]] = {
        "teach": lambda words: teach.teach_settings(parse(teach.make_parser(), words, {}), task.name),
        "augment": lambda words: augment.rule_of(parse(augment.make_parser(), words, {"n_iter": (1, None), "max_rows": (1, None)})),
        "generate": generate.parse_flags,
        "label": lambda words: label.label_settings(parse(label.make_parser(), words, {"chunk_rows": (1, None)})),
        "distil": distil, "export": export.parse_flags,
    }
    for step in steps:
        check_words(recipe, step.command, step.words, checks[step.command])
