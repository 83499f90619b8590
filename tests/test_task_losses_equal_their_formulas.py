"""The objectives of `distil` against their formulas, written out row by row in float64."""

import math

import pytest
import torch

from evaluation.tasks.task import Task
from pretraining.signals import Unit
from task_distillation.distilling.catalog import OBJECTIVES, check_methods, parse_methods
from task_distillation.distilling.losses import task_term

ROWS, TEMPERATURE = 7, 3.0


def draw(classes):
    generator = torch.Generator().manual_seed(classes)
    student, teacher = (3 * torch.randn(ROWS, classes, generator=generator) for _ in range(2))
    labels = torch.randint(0, classes, (ROWS,), generator=generator) if classes > 1 else torch.randn(ROWS, generator=generator)
    return student.requires_grad_(), teacher, labels


def softmax(values, temperature=1.0):
    weights = [math.exp(value / temperature) for value in values]
    return [weight / sum(weights) for weight in weights]


def formula(name, student, teacher, labels):
    """The mean over rows, from lists of Python floats."""
    total = 0.0
    for z, t, y in zip(student, teacher, labels, strict=True):
        if name == "logit_mse":
            total += sum((a - b) ** 2 for a, b in zip(z, t, strict=True)) / len(z)
        elif name == "kl":
            p, q = softmax(t, TEMPERATURE), softmax(z, TEMPERATURE)
            total += TEMPERATURE**2 * sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True))
        elif len(z) == 1:
            total += (z[0] - y) ** 2
        else:
            total -= math.log(softmax(z)[t.index(max(t)) if name == "hard_labels" else y])
    return total / len(student)


@pytest.mark.parametrize("classes", [1, 2, 3])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_is_its_formula_and_so_is_its_gradient(name, classes):
    kind = "regression" if classes == 1 else "classification"
    if kind == "regression" and not OBJECTIVES[name].regression:
        return
    student, teacher, labels = draw(classes)
    term = task_term(name, kind, student, teacher, labels, TEMPERATURE)
    value = term.sum / term.count({Unit.SEQUENCES: ROWS})
    lists = [tensor.detach().double().tolist() for tensor in (student, teacher)]
    own = [int(label) if classes > 1 else float(label) for label in labels]
    assert value.item() == pytest.approx(formula(name, *lists, own), rel=1e-5)
    (gradient,) = torch.autograd.grad(value, student)
    step = 1e-6
    for row in range(ROWS):
        for column in range(classes):
            sides = []
            for sign in (1, -1):
                moved = [list(found) for found in lists[0]]
                moved[row][column] += sign * step
                sides.append(formula(name, moved, lists[1], own))
            assert float(gradient[row, column]) == pytest.approx((sides[0] - sides[1]) / (2 * step), rel=1e-3, abs=1e-6)


def test_what_a_task_or_set_has_nothing_for_is_refused():
    classes = Task("two", "classification", ("accuracy",), "accuracy", ("a", "b"))
    scores = Task("scores", "regression", ("pearson",), "pearson")
    assert [(part.name, part.weight) for part in parse_methods("logit_mse:2,hard_labels")] == [("logit_mse", 2.0), ("hard_labels", 1.0)]
    check_methods(parse_methods("logit_mse,labels"), scores, True, None)
    for methods, task, taught, unlabelled, said in (
        ("kl", scores, True, None, "is a regression"), ("hard_labels", scores, True, None, "is a regression"),
        ("kl", classes, False, None, "needs the teacher's logits"), ("labels", classes, True, 4, "row 4"),
    ):
        with pytest.raises(Exception, match=said):
            check_methods(parse_methods(methods), task, taught, unlabelled)
