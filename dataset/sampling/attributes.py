"""What our shards say of the tokenizer that made them (HDF5 attributes): enough to refuse what does not fit."""

from tokenizers import Tokenizer

from dataset import shard_format as shards
from dataset.tokenizer import is_lowercasing, rules_sha256, special_ids, vocabulary_sha256, vocabulary_size


def tokenizer_attributes(tokenizer: Tokenizer) -> dict[str, int | str]:
    """Format version, what ids mean and how text becomes ids."""
    ids = special_ids(tokenizer)
    return {
        shards.ATTRIBUTE_VERSION: shards.FORMAT_VERSION,
        shards.ATTRIBUTE_TOKENIZER: vocabulary_sha256(tokenizer),
        shards.ATTRIBUTE_VOCAB_SIZE: vocabulary_size(tokenizer),
        "pad_token_id": ids.pad,
        "cls_token_id": ids.cls,
        "sep_token_id": ids.sep,
        "mask_token_id": ids.mask,
        "unk_token_id": ids.unk,
        shards.ATTRIBUTE_LOWERCASE: int(is_lowercasing(tokenizer)),
        shards.ATTRIBUTE_RULES: rules_sha256(tokenizer),  # last: where another one differs too, that says more
    }
