"""What run_pretraining.py trains: from a checked plan to teacher, student, shards and exports, as the parts of a run."""

from typing import Any

import numpy as np
import torch

from dataset.shard_format import ATTRIBUTE_TOKENIZER, ShardInfo, check_tokenizer
from dataset.token_counts import TokenCounts
from dataset.tokenizer import load_tokenizer, masking_exclusions, vocabulary_sha256, vocabulary_size, word_continuations
from pretraining.assemble_models import build_models, layers_compared
from pretraining.assemble_run import Parts, choose_device, make_trainer, run_on_ranks
from pretraining.batches.augmentation import Augmentation
from pretraining.batches.loader import collate
from pretraining.batches.samples import MaskingRule, ShardReader
from pretraining.batches.smoothing import Smoothing
from pretraining.control import Control
from pretraining.data_identity import data_identity
from pretraining.export import ExportRecipe, load_hf_tokenizer
from pretraining.foreign_shards import check_foreign
from pretraining.models.loading import quiet_transformers
from pretraining.precision import Precision
from pretraining.preflight import Plan, asks_for_whole_words
from pretraining.stopping import StopSignal
from pretraining.teacher_cache.reader import CacheReader
from pretraining.throughput import CostPerToken
from pretraining.trainer import Trainer
from pretraining.validation import Validator


def run(plan: Plan, signal: StopSignal) -> str:
    """Train as planned; returns the exit reason. Writes nothing before everything that can be checked was checked."""
    device, precision = choose_device(plan.resolved)
    quiet_transformers()
    tokenizer = load_hf_tokenizer(plan.tokenizer_source)
    if plan.tokenizer_sha256 is None:  # a hub name, which no check before this could open
        for info in plan.train_shards + plan.test_shards:
            check_tokenizer(info, vocabulary_sha256(tokenizer.backend_tokenizer))
            if ATTRIBUTE_TOKENIZER not in info.attributes:
                check_foreign(info, tokenizer.backend_tokenizer, plan.student.config["vocab_size"], plan.architecture.causal)
    return run_on_ranks(plan, device, lambda control: prepare(plan, tokenizer, control, precision, device, signal))


def prepare(
    plan: Plan, tokenizer: Any, control: Control, precision: Precision, device: torch.device, signal: StopSignal,
) -> Trainer:
    """Everything that a run is made of, ready to start; the ranks must have been joined."""
    models = build_models(plan, precision, device)
    recipe = ExportRecipe(
        built=models.built, architecture=plan.architecture, tokenizer=tokenizer, flags=plan.resolved.args.as_dict(),
        methods=plan.resolved.methods, head_trained=models.head_trained, sequence_length=plan.train_shards[0].max_seq_length,
        frozen=models.frozen, kept=models.kept, layers=layers_compared(plan))
    layers = sum(parameter.numel() for parameter in models.module.student.layers.parameters())
    parts = Parts(
        module=models.module, teacher=models.teacher, reader=_reader(plan, plan.train_shards, plan.token_counts),
        rows=[info.rows for info in plan.train_shards], collate=collate, validator=_validator(plan, control, precision, device),
        recipe=recipe, cost=CostPerToken(layers, models.teacher.layer_parameters if models.teacher else 0),
        identify=lambda: data_identity(plan))
    return make_trainer(plan, parts, control, precision, device, signal)


def _reader(plan: Plan, shards: list[ShardInfo], counts: TokenCounts | None = None) -> ShardReader:
    """The reader of training or held-out `shards`; `counts` smooth the masks of training ones."""
    args, vocabulary, causal = plan.resolved.args, plan.student.config["vocab_size"], plan.architecture.causal
    masking = augmentation = smoothing = None
    masks = any(info.masking == "none" for info in shards) and not causal
    if masks or args.distillation.aug:
        tokenizer = load_tokenizer(plan.tokenizer_source)
        excluded: np.ndarray = masking_exclusions(tokenizer)
        if masks:
            continues = word_continuations(tokenizer) if any(map(asks_for_whole_words, shards)) else None
            masking = MaskingRule(args.run.seed, excluded, continues)
        if counts is not None:
            share = float(shards[0].attributes["masked_lm_prob"])
            smoothing = Smoothing(counts.counts, args.data.mlm_smoothing, excluded[excluded < counts.vocab_size], share)
        if args.distillation.aug:
            augmentation = Augmentation(args.run.seed, excluded, min(vocabulary, vocabulary_size(tokenizer)))
    return ShardReader(shards, vocabulary, args.data.max_predictions_per_seq, masking, causal=causal, augmentation=augmentation,
                       smoothing=smoothing, stored=_stored(plan))


def _stored(plan: Plan) -> CacheReader | None:
    return None if plan.cache is None else CacheReader(plan.cache.folder, plan.cache.targets, plan.cache.layers)


def _validator(plan: Plan, control: Control, precision: Precision, device: torch.device) -> Validator | None:
    flags = plan.resolved.args.validation
    if not flags.do_validation:
        return None
    return Validator(_reader(plan, plan.test_shards), flags.validation_samples, flags.validation_micro_batch, control, precision, device)
