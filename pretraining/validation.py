"""Held-out losses, accuracies and perplexity: true means over a fixed set, as sums over counts across ranks.

Pipelines that measure on the text they train on tell how well it is remembered; this is the test shards' text.
"""

import math

import torch

from pretraining.accuracy import right_answers
from pretraining.batches.loader import validation_batches
from pretraining.batches.samples import ShardReader
from pretraining.control import Control
from pretraining.models.teacher import Teacher
from pretraining.precision import Precision
from pretraining.signals import UNITS, Signals
from pretraining.teacher_cache.teacher import StoredTeacher
from pretraining.trained_module import TrainedModule


class Validator:
    """Measures every loss term on the same samples each time, in eval mode, with the precision of training."""

    def __init__(
        self, reader: ShardReader, samples: int | None, micro_batch: int, control: Control, precision: Precision, device: torch.device,
    ) -> None:
        self.reader, self.samples, self.micro_batch = reader, samples, micro_batch
        self.control, self.precision, self.device = control, precision, device

    @torch.no_grad()
    def measure(self, module: TrainedModule, teacher: Teacher | StoredTeacher | None, limit: int | None = None) -> dict[str, float]:
        """What the parts that are learnt from now come to. All ranks call it together.

        "loss": weighted sum; "loss/TERM": mean of each term; where a head is run, "accuracy/mlm" and "accuracy/nsp" (of the student) and
        "accuracy/teacher_mlm": shares of right answers; "perplexity/clm": exp of that loss.
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
                terms, student = module.terms(on_device, signals)
            told = {f"loss/{name}": entry for name, entry in terms.items()}
            for prefix, model in (("accuracy/", student), ("accuracy/teacher_", signals or Signals())):
                told |= {f"{prefix}{name}": (0.0, term) for name, term in right_answers(model, on_device).items()}
            for name, (weight, term) in told.items():
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
    means: dict[str, float] = {}
    weighted = []
    for name in dict.fromkeys(name for own, _ in parts for name in own):
        met = [own[name] for own, _ in parts if name in own]
        _, weight, unit, per_unit = met[0]
        means[name] = math.fsum(entry[0] for entry in met) / max(1, totals[unit] * per_unit)
        weighted.append(weight * means[name])
    if "loss/clm" in means:
        means["perplexity/clm"] = perplexity(means["loss/clm"])
    return {"loss": math.fsum(weighted), **means}


def perplexity(loss: float) -> float:
    """exp of a mean cross-entropy in nats; inf beyond what a float holds."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf
