"""Rows of a task as sequences of a causal language model, and back.

A single text is `a <eos>`, a pair `a <eos> b <eos>`. Where the model's own tokenizer begins every text with a token (Llama, OPT), so does
each sequence here, since that is what the model has learnt to read. What looks like a special token in a text is plain text.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from dataset.errors import UserError
from evaluation.fine_tuning.tokens import Tokens, from_lists
from evaluation.tasks.task import Examples
from task_distillation.transfer_set import plain_text

PROBE = "it was good. Not bad"


class Codec:
    """`eos`: the id that ends a text. `start`: ids that begin every sequence, mostly none. `size`: one more than the largest id."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, where: object) -> None:
        if tokenizer.eos_token_id is None:
            raise UserError(f"{where}: its tokenizer has no token that ends a text (eos_token); a tokenizer that names one would work")
        self.tokenizer, self.where = tokenizer, where
        self.eos: int = tokenizer.eos_token_id
        first = self._ids([PROBE], add_special_tokens=True)[0][:1]
        self.start = first if first and first[0] in (tokenizer.bos_token_id, tokenizer.cls_token_id) else []
        self.size = max(tokenizer.get_vocab().values()) + 1
        if not any(self.encode([PROBE])):
            raise UserError(f"{where}: its tokenizer makes no tokens of {PROBE!r}; it is damaged")

    def _ids(self, texts: Sequence[str], **how: Any) -> list[list[int]]:
        return self.tokenizer(list(texts), split_special_tokens=True, return_attention_mask=False, truncation=False, verbose=False,
                              **how)["input_ids"]

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text alone, without special tokens."""
        return self._ids(texts, add_special_tokens=False) if texts else []

    def encode_in_parts(self, texts: Sequence[str], random: np.random.Generator) -> list[list[int]]:
        """As `encode`, but each text of two or more characters is cut at a random one of them and both parts are encoded alone."""
        cuts = [int(random.integers(1, len(text))) if len(text) > 1 else len(text) for text in texts]
        first = self.encode([text[:cut] for text, cut in zip(texts, cuts, strict=True)])
        second = self.encode([text[cut:] for text, cut in zip(texts, cuts, strict=True)])
        return [one + other for one, other in zip(first, second, strict=True)]

    def check_parts(self) -> None:
        """UserError where a text that is encoded in two parts would not be the same text again."""
        first, second = self.encode([PROBE[:5], PROBE[5:]])
        if self.decode(first + second) != self.decode(self.encode([PROBE])[0]):
            raise UserError(f"--split_encode: the tokenizer of {self.where} begins every part with a space; a byte-level one (GPT-2's) "
                            f"would work")

    def rows(self, columns: Sequence[Sequence[str]], max_length: int, random: np.random.Generator | None = None) -> tuple[Tokens, int]:
        """(one sequence for each row of the 1 or 2 `columns`, at most `max_length` tokens each, and how many rows were cut for that).

        With `random` the texts are encoded in parts.
        """
        encoded = [self.encode(column) if random is None else self.encode_in_parts(column, random) for column in columns]
        whole = [self.start + [token for text in row for token in [*text, self.eos]] for row in zip(*encoded, strict=True)]
        return from_lists([row[:max_length] for row in whole], None), sum(len(row) > max_length for row in whole)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, without special tokens."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def sides(self, ids: Sequence[int]) -> list[str]:
        """The text before each `eos` of a finished sequence (without `start`), which ends with one; on one line each."""
        found, begin = [], 0
        for at, token in enumerate(ids):
            if token == self.eos:
                found.append(plain_text(self.decode(ids[begin:at])))
                begin = at + 1
        return found


def text_rows(examples: Examples) -> tuple[tuple[list[str], ...], list[int]]:
    """(the text columns on one line each, without rows where a text is empty; the numbers of the rows that are left)."""
    columns = [[plain_text(text) for text in column] for column in examples.texts]
    kept = [number for number in range(len(examples)) if all(column[number] for column in columns)]
    return tuple([column[number] for number in kept] for column in columns), kept
