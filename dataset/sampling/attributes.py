"""What our shards say of the tokenizer that made them (HDF5 attributes): enough to refuse what does not fit."""

from tokenizers import Tokenizer

from dataset import shard_format as shards
from dataset.tokenizer import is_lowercasing, rules_sha256, special_ids, vocabulary_sha256, vocabulary_size


def tokenizer_attributes(tokenizer: Tokenizer) -> dict[str, int | str]:
    """Format version, what ids mean and how text becomes ids."""
    ids = special_ids(tokenizer)
    roles = {"pad": ids.pad, "cls": ids.cls, "sep": ids.sep, "mask": ids.mask, "unk": ids.unk}
    return {
        shards.ATTRIBUTE_VERSION: shards.FORMAT_VERSION,
        shards.ATTRIBUTE_TOKENIZER: vocabulary_sha256(tokenizer),
        shards.ATTRIBUTE_VOCAB_SIZE: vocabulary_size(tokenizer),
        **{f"{role}_token_id": token_id for role, token_id in roles.items() if token_id is not None},
        shards.ATTRIBUTE_LOWERCASE: int(is_lowercasing(tokenizer)),
        shards.ATTRIBUTE_RULES: rules_sha256(tokenizer),  # last: where another one differs too, that says more
    }
