"""A few samples as text to read: the original words, the predicted ones marked."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from dataset import shard_format as shards
from dataset.errors import UserError
from dataset.inspection.scan import Vocabulary


def pick_examples(infos: Sequence[shards.ShardInfo], count: int, tokenizer: Tokenizer | None, known: Vocabulary) -> list[dict[str, Any]]:
    """`count` samples, spread evenly over the rows of `infos`."""
    rows = sum(info.rows for info in infos)
    examples, start = [], 0
    wanted = sorted({(2 * number + 1) * rows // (2 * count) for number in range(min(count, rows))})
    for info in infos:
        for place in [place for place in wanted if start <= place < start + info.rows]:
            try:
                examples.append(_example(info, place - start, tokenizer, known.filled_from(info.attributes)))
            except UserError:  # a damaged file is reported by its scan
                continue
        start += info.rows
    return examples


def _example(info: shards.ShardInfo, row: int, tokenizer: Tokenizer | None, known: Vocabulary) -> dict[str, Any]:
    with shards.open_shard(info.path) as file:
        try:
            ids, mask = (np.asarray(file[key][row]).tolist() for key in (shards.INPUT_IDS, shards.INPUT_MASK))
            positions, labels = (np.asarray(file[key][row]).tolist() if key in file else [] for key in (shards.POSITIONS, shards.LABELS))
        except OSError as error:
            raise UserError(f"{info.path}: row {row} cannot be read") from error
    used = positions.index(0) if 0 in positions else len(positions)
    hidden = dict(zip(positions[:used], labels[:used], strict=True))
    original = [hidden.get(place, token_id) for place, token_id in enumerate(ids)]
    texts = []
    for place in [place for place, is_real in enumerate(mask) if is_real]:
        space, word = _text(original[place - 1] if place else None, original[place], tokenizer)
        if place in hidden:
            shown = ids[place]
            how = "MASK" if shown == known.mask else "SAME" if shown == hidden[place] else _text(None, shown, tokenizer)[1].strip()
            word = f"[{how}:{word}]"
        texts.append(space + word)
    return {"file": info.path.name, "row": row, "split": info.split, "tokens": len(texts), "text": "".join(texts).strip()}


def _text(before: int | None, token_id: int, tokenizer: Tokenizer | None) -> tuple[str, str]:
    """The space that stands before a token in running text, and its text; the id itself without a tokenizer."""
    if tokenizer is None:
        return " ", str(token_id)

    def decode(*ids: int) -> str:
        try:
            return tokenizer.decode(list(ids), skip_special_tokens=False)
        except OverflowError:  # a negative id, which the scan reports
            return "?"

    alone = decode(token_id)
    if before is None:
        return "", alone
    head, both = decode(before), decode(before, token_id)
    tail = both[len(head) :] if both.startswith(head) else f" {alone}"
    word = tail.lstrip(" ")
    return tail[: len(tail) - len(word)], word
