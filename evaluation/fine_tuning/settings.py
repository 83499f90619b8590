"""Hyper-parameters of fine-tuning: one dataclass that is at once the flags, the checks and what every result records.

Torch-free, so that flags are checked before anything heavy is imported. Defaults are those of the usual GLUE recipe (5e-5, 3 epochs,
batch 32, length 128) with BERT's own warm-up of a tenth and weight decay of 0.01; those of question answering are SQuAD's usual ones, and
those of distillation the `kd` of "How to Distill your BERT" (2023). Every setting is part of a result's identity, so one that cannot
matter is named by `without_effect` rather than passed over in silence.
"""

import argparse
import math
from dataclasses import dataclass, field, fields
from typing import Any

from dataset.errors import UserError
from pretraining.args.flags import parse_bool

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
SCHEDULES = ("linear", "cosine", "constant", "constant_with_warmup", "polynomial")
EVALUATIONS = ("no", "steps", "epoch")
SPAN_SETTINGS = ("doc_stride", "max_query_length", "n_best_size", "max_answer_length", "null_score_diff_threshold")
SCORING_SETTINGS = ("per_device_eval_batch_size", "max_seq_length", "pad_to_max_length", "max_eval_samples", "precision", *SPAN_SETTINGS)
"""What a score of a model that is not trained depends on."""
POLYNOMIAL_END = 1e-7
"""Learning rate at which the library's polynomial schedule ends."""


def _setting(default: Any, kind: type, help: str, least: float | None = None, above: float | None = None, most: float | None = None,
             choices: tuple[str, ...] | None = None, off: float | None = None) -> Any:
    """A field with its check; `off` is a value outside the range that switches the setting off."""
    meta = {"type": kind, "help": help, "least": least, "above": above, "most": most, "choices": choices, "off": off}
    return field(default=default, metadata=meta)


@dataclass(frozen=True)
class FineTuningSettings:
    """What decides a score besides the models and the data; raises UserError for a value that makes no sense."""

    learning_rate: float = _setting(5e-5, float, "peak learning rate of AdamW", above=0)
    num_train_epochs: float = _setting(3.0, float, "passes over the training data, may be a fraction", above=0)
    max_steps: int = _setting(-1, int, "updates in all, in place of --num_train_epochs; -1: by epochs", least=1, off=-1)
    per_device_train_batch_size: int = _setting(32, int, "examples in one forward and backward pass", least=1)
    per_device_eval_batch_size: int = _setting(64, int, "examples in one forward pass when scoring", least=1)
    gradient_accumulation_steps: int = _setting(1, int, "train batches in one update", least=1)
    max_seq_length: int = _setting(128, int, "word pieces kept of an example or window, special ones included", least=8)
    pad_to_max_length: bool = _setting(False, bool, "pad every batch to --max_seq_length rather than to its longest example")
    lr_scheduler_type: str = _setting("linear", str, "course of the learning rate after the warm-up", choices=SCHEDULES)
    warmup_ratio: float = _setting(0.1, float, "share of the updates with rising learning rate", least=0, most=1)
    warmup_steps: int = _setting(0, int, "updates with rising learning rate, in place of --warmup_ratio; 0: by ratio", least=0)
    weight_decay: float = _setting(0.01, float, "AdamW's, not applied to biases and normalisation weights", least=0)
    adam_beta1: float = _setting(0.9, float, "AdamW's", least=0, most=0.999999)
    adam_beta2: float = _setting(0.999, float, "AdamW's", least=0, most=0.999999)
    adam_epsilon: float = _setting(1e-8, float, "AdamW's", above=0)
    max_grad_norm: float = _setting(1.0, float, "gradients are clipped to this norm; 0: not clipped", least=0)
    seed: int = _setting(42, int, "of the new head, the data order and dropout; the same for every model", least=0)
    max_train_samples: int | None = _setting(None, int, "use only the first N training examples", least=1)
    max_eval_samples: int | None = _setting(None, int, "score only the first N examples of each dev set", least=1)
    precision: str = _setting("auto", str, "of the forward pass; auto: bf16 where the hardware has it, else fp32", choices=PRECISIONS)
    eval_strategy: str = _setting("no", str, "score during the training: every --eval_steps updates or every epoch", choices=EVALUATIONS)
    eval_steps: int = _setting(500, int, "updates between evaluations, for --eval_strategy steps", least=1)
    early_stopping_patience: int = _setting(-1, int, "stop after N evaluations without a better headline; -1: never", least=1, off=-1)
    load_best_model_at_end: bool = _setting(False, bool, "report and keep the best evaluation's weights: a score selected on the dev set")
    temperature: float = _setting(2.0, float, "T of softmax(logits / T) in distillation", above=0)
    alpha: float = _setting(0.5, float, "weight of the teacher in the loss; 1 minus it is the labels'", least=0, most=1)
    doc_stride: int = _setting(128, int, "word pieces that neighbouring windows of a text share (SQuAD)", least=0)
    max_query_length: int = _setting(64, int, "word pieces kept of a question (SQuAD)", least=1)
    n_best_size: int = _setting(20, int, "best starts and ends of a window that are combined to answers (SQuAD)", least=1)
    max_answer_length: int = _setting(30, int, "word pieces of an answer at most (SQuAD)", least=1)
    null_score_diff_threshold: float = _setting(
        0.0, float, "no answer where its score is more than this above that of the best answer (SQuAD 2.0)")

    def __post_init__(self) -> None:
        for item in fields(self):
            _check(item.name, getattr(self, item.name), item.default, item.metadata)
        if self.eval_strategy == "no":
            for name in ("early_stopping_patience", "load_best_model_at_end"):
                if getattr(self, name) not in (False, -1):
                    raise UserError(f"--{name} {getattr(self, name)}: nothing is scored during the training; add --eval_strategy epoch")
        if self.lr_scheduler_type == "polynomial" and self.learning_rate <= POLYNOMIAL_END:
            raise UserError(f"--learning_rate {self.learning_rate}: the polynomial schedule ends at {POLYNOMIAL_END}; give more than that")


