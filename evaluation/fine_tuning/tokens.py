"""Token ids of a whole set, and their cache: the same texts are tokenised once in a process, however many seeds and models share them.

Rows lie one behind the other in flat arrays: a fifth of the memory of Python lists, and a batch is one gather. The attention mask is not
stored, since the lengths tell it.
"""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from dataset.errors import UserError
from evaluation.tasks.task import Examples

CACHED_SETS = 32
_cache: OrderedDict[str, Any] = OrderedDict()


@dataclass(frozen=True)
class Tokens:
    """N rows without padding: row i is `ids[starts[i] : starts[i + 1]]`."""

    ids: np.ndarray
    """int32, all rows."""
    segments: np.ndarray | None
    """int8 beside `ids`: token_type_ids; None for a model that has none."""
    starts: np.ndarray
    """int64 (N + 1)."""

    @property
    def lengths(self) -> np.ndarray:
        """int64 (N): tokens of each row."""
        return np.diff(self.starts)


def from_lists(ids: Sequence[list[int]], segments: Sequence[list[int]] | None) -> Tokens:
    """Rows as a tokenizer gives them, made flat."""
    starts = np.concatenate([[0], np.cumsum([len(row) for row in ids], dtype=np.int64)])

    def flat(rows: Sequence[list[int]], dtype: type) -> np.ndarray:
        return np.fromiter((number for row in rows for number in row), dtype=dtype, count=int(starts[-1]))

    return Tokens(flat(ids, np.int32), None if segments is None else flat(segments, np.int8), starts.astype(np.int64))


class Tokenizer:
    """The tokenizer of a model, with what the model wants of it: whether there are segments, and which id pads."""

    def __init__(self, inner: PreTrainedTokenizerBase, model: PreTrainedModel, name: str) -> None:
        self.inner, self.name = inner, name
        # A tokenizer of BERT's kind gives segments to any model; one that has a single kind (RoBERTa), or none, has no row for the second.
        self.segments = getattr(model.config, "type_vocab_size", 0) > 1
        self.pad_token_id = inner.pad_token_id if inner.pad_token_id is not None else 0
        self.rows = model.get_input_embeddings().num_embeddings
        self.identity = _identity(inner)

    def encode(self, examples: Examples, max_seq_length: int) -> Tokens:
        """`examples` cut to `max_seq_length` (of a pair the longer text first), special tokens included.

        Padding and truncation are said outright because tokenizer.json may carry its own. UserError where an id has no row in the model's
        embeddings: then folder and tokenizer do not belong together.
        """
        def make() -> Tokens:
            encoded = self.inner(*examples.texts, truncation="longest_first", max_length=max_seq_length, padding=False,
                                 return_attention_mask=False, return_token_type_ids=self.segments)
            return from_lists(encoded["input_ids"], encoded.get("token_type_ids") if self.segments else None)

        return self.checked(self.cached(["texts", max_seq_length, *examples.texts], make))

    def cached(self, what: list, make: Callable[[], Any]) -> Any:
        """`make()`, or what it gave before for this tokenizer and the same content of `what` (anything that JSON can hold)."""
        content = json.dumps([self.identity, self.segments, what]).encode("utf-8", "surrogatepass")
        key = hashlib.sha256(content).hexdigest()
        if key not in _cache:
            _cache[key] = make()
            while len(_cache) > CACHED_SETS:
                _cache.popitem(last=False)
        _cache.move_to_end(key)
        return _cache[key]

    def checked(self, tokens: Tokens) -> Tokens:
        """`tokens`; UserError where one has no embedding."""
        largest = int(tokens.ids.max(initial=0))
        if largest >= self.rows:
            raise UserError(f"{self.name}: its tokenizer gives id {largest}, its model has {self.rows} embeddings; "
                            f"put the tokenizer beside the model that was trained with it")
        return tokens


def _identity(tokenizer: PreTrainedTokenizerBase) -> str:
    """Equal for two tokenizers that give the same ids; padding and truncation, which every call sets anew, do not count."""
    settings = {name: getattr(tokenizer, name, None) for name in ("truncation_side", "add_bos_token", "add_eos_token", "do_lower_case")}
    if tokenizer.is_fast:
        rules = json.loads(tokenizer.backend_tokenizer.to_str()) | {"truncation": None, "padding": None}
    else:
        rules = [type(tokenizer).__name__, tokenizer.get_vocab(), repr(tokenizer.init_kwargs)]
    return hashlib.sha256(json.dumps([settings, rules], sort_keys=True, default=str).encode()).hexdigest()
