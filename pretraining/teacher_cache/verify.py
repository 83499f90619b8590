"""Whether stored outputs are still what was written: all of them is read once, at the speed of the disk. No torch.

Targets are guarded by the checksums of their packing, hidden states by a hash beside them; training itself looks at what can be seen
without reading everything.
"""

import sys

import xxhash

from dataset.errors import UserError, working_alone
from dataset.shard_format import ShardInfo
from pretraining.teacher_cache.extraction_plan import ExtractionPlan, read_arrays
from pretraining.teacher_cache.format import AGAIN, HASH, NO_TARGETS, is_finite, open_cache, read_header
from pretraining.teacher_cache.reader import ShardOutputs

_BLOCK_BYTES = 1 << 26


def verify(plan: ExtractionPlan) -> None:
    """Read the files of this rank that are there, and say how many are whole; UserError names those that are not."""
    there = [info for info in plan.own_shards if plan.path(info).exists()]
    wrong: list[str] = []
    first = unguarded = None
    for info in there:
        try:
            if not _is_guarded(plan, info) and unguarded is None:
                unguarded = plan.path(info).name
        except UserError as error:
            wrong.append(plan.path(info).name)
            first = first or error
    if first is not None:
        with working_alone():
            raise UserError(f"{len(wrong)} of {len(there)} files cannot be used: {', '.join(wrong)}; {first}")
    share = "" if plan.launch.world_size == 1 else f" (rank {plan.launch.rank} of {plan.launch.world_size})"
    old = "" if unguarded is None else f"; hidden states of {unguarded} were written without a hash, and only their numbers were looked at"
    print(f"{plan.output_dir}{share}: {len(there)} files are whole, {len(plan.own_shards) - len(there)} are missing{old}", file=sys.stderr)


def _is_guarded(plan: ExtractionPlan, info: ShardInfo) -> bool:
    """Whether all hidden states of a file have a hash; UserError where the file is damaged or another one than `plan` would write."""
    path, arrays = plan.path(info), read_arrays(info)
    plan.is_done(info)
    header, guarded = read_header(path), True
    ShardOutputs(path, arrays, header.kind != NO_TARGETS, header.hidden_layers)
    with open_cache(path) as file:
        for layer in header.hidden_layers:
            states, digest = file[f"hidden_{layer}"], xxhash.xxh3_128()
            step = max(1, _BLOCK_BYTES // (2 * header.hidden_size))
            for start in range(0, len(states), step):
                rows = states[start : start + step]
                digest.update(rows)
                if not is_finite(rows):
                    raise UserError(f"{path}: hidden_{layer} holds what is no number; {AGAIN}")
            if states.attrs.get(HASH, digest.hexdigest()) != digest.hexdigest():
                raise UserError(f"{path}: hidden_{layer} is not what was written; {AGAIN}")
            guarded = guarded and HASH in states.attrs
    return guarded