def _check(name: str, value: Any, default: Any, meta: dict[str, Any]) -> None:
    """UserError where `value` is outside what `meta` allows."""
    flag = f"--{name} {value}"
    if (value is None and default is None) or (meta["off"] is not None and value == meta["off"]):
        return
    if meta["type"] is bool:
        if not isinstance(value, bool):
            raise UserError(f"{flag}: give true or false")
        return
    if meta["choices"] is not None:
        if value not in meta["choices"]:
            raise UserError(f"{flag}: give one of {', '.join(meta['choices'])}")
        return
    off = "" if meta["off"] is None else f", or {meta['off']} to switch it off"
    if not math.isfinite(value):
        raise UserError(f"{flag}: give a finite number")
    if meta["least"] is not None and value < meta["least"]:
        raise UserError(f"{flag}: give {meta['least']} or more{off}")
    if meta["above"] is not None and value <= meta["above"]:
        raise UserError(f"{flag}: give more than {meta['above']}{off}")
    if meta["most"] is not None and value > meta["most"]:
        raise UserError(f"{flag}: give {meta['most']} or less")


def check_for_kind(settings: FineTuningSettings, kind: str) -> None:
    """UserError where the settings cannot work for a task of `kind` (classification, regression, span).

    A window must hold the question, up to 4 special tokens, what it shares with the window before, and something new.
    """
    if kind != "span":
        return
    needed = settings.max_query_length + settings.doc_stride + 5
    if settings.max_seq_length < needed:
        raise UserError(
            f"--max_seq_length {settings.max_seq_length}: with --max_query_length {settings.max_query_length} and --doc_stride "
            f"{settings.doc_stride} a window of a text needs {needed} or more; SQuAD's usual length is 384"
        )


def without_effect(settings: FineTuningSettings, kind: str, *, teacher: bool = False, training: bool = True) -> list[str]:
    """A line for every setting that differs from its default and cannot change the score of a task of `kind`."""
    given = {item.name for item in fields(settings) if getattr(settings, item.name) != item.default}
    reasons: dict[str, str] = {}
    if kind != "span":
        reasons |= dict.fromkeys(SPAN_SETTINGS, f"only questions about a text have it, this task is a {kind}")
    if not teacher:
        reasons |= dict.fromkeys(("temperature", "alpha"), "there is no teacher")
    elif kind == "regression":
        reasons["temperature"] = "a regression has no softmax"
    if settings.eval_strategy != "steps":
        reasons["eval_steps"] = f"--eval_strategy is {settings.eval_strategy}"
    if settings.max_steps > 0:
        reasons["num_train_epochs"] = f"--max_steps {settings.max_steps} decides"
    if settings.lr_scheduler_type == "constant":
        asked = [name for name in ("warmup_ratio", "warmup_steps") if getattr(settings, name) > 0]
        reasons |= dict.fromkeys(asked, "a constant learning rate has no warm-up")
    elif settings.warmup_steps > 0:
        reasons["warmup_ratio"] = f"--warmup_steps {settings.warmup_steps} decides"
    lines = [f"--{item.name} {getattr(settings, item.name)}: no effect: {reasons[item.name]}"
             for item in fields(settings) if item.name in given and item.name in reasons]
    if training:
        return lines
    unused = [item.name for item in fields(settings) if item.name in given - set(SCORING_SETTINGS) and item.name != "seed"]
    lines = [line for line in lines if line.split()[0][2:] in SCORING_SETTINGS]
    return [*lines, f"nothing is trained, so no effect: {', '.join(unused)}"] if unused else lines


def boolean(text: str) -> bool:
    """A boolean flag's value as people write it, for argparse."""
    try:
        return parse_bool(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def add_flags(parser: argparse.ArgumentParser) -> None:
    """One flag for each setting; a boolean one may stand alone or be followed by true or false. One that is not given is absent afterwards,
    so that a protocol can say it."""
    group = parser.add_argument_group("fine-tuning")
    for item in fields(FineTuningSettings):
        meta = item.metadata
        how = {"type": boolean, "nargs": "?", "const": True} if meta["type"] is bool else {"type": meta["type"]}
        group.add_argument(
            f"--{item.name}", default=argparse.SUPPRESS, choices=meta["choices"],
            help=f"{meta['help']} (default {'all' if item.default is None else item.default})", **how,
        )
