"""The weighted sum of objectives that --method names."""

from torch import nn

from pretraining.objectives.base import Objective, ObjectiveContext
from pretraining.objectives.catalog import objective_class
from pretraining.signals import Batch, Needs, Signals, Term


class WeightedObjectives(nn.Module):
    """`methods` is [(name, weight), ...]; `needs` joins what the parts need."""

    def __init__(self, methods: list[tuple[str, float]], context: ObjectiveContext) -> None:
        super().__init__()
        self.weights = dict(methods)
        self.parts: nn.ModuleDict[str, Objective] = nn.ModuleDict(
            {name: objective_class(name)(context) for name, _ in methods})
        self.needs = Needs()
        for part in self.parts.values():
            self.needs = self.needs | part.needs

    def forward(self, student: Signals, teacher: Signals | None, batch: Batch) -> dict[str, tuple[float, Term]]:
        """Term name -> (weight, term)."""
        terms = {}
        for name, part in self.parts.items():
            for term_name, term in part(student, teacher, batch).items():
                terms[term_name] = (self.weights[name], term)
        return terms
