"""Held-out loss: a true mean over a fixed set, as sums over counts across ranks."""

import math

import torch

from pretraining.batches.loader import validation_batches
from pretraining.batches.samples import ShardReader
from pretraining.control import Control
from pretraining.models.teacher import Teacher
from pretraining.precision import Precision
from pretraining.signals import UNITS
from pretraining.trained_module import TrainedModule


class Validator:
    """Measures every loss term on the same samples each time, in eval mode, with the precision of training."""

    def __init__(
        self, reader: ShardReader, samples: int | None, micro_batch: int, control: Control, precision: Precision, device: torch.device,
    ) -> None:
        self.reader, self.samples, self.micro_batch = reader, samples, micro_batch
        self.control, self.precision, self.device = control, precision, device

    @torch.no_grad()
    def measure(self, module: TrainedModule, teacher: Teacher | None, limit: int | None = None) -> dict[str, float]:
        """{"loss": weighted sum, "loss/TERM": mean of each term} of the parts that are learnt from now. All ranks call it together.

        `limit` bounds each rank's micro-batches (--dry_run).
        """
        module.eval()
        counts = dict.fromkeys(UNITS, 0)
        sums: dict[str, torch.Tensor] = {}
        layout: dict[str, tuple] = {}
        batches = validation_batches(self.reader, self.samples, self.micro_batch, self.control.rank, self.control.world_size)
        for index, batch in enumerate(batches):
            if limit is not None and index >= limit:
                break
            on_device = batch.to(self.device)
            needs = module.teacher_needs
            signals = teacher(on_device, needs) if needs is not None else None
            with self.precision.autocast(self.device):
                terms = module.terms(on_device, signals)
            for name, (weight, term) in terms.items():
                layout[name] = (weight, term.unit, term.per_unit)
                sums[name] = sums.get(name, 0) + term.sum.double()
            for unit in UNITS:
                counts[unit] += batch.counts[unit]
        module.train()
        own = {name: (float(sums[name]), *layout[name]) for name in sums}
        return _means(self.control.gather((own, counts)))


def _means(parts: list[tuple[dict[str, tuple], dict]]) -> dict[str, float]:
    """Join the ranks' sums and counts; a rank may have had no batch, so the terms are those that any rank met."""
    totals = {unit: sum(counts[unit] for _, counts in parts) for unit in UNITS}
    losses: dict[str, float] = {}
    weighted = []
    for name in dict.fromkeys(name for own, _ in parts for name in own):
        met = [own[name] for own, _ in parts if name in own]
        _, weight, unit, per_unit = met[0]
        losses[f"loss/{name}"] = math.fsum(entry[0] for entry in met) / max(1, totals[unit] * per_unit)
        weighted.append(weight * losses[f"loss/{name}"])
    return {"loss": math.fsum(weighted), **losses}
