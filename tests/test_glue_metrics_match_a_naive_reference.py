"""Accuracy and F1 counted by hand."""

import random

import pytest

from evaluation.metrics.glue import METRICS, score, score_of_constant


def naive(labels, predictions):
    pairs = list(zip(labels, predictions, strict=True))
    hits, false, missed = pairs.count((1, 1)), pairs.count((0, 1)), pairs.count((1, 0))
    f1 = 2 * hits / (2 * hits + false + missed) if hits + false + missed else 0.0
    return {"accuracy": sum(label == guess for label, guess in pairs) / len(pairs), "f1": f1}


@pytest.mark.parametrize("seed", range(5))
def test_random_predictions(seed):
    source = random.Random(seed)
    labels, predictions = ([source.randrange(2) for _ in range(57)] for _ in range(2))
    assert score(list(METRICS), labels, predictions) == pytest.approx(naive(labels, predictions))


@pytest.mark.parametrize(("labels", "predictions"), [([0, 0], [0, 0]), ([1, 1], [0, 0]), ([0, 1], [1, 0]), ([1], [1])])
def test_edges(labels, predictions):
    assert score(list(METRICS), labels, predictions) == pytest.approx(naive(labels, predictions))


def test_the_floor_is_the_most_frequent_class():
    assert score_of_constant(list(METRICS), [1, 0, 1]) == pytest.approx({"accuracy": 2 / 3, "f1": 0.8})
    assert score_of_constant(list(METRICS), [0, 0, 1]) == pytest.approx({"accuracy": 2 / 3, "f1": 0.0})
