"""From a model's weights to a student's: layers chosen, widths cut, names changed, and every weight accounted for.

Weights are dictionaries under the names of the family's head class, whether the model has a head or not.
"""

from collections.abc import Mapping

import torch

from pretraining.models.catalog import Architecture
from pretraining.models.loading import BuiltModel
from pretraining.models.weights import CROSSINGS, counterpart, layer_of, layer_prefix

Weights = dict[str, torch.Tensor]


def weights_of(built: BuiltModel, architecture: Architecture) -> Weights:
    """All that a model and its folder hold, the pooler and the next-sentence head included; views, no copies."""
    state = built.model.state_dict()
    weights = state if built.has_head else {f"{architecture.base}.{name}": tensor for name, tensor in state.items()}
    return {**weights, **{f"{architecture.base}.{name}": tensor for name, tensor in built.pooler.items()}, **built.next_sentence}


def choose_layers(weights: Mapping[str, torch.Tensor], architecture: Architecture, layers: list[int]) -> Weights:
    """The weights outside the layers, and those of `layers` numbered anew in that order."""
    chosen, places = {}, {}
    for new, old in enumerate(layers):
        places.setdefault(old, []).append(new)
    for name, tensor in weights.items():
        place = layer_of(architecture, name)
        if place is None:
            chosen[name] = tensor
        else:
            chosen.update({f"{layer_prefix(architecture)}{new}.{place[1]}": tensor for new in places.get(place[0], ())})
    return chosen


def cross(weights: Mapping[str, torch.Tensor], source: Architecture, target: Architecture) -> Weights:
    """`weights` under the names of another family.

    A family without segments adds segment 0 to its positions, so that what enters the first layer stays the same.
    """
    weights = dict(weights)
    segments = weights.get(f"{source.base}.embeddings.token_type_embeddings.weight")
    if segments is not None and not target.token_types:
        positions = f"{source.base}.embeddings.position_embeddings.weight"
        weights[positions] = weights[positions] + segments[0]
    names = CROSSINGS[source.family, target.family]
    return {new: tensor for name, tensor in weights.items() if (new := counterpart(names, name)) is not None}


def load_weights(weights: Mapping[str, torch.Tensor], target: BuiltModel, architecture: Architecture) -> None:
    """Copy `weights` into `target`, in place so that tied weights stay tied. What only one side has must be optional."""
    # Without a head the pooler is kept beside the model; it comes from the same dictionary.
    prefix = "" if target.has_head else f"{architecture.base}."
    own = {f"{prefix}{name}" for name in target.model.state_dict()}
    odd = sorted(name for name in own ^ set(weights) if not _is_optional(name, architecture))
    if odd:
        raise RuntimeError(f"weights of {architecture.family} without a counterpart: {odd[:5]}")
    target.model.load_state_dict({name.removeprefix(prefix): weights[name] for name in own & set(weights)}, strict=False)
    for name in target.pooler:
        if f"{architecture.base}.{name}" in weights:
            target.pooler[name] = weights[f"{architecture.base}.{name}"].detach().clone()


def _is_optional(name: str, architecture: Architecture) -> bool:
    """Heads and pooler, which one of two models may lack, and the norm that ModernBERT's first layer, alone of all, goes without."""
    is_sentence_part = ".pooler." in name or "seq_relationship" in name
    return architecture.in_head(name) or is_sentence_part or ".attn_norm." in name
