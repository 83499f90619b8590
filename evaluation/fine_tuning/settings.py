"""Hyper-parameters of fine-tuning: one dataclass that is at once the flags, the checks and what every result records.

Torch-free, so that flags are checked before anything heavy is imported. Defaults are those of the usual GLUE recipe
(5e-5, 3 epochs, batch 32, length 128) with BERT's own warm-up of a tenth and weight decay of 0.01.
"""

import argparse
import math
from dataclasses import dataclass, field, fields
from typing import Any

from dataset.errors import UserError

PRECISIONS = ("auto", "fp32", "bf16", "fp16")


def _setting(default: Any, kind: type, help: str, least: float | None = None, above: float | None = None,
             most: float | None = None, choices: tuple[str, ...] | None = None) -> Any:
    meta = {"type": kind, "help": help, "least": least, "above": above, "most": most, "choices": choices}
    return field(default=default, metadata=meta)


@dataclass(frozen=True)
class FineTuningSettings:
    """What decides a score besides the model and the data; raises UserError for a value that makes no sense."""

    learning_rate: float = _setting(5e-5, float, "peak learning rate of AdamW", above=0)
    num_train_epochs: float = _setting(3.0, float, "passes over the training data, may be a fraction", above=0)
    per_device_train_batch_size: int = _setting(32, int, "examples in one forward and backward pass", least=1)
    per_device_eval_batch_size: int = _setting(64, int, "examples in one forward pass when scoring", least=1)
    max_seq_length: int = _setting(128, int, "word pieces kept of an example, special ones included", least=8)
    weight_decay: float = _setting(0.01, float, "AdamW's, not applied to biases and normalisation weights", least=0)
    warmup_ratio: float = _setting(0.1, float, "share of the steps with rising learning rate", least=0, most=1)
    max_grad_norm: float = _setting(1.0, float, "gradients are clipped to this norm; 0: not clipped", least=0)
    gradient_accumulation_steps: int = _setting(1, int, "train batches in one update", least=1)
    seed: int = _setting(42, int, "of the new head, the data order and dropout; the same for every model", least=0)
    max_train_samples: int | None = _setting(None, int, "use only the first N training examples", least=1)
    max_eval_samples: int | None = _setting(None, int, "score only the first N dev examples", least=1)
    precision: str = _setting("auto", str, "of the forward pass; auto: bf16 where the hardware has it, else fp32",
                              choices=PRECISIONS)

    def __post_init__(self) -> None:
        for item in fields(self):
            value, meta = getattr(self, item.name), item.metadata
            if value is None and item.default is None:
                continue
            flag = f"--{item.name} {value}"
            if meta["choices"] is not None:
                if value not in meta["choices"]:
                    raise UserError(f"{flag}: give one of {', '.join(meta['choices'])}")
                continue
            if not math.isfinite(value):
                raise UserError(f"{flag}: give a finite number")
            if meta["least"] is not None and value < meta["least"]:
                raise UserError(f"{flag}: give {meta['least']} or more")
            if meta["above"] is not None and value <= meta["above"]:
                raise UserError(f"{flag}: give more than {meta['above']}")
            if meta["most"] is not None and value > meta["most"]:
                raise UserError(f"{flag}: give {meta['most']} or less")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """One flag for each setting."""
    group = parser.add_argument_group("fine-tuning")
    for item in fields(FineTuningSettings):
        group.add_argument(
            f"--{item.name}", type=item.metadata["type"], default=item.default, choices=item.metadata["choices"],
            help=f"{item.metadata['help']} (default {'all' if item.default is None else item.default})",
        )


def from_flags(flags: argparse.Namespace) -> FineTuningSettings:
    """Settings from parsed flags."""
    return FineTuningSettings(**{item.name: getattr(flags, item.name) for item in fields(FineTuningSettings)})
