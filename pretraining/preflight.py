"""Everything that files can tell before torch is imported: teacher, student, shards, tokenizer, run folder.

A mistake found here costs a second and writes nothing; found later it costs hours. What only the device can tell follows in
`pretraining.engine`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from dataset.errors import UserError
from dataset.shard_format import (
    ATTRIBUTE_LOWERCASE,
    ATTRIBUTE_TOKENIZER,
    ATTRIBUTE_WHOLE_WORDS,
    NO_MASKING,
    ShardInfo,
    check_ids,
    check_tokenizer,
    find_shards,
    read_info,
)
from dataset.token_counts import TokenCounts, read_token_counts
from dataset.tokenizer import (
    HUB_NAME,
    SpecialIds,
    holds_tokenizer,
    is_lowercasing,
    load_tokenizer,
    special_ids,
    vocabulary_sha256,
    vocabulary_size,
    word_continuations,
)
from pretraining.args.resolve_run import Resolved
from pretraining.disk import check_disk, check_writable
from pretraining.foreign_shards import check_foreign
from pretraining.models.catalog import Architecture, ModelFolder, find_architecture, model_type_of, read_model_folder
from pretraining.objective_plan import ObjectivePlan, plan_objectives
from pretraining.objectives.catalog import REST
from pretraining.run_folder import RunPlan, check_run_folder
from pretraining.student_plan import StudentPlan, plan_student
from pretraining.teacher_cache.coverage import CachePlan, describe_teacher, plan_cache
from pretraining.tracking import check_tracker

# What a shard must say for masks to be drawn on the fly.
_MASKING_ATTRIBUTES = ("mask_token_id", "vocab_size", "masked_lm_prob", "max_predictions_per_seq")


@dataclass(kw_only=True)
class Plan(RunPlan):
    """A run that has passed every check that needs no torch.

    `architecture` is the student's, `teacher` --teacher_path's, `cache` what was stored of one. `tokenizer_source` is a folder, a vocab.txt
    or a hub name.
    """

    architecture: Architecture
    teacher: ModelFolder | None
    student: StudentPlan
    objectives: ObjectivePlan
    train_shards: list[ShardInfo]
    test_shards: list[ShardInfo]
    tokenizer_source: str
    tokenizer_sha256: str | None
    token_counts: TokenCounts | None = None
    cache: CachePlan | None = None

    @property
    def taught_by(self) -> ModelFolder | None:
        """The teacher whose outputs are learnt from, here or stored; its weights may not be here."""
        return self.teacher if self.cache is None else self.cache.teacher


def asks_for_whole_words(info: ShardInfo) -> bool:
    """Whether a shard without masks wants whole words masked."""
    return info.masking == NO_MASKING and bool(info.attributes.get(ATTRIBUTE_WHOLE_WORDS, 0))


def make_plan(resolved: Resolved) -> Plan:
    """Check files against flags; UserError for the first thing that cannot work."""
    args = resolved.args
    check_tracker(args.run.report_to)
    folder = check_run_folder(args)
    check_writable(folder)
    teacher = None
    if args.distillation.teacher_path is not None:
        teacher = read_model_folder(args.distillation.teacher_path, "--teacher_path")
    taught_by = teacher if args.distillation.teacher_cache is None else describe_teacher(args.distillation.teacher_cache)
    architecture = _student_architecture(args, taught_by)
    student = plan_student(args, teacher or taught_by, architecture)
    architecture = student.architecture
    resolved.notes.extend(student.notes)
    if taught_by is not None and taught_by.architecture.causal != architecture.causal:
        named = "--teacher_path" if args.distillation.teacher_cache is None else "--teacher_cache"
        raise UserError(f"{named} {taught_by.path}: a {taught_by.architecture.family} and a {architecture.family} do not see the "
                        "same tokens; teacher and student must both be causal, or both not")
    objectives = plan_objectives(resolved, student.config, architecture, taught_by)
    if args.distillation.teacher_cache is None:
        _check_truncation(args, teacher)
    train, test = _shards(resolved)
    _check_next_sentence(resolved, train + test)
    source = _tokenizer_source(args, teacher, student)
    tokenizer = load_tokenizer(source) if Path(source).expanduser().exists() else None
    student.config["vocab_size"] = _vocabulary(student, train, tokenizer)
    digest = None if tokenizer is None else vocabulary_sha256(tokenizer)
    if student.source == "scratch":
        specials = None if tokenizer is None or architecture.causal else special_ids(tokenizer)
        _set_special_ids(student, train[0], specials, is_default_length=args.model.max_position_embeddings is None)
    models = [(student.config, architecture)] + ([(taught_by.config, taught_by.architecture)] if taught_by else [])
    _check_shards(resolved, models, train + test, tokenizer, digest)
    counts = _token_counts(resolved, train, digest, architecture.causal)
    cache = None
    if args.distillation.teacher_cache is not None:
        cache = plan_cache(resolved, taught_by, teacher, architecture.causal, objectives, train + test, digest)
    _say_in_force(resolved)
    if tokenizer is not None:
        _say_if_casing_differs(resolved, train + test, tokenizer, source)
    if tokenizer is not None and not architecture.causal and any(map(asks_for_whole_words, train + test)):
        word_continuations(tokenizer)
    check_disk(resolved, folder, student.parameter_estimate())
    _write_back(args, student, objectives, source)
    return Plan(
        resolved=resolved, folder=folder, architecture=architecture, teacher=teacher, student=student, objectives=objectives,
        train_shards=train, test_shards=test, tokenizer_source=source, tokenizer_sha256=digest, token_counts=counts, cache=cache)


def _student_architecture(args: Any, teacher: ModelFolder | None) -> Architecture:
    """The row that --model_type names; without it the student folder's family, else the teacher's, else BERT."""
    if args.model.model_type is not None:
        return find_architecture(args.model.model_type)
    if isinstance(args.distillation.student_initialize, str):
        return read_model_folder(args.distillation.student_initialize, "--student_initialize").architecture
    return teacher.architecture if teacher is not None else find_architecture("bert-mlm")


def _check_truncation(args: Any, teacher: ModelFolder | None) -> None:
    """Whether a teacher that is run has as many entries as are to be kept."""
    kept = args.distillation.truncation_factor
    if teacher is not None and kept is not None and kept > teacher.config["vocab_size"]:
        raise UserError(f"--truncation_factor {kept}: the teacher's vocabulary has {teacher.config['vocab_size']} entries; at most as many "
                        "work")


def _check_next_sentence(resolved: Resolved, shards: list[ShardInfo]) -> None:
    lacking = next((info for info in shards if not info.has_nsp), None)
    if any(part.name == "nsp" for part in resolved.methods) and lacking is not None:
        raise UserError(f"--method nsp: {lacking.path} holds no next_sentence_labels; shards with them are needed")


def _shards(resolved: Resolved) -> tuple[list[ShardInfo], list[ShardInfo]]:
    args = resolved.args
    folder = Path(args.data.dataset_path).expanduser()
    if not folder.is_dir():
        raise UserError(f"--dataset_path {args.data.dataset_path}: no such folder; give a folder of train and test HDF5 shards "
                        "(dataset/generate_samples.py makes them)")
    train_files, test_files = find_shards(folder)
    if args.validation.do_validation and not test_files:
        raise UserError(f"--do_validation: no test shards (names with `test`, .hdf5) in {folder}; add some, or leave the flag out")
    train = [read_info(path) for path in train_files]
    test = [read_info(path) for path in test_files] if args.validation.do_validation else []
    lengths = {info.max_seq_length for info in train + test}
    if len(lengths) > 1:
        odd = next(info for info in train + test if info.max_seq_length != train[0].max_seq_length)
        raise UserError(f"{odd.path}: sequences of {odd.max_seq_length} tokens, {train[0].path} has {train[0].max_seq_length}; "
                        "all shards of a run need one length")
    foreign = sum(not info.is_ours for info in train + test)
    if foreign:
        resolved.notes.append(f"{foreign} of {len(train + test)} shards carry no attributes (made by other scripts): "
                              "tokenizer and masking cannot be checked, ids are")
    unnamed = sum(info.is_ours and ATTRIBUTE_TOKENIZER not in info.attributes for info in train + test)
    if unnamed:
        resolved.notes.append(f"{unnamed} of {len(train + test)} shards do not say which tokenizer made them (converted without one): "
                              "tokenizer and masking cannot be checked, ids are")
    for split, infos in (("train", train), ("test", test)):
        masked = sum(info.masking != NO_MASKING for info in infos)
        if 0 < masked < len(infos):
            resolved.notes.append(f"{masked} of {len(infos)} {split} shards hold their masks, the same in every epoch; those of the others "
                                  "are drawn as they are read")
    stored = max((info.predictions or 0) for info in train)
    asked = args.data.max_predictions_per_seq
    if asked is not None and asked < stored:
        resolved.notes.append(f"--max_predictions_per_seq {asked}: the shards hold up to {stored} masked positions per sample; "
                              f"those past {asked} are not learnt from")
    return train, test


def _token_counts(resolved: Resolved, train: list[ShardInfo], digest: str | None, causal: bool) -> TokenCounts | None:
    """What --token_counts holds, if the shards can be masked by it; `digest` is the tokenizer's, None for one of the hub."""
    path = resolved.args.data.token_counts
    if path is None:
        return None
    if causal:
        raise UserError(f"--token_counts {path}: a causal student sees its text unmasked; leave the flag out")
    try:
        counts = read_token_counts(path)
    except UserError as error:
        raise UserError(f"--token_counts: {error}") from None
    for info in train:
        if info.masking != NO_MASKING:
            raise UserError(f"--token_counts {path}: the masks of {info.path} are in the file; make shards without them "
                            "(dataset/generate_samples.py)")
        if asks_for_whole_words(info):
            raise UserError(f"--token_counts {path}: {info.path} asks for whole words, and counts are of single tokens; make shards of "
                            "single tokens, or leave the flag out")
        share, first = (one.attributes["masked_lm_prob"] for one in (info, train[0]))
        if not share:
            raise UserError(f"--token_counts {path}: masked_lm_prob is 0 in {info.path}, so that nothing would be masked; make shards with "
                            "a --masked_lm_prob above 0")
        if share != first:
            raise UserError(f"--token_counts {path}: masked_lm_prob is {share} in {info.path} and {first} in {train[0].path}; one batch "
                            "needs one")
        vocabulary, sha256 = int(info.attributes["vocab_size"]), digest or info.attributes.get(ATTRIBUTE_TOKENIZER)
        if counts.vocab_size != vocabulary:
            raise UserError(f"--token_counts {path}: {counts.vocab_size} counts, {info.path} has a vocabulary of {vocabulary}; count these "
                            "shards with dataset/count_tokens.py")
        if None not in (counts.tokenizer_sha256, sha256) and counts.tokenizer_sha256 != sha256:
            raise UserError(f"--token_counts {path}: tokenizer_sha256 is {counts.tokenizer_sha256}, expected {sha256} of the run's "
                            "tokenizer; count the run's shards with dataset/count_tokens.py")
    return counts


