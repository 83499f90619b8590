"""Every metric against its formula, written out in plain float64 Python, on random predictions and on the edges of its definition."""

import math
import random

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from evaluation.metrics.glue import METRICS, score, score_of_constant
from evaluation.tasks.table import select_tasks
from evaluation.tasks.task import Task


def naive_f1(labels, predictions, positive):
    pairs = list(zip(labels, predictions, strict=True))
    hits = sum(label == guess == positive for label, guess in pairs)
    wrong = sum((label == positive) != (guess == positive) for label, guess in pairs)
    return 2 * hits / (2 * hits + wrong) if hits + wrong else 0.0


def naive_matthews(labels, predictions):
    """Gorodkin's R_K from the confusion matrix: cov(x, y) / sqrt(cov(x, x) cov(y, y)) of one-hot rows; two classes are its special case."""
    classes = sorted({*labels, *predictions})
    count = len(labels)
    share = {name: [values.count(one) / count for one in classes] for name, values in (("x", labels), ("y", predictions))}
    both = sum(label == guess for label, guess in zip(labels, predictions, strict=True)) / count
    covariance = both - sum(x * y for x, y in zip(share["x"], share["y"], strict=True))
    spreads = [1 - sum(part * part for part in parts) for parts in share.values()]
    return covariance / math.sqrt(spreads[0] * spreads[1]) if min(spreads) > 1e-12 else 0.0


def naive_pearson(x, y):
    x_mean, y_mean = math.fsum(x) / len(x), math.fsum(y) / len(y)
    top = math.fsum((a - x_mean) * (b - y_mean) for a, b in zip(x, y, strict=True))
    under = math.fsum((a - x_mean) ** 2 for a in x) * math.fsum((b - y_mean) ** 2 for b in y)
    return top / math.sqrt(under) if under else 0.0


def naive_spearman(x, y):
    def ranks(values):  # one more than how many are less, plus half of how many others are equal
        return [1 + sum(other < value for other in values) + (values.count(value) - 1) / 2 for value in values]

    return naive_pearson(ranks(x), ranks(y))


def naive(name, labels, predictions):
    classes = sorted({*labels, *predictions})
    return {
        "accuracy": lambda: sum(label == guess for label, guess in zip(labels, predictions, strict=True)) / len(labels),
        "f1": lambda: naive_f1(labels, predictions, 1),
        "macro_f1": lambda: sum(naive_f1(labels, predictions, one) for one in classes) / len(classes),
        "matthews": lambda: naive_matthews(labels, predictions),
        "pearson": lambda: naive_pearson(labels, predictions),
        "spearman": lambda: naive_spearman(labels, predictions),
    }[name]()


CLASS_METRICS, SCORE_METRICS = ("accuracy", "f1", "macro_f1", "matthews"), ("pearson", "spearman")


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("seed", range(3))
def test_random_classes(seed, classes):
    source = random.Random(seed)
    labels, predictions = ([source.randrange(classes) for _ in range(57)] for _ in range(2))
    for name in CLASS_METRICS:
        assert METRICS[name](labels, predictions) == pytest.approx(naive(name, labels, predictions), abs=1e-12), name
    assert METRICS["macro_f1"](labels, predictions) == pytest.approx(sk.f1_score(labels, predictions, average="macro"))
    assert METRICS["matthews"](labels, predictions) == pytest.approx(sk.matthews_corrcoef(labels, predictions))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("labels", "predictions", "expected"), [
    ([0, 0], [0, 0], (1.0, 0.0, 1.0, 0.0)),  # one class only: nothing to correlate, and class 1 is nowhere
    ([1, 1], [1, 1], (1.0, 1.0, 1.0, 0.0)),
    ([1, 1], [0, 0], (0.0, 0.0, 0.0, 0.0)),
    ([1, 1], [0, 1], (0.5, 2 / 3, 1 / 3, 0.0)),
    ([0, 1], [1, 0], (0.0, 0.0, 0.0, -1.0)),
    ([0, 1], [0, 1], (1.0, 1.0, 1.0, 1.0)),
    ([0, 1, 1], [1, 1, 1], (2 / 3, 0.8, 0.4, 0.0)),  # a constant prediction
    ([1], [1], (1.0, 1.0, 1.0, 0.0)),
    ([0, 1, 2, 2], [0, 2, 2, 2], (0.75, 0.0, 0.6, 5 / math.sqrt(60))),
])
def test_edges_of_classes(labels, predictions, expected):
    for name, value in zip(CLASS_METRICS, expected, strict=True):
        assert METRICS[name](labels, predictions) == pytest.approx(value, abs=1e-12), name
        assert naive(name, labels, predictions) == pytest.approx(value, abs=1e-12), name


