"""A causal language model in memory: loaded from a folder, or new from a configuration, with a tokenizer made of the task's text."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from dataset.errors import UserError, nearest
from evaluation.fine_tuning.heads import quiet_transformers
from task_distillation.generation.flags import SamplingSettings, TrainingSettings
from task_distillation.generation.lm_folder import POSITIONS, WOULD_WORK, check_positions
from task_distillation.generation.text import Codec

END_OF_TEXT = "<|endoftext|>"
NEW_VOCABULARY = 8000
PROBE_TOKENS = 4
ROUNDING = 1e-5
"""Of the largest logit: far above fp32's, and far below what a new model's attention to a later token changes."""
LOADING = (OSError, ValueError, KeyError, RuntimeError, ImportError, AttributeError, TypeError, AssertionError, SafetensorError)
"""What transformers makes of folders and settings that it cannot use."""


@dataclass(frozen=True)
class LanguageModel:
    """fp32 on the CPU as it was loaded; `where` stands for it in messages."""

    model: PreTrainedModel
    codec: Codec
    where: Path


def load(folder: Path, training: TrainingSettings, sampling: SamplingSettings) -> LanguageModel:
    """The model of `folder` with its tokenizer; UserError for a folder that does not load whole, or is of no causal language model."""
    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            model, info = AutoModelForCausalLM.from_pretrained(
                folder, dtype=torch.float32, output_loading_info=True, local_files_only=True, trust_remote_code=False)
    except LOADING as error:
        raise UserError(f"{folder}: transformers cannot load it as a causal language model: {_first_line(error)}") from None
    if lost := sorted([*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])]):
        raise UserError(f"{folder}: {len(lost)} weights are missing or of another shape, first {lost[0]}; a whole model would work")
    # Weights that lie in the file's pages lie where its header puts them, and a matrix product's last bit depends on that.
    for weight in model.parameters():
        weight.data = weight.data.clone()
    return _checked(LanguageModel(model.eval(), Codec(tokenizer, folder), folder), training, sampling)


def create(
    path: Path, settings: dict[str, Any], tokenizer: PreTrainedTokenizerBase, training: TrainingSettings, sampling: SamplingSettings
) -> LanguageModel:
    """A new model of the configuration `settings`, which the file `path` holds, with random weights from torch's seed.

    Its vocabulary is the tokenizer's. UserError for a configuration that transformers has no causal language model of, and for a key that
    it does not know.
    """
    codec = Codec(tokenizer, path)
    ids = {"eos_token_id": codec.eos, "bos_token_id": codec.start[0] if codec.start else codec.eos, "pad_token_id": codec.eos}
    given = {key: value for key, value in settings.items() if key not in ("model_type", "vocab_size", "architectures", *ids)}
    try:
        with quiet_transformers():
            plain = AutoConfig.for_model(settings["model_type"])
            known = {*plain.to_dict(), *PretrainedConfig().to_dict(), *plain.attribute_map}
            if unknown := [key for key in given if key not in known]:
                raise UserError(f"--lm_config {path}: {settings['model_type']} has no {unknown[0]!r}{nearest(unknown[0], known)}")
            config = AutoConfig.for_model(settings["model_type"], vocab_size=codec.size, **ids, **given)
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False).float()
    except LOADING as error:
        raise UserError(f"--lm_config {path}: transformers cannot make a causal language model of it: {_first_line(error)}") from None
    return _checked(LanguageModel(model.eval(), codec, path), training, sampling)


def train_tokenizer(texts: Iterable[str], size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE of at most `size` tokens (at least the 256 bytes and the end of text) that any text can be written in and read
    back from unchanged. Merges of pieces that occur once are left out."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=size, min_frequency=2, special_tokens=[END_OF_TEXT], show_progress=False,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    raw.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token=END_OF_TEXT)


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of `folder`; UserError where transformers cannot load it."""
    try:
        with quiet_transformers():
            return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except LOADING as error:
        raise UserError(f"--lm_tokenizer {folder}: transformers cannot load it: {_first_line(error)}") from None


def _checked(lm: LanguageModel, training: TrainingSettings, sampling: SamplingSettings) -> LanguageModel:
    config = lm.model.config
    check_positions(lm.where, {name: getattr(config, name, None) for name in POSITIONS}, training, sampling, len(lm.codec.start))
    rows = lm.model.get_input_embeddings().num_embeddings
    if lm.codec.size > rows:
        raise UserError(f"{lm.where}: the tokenizer has {lm.codec.size} tokens and the model {rows}; the model's own tokenizer would work")
    if config.is_encoder_decoder or not _is_causal(lm.model):
        raise UserError(f"{lm.where}: a language model that is not causal ({config.model_type}); {WOULD_WORK}")
    return lm


@torch.inference_mode()
def _is_causal(model: PreTrainedModel) -> bool:
    """Whether what the model says at a place is the same whatever token comes after it, but for rounding."""
    ids = torch.arange(PROBE_TOKENS).remainder(model.get_input_embeddings().num_embeddings).repeat(2, 1)
    ids[1, -1] = 0
    logits = model(input_ids=ids).logits[:, :-1]
    return bool((logits[0] - logits[1]).abs().max() <= ROUNDING * logits.abs().max())


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0][:300] or type(error).__name__