def _say_if_casing_differs(resolved: Resolved, shards: list[ShardInfo], tokenizer: Tokenizer, source: str) -> None:
    """A note where the tokenizer that goes out with the student would read text in another way than the shards' did."""
    lowercases = is_lowercasing(tokenizer)
    others = [info for info in shards if bool(info.attributes.get(ATTRIBUTE_LOWERCASE, lowercases)) != lowercases]
    if others:
        does, made = ("lower-cases", "without") if lowercases else ("does not lower-case", "with")
        resolved.notes.append(f"{len(others)} of {len(shards)} shards were made {made} lower-casing and the tokenizer {source}, which is "
                              f"saved with the student, {does}: it would give the student other ids than it was trained on")


def _say_in_force(resolved: Resolved) -> None:
    """Notes on the flags of data that change what a step computes, or in which order, and that nothing else shows."""
    data, optimization, distillation = resolved.args.data, resolved.args.optimization, resolved.args.distillation
    if data.token_counts is not None:
        resolved.notes.append(f"--token_counts {data.token_counts}: training masks fall on rare tokens more often, by --mlm_smoothing "
                              f"{data.mlm_smoothing:g}")
    if distillation.truncated_target == REST and distillation.temperature != 1 and any(
            part.name in ("logit", "reverse_kl", "symmetric_kl") for part in resolved.methods):
        resolved.notes.append(f"--temperature {distillation.temperature:g} softens {distillation.truncation_factor} entries and the rest "
                              "as one: far from all logits softened; --temperature 1 is near (docs/teacher_cache.md)")
    if data.group_by_length and optimization.train_batch_size > optimization.train_micro_batch_size_per_gpu:
        resolved.notes.append("--group_by_length: the samples of a step are cut into micro-batches by their length")


