"""Scores of predictions, by the name a task's row gives them; fractions, correlations from -1 to 1.

Through scikit-learn and scipy, whose definitions these are. Where a score is not defined:
- `f1` is 0 where class 1 is neither labelled nor predicted; so is the part of such a class in `macro_f1`.
- `matthews` is 0 where all labels or all predictions are one class (0/0 in its formula; scikit-learn's choice).
- `pearson` and `spearman` are 0 where labels or predictions are constant: a model that says the same of everything has found nothing. scipy
  gives nan, which no mean or plot would survive. Equal values share the mean of their ranks in `spearman`.
- Predictions that are not finite numbers are a model that diverged: `pearson` and `spearman` are 0.
"""

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from evaluation.tasks.task import Task


def accuracy(labels: Sequence[int], predictions: Sequence[int]) -> float:
    """Share of predictions that equal their label."""
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(labels, predictions))


def f1(labels: Sequence[int], predictions: Sequence[int]) -> float:
    """F1 of class 1, as GLUE defines it for its binary tasks: 2 * hits / (2 * hits + false alarms + misses)."""
    from sklearn.metrics import f1_score

    return float(f1_score(labels, predictions, labels=[1], average="macro", zero_division=0.0))


def macro_f1(labels: Sequence[int], predictions: Sequence[int]) -> float:
    """Mean of every class's F1, over the classes that are labelled or predicted at least once."""
    from sklearn.metrics import f1_score

    return float(f1_score(labels, predictions, average="macro", zero_division=0.0))


def matthews(labels: Sequence[int], predictions: Sequence[int]) -> float:
    """Matthews' correlation; of more than two classes (the diagnostic set) Gorodkin's R_K, its generalisation (Gorodkin 2004)."""
    from sklearn.metrics import matthews_corrcoef

    if len(np.unique(predictions)) < 2:
        return 0.0  # scikit-learn's value too, which it gives with a warning
    return float(matthews_corrcoef(labels, predictions))


def pearson(labels: Sequence[float], predictions: Sequence[float]) -> float:
    """Pearson's correlation, in float64."""
    from scipy.stats import pearsonr

    return _correlation(pearsonr, labels, predictions)


def spearman(labels: Sequence[float], predictions: Sequence[float]) -> float:
    """Spearman's rank correlation, in float64."""
    from scipy.stats import spearmanr

    return _correlation(spearmanr, labels, predictions)


def _correlation(of: Callable, labels: Sequence[float], predictions: Sequence[float]) -> float:
    pair = [np.asarray(values, np.float64).reshape(-1) for values in (labels, predictions)]
    if not all(np.isfinite(values).all() and np.ptp(values) > 0 for values in pair):
        return 0.0
    value = float(of(*pair).statistic)
    return value if np.isfinite(value) else 0.0


METRICS = {"accuracy": accuracy, "f1": f1, "macro_f1": macro_f1, "matthews": matthews, "pearson": pearson, "spearman": spearman}

def score(task: Task, labels: Sequence[float], outputs: Sequence[float]) -> dict[str, float]:
    """Every metric of `task`, in its order, of `outputs` against `labels`: class numbers, or numbers of a regression."""
    return {name: METRICS[name](labels, outputs) for name in task.metrics}


def score_of_constant(task: Task, labels: Sequence[float]) -> dict[str, float]:
    """What always predicting the same scores: the most frequent class (the lowest of several), or the mean of a regression's labels.

    The floor that a model has to rise above. On MRPC that is an F1 of 0.81, which looks like a result.
    """
    if task.kind == "regression":
        constant = float(np.mean(labels))
    else:
        counts = Counter(labels)
        constant = min(counts, key=lambda label: (-counts[label], label))
    return score(task, labels, [constant] * len(labels))
