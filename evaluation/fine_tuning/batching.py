"""Which examples train together, and how they become padded tensors.

The unit is the optimizer step: its examples are chosen first and cut into batches afterwards, so 2 x 16 and 1 x 32 see the same examples in
the same updates. Order comes from (seed, epoch) and lengths alone, never from the model. Steps are cut from length-sorted windows of
shuffled examples: batches hold little padding, yet each epoch mixes anew.
"""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

    from evaluation.fine_tuning.tokens import Tokens

WINDOW_STEPS = 50
"""Steps sorted by length together: more means less padding and less mixing (HF's trainer uses 50 as well)."""


def steps_in_epoch(examples: int, step_size: int) -> int:
    """Optimizer steps in one pass, a short last one included."""
    return math.ceil(examples / step_size)


def count_steps(examples: int, step_size: int, epochs: float) -> int:
    """Optimizer steps in `epochs` passes, the short last step of a pass included; at least one."""
    return max(1, math.ceil(epochs * steps_in_epoch(examples, step_size)))


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


def scoring_batches(lengths: np.ndarray, size: int) -> list[np.ndarray]:
    """Every example once, longest first, `size` in a batch: what does not fit into memory fails at the first batch."""
    order = np.argsort(-lengths, kind="stable")
    return [order[at : at + size] for at in range(0, len(order), size)]


def gather(starts: np.ndarray, chosen: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """(positions in the flat arrays (B, L) int64, mask (B, L) bool of those that belong to the row)."""
    first, last = starts[chosen][:, None], starts[chosen + 1][:, None]
    positions = first + np.arange(length)
    mask = positions < last
    return np.where(mask, positions, 0), mask


def collate(
    tokens: "Tokens", chosen: np.ndarray, pad_token_id: int, device: "torch.device", length: int | None = None
) -> dict[str, "torch.Tensor"]:
    """Inputs of a model for the rows `chosen`: int64 tensors (B, L) on `device`, padded right.

    L is `length`, by default the longest row's. Where nothing is padded there is no attention_mask, which lets attention do without one.
    """
    import torch

    length = length or int((tokens.starts[chosen + 1] - tokens.starts[chosen]).max())
    positions, mask = gather(tokens.starts, chosen, length)
    arrays = {"input_ids": np.where(mask, tokens.ids[positions], pad_token_id).astype(np.int64)}
    if tokens.segments is not None:
        arrays["token_type_ids"] = np.where(mask, tokens.segments[positions], 0).astype(np.int64)
    if not mask.all():
        arrays["attention_mask"] = mask.astype(np.int64)
    batch = {}
    for name, array in arrays.items():
        tensor = torch.from_numpy(array)
        if device.type == "cuda":
            tensor = tensor.pin_memory()
        batch[name] = tensor.to(device, non_blocking=True)
    return batch