def _set_special_ids(student: StudentPlan, shard: ShardInfo, specials: SpecialIds | None, is_default_length: bool) -> None:
    """A tokenizer's special ids decide what counts as padding in some architectures; the shards know them, or the tokenizer does."""
    for key, name in (("pad_token_id", "pad"), ("bos_token_id", "cls"), ("eos_token_id", "sep")):
        found = shard.attributes.get(f"{name}_token_id", getattr(specials, name, None))
        if found is not None:
            student.config.setdefault(key, int(found))
    if is_default_length:
        student.config["max_position_embeddings"] += student.architecture.reserved_positions(student.config)


def _vocabulary(student: StudentPlan, train: list[ShardInfo], tokenizer: Tokenizer | None) -> int:
    """The student's vocabulary size; a student from scratch that was told nothing takes the shards', else the tokenizer's."""
    if student.config.get("vocab_size") is not None:
        return student.config["vocab_size"]
    return int(train[0].attributes.get("vocab_size", 30522 if tokenizer is None else vocabulary_size(tokenizer)))


def _tokenizer_source(args: Any, teacher: ModelFolder | None, student: StudentPlan) -> str:
    name = args.model.tokenizer_name
    if name is not None:
        if not Path(name).expanduser().exists() and not HUB_NAME.fullmatch(name):
            raise UserError(f"--tokenizer_name {name}: no such file or folder; give a folder, a vocab.txt or a hub name")
        return name
    for folder in (student.folder, teacher.path if teacher else None):
        if folder is not None and holds_tokenizer(folder):
            return str(folder)
    raise UserError("no tokenizer to save with the student: give --tokenizer_name FOLDER (or vocab.txt, or a hub name)")


