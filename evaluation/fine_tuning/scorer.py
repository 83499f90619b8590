"""Scoring of all sets of a task by one model, at the end of a training and, where asked for, during it.

The score is that of the last step unless the settings ask for the best of several evaluations, or for an early stop: then the dev set chose
what it scores, which flatters, and the outcome says so.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from tqdm import tqdm

from evaluation.fine_tuning.inputs import Inputs, prepare
from evaluation.fine_tuning.network import Network
from evaluation.fine_tuning.outcome import Output, Scores
from evaluation.fine_tuning.settings import FineTuningSettings
from evaluation.fine_tuning.windows import extract_answers
from evaluation.metrics.glue import score, score_of_constant
from evaluation.metrics.squad import score_answers
from evaluation.tasks.squad import SQUAD_2
from evaluation.tasks.task import Examples, Questions, Task, TaskData, metric_name

Sets = Mapping[str, Examples | Questions]


def may_have_no_answer(task: Task) -> bool:
    """Whether "no answer" is an answer of `task`, by the rule of its metrics."""
    return task.name == SQUAD_2.name


class Scorer:
    """The dev sets of `data` (their first `max_eval_samples`), tokenised once for `network`; a task with test sets alone has none."""

    def __init__(self, network: Network, data: TaskData, settings: FineTuningSettings) -> None:
        self.network, self.task, self.settings = network, data.task, settings
        self.dev = {name: part.first(settings.max_eval_samples) for name, part in data.dev.items()}
        self.may_be_empty = may_have_no_answer(data.task)
        self._inputs = {name: self._prepare(part) for name, part in self.dev.items()}

    def _prepare(self, part: Examples | Questions) -> Inputs:
        return prepare(self.network.tokenizer, part, self.task.kind, self.settings, labelled=False)

    def scores(self) -> Scores:
        """Metrics and outputs of the dev sets by the weights of now."""
        outputs, finite = {}, True
        for name, part in self.dev.items():
            outputs[name], whole = self._output(part, self._inputs[name])
            finite = finite and whole
        return Scores(metrics_of(self.task, self.dev, outputs), outputs, finite)

    def predict(self, sets: Sets) -> tuple[dict[str, Output], bool]:
        """Outputs of other sets, such as those for a submission, and whether all logits were finite."""
        found = {name: self._output(part, self._prepare(part)) for name, part in sets.items()}
        return {name: output for name, (output, _) in found.items()}, all(finite for _, finite in found.values())

    def _output(self, part: Examples | Questions, inputs: Inputs) -> tuple[Output, bool]:
        logits = self.network.predict(inputs.tokens)
        finite = bool(np.isfinite(logits).all())
        if inputs.windows is None:
            return logits, finite
        return extract_answers(inputs.windows, part, logits, self.settings, may_be_empty=self.may_be_empty), finite

    @property
    def size(self) -> int:
        """Examples (questions) of the first dev set, which the headline is of; 0 where there is none."""
        return len(next(iter(self.dev.values()), ()))

    def constant_metrics(self) -> dict[str, float]:
        """What always predicting the same scores on the dev sets."""
        return constant_metrics_of(self.task, self.dev)


def metrics_of(task: Task, sets: Sets, outputs: Mapping[str, Output]) -> dict[str, float]:
    """Every metric of every set, by `metric_name`."""
    return _by_name(sets, {name: _metrics(task, part, outputs[name]) for name, part in sets.items()})


def constant_metrics_of(task: Task, sets: Sets) -> dict[str, float]:
    """What always predicting the same scores on every set, by `metric_name`."""
    return _by_name(sets, {name: _constant(task, part) for name, part in sets.items()})


def _metrics(task: Task, part: Examples | Questions, output: Output) -> dict[str, float]:
    if task.kind == "span":
        return score_answers(task, part, output)
    return score(task, part.labels, (output[:, 0] if task.kind == "regression" else output.argmax(axis=1)).tolist())


def _constant(task: Task, part: Examples | Questions) -> dict[str, float]:
    if task.kind == "span":
        return score_answers(task, part, dict.fromkeys(part.ids, ""))
    return score_of_constant(task, part.labels)


def _by_name(sets: Sets, metrics: Mapping[str, dict[str, float]]) -> dict[str, float]:
    return {metric_name(metric, name, list(sets)): value for name in sets for metric, value in metrics[name].items()}


class Watch:
    """Evaluations during a training: when they are due, what they gave, which was best and whether to stop."""

    def __init__(self, evaluate: Callable[[], Scores], model: torch.nn.Module, headline: str, settings: FineTuningSettings,
                 steps_in_epoch: int, steps: int, say: Callable[[str], None]) -> None:
        self.evaluate, self.model, self.headline, self.settings, self.steps = evaluate, model, headline, settings, steps
        self.say = say
        self.interval = {"no": 0, "steps": settings.eval_steps, "epoch": steps_in_epoch}[settings.eval_strategy]
        self.history: list[dict] = []
        self.step, self.best_step = 0, 0
        self.last: Scores | None = None
        self.best: Scores | None = None
        self.best_weights: dict[str, torch.Tensor] = {}
        self.misses = 0

    def is_due(self, step: int) -> bool:
        """After `step` updates; the last one always counts where there are evaluations at all."""
        return bool(self.interval) and (step % self.interval == 0 or step == self.steps)

    def look(self, step: int) -> bool:
        """Evaluate after `step` updates and say what came of it, in percent; True if the training should stop."""
        self.step, self.last = step, self.evaluate()
        self.history.append({"step": step, "metrics": self.last.metrics})
        found = ", ".join(f"{name} {100 * value:.1f}" for name, value in self.last.metrics.items())
        with tqdm.external_write_mode():  # else the line would be written into the bar
            self.say(f"step {step}: {found if self.last.finite else 'logits that are not finite'}")
        if self.best is None or self._value(self.last) > self._value(self.best):
            self.best, self.best_step, self.misses = self.last, step, 0
            if self.settings.load_best_model_at_end:
                self.best_weights = {name: weight.detach().to("cpu", copy=True) for name, weight in self.model.state_dict().items()}
        else:
            self.misses += 1
        return 0 < self.settings.early_stopping_patience <= self.misses

    def _value(self, scores: Scores) -> float:
        return scores.metrics[self.headline] if scores.finite else float("-inf")

    def finish(self, step: int) -> tuple[int, Scores]:
        """(updates of the weights that count, their scores) of a training that ended after `step` updates; loads those weights."""
        if self.settings.load_best_model_at_end:
            self.model.load_state_dict(self.best_weights)
            return self.best_step, self.best
        if self.last is None or self.step != step:
            self.last = self.evaluate()
        return step, self.last
