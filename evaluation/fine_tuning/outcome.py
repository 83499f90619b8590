"""What one fine-tuning or one scoring gives back."""

from dataclasses import dataclass, field

import numpy as np

Output = np.ndarray | dict[str, str]
"""Of one set: fp32 (N, outputs), logits in the order of the task's classes or numbers of a regression; of questions the answers by id."""


@dataclass(frozen=True)
class Scores:
    """One scoring of all dev sets."""

    metrics: dict[str, float]
    outputs: dict[str, Output]
    finite: bool
    """False where a logit is infinite or not a number."""


@dataclass(frozen=True)
class Outcome:
    """Metrics are fractions (correlations -1 to 1) by `metric_name`, over all dev sets; sets go by their names in TaskData."""

    metrics: dict[str, float]
    constant_metrics: dict[str, float]
    """The same metrics for always predicting the same: the most frequent class, the mean, no answer."""
    outputs: dict[str, Output]
    """Of the dev sets."""
    test_outputs: dict[str, Output]
    """Of the test sets; apart because MNLI's have the same names."""
    losses: list[float]
    """Mean training loss of each update; empty where nothing was trained."""
    best_step: int
    """Updates that the scored weights have seen."""
    train_seconds: float
    """The updates and the teacher's part where another seed had not asked it the same; neither tokenising nor scoring."""
    train_size: int
    """Examples (questions) trained on."""
    dev_size: int
    """Examples (questions) of the dev set that the headline is of; 0 without a dev set."""
    precision: str
    device: str
    new_weights: list[str]
    """Parameters that the model's folder did not give."""
    diverged: bool
    """True where the final logits, those of test sets included, are not all finite; the metrics then mean nothing."""
    parameters: int
    """Of the model with its head."""
    selected_on_dev: bool
    """True where the dev set decided which weights are scored: the best of several evaluations, or an early stop."""
    history: list[dict] = field(default_factory=list)
    """{"step", "metrics"} of every evaluation during the training."""
