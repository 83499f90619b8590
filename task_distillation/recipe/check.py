"""Whether every step would take its flags, their values and what they name: each step's own checks, as far as they need no work of another.

`check_steps` needs nothing but the recipe, so that commands can be printed anywhere; `check_inputs` looks at data, models and devices.
"""

import argparse
from collections.abc import Callable, Sequence
from typing import Any

from dataset.errors import UserError
from dataset.flags import parse
from evaluation.fine_tuning.checks import check_fine_tuning, check_scoring
from evaluation.scoring.jobs import select_devices
from evaluation.tasks.task import Task, TaskData
from pretraining.args.flag_set import parse_flags
from pretraining.launch import Launch
from pretraining.tracking import check_tracker
from task_distillation.augmentation import command as augment
from task_distillation.augmentation.taggers import load_tagger
from task_distillation.devices import devices_of
from task_distillation.distilling.catalog import OBJECTIVES, check_methods
from task_distillation.distilling.flags import TaskArgs
from task_distillation.distilling.resolve import resolve
from task_distillation.generation import command as generate_command
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
        methods = resolve(args, ALONE).methods
        check_methods(methods, task, has_logits=True, unlabelled_row=None)
        if found := next((part.name for part in methods if OBJECTIVES[part.name].labels), None):
            raise UserError(f"--method {found}: new texts have no labels; logit_mse, kl and hard_labels learn from the teacher's logits")

    checks: dict[str, Callable[[list[str]], Any]] = {
        "teach": lambda words: teach.teach_settings(_teach_flags(words), task.name),
        "augment": lambda words: augment.rule_of(_augment_flags(words)), "generate": generate.parse_flags,
        "label": lambda words: label.label_settings(_label_flags(words)),
        "distil": distil, "export": export.parse_flags,
    }
    for step in steps:
        check_words(recipe, step.command, step.words, checks[step.command])


def check_inputs(recipe: Recipe, data: TaskData, steps: Sequence[Step], flags: argparse.Namespace) -> None:
    """UserError for data, models, devices and packages with which one of `steps`, which are still to be done, could not do its work.

    `flags`: those of `recipe`.
    """
    def teach_inputs(words: list[str]) -> None:
        asked = _teach_flags(words)
        check_fine_tuning(asked.model, data.task, teach.teach_settings(asked, data.task.name)[0])
        select_devices(asked.device or "auto")

    def augment_inputs(words: list[str]) -> None:
        asked = _augment_flags(words)
        load_tagger(asked.tagger, asked.spacy_model)
        augment.check_rows(asked, data)

    def generate_inputs(words: list[str]) -> None:
        asked = generate.parse_flags(words)
        generate_command.read_source(asked)
        devices_of(asked.devices)

    def label_inputs(words: list[str]) -> None:
        asked = _label_flags(words)
        if flags.teacher_path is not None:
            check_scoring(flags.teacher_path, data.task, label.label_settings(asked))
        devices_of(asked.devices)

    def distil_inputs(words: list[str]) -> None:
        args = parse_flags(TaskArgs, words)
        plan_student(args.student, data.task)
        check_tracker(args.run.report_to)

    select_devices(flags.devices)
    checks = {"teach": teach_inputs, "augment": augment_inputs, "generate": generate_inputs, "label": label_inputs, "distil": distil_inputs}
    for step in steps:
        check_words(recipe, step.command, step.words, checks[step.command])


def _teach_flags(words: list[str]) -> argparse.Namespace:
    return parse(teach.make_parser(), words, {})


def _augment_flags(words: list[str]) -> argparse.Namespace:
    return parse(augment.make_parser(), words, {"n_iter": (1, None), "max_rows": (1, None)})


def _label_flags(words: list[str]) -> argparse.Namespace:
    return parse(label.make_parser(), words, {"chunk_rows": (1, None)})
