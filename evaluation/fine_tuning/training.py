"""Fine-tune one encoder on one task and score it, or score a model that was fine-tuned before.

The same arguments on the same machine give the same bits: the head, the order and dropout come from the seed alone, and neither
evaluations, nor a teacher, nor test sets, nor saving draws from the random state that the training draws from.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from dataset.errors import UserError
from dataset.files import reason, whole_folder
from evaluation.fine_tuning.batching import count_steps, steps_in_epoch, training_steps
from evaluation.fine_tuning.checks import check_fine_tuning, check_scoring
from evaluation.fine_tuning.heads import load_with_new_head, load_with_own_head, quiet_transformers
from evaluation.fine_tuning.inputs import prepare
from evaluation.fine_tuning.loop import train, warmup_steps
from evaluation.fine_tuning.model_folder import read_head
from evaluation.fine_tuning.network import Network
from evaluation.fine_tuning.outcome import Outcome
from evaluation.fine_tuning.repeatable import repeatable
from evaluation.fine_tuning.scorer import Scorer, Watch, may_have_no_answer
from evaluation.fine_tuning.settings import FineTuningSettings, without_effect
from evaluation.fine_tuning.teacher import ask_teacher
from evaluation.fine_tuning.tokens import Tokenizer
from evaluation.tasks.task import TaskData, metric_name
from pretraining.precision import Precision, select_precision

Say = Callable[[str], None]


def fine_tune(
    folder: Path, data: TaskData, settings: FineTuningSettings, *, teacher: Path | None = None, device: str | None = None,
    save_to: Path | None = None, say: Say = print,
) -> Outcome:
    """Train the encoder in `folder` with a new head on `data.train` and score it on every set of `data.dev`; predict those of `data.test`.

    With `teacher`, a folder that was fine-tuned on the task, its logits are learned beside the labels. `device` is a name that torch knows
    (default: the first GPU, else the CPU). With `save_to` the model and its tokenizer are kept there, whole or not at all. `say` gets a
    line about the precision where the settings leave it to the device, one for each setting that cannot matter, one for each evaluation
    during the training, and one where the model could not be kept. Without dev sets there are no metrics.

    UserError for a folder that does not load, a tokenizer of another model, a teacher of another task, a precision that the device does
    not have, a set without examples, evaluations without a dev set, a batch that does not fit into the GPU's memory.
    """
    task = data.task
    check_fine_tuning(folder, task, settings, teacher)
    examples = data.train.first(settings.max_train_samples)
    if len(examples) == 0:
        raise UserError(f"{task.name} has no training examples; score a model that was fine-tuned before")
    if not data.dev and settings.eval_strategy != "no":
        raise UserError(f"--eval_strategy {settings.eval_strategy}: {task.name} has no dev set here to score; no would work")
    place, precision = _place(device, settings, say)
    _say_effects(data, settings, say, teacher=teacher is not None)
    if save_to is not None:
        _make_parent(save_to)
    with repeatable(settings.seed, place), _memory_in_one_line(place):
        model, inner, new_weights = load_with_new_head(folder, task, settings.seed)
        network = Network(model, Tokenizer(inner, model, str(folder)), task.kind, settings, place, precision)
        inputs = prepare(network.tokenizer, examples, task.kind, settings, labelled=True)
        scorer = Scorer(network, data, settings)
        rows = inputs.tokens.lengths
        step_size = settings.per_device_train_batch_size * settings.gradient_accumulation_steps
        steps = settings.max_steps if settings.max_steps > 0 else count_steps(len(rows), step_size, settings.num_train_epochs)
        if settings.lr_scheduler_type != "constant" and warmup_steps(settings, steps) >= steps:
            say(f"{task.name}: the warm-up is as long as the training ({steps} updates), so the learning rate never reaches its peak")
        plan = list(training_steps(rows, step_size, steps, settings.seed))
        evaluate = _Timed(scorer.scores)
        sets = list(data.dev)
        headline = metric_name(task.headline, sets[0], sets) if sets else task.headline
        watch = Watch(evaluate, model, headline, settings, steps_in_epoch(len(rows), step_size), steps, say)
        started = time.perf_counter()
        taught = None if teacher is None else ask_teacher(teacher, task, examples, inputs, plan, network, say)
        # From here on, so that dropout depends neither on what loading drew nor on whether there is a teacher.
        torch.manual_seed(settings.seed)
        losses = train(network, inputs, plan, taught, watch)
        train_seconds = time.perf_counter() - started - evaluate.seconds
        best_step, scores = watch.finish(len(losses))
        test_outputs, is_finite = scorer.predict(data.test)
    if save_to is not None:
        if inner.is_fast:  # how the last texts were cut is no part of it
            inner.backend_tokenizer.no_truncation()
            inner.backend_tokenizer.no_padding()
        try:
            with whole_folder(save_to) as partial, quiet_transformers():
                model.save_pretrained(partial)
                inner.save_pretrained(partial)
        except Exception as error:  # whatever libraries make of a full disk: the score took minutes or hours, and it stands
            say(f"{save_to}: the fine-tuned model could not be kept ({reason(error)})")
    return Outcome(
        metrics=scores.metrics, constant_metrics=scorer.constant_metrics(), outputs=scores.outputs, test_outputs=test_outputs,
        losses=losses, best_step=best_step, train_seconds=train_seconds, train_size=len(examples), dev_size=scorer.size,
        precision=precision.name, device=place.type, new_weights=new_weights, diverged=not (scores.finite and is_finite),
        parameters=_count(model), selected_on_dev=settings.load_best_model_at_end or settings.early_stopping_patience > 0,
        history=watch.history,
    )


def score_only(
    folder: Path, data: TaskData, settings: FineTuningSettings, *, device: str | None = None, say: Say = print
) -> Outcome:
    """Score the model in `folder` as it is, with its own head, whose classes its config.json names in whatever order.

    Without dev sets there are no metrics.
    UserError for a folder without a head for the task, and for one that lacks any weight.
    """
    task = data.task
    check_scoring(folder, task, settings)
    place, precision = _place(device, settings, say)
    _say_effects(data, settings, say, training=False)
    order, note = read_head(folder, task)
    if note is not None:
        say(note)
    with repeatable(settings.seed, place), _memory_in_one_line(place):
        model, inner = load_with_own_head(folder, task)
        network = Network(model, Tokenizer(inner, model, str(folder)), task.kind, settings, place, precision, order)
        scorer = Scorer(network, data, settings)
        scores = scorer.scores()
        test_outputs, is_finite = scorer.predict(data.test)
    return Outcome(
        metrics=scores.metrics, constant_metrics=scorer.constant_metrics(), outputs=scores.outputs, test_outputs=test_outputs, losses=[],
        best_step=0, train_seconds=0.0, train_size=0, dev_size=scorer.size, precision=precision.name, device=place.type,
        new_weights=[], diverged=not (scores.finite and is_finite), parameters=_count(model), selected_on_dev=False,
    )


class _Timed:
    """A function that counts the seconds spent in it."""

    def __init__(self, call: Callable) -> None:
        self.call, self.seconds = call, 0.0

    def __call__(self) -> object:
        started = time.perf_counter()
        try:
            return self.call()
        finally:
            self.seconds += time.perf_counter() - started


@contextmanager
def _memory_in_one_line(place: torch.device) -> Iterator[None]:
    """Turns a GPU's lack of memory into a UserError that says what would need less."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise UserError(f"{place}: out of memory; a smaller --per_device_train_batch_size with more --gradient_accumulation_steps, or a "
                        f"smaller --per_device_eval_batch_size, would work") from None


