"""What a run reads, so that a resumed run notices other shards, another teacher or other stored outputs."""

import json
from typing import Any

import xxhash

from dataset.files import file_hash
from dataset.shard_format import ShardInfo
from pretraining.models.catalog import WEIGHT_FILES
from pretraining.preflight import Plan
from pretraining.teacher_cache.coverage import CachePlan


def data_identity(plan: Plan) -> dict[str, Any]:
    """Equal for two runs that read the same; JSON.

    Of a shard its name, rows, bytes and attributes (seed, tokenizer, masking, ...): hashing a corpus would take minutes. Of a teacher a
    hash of its weights, of token counts one of the numbers.
    """
    weights = None
    if plan.cache is not None:
        weights = plan.cache.header.teacher_hash
    elif plan.teacher is not None:
        weights = file_hash(next(plan.teacher.path / name for name in WEIGHT_FILES if (plan.teacher.path / name).is_file()))
    return {"train": [_shard_identity(info) for info in plan.train_shards], "test": [_shard_identity(info) for info in plan.test_shards],
            "teacher": weights, "teacher_cache": None if plan.cache is None else _cache_identity(plan.cache),
            "token_counts": None if plan.token_counts is None else xxhash.xxh3_64_hexdigest(plan.token_counts.counts.tobytes())}


def _cache_identity(cache: CachePlan) -> list[Any]:
    header = cache.header
    return [header.kind, header.k, list(header.hidden_layers), header.precision, header.sampling_temperature, header.seed]


def _shard_identity(info: ShardInfo) -> list[Any]:
    attributes = json.dumps(sorted((name, str(value)) for name, value in info.attributes.items()))
    return [info.path.name, info.rows, info.path.stat().st_size, xxhash.xxh3_64_hexdigest(attributes.encode())]
