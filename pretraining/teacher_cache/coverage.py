"""Whether the outputs in a folder are those that a run needs: of its shards, its teacher and its objectives. No torch."""

from dataclasses import dataclass
from pathlib import Path

from dataset.errors import UserError
from dataset.shard_format import ATTRIBUTE_TOKENIZER, STATIC, ShardInfo
from pretraining.args.resolve_run import Resolved
from pretraining.models.catalog import ARCHITECTURES, WEIGHT_FILES, ModelFolder, model_type_of
from pretraining.objective_plan import ObjectivePlan
from pretraining.objectives.catalog import OBJECTIVES, UNNORMALISED, Part
from pretraining.teacher_cache.format import (
    MASKED,
    NO_TARGETS,
    SAMPLED,
    SUFFIX,
    UNMASKED,
    CacheHeader,
    cache_path,
    head_hash,
    other_setting,
    read_header,
    weights_hash,
)

HEADS_COMPARED = 16  # shards whose first rows are looked at before torch; the rest is compared when a shard is read
AGAIN = "extract_teacher_outputs.py makes it"
# Fields in which all files of a run must agree.
_COMMON = ("kind", "k", "vocab_size", "teacher_hash", "family", "input", "hidden_layers", "hidden_size", "precision",
           "sampling_temperature")


@dataclass(frozen=True)
class CachePlan:
    """A folder of stored outputs that fits the run. `teacher` describes the model that gave them; its path is the folder's, which holds
    none. `targets` and `layers` are what the run reads of it; `shards` the hash of every shard that the files belong to, by name."""

    folder: Path
    header: CacheHeader
    teacher: ModelFolder
    targets: bool
    layers: tuple[int, ...]
    shards: dict[str, str]


