"""A `transformers` model that gives signals: hidden states of chosen layers, logits at masked positions, and nothing else.

Hidden states come from hooks on the layers, so no class is vendored and no tuple of all states is kept. The MLM head runs on the
gathered masked rows only: at 15 % masking that saves 85 % of a matrix product with the whole vocabulary.
"""

from typing import Any

import torch
from torch import nn

from pretraining.models.catalog import Architecture
from pretraining.signals import Batch, ModelNeeds, Signals


class Encoder(nn.Module):
    """`model` is the architecture's MLM class, or its base class where there is no head."""

    def __init__(self, model: nn.Module, architecture: Architecture, has_head: bool, needs: ModelNeeds) -> None:
        super().__init__()
        # A config.json may ask for another: eager attention would add a mask of True and False to the scores, and so attend padding.
        model.set_attn_implementation("sdpa")
        self.model = model
        self.architecture = architecture
        self.has_head = has_head
        self.needs = needs
        self._hidden: dict[int, torch.Tensor] = {}
        for index in sorted(needs.hidden):
            self.layers[index].register_forward_hook(self._keep(index))

    @property
    def base(self) -> nn.Module:
        """The encoder without its head."""
        return self.model.get_submodule(self.architecture.base) if self.has_head else self.model

    @property
    def layers(self) -> nn.ModuleList:
        return layers_of(self.model, self.architecture, self.has_head)

    def _keep(self, index: int) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            # Layers returned tuples before transformers 5 and return tensors since.
            self._hidden[index] = output[0] if isinstance(output, tuple) else output

        return hook

    def forward(self, batch: Batch) -> Signals:
        # A mask of four dimensions is taken as it is; one of two would be inspected on the host in every forward pass.
        mask = batch.mask[:, None, None, :] if batch.has_padding else None
        output = self.base(input_ids=batch.input_ids, attention_mask=mask, token_type_ids=self._token_types(batch))
        hidden, self._hidden = self._hidden, {}
        logits = None
        if self.needs.logits:
            rows_MD = output.last_hidden_state.flatten(0, 1).index_select(0, batch.masked_index)
            logits = self.model.get_submodule(self.architecture.head)(rows_MD)
        return Signals(hidden=hidden, logits=logits)

    def _token_types(self, batch: Batch) -> torch.Tensor | None:
        # Shards carry segment 1 for second sentences; a model with one segment (RoBERTa) has no row for it.
        return batch.token_type_ids if self.model.config.type_vocab_size > 1 else None


def layers_of(model: nn.Module, architecture: Architecture, has_head: bool) -> nn.ModuleList:
    """The list of encoder layers of a model with or without its head."""
    path = architecture.layers if has_head else architecture.layers.removeprefix(f"{architecture.base}.")
    return model.get_submodule(path)


def keep_layers(model: nn.Module, architecture: Architecture, has_head: bool, count: int) -> None:
    """Drop all but the first `count` encoder layers: a teacher is run no further than it is listened to."""
    parent_path, _, name = (
        architecture.layers if has_head else architecture.layers.removeprefix(f"{architecture.base}.")).rpartition(".")
    layers = layers_of(model, architecture, has_head)
    setattr(model.get_submodule(parent_path), name, nn.ModuleList(list(layers)[:count]))
