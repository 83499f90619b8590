"""Tiny students of every architecture, with the rows they read."""

from pathlib import Path

import tiny_glue
from tokenizers import Tokenizer

from evaluation.tasks.table import select_tasks
from evaluation.tasks.task import Task
from task_distillation.students.build import build_student, make_tokenizer
from task_distillation.students.flags import StudentFlags
from task_distillation.students.part import Student
from task_distillation.students.plan import plan_student

SST2, STSB, MNLI = select_tasks(["sst2", "stsb", "mnli"])
TEXTS = ["A good film!", "the plot was bad and the music poor", "fine", "[MASK] actor, very very good scene and a film was the music",
         "bad bad", "unknowable words"]
SECONDS = ["bad plot", "a fine film", "the [MASK] was good", "scene", "good, very good film and a plot was the music [MASK]", "the"]
SMALL = {"embedding_size": 6, "hidden_size": 5, "fc_size": 7, "feature_maps": 4}


def make_student(folder: Path, task: Task = SST2, seed: int = 0, **flags: object) -> tuple[Student, Tokenizer]:
    """A student of `TEXTS` in evaluation mode; an encoder is made in `folder`."""
    if flags.get("student") == "encoder" and "student_path" not in flags:
        flags["student_path"] = str(tiny_glue.make_model(folder / "encoder"))
    settings = flags if flags.get("student") == "encoder" else SMALL | flags
    if flags.get("student") == "kim_cnn":
        settings = {name: size for name, size in settings.items() if name not in ("hidden_size", "fc_size")}
    plan = plan_student(StudentFlags(**{"max_length": 32, **settings}), task)
    tokenizer = make_tokenizer(plan, [*TEXTS[:-1], *SECONDS])
    return build_student(plan, tokenizer, task, seed).eval(), tokenizer


def columns_of(task: Task) -> list[list[str]]:
    return [TEXTS] if task is SST2 else [TEXTS, SECONDS]
