"""What can be checked of shards that other scripts made, which do not say what their ids mean: whether the run's tokenizer can be theirs.

A wrong one would train without a word and be exported with the student. Their ids are read whole, which takes minutes for a corpus; where
rows begin is looked at in the first rows of each shard.
"""

import numpy as np
from tokenizers import Tokenizer

from dataset.errors import UserError
from dataset.shard_format import INPUT_IDS, ROWS_AT_A_TIME, ShardInfo, check_ids, open_shard
from dataset.tokenizer import ROLE_NAMES, vocabulary_size

ADVICE = "--tokenizer_name with the one that made the shards would work"


def check_foreign(info: ShardInfo, tokenizer: Tokenizer | None, vocabulary: int, causal: bool) -> None:
    """UserError where an id is none of the tokenizer's or not below `vocabulary`, the models', or where a row lacks its start token.

    `causal`: the rows of a causal model begin with text. None: a tokenizer that is not here yet, so that only the models' limit counts.
    """
    size = vocabulary if tokenizer is None else vocabulary_size(tokenizer)
    if tokenizer is not None and not causal:
        _check_start(info, tokenizer)
    try:
        check_ids(info.path, min(size, vocabulary))
    except UserError as error:
        if tokenizer is None or size > vocabulary:
            raise
        raise UserError(f"{error} (the run's tokenizer has {size} tokens; {ADVICE})") from None


def _check_start(info: ShardInfo, tokenizer: Tokenizer) -> None:
    start = next((token_id for name in ROLE_NAMES["cls"] if (token_id := tokenizer.token_to_id(name)) is not None), None)
    if start is None:
        return
    with open_shard(info.path) as file:
        try:
            first = file[INPUT_IDS][:ROWS_AT_A_TIME, 0]
        except OSError as error:
            raise UserError(f"{info.path}: {INPUT_IDS} cannot be read ({error}); make or copy the shard anew") from error
    others = np.flatnonzero(first != start)
    if len(others):
        raise UserError(f"{info.path}: row {others[0]} begins with token {first[others[0]]}, and the start token of the run's tokenizer is "
                        f"{start}; {ADVICE}")
