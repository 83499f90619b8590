"""A block of torch code that gives the same numbers every time, and leaves no trace of its seed outside."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch


@contextmanager
def repeatable(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch inside, restore its random state outside, and on CUDA allow deterministic kernels only.

    Strict rather than `warn_only`: under `warn_only` torch keeps the memory-efficient attention's backward pass non-deterministic. cuBLAS
    reads its workspace setting at its first use, so it is set before that. Filling new memory, which torch adds to deterministic mode to
    find reads of unset values, is off: it changes no result and costs a kernel for each tensor.
    """
    cuda = device.type == "cuda"
    if cuda:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    filled = torch.utils.deterministic.fill_uninitialized_memory
    with torch.random.fork_rng(devices=[device] if cuda else []), torch.cuda.device(device) if cuda else nullcontext():
        torch.manual_seed(seed)
        torch.use_deterministic_algorithms(cuda or before[0])
        torch.utils.deterministic.fill_uninitialized_memory = False
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before[0], warn_only=before[1])
            torch.utils.deterministic.fill_uninitialized_memory = filled
