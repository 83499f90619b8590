"""One small message per optimizer step between ranks, on a CPU group so that the device is never stalled for it.

It carries rank 0's clock and deadline, the batch counts of all ranks and whether anybody was asked to stop, and gives every rank the same
numbers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from dataset.errors import UserError
from pretraining.signals import UNITS, Unit


@dataclass(frozen=True)
class StepMessage:
    """`hours` of rank 0's clock; `counts` over the global batch of the next step; `stop`: "signal" if any rank got one, "deadline" if
    rank 0 finds it near, else None; `failed` if any rank has no batch for the next step."""

    hours: float
    counts: dict[Unit, float]
    stop: str | None
    failed: bool


class AgreedError(UserError):
    """A mistake that every rank reports alike, so that none is left waiting and one of them tells it."""

    agreed = True


class Control:
    """Agreement between ranks. Counts up to 2^53 are exact in the float64 that carries them."""

    def __init__(self, rank: int, world_size: int) -> None:
        self.rank, self.world_size = rank, world_size
        # NCCL would put the message in line behind the kernels of the step before; gloo's is answered by the hosts.
        self.group = dist.new_group(backend="gloo") if world_size > 1 and dist.get_backend() != "gloo" else None

    def exchange(
        self, hours: float, counts: dict[Unit, int], signalled: bool, deadline_near: bool, failed: bool = False,
    ) -> StepMessage:
        """All ranks call this once per step, each with its own values; of clock and deadline only rank 0's count."""
        own = self.rank == 0
        message = [hours if own else 0.0, float(signalled), float(deadline_near and own), float(failed),
                   *(float(counts[unit]) for unit in UNITS)]
        hours, signals, near, failures, *totals = self.sum(message)
        stop = "signal" if signals else "deadline" if near else None
        return StepMessage(hours, dict(zip(UNITS, totals, strict=True)), stop, failures > 0)

    def sum(self, values: list[float]) -> list[float]:
        """Elementwise float64 sum over ranks, the same on each."""
        if self.world_size == 1:
            return values
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor, group=self.group)
        return tensor.tolist()

    def gather(self, value: Any) -> list[Any]:
        """What every rank brought, in rank order, on each; for rare messages of any picklable kind."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value, group=self.group)
        return values

    def on_first(self, work: Callable[[], Any]) -> Any:
        """Run `work` on rank 0 and give its result to every rank; its UserError is raised on every rank as AgreedError."""
        result = error = None
        if self.rank == 0:
            try:
                result = work()
            except UserError as found:
                error = str(found)
        result, error = self.gather((result, error))[0]
        if error is not None:
            raise AgreedError(error)
        return result

    def barrier(self) -> None:
        self.sum([0.0])
