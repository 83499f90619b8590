"""A narrower model selected from a wider one: its most important residual dimensions, heads and neurons.

Importance is the L2 norm of all matrices that write to a dimension or read from it; of a head, of its queries, keys, values and
outputs; of a neuron, of what goes in and out. Every matrix is first divided by its own average, so that a word embedding of 30522
rows says no more than a layer's 768. Residual dimensions are chosen once for the whole model, because every layer adds to the same
stream; heads and neurons are chosen layer by layer. What is kept stays in order, and heads stay whole.
"""

from collections.abc import Mapping
from typing import Any

import torch

from pretraining.models.catalog import Architecture
from pretraining.models.weights import FIXED, WIDTH, Axis, axes_of, layer_of

Group = tuple[str, int | None]  # what is selected together: (kind of axis, layer), or ("width", None)


def narrowed(
    weights: Mapping[str, torch.Tensor], architecture: Architecture, source: Mapping[str, Any], target: Mapping[str, Any],
) -> dict[str, torch.Tensor]:
    """`weights` (names of the head class) of a model of configuration `source`, cut to the widths of `target` (our names both).

    The head size of both must agree and no width of `target` may be larger.
    """
    cutter = _Cutter(architecture, source, target)
    kept = {group: _largest(scores, cutter.count(group)) for group, scores in cutter.importance(weights).items()}
    return {name: cutter.cut(name, tensor, kept) for name, tensor in weights.items()}


def _largest(scores: torch.Tensor, count: int) -> torch.Tensor:
    """The indices of the `count` largest of `scores`, ascending; the first of equals."""
    return torch.sort(scores, descending=True, stable=True).indices[:count].sort().values


class _Cutter:
    def __init__(self, architecture: Architecture, source: Mapping[str, Any], target: Mapping[str, Any]) -> None:
        self.architecture = architecture
        self.head_size = source["hidden_size"] // source["num_attention_heads"]
        self.counts = {"width": target["hidden_size"], "heads": target["num_attention_heads"], "neurons": target["intermediate_size"]}
        # ELECTRA's embeddings have a width of their own; where that is the model's, nothing maps one to the other.
        self.embedding = WIDTH if source.get("embedding_size") == source["hidden_size"] else FIXED

    def count(self, group: Group) -> int:
        return self.counts[group[0]]

    def axes(self, name: str) -> list[tuple[int, Axis, Group]]:
        """(number of the axis, axis, what it is selected with) for every axis of the weight `name` that is cut."""
        place = layer_of(self.architecture, name)
        found = []
        for number, axis in enumerate(axes_of(self.architecture.family, name)):
            axis = self.embedding if axis.kind == "embedding" else axis
            if axis.kind != "fixed":
                found.append((number, axis, ("width", None) if axis.kind == "width" else (axis.kind, place[0])))
        return found

    def importance(self, weights: Mapping[str, torch.Tensor]) -> dict[Group, torch.Tensor]:
        """Group -> score of each of its members, fp64."""
        scores: dict[Group, torch.Tensor] = {}
        seen = set()
        for name, tensor in weights.items():
            matrix = tensor.data_ptr(), layer_of(self.architecture, name) is None
            if tensor.dim() < 2 or matrix in seen:  # a tied matrix counts once; a layer that is copied twice counts twice
                continue
            if matrix[1]:
                seen.add(matrix)
            squares = tensor.detach().double().square()
            for number, axis, group in self.axes(name):
                members = squares.sum(1 - number).view(axis.parts, -1).sum(0)
                if axis.kind == "heads":
                    members = members.view(-1, self.head_size).sum(1)
                members = members / members.mean().clamp_min(torch.finfo(torch.float64).tiny)
                scores[group] = scores.get(group, 0) + members
        return scores

    def cut(self, name: str, tensor: torch.Tensor, kept: Mapping[Group, torch.Tensor]) -> torch.Tensor:
        for number, axis, group in self.axes(name):
            index = kept[group]
            if axis.kind == "heads":
                index = (index[:, None] * self.head_size + torch.arange(self.head_size)).flatten()
            each = tensor.shape[number] // axis.parts
            index = torch.cat([index + part * each for part in range(axis.parts)])
            if len(index) < tensor.shape[number]:
                tensor = tensor.index_select(number, index)
        return tensor