def describe_teacher(path: str) -> ModelFolder:
    """The teacher as the folder's first file tells; UserError where there is none."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise UserError(f"--teacher_cache {path}: no such folder; {AGAIN}")
    # Hidden names are files still being written, or left by a killed extraction.
    first = min((path for path in folder.glob(f"*{SUFFIX}") if not path.name.startswith(".")), default=None)
    if first is None:
        raise UserError(f"--teacher_cache {path}: no stored outputs (*{SUFFIX}) in it; {AGAIN}")
    header = read_header(first)
    return ModelFolder(folder, header.teacher_config, None, ARCHITECTURES[model_type_of(header.family)])


def plan_cache(
    resolved: Resolved, described: ModelFolder, teacher: ModelFolder | None, causal: bool, objectives: ObjectivePlan,
    shards: list[ShardInfo], tokenizer_sha256: str | None,
) -> CachePlan:
    """Check the files for `shards` against the run; UserError names the file and what is missing or other. `teacher`: --teacher_path."""
    folder = described.path
    _check_that_logits_can_be_stored(resolved, shards, causal)
    headers = [_header(folder, info) for info in shards]
    first = headers[0]
    for info, header in zip(shards, headers, strict=True):
        path = cache_path(folder, info.path)
        _check_agreement(path, header, cache_path(folder, shards[0].path), first)
        _check_shard(path, header, info, tokenizer_sha256)
    for number in range(0, len(shards), max(1, len(shards) // HEADS_COMPARED)):
        if headers[number].shard_head != head_hash(shards[number], headers[number].input):
            raise UserError(f"{cache_path(folder, shards[number].path)}: it belongs to other samples than {shards[number].path} holds; "
                            "extract it anew (--overwrite), or give the shards that it was made of")
    if tokenizer_sha256 is None and first.tokenizer_sha256 and any(ATTRIBUTE_TOKENIZER not in info.attributes for info in shards):
        resolved.notes.append(f"--teacher_cache {folder}: neither --tokenizer_name, which is read from the hub, nor the shards say which "
                              "tokenizer they are of: it cannot be compared with the teacher's")
    if teacher is not None:
        _check_teacher(folder, first, teacher)
    _check_input(resolved, folder, first, shards, causal)
    methods = resolved.methods
    targets = any(OBJECTIVES[part.name].teacher_logits for part in methods)
    layers = sorted({layer for part in methods if OBJECTIVES[part.name].listens_to == "hidden"
                     for layer in objectives.parts[part.name].teacher_layers})
    for part in methods:
        _check_part(part, objectives, folder, first)
    if targets:
        _settle_targets(resolved, folder, first, objectives)
    return CachePlan(folder, first, described, targets, tuple(layers),
                     {info.path.name: header.shard_hash for info, header in zip(shards, headers, strict=True)})


def _check_that_logits_can_be_stored(resolved: Resolved, shards: list[ShardInfo], causal: bool) -> None:
    """Whether any extraction could help an objective that wants logits; said first, for all else would name one that cannot."""
    part = next((part for part in resolved.methods if OBJECTIVES[part.name].teacher_logits), None)
    if part is None:
        return
    fresh = next((info for info in shards if info.masking != STATIC), None)
    why = ("the student is causal, and nothing is masked for it" if causal else
           None if fresh is None else f"the masks of {fresh.path} are drawn anew in every epoch")
    if why is not None:
        raise UserError(f"--method {part.name}: logits are stored at masked positions, and {why}; run the teacher (--teacher_path DIR in "
                        "the place of --teacher_cache)")


def _check_agreement(path: Path, header: CacheHeader, first_path: Path, first: CacheHeader) -> None:
    found = [(name, getattr(header, name), getattr(first, name)) for name in _COMMON if getattr(header, name) != getattr(first, name)]
    setting = other_setting(header.teacher_config, first.teacher_config)
    if setting is not None:
        found.append((f"the teacher's {setting}", header.teacher_config.get(setting), first.teacher_config.get(setting)))
    if found:
        name, mine, other = found[0]
        raise UserError(f"{path}: {name} is {mine}, {other} in {first_path}; extract one of them anew (delete it, and give its "
                        "extract_teacher_outputs.py again), so that they agree")


def _header(folder: Path, info: ShardInfo) -> CacheHeader:
    path = cache_path(folder, info.path)
    if not path.exists():
        raise UserError(f"--teacher_cache {folder}: nothing stored for {info.path.name} ({path.name} is missing); "
                        "extract_teacher_outputs.py goes on with what is there")
    return read_header(path)


def _check_shard(path: Path, header: CacheHeader, info: ShardInfo, tokenizer_sha256: str | None) -> None:
    predictions = (info.predictions or 0) if header.kind != NO_TARGETS else 0
    for name, found, expected in (("rows", header.rows, info.rows), ("predictions", header.predictions, predictions),
                                  ("max_seq_length", header.max_seq_length, info.max_seq_length)):
        if found != expected:
            raise UserError(f"{path}: {name} is {found}, {info.path} has {expected}; extract it anew (--overwrite), or give the shards "
                            "that it was made of")
    expected = info.attributes.get(ATTRIBUTE_TOKENIZER, tokenizer_sha256)
    if header.tokenizer_sha256 and expected is not None and header.tokenizer_sha256 != expected:
        raise UserError(f"{path}: tokenizer_sha256 is {header.tokenizer_sha256}, expected {expected}; the teacher read other tokens: "
                        "extract it anew (--overwrite), or give the tokenizer and shards that it was made of")


def _check_teacher(folder: Path, header: CacheHeader, teacher: ModelFolder) -> None:
    weights = next(name for name in WEIGHT_FILES if (teacher.path / name).is_file())
    if weights_hash(teacher.path, weights) != header.teacher_hash:
        raise UserError(f"--teacher_cache {folder}: its outputs are of another teacher ({header.teacher}) than --teacher_path "
                        f"{teacher.path}; give that one, leave --teacher_path out, or extract anew")
    setting = other_setting(header.teacher_config, teacher.config)
    if setting is not None:
        raise UserError(f"--teacher_cache {folder}: its outputs are of a teacher whose {setting} was {header.teacher_config.get(setting)}, "
                        f"--teacher_path {teacher.path} has {teacher.config.get(setting)}; give that one, leave --teacher_path out, or "
                        "extract anew")


def _check_input(resolved: Resolved, folder: Path, header: CacheHeader, shards: list[ShardInfo], causal: bool) -> None:
    """Whether the teacher read what the student reads."""
    fresh = next((info for info in shards if info.masking != STATIC), None)
    if causal and header.input != UNMASKED:
        raise UserError(f"--teacher_cache {folder}: its teacher read masked text, and a causal student reads all of it; extract with a "
                        "causal teacher")
    if not causal and fresh is None and header.input != MASKED:
        raise UserError(f"--teacher_cache {folder}: its teacher read the text without masks, and these shards hold masks; extract it anew")
    if not causal and fresh is not None:
        resolved.notes.append(f"the stored hidden states are of the text without masks, and the student reads {fresh.path.parent} with "
                              "masks that are drawn anew in every epoch")


def _check_part(part: Part, objectives: ObjectivePlan, folder: Path, header: CacheHeader) -> None:
    """Whether what an objective asks of its teacher is stored."""
    entry, name = OBJECTIVES[part.name], f"--method {part.name}"
    if not entry.teacher:
        return
    if entry.listens_to in ("attention", "embeddings"):
        what = {"attention": "queries, keys and values", "embeddings": "the teacher's embeddings"}[entry.listens_to]
        able = ", ".join(name for name, row in OBJECTIVES.items() if row.teacher and (row.listens_to == "hidden" or row.truncated))
        raise UserError(f"{name}: --teacher_cache stores no attention and no embeddings, and it needs {what}; run the teacher (leave "
                        f"--teacher_cache out), or take one of {able}")
    if entry.listens_to == "hidden":
        lost = [layer for layer in objectives.parts[part.name].teacher_layers if layer not in header.hidden_layers]
        if lost:
            stored = ", ".join(map(str, header.hidden_layers)) or "none"
            raise UserError(f"{name}: hidden layer {lost[0]} of the teacher is not in --teacher_cache {folder} (stored: {stored}); "
                            f"--layer_selection chooses others, extract_teacher_outputs.py --hidden_layers {lost[0]} stores it")
    if entry.teacher_logits:
        _check_logits(name, entry.truncated, objectives, folder, header)


def _check_logits(name: str, truncated: tuple[str, ...], objectives: ObjectivePlan, folder: Path, header: CacheHeader) -> None:
    if header.kind == NO_TARGETS:
        raise UserError(f"{name}: no targets in --teacher_cache {folder}; extract_teacher_outputs.py --truncation_factor K stores them")
    if not truncated:
        raise UserError(f"{name}: it needs all logits, and --teacher_cache {folder} holds {header.k} a position; run the teacher (leave "
                        "--teacher_cache out), or take soft_ce or logit")
    if objectives.all_positions:
        raise UserError(f"{name}: --logit_positions all, and targets are stored at masked positions only; leave --logit_positions out")
    if header.kind == SAMPLED and name != "--method soft_ce":
        raise UserError(f"{name}: --teacher_cache {folder} holds drawn ids, which estimate the cross-entropy; soft_ce works, and has the "
                        "same gradient as logit at temperature 1")


def _settle_targets(resolved: Resolved, folder: Path, header: CacheHeader, objectives: ObjectivePlan) -> None:
    """Put what the files decide into the flags: how many entries count, and what of the others."""
    flags = resolved.args.distillation
    if header.kind == SAMPLED:
        if flags.truncation_factor is not None:
            raise UserError(f"--truncation_factor {flags.truncation_factor}: --teacher_cache {folder} holds drawn ids, none of which may "
                            "be left out; leave the flag out")
        if "truncated_target" in resolved.args.given and flags.truncated_target not in (None, UNNORMALISED):
            raise UserError(f"--truncated_target {flags.truncated_target}: the weights of drawn ids are unbiased as they are; leave it out")
        flags.truncated_target = UNNORMALISED
        return
    if flags.truncation_factor is None:
        flags.truncation_factor = header.k
    if flags.truncation_factor > header.k:
        raise UserError(f"--truncation_factor {flags.truncation_factor}: --teacher_cache {folder} holds {header.k} entries a position; at "
                        "most as many work")
