"""A `transformers` model that gives signals: what objectives ask for, and nothing else.

Hidden states come from hooks on the layers and queries, keys and values from the attention function, so no class is vendored, no tuple of
all states is kept and no attention map is made. The model is run no further than it is listened to: where no logits are asked for, the
last thing that is kept ends the forward pass. The language-model head runs on the gathered rows only: at 15 % masking that saves
85 % of a matrix product with the whole vocabulary.
"""

from typing import Any

import torch
from torch import nn

from pretraining.models.capture import CAPTURING, capture
from pretraining.models.catalog import Architecture
from pretraining.signals import Attention, Batch, ModelNeeds, Signals


class _Heard(Exception):
    """Everything that was asked for is there."""


_NOTHING = ModelNeeds()


class Encoder(nn.Module):
    """`model` is the architecture's head class, or its base class where there is no head.

    `needs` is all that may be asked for; `forward` may be asked for less. `depth` is how many layers the model had before any were cut
    off; the hidden state of the last of them is taken after the final norm, as `transformers` counts it too.
    """

    def __init__(
        self, model: nn.Module, architecture: Architecture, has_head: bool, needs: ModelNeeds, depth: int | None = None,
    ) -> None:
        super().__init__()
        # A config.json may ask for another: eager attention would add a mask of True and False to the scores, and so attend padding.
        model.set_attn_implementation(CAPTURING if needs.attention else "sdpa")
        self.model = model
        self.architecture = architecture
        self.has_head = has_head
        # What is asked for while `forward` runs; whoever runs `model` by itself is not disturbed.
        self._asked, self._signals = _NOTHING, Signals()
        last = (len(self.layers) if depth is None else depth) - 1
        for index in sorted(needs.hidden):
            self._source(index, last).register_forward_hook(self._keep_hidden(index))
        for index in sorted(needs.attention):
            capture(self.layers[index].get_submodule(architecture.attention), self._keep_attention(index))
        if needs.embeddings:
            self.layers[0].register_forward_pre_hook(self._keep_embeddings, with_kwargs=True)
        self.needs = needs

    @property
    def base(self) -> nn.Module:
        """The encoder without its head."""
        return base_of(self.model, self.architecture, self.has_head)

    @property
    def layers(self) -> nn.ModuleList:
        return layers_of(self.model, self.architecture, self.has_head)

    def _source(self, index: int, last: int) -> nn.Module:
        """The module whose output is the hidden state of layer `index`."""
        is_normed = index == last and self.architecture.final_norm is not None
        return self.base.get_submodule(self.architecture.final_norm) if is_normed else self.layers[index]

    def forward(self, batch: Batch, needs: ModelNeeds | None = None) -> Signals:
        """The signals that `needs` (default: all of this encoder's) asks for."""
        asked = self.needs if needs is None else needs
        self._asked, output = asked, None
        try:
            output = self.base(**self._inputs(batch))
        except _Heard:
            pass
        finally:
            signals, self._asked, self._signals = self._signals, _NOTHING, Signals()
        if asked.output:
            self._run_heads(signals, output, batch, asked)
        return signals

    def _run_heads(self, signals: Signals, output: Any, batch: Batch, asked: ModelNeeds) -> None:
        states_BLD = output.last_hidden_state
        if asked.token_logits:
            signals.token_logits = self._head(states_BLD.flatten(0, 1).index_select(0, batch.token_index))
        if asked.logits and asked.token_logits:
            signals.logits = signals.token_logits.index_select(0, batch.masked_in_tokens)
        elif asked.logits:
            signals.logits = self._head(states_BLD.flatten(0, 1).index_select(0, batch.masked_index))
        if asked.next_sentence:
            signals.next_sentence = self.model.get_submodule(self.architecture.next_sentence)(output.pooler_output)

    def _head(self, rows_D: torch.Tensor) -> torch.Tensor:
        for path in self.architecture.head:
            rows_D = self.model.get_submodule(path)(rows_D)
        return rows_D

    def _inputs(self, batch: Batch) -> dict[str, Any]:
        inputs: dict[str, Any] = {"input_ids": batch.input_ids, "attention_mask": self._mask(batch)}
        # Shards carry segment 1 for second sentences; a model with one segment (RoBERTa) has no row for it.
        if self.architecture.token_types and self.model.config.type_vocab_size > 1:
            inputs["token_type_ids"] = batch.token_type_ids
        if self.architecture.causal:
            inputs["use_cache"] = False
        return inputs

    def _mask(self, batch: Batch) -> Any:
        """A mask of four dimensions is taken as it is; one of two would be inspected on the host in every forward pass."""
        if self.architecture.causal:
            return None  # padding stands to the right, where no real token looks
        keys = batch.mask[:, None, None, :] if batch.has_padding else None
        if not self.architecture.windowed:
            return keys
        window = near(batch.mask.shape[1], self.model.config.sliding_window, batch.mask.device)
        return {"full_attention": keys, "sliding_attention": window if keys is None else window & keys}

    def _keep_hidden(self, index: int) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if index in self._asked.hidden:
                # Layers returned tuples before transformers 5 and return tensors since.
                self._signals.hidden[index] = output[0] if isinstance(output, tuple) else output
                self._stop_if_heard()

        return hook

    def _keep_attention(self, index: int) -> Any:
        def keep(attention: Attention) -> None:
            if index in self._asked.attention:
                self._signals.attention[index] = attention
                self._stop_if_heard()

        return keep

    def _keep_embeddings(self, module: nn.Module, inputs: Any, keywords: dict[str, Any]) -> None:
        if self._asked.embeddings:
            self._signals.embeddings = inputs[0] if inputs else keywords["hidden_states"]
            self._stop_if_heard()

    def _stop_if_heard(self) -> None:
        asked, got = self._asked, self._signals
        if (not asked.output and got.hidden.keys() >= asked.hidden and got.attention.keys() >= asked.attention
                and (got.embeddings is not None or not asked.embeddings)):
            raise _Heard


def near(length: int, window: int, device: torch.device) -> torch.Tensor:
    """(1, 1, L, L) bool: True where two places are at most `window` apart."""
    places = torch.arange(length, device=device)
    return ((places[:, None] - places).abs() <= window)[None, None]


def base_of(model: nn.Module, architecture: Architecture, has_head: bool) -> nn.Module:
    """The encoder inside a model with or without its head."""
    return model.get_submodule(architecture.base) if has_head else model


def layers_of(model: nn.Module, architecture: Architecture, has_head: bool) -> nn.ModuleList:
    """The list of encoder layers of a model with or without its head."""
    return base_of(model, architecture, has_head).get_submodule(architecture.layers)


def keep_layers(model: nn.Module, architecture: Architecture, has_head: bool, count: int) -> None:
    """Drop all but the first `count` encoder layers, and their memory: a teacher is run no further than it is listened to."""
    parent_path, _, name = architecture.layers.rpartition(".")
    layers = layers_of(model, architecture, has_head)
    setattr(base_of(model, architecture, has_head).get_submodule(parent_path), name, nn.ModuleList(list(layers)[:count]))