def _make_parent(folder: Path) -> None:
    """The folder that `folder` will be in; UserError, before anything is trained, where it cannot be."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder.parent}: cannot be made ({reason(error)}); give a folder that can be written") from None


def _place(device: str | None, settings: FineTuningSettings, say: Say) -> tuple[torch.device, Precision]:
    """The device and the precision on it; UserError where there is none of that name."""
    try:
        place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError:
        raise UserError(f"device {device!r}: not a name that torch knows; cpu, cuda or cuda:1 would work") from None
    found = torch.cuda.device_count()
    if place.type == "cuda" and (place.index or 0) >= found:
        raise UserError(f"device {device!r}: this machine has {found} GPUs that torch can use; cpu would work")
    precision, note = select_precision(settings.precision, place)
    if note is not None:
        say(note)
    return place, precision


def _say_effects(data: TaskData, settings: FineTuningSettings, say: Say, *, teacher: bool = False, training: bool = True) -> None:
    for line in without_effect(settings, data.task.kind, teacher=teacher, training=training):
        say(line)
    if data.task.kind == "span" and settings.null_score_diff_threshold != 0 and not may_have_no_answer(data.task):
        say(f"--null_score_diff_threshold {settings.null_score_diff_threshold}: no effect: {data.task.name} answers every question")


def _count(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
