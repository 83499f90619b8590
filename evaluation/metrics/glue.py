"""Scores of predicted classes, by the name a task's row gives them. Fractions between 0 and 1."""

from collections.abc import Sequence


def accuracy(labels: Sequence[int], predictions: Sequence[int]) -> float:
    """Share of predictions that equal their label."""
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(labels, predictions))


def f1(labels: Sequence[int], predictions: Sequence[int]) -> float:
    """F1 of class 1, as GLUE defines it for its binary tasks; 0 where class 1 is neither labelled nor predicted."""
    from sklearn.metrics import f1_score

    return float(f1_score(labels, predictions, pos_label=1, average="binary", zero_division=0.0))


METRICS = {"accuracy": accuracy, "f1": f1}


def score_of_constant(names: Sequence[str], labels: Sequence[int]) -> dict[str, float]:
    """What always predicting the most frequent of `labels` scores: the floor that a model has to rise above.

    On MRPC that is an F1 of 0.81, which looks like a result.
    """
    return score(names, labels, [max(set(labels), key=labels.count)] * len(labels))


def score(names: Sequence[str], labels: Sequence[int], predictions: Sequence[int]) -> dict[str, float]:
    """Every metric in `names` over the same predictions, in that order."""
    return {name: METRICS[name](labels, predictions) for name in names}