def _check_shards(
    resolved: Resolved, models: list[tuple[dict[str, Any], Architecture]], shards: list[ShardInfo], tokenizer: Tokenizer | None,
    digest: str | None,
) -> None:
    """Whether every model of the run, given by its configuration under our names and its row, can read `shards`."""
    vocabulary = min(config["vocab_size"] for config, _ in models)
    positions = min(config["max_position_embeddings"] - row.reserved_positions(config) for config, row in models)
    causal = any(row.causal for _, row in models)
    if shards[0].max_seq_length > positions:
        raise UserError(f"{shards[0].path}: sequences of {shards[0].max_seq_length} tokens, the models have {positions} positions; "
                        "shards of at most that length are needed")
    for info in shards:
        lost = [name for name in _MASKING_ATTRIBUTES if name not in info.attributes]
        if info.masking == NO_MASKING and lost and not causal:
            raise UserError(f"{info.path}: no masked_lm_positions in it, and no attribute {lost[0]} that says how to draw them; make the "
                            "shard with dataset/generate_samples.py")
        if digest is not None:
            check_tokenizer(info, digest)
        # Our shards were checked when they were written and say so; reading every id of a corpus would take minutes.
        if not info.is_ours or ATTRIBUTE_TOKENIZER not in info.attributes:
            check_foreign(info, tokenizer, vocabulary, causal)
        elif int(info.attributes.get("vocab_size", 0)) > vocabulary:
            check_ids(info.path, vocabulary)
    batch, rows = resolved.args.optimization.train_batch_size, sum(info.rows for info in shards if info.split == "train")
    if batch > rows:
        resolved.notes.append(f"--train_batch_size {batch} is more than the {rows} training samples: a step sees samples repeatedly")


def _write_back(args: Any, student: StudentPlan, objectives: ObjectivePlan, tokenizer_source: str) -> None:
    """Put what was decided by files into the flags, so that args.yaml repeats the run even if defaults change."""
    for name in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
                 "hidden_dropout_prob", "attention_probs_dropout_prob", "max_position_embeddings", "type_vocab_size",
                 "initializer_range"):
        setattr(args.model, name, student.config.get(name))
    row = student.architecture
    if args.model.model_type is None or find_architecture(args.model.model_type) != row:
        args.model.model_type = model_type_of(row.family)
    args.model.encoder_ln_mode, args.model.layernorm_embedding = "pre-ln" if row.pre_ln else "post-ln", row.embedding_norm
    args.model.tokenizer_name = tokenizer_source
    if student.source == "teacher":
        args.distillation.student_layers = ",".join(map(str, student.layers))
    chosen = {(part.student_layers, part.teacher_layers) for part in objectives.parts.values() if part.teacher_layers}
    if len(chosen) == 1:  # objectives of one run may differ in what they compare by default
        for name, layers in zip(("student_layer_selection", "layer_selection"), chosen.pop(), strict=True):
            setattr(args.distillation, name, ",".join(map(str, layers)))
    if "minilm_v2" in objectives.parts:
        args.distillation.relation_heads = objectives.relation_heads
