"""Which examples train together, and how they become padded tensors.

The unit is the optimizer step: its examples are chosen first and cut into batches afterwards, so 2 x 16 and 1 x 32 see
the same examples in the same updates. Order comes from (seed, epoch) and lengths alone, never from the model. Steps are
cut from length-sorted windows of shuffled examples: batches hold little padding, yet each epoch mixes anew.
"""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

WINDOW_STEPS = 50
"""Steps sorted by length together: more means less padding and less mixing (HF's trainer uses 50 as well)."""

PADS = {"attention_mask": 0, "token_type_ids": 0}
"""Padding value of every tokenizer output except `input_ids`, whose padding is the tokenizer's."""


def count_steps(examples: int, step_size: int, epochs: float) -> int:
    """Optimizer steps in `epochs` passes, the short last step of a pass included; at least one."""
    return max(1, math.ceil(epochs * math.ceil(examples / step_size)))


def training_steps(lengths: np.ndarray, step_size: int, steps: int, seed: int) -> Iterator[np.ndarray]:
    """Yield `steps` arrays of example numbers (int64, `step_size` or fewer each); a pass holds every example once."""
    epoch = 0
    while steps > 0:
        for chosen in _epoch(lengths, step_size, np.random.default_rng([seed, epoch]))[:steps]:
            yield chosen
            steps -= 1
        epoch += 1


def _epoch(lengths: np.ndarray, step_size: int, random: np.random.Generator) -> list[np.ndarray]:
    order = random.permutation(len(lengths))
    window = WINDOW_STEPS * step_size
    chosen = []
    for start in range(0, len(order), window):
        part = order[start : start + window]
        part = part[np.argsort(-lengths[part], kind="stable")]
        chosen += [part[at : at + step_size] for at in range(0, len(part), step_size)]
    return [chosen[position] for position in random.permutation(len(chosen))]


def collate(
    encoded: dict[str, list[list[int]]], chosen: np.ndarray, pad_token_id: int, device: "torch.device"
) -> dict[str, "torch.Tensor"]:
    """The tokenizer outputs of `chosen` as int64 tensors (B, L) on `device`, L the longest of them, padded right."""
    import torch

    longest = max(len(encoded["input_ids"][row]) for row in chosen)
    batch = {}
    for name, rows in encoded.items():
        padded = np.full((len(chosen), longest), PADS.get(name, pad_token_id), dtype=np.int64)
        for at, row in enumerate(chosen):
            padded[at, : len(rows[row])] = rows[row]
        tensor = torch.from_numpy(padded)
        if device.type == "cuda":
            tensor = tensor.pin_memory()
        batch[name] = tensor.to(device, non_blocking=True)
    return batch
