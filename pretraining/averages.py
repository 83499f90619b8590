"""Sums of the loss terms between two reports, kept on the device so that the loop does not wait for it."""

import math

import torch

from pretraining.control import Control


class LossSums:
    """Adds up this rank's shares of every term; `over_ranks` and `of_every_rank` wait for the device."""

    def __init__(self, control: Control, device: torch.device) -> None:
        self._control, self._device = control, device
        self._sums: dict[str, torch.Tensor] = {}

    def add(self, shares: dict[str, torch.Tensor]) -> None:
        for name, share in shares.items():
            self._sums[name] = self._sums[name] + share.double() if name in self._sums else share.double()

    def over_ranks(self) -> dict[str, float]:
        """The sums over all ranks, the same on each, which call this together."""
        names = list(self._sums)
        sums = self._control.sum(torch.stack([self._sums[name] for name in names]).tolist()) if names else []
        return dict(zip(names, sums, strict=True))

    def of_every_rank(self) -> list[dict[str, float]]:
        """Each rank's own sums, in rank order: what `start` goes on from without another rounding."""
        return self._control.gather({name: float(value) for name, value in self._sums.items()})

    def start(self, saved: list[dict[str, float]]) -> None:
        """Begin from what `of_every_rank` returned, or from nothing; with another number of ranks rank 0 takes all of it."""
        names = dict.fromkeys(name for own in saved for name in own)
        if len(saved) == self._control.world_size:
            own = saved[self._control.rank]
        else:
            own = {name: math.fsum(each[name] for each in saved) if self._control.rank == 0 else 0.0 for name in names}
        self._sums = {name: torch.tensor(own[name], dtype=torch.float64, device=self._device) for name in names}
