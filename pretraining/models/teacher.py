"""The teacher: frozen, in eval mode for ever, run no deeper than it is listened to, and no part of what is trained."""

import torch
from torch import nn

from dataset.errors import UserError
from pretraining.models.catalog import Architecture
from pretraining.models.encoder import Encoder, base_of, keep_layers, layers_of
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
        # A head that is not run would only take memory.
        model = built.model if needs.head else base_of(built.model, architecture, built.has_head)
        depth = len(layers_of(model, architecture, needs.head))
        if not needs.output:
            keep_layers(model, architecture, needs.head, max(needs.hidden | needs.attention, default=0) + 1)
        self.precision, self.device = precision, device
        self._encoder = Encoder(model, architecture, needs.head, needs, depth).eval().requires_grad_(False)
        # What is run per token, for the share of peak: layers; embeddings are look-ups.
        self.layer_parameters = sum(parameter.numel() for parameter in self._encoder.layers.parameters())
        _own_weights(self._encoder, precision)
        self._encoder.to(device)

    @torch.no_grad()
    def __call__(self, batch: Batch, needs: ModelNeeds | None = None) -> Signals:
        """The signals that `needs` (default: all that were announced) asks for."""
        with self.precision.autocast(self.device):
            return self._encoder(batch, needs)


def _own_weights(module: nn.Module, precision: Precision) -> None:
    """Give a teacher weights of its own, those of linear layers in the precision of matrix products.

    Autocast casts exactly these in every forward pass; a frozen teacher can have it done once, with the same numbers. What is loaded from
    a file is a view of the whole file, which stays in memory as long as one weight is left in it.
    """
    for layer in module.modules():
        is_matrix = isinstance(layer, nn.Linear)
        for name, weight in list(layer.named_parameters(recurse=False)):
            own = weight.detach().to(precision.dtype if is_matrix else weight.dtype, copy=True)
            setattr(layer, name, nn.Parameter(own, requires_grad=False))
