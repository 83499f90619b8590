"""LSTM and GRU as one operator each in `torch.export`'s programs.

torch captures them as their definition, a loop over words: unrolled it holds for the length of the example alone, and as its `while_loop`
it runs every word from Python. The operators themselves are in every torch that can load a program, on every device; `torch.export` keeps
an operator whose result it can describe without running it. So while `kept_whole` lasts, shapes are all that they compute.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch


def _lstm(inputs: torch.Tensor, states: list[torch.Tensor], *_: Any) -> tuple[torch.Tensor, ...]:
    """Of a layer of one direction with batch_first, as students have: outputs (B, L, H), last states (1, B, H) twice."""
    return inputs.new_empty(*inputs.shape[:2], states[0].shape[2]), torch.empty_like(states[0]), torch.empty_like(states[1])


def _gru(inputs: torch.Tensor, state: torch.Tensor, *_: Any) -> tuple[torch.Tensor, ...]:
    return inputs.new_empty(*inputs.shape[:2], state.shape[2]), torch.empty_like(state)


@contextmanager
def kept_whole() -> Iterator[None]:
    """`torch.export.export` keeps `aten.lstm` and `aten.gru`; nothing may run them meanwhile."""
    replaced: list[tuple[Any, dict[Any, Callable]]] = []
    for operator, shapes in ((torch.ops.aten.lstm.input, _lstm), (torch.ops.aten.gru.input, _gru)):
        replaced.append((operator, dict(operator.py_kernels)))
        operator.py_kernels.update(dict.fromkeys(operator.py_kernels, shapes))
        operator._dispatch_cache.clear()
    try:
        yield
    finally:
        for operator, kernels in replaced:
            operator.py_kernels.update(kernels)
            operator._dispatch_cache.clear()
