"""A set as a model reads it: tokens and, for training, what they should give."""

from dataclasses import dataclass

import numpy as np

from evaluation.fine_tuning.settings import FineTuningSettings
from evaluation.fine_tuning.tokens import Tokenizer, Tokens
from evaluation.fine_tuning.windows import Windows, make_windows, targets
from evaluation.tasks.task import Examples, Questions


@dataclass(frozen=True)
class Inputs:
    """R rows: examples, or windows of questions."""

    tokens: Tokens
    labels: np.ndarray | None
    """(R, choices): int64 classes (R, 1), fp32 numbers (R, 1), int64 first and last token of an answer (R, 2); None if not for training."""
    windows: Windows | None


def prepare(tokenizer: Tokenizer, part: Examples | Questions, kind: str, settings: FineTuningSettings, *, labelled: bool) -> Inputs:
    """`part` through `tokenizer`; with `labelled` what it should give as well. UserError as from `Tokenizer` and `make_windows`."""
    if isinstance(part, Questions):
        windows = make_windows(tokenizer, part, settings)
        return Inputs(windows.tokens, targets(windows, part) if labelled else None, windows)
    labels = None
    if labelled:
        labels = np.asarray(part.labels, np.float32 if kind == "regression" else np.int64)[:, None]
    return Inputs(tokenizer.encode(part, settings.max_seq_length), labels, None)
