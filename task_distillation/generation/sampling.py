"""Ancestral sampling from a causal language model: one chunk of texts, decided by (seed, chunk) and the model alone.

A loop of our own rather than transformers' `generate`: there a finished row stays in the batch until the longest one ends (of 128 tokens
for texts of ten), and all rows draw from one stream, so that a row that leaves would change what the others draw. Here every row has its
own draws, made before the first token, a finished row leaves the batch and the KV cache, and since every row begins with one token, nothing
is ever padded. A token is chosen with whole numbers, which makes it exact and the same on every device that computes the same logits.
"""

from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel

from dataset.errors import UserError
from task_distillation.generation.flags import SamplingSettings
from task_distillation.generation.language_model import LanguageModel
from task_distillation.generation.prefixes import DRAW_BITS, Prefixes

MOST_DRAWS = 20
"""Texts begun for each that is asked for, before a model that ends too few of them is given up."""


@dataclass(frozen=True)
class Chunk:
    """`sequences`: as many finished texts as were asked for, ids without `Codec.start`, each with its last end of text. `drawn`: texts
    begun; the others had no end in time."""

    sequences: list[list[int]]
    drawn: int

    @property
    def unfinished(self) -> int:
        return self.drawn - len(self.sequences)


def draw_chunk(lm: LanguageModel, prefixes: Prefixes, settings: SamplingSettings, ends: int, chunk: int) -> Chunk:
    """`settings.sample_batch_size` texts with `ends` ends of text each (2 for a pair), from a model in eval mode on its device.

    UserError where the model gives logits that are not finite, and where it ends hardly any text within `max_new_tokens`.
    """
    wanted = settings.sample_batch_size
    random = np.random.default_rng([settings.seed, chunk])
    sequences: list[list[int]] = []
    drawn = 0
    while len(sequences) < wanted:
        if drawn >= MOST_DRAWS * wanted:
            raise UserError(f"{lm.where}: {drawn - len(sequences)} of {drawn} texts were not ended after --max_new_tokens "
                            f"{settings.max_new_tokens}; more of them, or more --num_train_epochs in another --output_dir, would work")
        rows = wanted - len(sequences)
        # All of a round's draws at once, so that no row's depend on how long the others are.
        draws = random.integers(0, 1 << DRAW_BITS, (rows, 1 + settings.max_new_tokens))
        sequences += _finished(lm, prefixes.choose(draws[:, 0]), draws[:, 1:], ends, settings)
        drawn += rows
    return Chunk(sequences, drawn)


@torch.inference_mode()
def _finished(lm: LanguageModel, first: np.ndarray, draws: np.ndarray, ends: int, settings: SamplingSettings) -> list[list[int]]:
    """One text for each of `first`, its first token, those left out that have no end in time."""
    device = lm.model.device
    start = torch.tensor(lm.codec.start, dtype=torch.int64).expand(len(first), -1)
    ids = torch.cat([start, torch.from_numpy(first)[:, None]], dim=1).to(device)
    reader = Reader(lm.model)
    rows = np.arange(len(first))
    ended = np.zeros(len(first), np.int64)
    texts: dict[int, list[int]] = {}
    for step in range(draws.shape[1]):
        logits = reader.read(ids)[:, : lm.codec.size]
        if step == 0 and not bool(torch.isfinite(logits).all()):
            raise UserError(f"{lm.where}: its logits are not finite; a model that did not diverge, or --precision fp32, would work")
        chosen = choose(logits, torch.from_numpy(draws[rows, step]).to(device), settings)
        ids = torch.cat([ids, chosen[:, None]], dim=1)
        ended += (chosen == lm.codec.eos).cpu().numpy()
        is_done = ended == ends
        if is_done.any():
            for row, text in zip(rows[is_done], ids[torch.from_numpy(is_done).to(device)].tolist(), strict=True):
                texts[int(row)] = text[len(lm.codec.start) :]
            kept = np.flatnonzero(~is_done)
            if not len(kept):
                break
            rows, ended = rows[kept], ended[kept]
            index = torch.from_numpy(kept).to(device)
            ids = ids[index]
            reader.keep(index)
    return [texts[row] for row in sorted(texts)]


class Reader:
    """Reads sequences that grow by a token, with the model's KV cache. A model whose cache cannot leave out rows (Mamba's) reads the
    whole sequence again each time: slower, and the same logits."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model, self._cache = model, None

    def read(self, ids: torch.Tensor) -> torch.Tensor:
        """fp32 logits (B, V) of the token after `ids` (B, L), of which all but the last token were read before."""
        if self._cache is None:
            outputs = self._model(input_ids=ids, use_cache=True)
        else:
            outputs = self._model(input_ids=ids[:, -1:], past_key_values=self._cache, use_cache=True)
        cache = getattr(outputs, "past_key_values", None)
        self._cache = cache if hasattr(cache, "reorder_cache") else None
        return outputs.logits[:, -1].float()

    def keep(self, rows: torch.Tensor) -> None:
        """Forget all rows but `rows`."""
        if self._cache is not None:
            self._cache.reorder_cache(rows)


def choose(logits: torch.Tensor, draws: torch.Tensor, settings: SamplingSettings) -> torch.Tensor:
    """(B,) int64 tokens with probabilities softmax(logits / temperature), cut to the `top_k` likeliest and then to `top_p` of the rest.

    `logits`: (B, V) fp32. `draws`: (B,) int64, uniform below 2 ** DRAW_BITS. Probabilities are rounded to multiples of 2 ** -DRAW_BITS
    and summed as whole numbers; a token that was cut off is never chosen.
    """
    weights = (torch.softmax(logits / settings.temperature, dim=-1).double() * (1 << DRAW_BITS)).round().long()
    if 0 < settings.top_k < weights.shape[1]:
        least = weights.topk(settings.top_k, dim=-1).values[:, -1:]
        weights = weights.masked_fill(weights < least, 0)
    if settings.top_p < 1:
        likeliest, order = weights.sort(dim=-1, descending=True, stable=True)
        before = likeliest.cumsum(dim=-1) - likeliest
        kept = before < settings.top_p * likeliest.sum(dim=-1, keepdim=True).double()
        weights = torch.zeros_like(weights).scatter(1, order, likeliest * kept)
    edges = weights.cumsum(dim=-1)
    targets = draws[:, None] * edges[:, -1:] >> DRAW_BITS
    return torch.searchsorted(edges, targets, right=True)[:, 0]
