"""The weighted sum of objectives that --method names, over the stages of the budget."""

from collections.abc import Mapping

import torch
from torch import nn

from pretraining.objectives.base import Objective, ObjectiveContext
from pretraining.objectives.catalog import Part, objective_class
from pretraining.signals import Batch, Needs, Signals, Term


class WeightedObjectives(nn.Module):
    """Evaluates the parts that are active at `progress`; `needs` joins what those ask for, `all_needs` what any part ever asks for."""

    def __init__(self, parts: list[Part], contexts: Mapping[str, ObjectiveContext]) -> None:
        super().__init__()
        self.parts = {part.name: part for part in parts}
        self.objectives: nn.ModuleDict[str, Objective] = nn.ModuleDict(
            {name: objective_class(name)(name, contexts[name]) for name in self.parts})
        self.progress = 0.0
        self.all_needs = _joined(list(self.objectives.values()))

    @property
    def active(self) -> list[str]:
        return [name for name, part in self.parts.items() if part.is_active(self.progress)]

    @property
    def needs(self) -> Needs:
        return _joined([self.objectives[name] for name in self.active])

    def stages(self) -> list[float]:
        """Where the set of active parts changes, as shares of the budget; the first is 0."""
        return sorted({part.since for part in self.parts.values()} | {0.0})

    def forward(self, student: Signals, teacher: Signals | None, batch: Batch) -> dict[str, tuple[float, Term]]:
        """Term name -> (weight, term) of the active parts, in fp32 whatever autocast the models ran under."""
        terms = {}
        with torch.autocast(batch.mask.device.type, enabled=False):
            for name in self.active:
                for term_name, term in self.objectives[name](student, teacher, batch).items():
                    terms[term_name] = (self.parts[name].weight, term)
        return terms


def _joined(objectives: list[Objective]) -> Needs:
    needs = Needs()
    for objective in objectives:
        needs = needs | objective.needs
    return needs
