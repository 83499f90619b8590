"""The objectives of `distil` in one table. Imports no torch.

z are the student's logits (B, C) in the order of the task's classes, t the teacher's, y the labels; a regression has C = 1 and its score
for a logit. All are means over the rows of the global batch. d-bert's published scripts learn from logit_mse + hard_labels.
"""

from dataclasses import dataclass

from dataset.errors import UserError, nearest
from evaluation.tasks.task import Task
from pretraining.objectives.catalog import Part


@dataclass(frozen=True)
class TaskObjective:
    """One row: its formula, its paper, and what it asks of every row of the transfer set."""

    formula: str
    paper: str
    logits: bool
    """The teacher's logits."""
    labels: bool
    """A label of the task's own."""
    regression: bool
    """Whether a regression has it."""


OBJECTIVES = {
    "logit_mse": TaskObjective("mean over rows and classes of (z - t)^2", "Tang et al. 2019, arXiv 1903.12136, eq. 1", True, False, True),
    "kl": TaskObjective("T^2 KL(softmax(t / T) || softmax(z / T))", "Hinton et al. 2015, arXiv 1503.02531, 2", True, False, False),
    "hard_labels": TaskObjective("cross entropy with argmax t", "Tang et al. 2019, arXiv 1903.12136, 3.1", True, False, False),
    "labels": TaskObjective("cross entropy with y; of a regression (z - y)^2", "", False, True, True),
}


def parse_methods(text: str) -> list[Part]:
    """The objectives that `text` names (`a` or `a:0.5,b:1.0`) with their weights; UserError for what is none."""
    parts: list[Part] = []
    for word in text.split(","):
        name, _, weight = word.strip().partition(":")
        if name not in OBJECTIVES:
            raise UserError(f"--method {text}: unknown objective {name!r}{nearest(name, OBJECTIVES)}; available: {', '.join(OBJECTIVES)}")
        if name in (part.name for part in parts):
            raise UserError(f"--method {text}: {name} is named twice; give it once with its weight")
        try:
            value = float(weight) if weight else 1.0
        except ValueError:
            value = 0.0
        if not 0 < value < float("inf"):
            raise UserError(f"--method {text}: {weight!r} is not a weight above 0")
        parts.append(Part(name, value))
    return parts


def check_methods(parts: list[Part], task: Task, has_logits: bool, unlabelled_row: int | None) -> None:
    """UserError for an objective that `task` or the transfer set has nothing for; `unlabelled_row`: the first row without a label."""
    for name, row in ((part.name, OBJECTIVES[part.name]) for part in parts):
        if task.kind == "regression" and not row.regression:
            raise UserError(f"--method {name}: compares classes and {task.name} is a regression; logit_mse would work")
        if row.logits and not has_logits:
            raise UserError(f"--method {name}: needs the teacher's logits; run_task_distillation.py label writes them for --logits")
        if row.labels and unlabelled_row is not None:
            raise UserError(f"--method {name}: row {unlabelled_row} of the transfer set (from 0) has no label; logit_mse with "
                            "--logits FILE, as `label` writes it, would work")
