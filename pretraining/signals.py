"""The vocabulary that models and objectives share: what is needed, what was captured, what a batch holds, what a loss term is.

Shapes are written with B sequences, L tokens (padding included), N real tokens, M masked positions and K tokens that have a next one,
each of the whole micro-batch; H heads of size d, D width, V vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from enum import StrEnum

import torch


@dataclass(frozen=True)
class ModelNeeds:
    """What an objective asks of one model.

    `hidden` and `attention` (queries, keys and values) are 0-based encoder layers; `embeddings` is what enters the first of them.
    `logits` are taken at masked positions, `token_logits` at all real tokens; `next_sentence` are the two logits of that head.
    """

    hidden: frozenset[int] = frozenset()
    attention: frozenset[int] = frozenset()
    embeddings: bool = False
    logits: bool = False
    token_logits: bool = False
    next_sentence: bool = False

    def __or__(self, other: "ModelNeeds") -> "ModelNeeds":
        return ModelNeeds(*(getattr(self, one.name) | getattr(other, one.name) for one in fields(self)))

    @property
    def head(self) -> bool:
        """Whether the language-model head is run."""
        return self.logits or self.token_logits

    @property
    def output(self) -> bool:
        """Whether the encoder must be run to its end."""
        return self.head or self.next_sentence


@dataclass(frozen=True)
class Needs:
    """What an objective asks of the student and of the teacher. `teacher` is None where no teacher is needed."""

    student: ModelNeeds = ModelNeeds()
    teacher: ModelNeeds | None = None

    def __or__(self, other: "Needs") -> "Needs":
        if self.teacher is None or other.teacher is None:
            teacher = self.teacher or other.teacher
        else:
            teacher = self.teacher | other.teacher
        return Needs(self.student | other.student, teacher)


@dataclass
class Attention:
    """What one layer's attention was computed from, as its attention function got it (after a rotary embedding, where there is one).

    query, key, value: (B, H, L, d). scaling: what scores are multiplied by. causal: no token sees a later one. window: how far a token
    sees to either side, None without limit.
    """

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    scaling: float
    causal: bool = False
    window: int | None = None


@dataclass
class SparseTargets:
    """Some entries of a teacher's distributions over the vocabulary, at temperature 1, one row a position.

    ids: (M, K) int64, different in each row. logprobs: (M, K), log-probabilities, the largest first; −inf for one that counts nothing.
    rest: (M,) log of the probability that all other entries have together, −inf for none; None where `logprobs` are estimates from
    drawn ids (logs of weights, of which any number may be −inf).
    """

    ids: torch.Tensor
    logprobs: torch.Tensor
    rest: torch.Tensor | None


@dataclass
class Signals:
    """What a model gave: hidden states by layer, each (B, L, D) (the last layer's after the final norm, where there is one), attention by
    layer, embeddings (B, L, D), logits (M, V), token_logits (N, V) in the order of `Batch.token_index`, next_sentence (B, 2). A stored
    teacher gives `targets` in the place of logits."""

    hidden: dict[int, torch.Tensor] = field(default_factory=dict)
    attention: dict[int, Attention] = field(default_factory=dict)
    embeddings: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    token_logits: torch.Tensor | None = None
    next_sentence: torch.Tensor | None = None
    targets: SparseTargets | None = None


class Unit(StrEnum):
    """What a loss term is counted in. Counts are known from the batch, before any forward pass."""

    TOKENS = "tokens"  # real tokens, padding excluded
    MASKED = "masked"  # masked positions
    SEQUENCES = "sequences"
    PAIRS = "pairs"  # ordered pairs of real tokens of one sequence, a token with itself included
    NEXT = "next"  # real tokens whose next one is real


UNITS = tuple(Unit)

_TENSORS = ("input_ids", "token_type_ids", "mask", "token_index", "masked_index", "masked_in_tokens", "labels", "next_in_tokens",
            "next_labels", "next_sentence_labels")


@dataclass
class StoredOutputs:
    """What a teacher said of a micro-batch when it was run once, as a file holds it: half precision, nothing for padding.

    ids: (M, K) int32, values: (M, K) fp16 (log-probabilities, or the weights of drawn ids), rest: (M,) fp16, see `SparseTargets`; None
    where they are not asked for. hidden: layer -> (N, D) fp16, in the order of `Batch.token_index`.
    """

    ids: torch.Tensor | None = None
    values: torch.Tensor | None = None
    rest: torch.Tensor | None = None
    hidden: dict[int, torch.Tensor] = field(default_factory=dict)

    def each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "StoredOutputs":
        """The same with every tensor changed."""
        ids, values, rest = (None if tensor is None else change(tensor) for tensor in (self.ids, self.values, self.rest))
        return StoredOutputs(ids, values, rest, {layer: change(states) for layer, states in self.hidden.items()})


@dataclass
class Batch:
    """One micro-batch on its device; `make` derives most of it.

    input_ids, token_type_ids: (B, L) int64. mask: (B, L) bool, True at real tokens. has_padding: False lets attention skip its mask.
    token_index: (N,) int64, the real tokens' positions in the flattened (B·L,). masked_index: (M,) the masked ones', masked_in_tokens: (M,)
    their places in token_index. labels: (M,) int64, the original ids there. next_in_tokens: (K,) places in token_index of tokens with a
    next one, next_labels: (K,) its id. next_sentence_labels: (B,) int64, 1 for a random second segment, or None.
    counts: how many of each unit there are. micro_index: which micro-batch of the global batch this is. stored: what a teacher that was
    run before said of it, or None.
    """

    input_ids: torch.Tensor
    token_type_ids: torch.Tensor
    mask: torch.Tensor
    token_index: torch.Tensor
    masked_index: torch.Tensor
    masked_in_tokens: torch.Tensor
    labels: torch.Tensor
    next_in_tokens: torch.Tensor
    next_labels: torch.Tensor
    next_sentence_labels: torch.Tensor | None
    counts: dict[Unit, int]
    has_padding: bool
    micro_index: int
    stored: StoredOutputs | None = None

    @classmethod
    def make(
        cls, input_ids: torch.Tensor, token_type_ids: torch.Tensor, mask: torch.Tensor, masked_index: torch.Tensor, labels: torch.Tensor,
        next_sentence_labels: torch.Tensor | None = None, micro_index: int = 0, stored: StoredOutputs | None = None,
    ) -> "Batch":
        """A micro-batch from CPU tensors. Every masked position must be a real token."""
        token_index = mask.flatten().nonzero().squeeze(1)
        has_next = torch.zeros_like(mask)
        has_next[:, :-1] = mask[:, :-1] & mask[:, 1:]
        next_index = has_next.flatten().nonzero().squeeze(1)
        lengths = mask.sum(dim=1)
        counts = {Unit.TOKENS: len(token_index), Unit.MASKED: len(labels), Unit.SEQUENCES: len(mask),
                  Unit.PAIRS: int(lengths.square().sum()), Unit.NEXT: len(next_index)}
        return cls(
            input_ids=input_ids, token_type_ids=token_type_ids, mask=mask, token_index=token_index, masked_index=masked_index,
            masked_in_tokens=torch.searchsorted(token_index, masked_index), labels=labels,
            next_in_tokens=torch.searchsorted(token_index, next_index), next_labels=input_ids.flatten()[next_index + 1],
            next_sentence_labels=next_sentence_labels, counts=counts, has_padding=len(token_index) < mask.numel(), micro_index=micro_index,
            stored=stored)

    def to(self, device: torch.device) -> "Batch":
        """The same micro-batch on `device`; the copy overlaps with compute when the batch lies in pinned memory."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        return self._each(torch.Tensor.pin_memory)

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "Batch":
        tensors = {name: getattr(self, name) for name in _TENSORS}
        moved = {name: None if tensor is None else change(tensor) for name, tensor in tensors.items()}
        return Batch(**moved, counts=self.counts, has_padding=self.has_padding, micro_index=self.micro_index,
                     stored=None if self.stored is None else self.stored.each(change))


@dataclass
class Term:
    """One named part of a loss on one micro-batch: the sum of its elements and how many there are.

    sum: scalar fp32 tensor with gradient. The number of elements is `per_unit` times the batch's count of `unit`, so that the
    count over the global batch is known before the forward pass.
    """

    sum: torch.Tensor
    unit: Unit
    per_unit: int = 1

    def count(self, counts: dict[Unit, float]) -> float:
        return counts[self.unit] * self.per_unit