@pytest.mark.parametrize("seed", range(4))
def test_random_scores_with_ties(seed):
    source = random.Random(seed)
    labels = [source.randrange(6) / 2 for _ in range(41)]
    predictions = [round(label + source.gauss(0, 1), seed) for label in labels]
    for name in SCORE_METRICS:
        assert METRICS[name](labels, predictions) == pytest.approx(naive(name, labels, predictions), abs=1e-12), name
    assert METRICS["pearson"](labels, predictions) == pytest.approx(stats.pearsonr(labels, predictions).statistic)
    assert METRICS["spearman"](labels, predictions) == pytest.approx(stats.spearmanr(labels, predictions).statistic)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("labels", "predictions", "expected"), [
    ([1.0, 2.0, 3.0], [2.5, 2.5, 2.5], (0.0, 0.0)),  # scipy gives nan, and warns
    ([2.0, 2.0], [1.0, 3.0], (0.0, 0.0)),
    ([1.0, 2.0, 3.0], [3.0, 2.0, 1.0], (-1.0, -1.0)),
    ([1.0, 2.0, 3.0], [1.0, math.nan, 3.0], (0.0, 0.0)),
    ([1.0, 2.0, 3.0], [1.0, math.inf, 3.0], (0.0, 0.0)),
    ([1.0], [1.0], (0.0, 0.0)),
    ([1.0, 1.0, 2.0], [1.0, 2.0, 3.0], (math.sqrt(3) / 2, math.sqrt(3) / 2)),
    ([1.0, 2.0, 4.0], [1.0, 10.0, 100.0], (162 / math.sqrt(14 / 3 * 5994), 1.0)),
])
def test_edges_of_scores(labels, predictions, expected):
    for name, value in zip(SCORE_METRICS, expected, strict=True):
        assert METRICS[name](labels, predictions) == pytest.approx(value, abs=1e-6), name


def test_float32_outputs_of_shape_n_by_1():
    labels = [0.0, 2.5, 5.0, 3.8]
    outputs = np.array([[0.1], [2.0], [4.0], [4.5]], np.float32)
    assert score(select_tasks(["stsb"])[0], labels, outputs) == pytest.approx(
        {"spearman": 0.8, "pearson": naive_pearson(labels, [float(value) for value in outputs[:, 0]])}
    )


def test_a_task_is_scored_by_its_own_metrics():
    labels, predictions = [1, 0, 1, 1], [1, 1, 0, 1]
    for name, metrics in (("mrpc", ["f1", "accuracy"]), ("cola", ["matthews"]), ("rte", ["accuracy"]), ("ax", ["matthews", "accuracy"])):
        found = score(select_tasks([name])[0], labels, predictions)
        assert list(found) == metrics
        assert found == pytest.approx({metric: naive(metric, labels, predictions) for metric in metrics})


def test_the_floor_is_the_most_frequent_class_or_the_mean():
    task = Task("own", "classification", CLASS_METRICS, "accuracy", ("a", "b"))
    assert score_of_constant(task, [1, 0, 1]) == pytest.approx({"accuracy": 2 / 3, "f1": 0.8, "macro_f1": 0.4, "matthews": 0.0})
    assert score_of_constant(task, [0, 0, 1]) == pytest.approx({"accuracy": 2 / 3, "f1": 0.0, "macro_f1": 0.4, "matthews": 0.0})
    assert score_of_constant(task, [1, 0]) == score_of_constant(task, [0, 1]) == pytest.approx(
        {"accuracy": 0.5, "f1": 0.0, "macro_f1": 1 / 3, "matthews": 0.0}
    )
    assert score_of_constant(select_tasks(["sts-b"])[0], [0.1, 0.2, 0.4]) == {"spearman": 0.0, "pearson": 0.0}
