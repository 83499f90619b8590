"""The teacher: frozen, in eval mode for ever, run no deeper than it is listened to, and no part of what is trained."""

import torch
from torch import nn

from dataset.errors import UserError
from pretraining.models.catalog import Architecture
from pretraining.models.encoder import Encoder, keep_layers, layers_of
from pretraining.models.student import BuiltModel
from pretraining.precision import Precision
from pretraining.signals import Batch, ModelNeeds, Signals


class Teacher:
    """Gives the signals that objectives need. Not an `nn.Module`, so that no engine can train, cast or save it."""

    def __init__(
        self, built: BuiltModel, architecture: Architecture, needs: ModelNeeds, precision: Precision, device: torch.device,
    ) -> None:
        if needs.head and not built.has_head:
            raise UserError("an objective of --method compares logits, and the teacher has no language-model head; hidden_mse works")
        depth = len(layers_of(built.model, architecture, built.has_head))
        if not needs.output:
            keep_layers(built.model, architecture, built.has_head, max(needs.hidden | needs.attention, default=0) + 1)
        self.precision, self.device = precision, device
        self._encoder = Encoder(built.model, architecture, built.has_head, needs, depth).eval().requires_grad_(False)
        # What is run per token, for the share of peak: layers; embeddings are look-ups.
        self.layer_parameters = sum(parameter.numel() for parameter in self._encoder.layers.parameters())
        if precision.name != "fp32":
            _store_matrices(self._encoder, precision.dtype)
        self._encoder.to(device)

    @torch.no_grad()
    def __call__(self, batch: Batch, needs: ModelNeeds | None = None) -> Signals:
        """The signals that `needs` (default: all that were announced) asks for."""
        with self.precision.autocast(self.device):
            return self._encoder(batch, needs)


def _store_matrices(module: nn.Module, dtype: torch.dtype) -> None:
    """Hold the weights of linear layers in `dtype`.

    Autocast casts exactly these in every forward pass; a frozen teacher can have it done once, with the same numbers.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            layer.weight = nn.Parameter(layer.weight.detach().to(dtype), requires_grad=False)
            if layer.bias is not None:
                layer.bias = nn.Parameter(layer.bias.detach().to(dtype), requires_grad=False)
