"""Whether a program says what the student says: on rows of several lengths in batches of several sizes, made of the student's own words."""

import re

import numpy as np
import torch
from tokenizers import Tokenizer

from dataset.errors import UserError
from task_distillation.serving.programs import FlatStudent, Program
from task_distillation.students.build import encode
from task_distillation.students.folder import LoadedStudent
from task_distillation.students.part import collate_parts

LENGTHS = (1, 2, 3, 5, 9, 20, 50)
"""Words of the rows, and beside them as many as the student reads."""
BATCHES = (1, 1, 2, 7, 32)
TOLERANCE = 1e-5
"""Greatest difference allowed, in units of the greatest logit or of 1 where that is less."""


def check_rows(loaded: LoadedStudent) -> list[list[np.ndarray]]:
    """Inputs of a program, one list for every batch, each padded to its longest row."""
    random = np.random.default_rng(0)
    words = _words(loaded.tokenizer)
    lengths = (*LENGTHS, loaded.config.max_length)
    rows = sum(BATCHES)
    columns = [[" ".join(random.choice(words, lengths[(row + column) % len(lengths)])) for row in range(rows)]
               for column in range(loaded.config.columns)]
    tokens = encode(loaded.config, loaded.tokenizer, columns)
    stops = np.cumsum(BATCHES)
    batches = [np.arange(stop - size, stop) for stop, size in zip(stops, BATCHES, strict=True)]
    return [[tensor.numpy() for part in collate_parts(tokens, chosen, loaded.module.pad_token_id) for tensor in part if tensor is not None]
            for chosen in batches]


def _words(tokenizer: Tokenizer) -> list[str]:
    """Pieces of the vocabulary that are words, in the order of their ids."""
    found = tokenizer.get_vocab()
    plain = [word.lstrip("Ġ▁") for word in sorted(found, key=found.get)]
    return [word for word in plain if re.fullmatch(r"[^\W_]+", word)] or plain


@torch.no_grad()
def student_logits(loaded: LoadedStudent, batches: list[list[np.ndarray]]) -> list[np.ndarray]:
    """What the student itself says of them."""
    flat = FlatStudent(loaded).eval()
    return [flat(*map(torch.from_numpy, batch)).numpy() for batch in batches]


def greatest_difference(name: str, program: Program, batches: list[list[np.ndarray]], expected: list[np.ndarray]) -> float:
    """Between the program's and the student's logits; UserError where it is beyond `TOLERANCE`."""
    greatest = 0.0
    for batch, wanted in zip(batches, expected, strict=True):
        found = program(batch)
        difference = float(np.abs(found - wanted).max()) if found.shape == wanted.shape else np.inf
        if not difference <= TOLERANCE * max(1.0, float(np.abs(wanted).max())):
            rows, width = batch[0].shape
            raise UserError(f"{name}: its logits differ from the student's by {difference:.3g} on {rows} rows of width {width}; "
                            f"nothing was written, --formats without {name} would work")
        greatest = max(greatest, difference)
    return greatest
