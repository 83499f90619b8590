"""An encoder folder with a head for a task: loaded quietly, with nothing random in it but a new head, which is seeded.

transformers fills whatever a checkpoint lacks with random numbers and prints a table. Here weights outside the encoder are always new, a
pooler (an MLM student has none) may be; anything else missing is an error, since a score of random layers would pass for a score. New
weights are drawn per tensor from (seed, name), so that every marker of a run starts with the same head, whatever else its folder holds or
lacks. A folder that was fine-tuned before keeps only its encoder: MNLI's head under RTE is how published RTE scores came to be
irreproducible, and no config.json has to say so for a head to be one.
Where a model's own head is asked for (a teacher, a model to score), nothing at all may be new.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import (
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_MASKED_LM_MAPPING_NAMES
from transformers.utils import logging

from dataset.errors import UserError
from evaluation.fine_tuning.model_folder import read_config
from evaluation.tasks.task import Task

PROBLEM_TYPES = {"classification": "single_label_classification", "regression": "regression", "span": None}


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """transformers' messages below errors and its progress bars off, as they were afterwards."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def label_names(task: Task) -> tuple[str, ...]:
    """What config.json calls the head's outputs; a regression's has transformers' own name, which means that it has none."""
    return {"classification": task.label_names, "regression": ("LABEL_0",), "span": ("start", "end")}[task.kind]


def load_with_new_head(folder: Path, task: Task, seed: int) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, list[str]]:
    """Model (fp32, CPU), tokenizer and the names of its new weights; UserError for a folder that does not load whole.

    The model's config names the task's labels in the order of `task.label_names`.
    """
    names = dict(enumerate(label_names(task)))
    labels = {"id2label": names, "label2id": {name: number for number, name in names.items()}, "problem_type": PROBLEM_TYPES[task.kind]}
    model, tokenizer, info = _load(folder, task, ignore_mismatched_sizes=True, **labels)
    new = _new_weights(folder, model, info)
    draw_new_weights(model, new, seed)
    return model, tokenizer, new


def load_with_own_head(folder: Path, task: Task) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model (fp32, CPU) and tokenizer, with no weight that the folder does not have; UserError where one is missing."""
    model, tokenizer, info = _load(folder, task)
    if info["missing_keys"]:
        lost = sorted(info["missing_keys"])
        raise UserError(f"{folder}: {len(lost)} weights are missing, first {lost[0]}; give a model that was fine-tuned for {task.name}")
    return model, tokenizer


def _load(folder: Path, task: Task, **options: object) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, dict]:
    kind = AutoModelForQuestionAnswering if task.kind == "span" else AutoModelForSequenceClassification
    model_type = read_config(folder)["model_type"]
    if model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and model_type not in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        raise UserError(f"{folder}: not an encoder ({model_type}); a BERT, RoBERTa, DistilBERT, ELECTRA, DeBERTa or ModernBERT would work")
    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            model, info = kind.from_pretrained(
                folder, dtype=torch.float32, output_loading_info=True, local_files_only=True, trust_remote_code=False, **options)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, AttributeError) as error:
        reason = str(error).strip().split("\n")[0][:300]
        raise UserError(f"{folder}: transformers cannot load it for {task.name}: {reason}") from None
    # Weights that lie in the file's pages lie where its header puts them, and a matrix product's last bit depends on that.
    for weight in model.parameters():
        weight.data = weight.data.clone()
    return model, tokenizer, info


def _new_weights(folder: Path, model: PreTrainedModel, info: dict) -> list[str]:
    """Names of the parameters that are not to be the folder's; UserError where it lacks one of the encoder."""
    encoder = f"{model.base_model_prefix}."
    new = set(info["missing_keys"]) | {key for key, *_ in info["mismatched_keys"]}
    lost = sorted(name for name in new if name.startswith(encoder) and ".pooler." not in name)
    if lost:
        raise UserError(
            f"{folder}: {len(lost)} weights of the encoder are missing or of another shape, first {lost[0]}; "
            f"export the model again with save_pretrained"
        )
    # What the folder's own head was trained on is unknown, so one that loaded is made new as well.
    return sorted(new | {name for name, _ in model.named_parameters() if not name.startswith(encoder)})


@torch.no_grad()
def draw_new_weights(model: PreTrainedModel, names: list[str], seed: int) -> None:
    """Matrices normal with the config's `initializer_range`, other weights 1, biases 0; fixed by (seed, name)."""
    spread = getattr(model.config, "initializer_range", None) or 0.02
    for name in names:
        weight = model.get_parameter(name)
        if name.endswith("bias"):
            weight.zero_()
        elif weight.ndim < 2:
            weight.fill_(1.0)
        else:
            key = hashlib.sha256(f"{seed}:{name}".encode()).digest()
            random = torch.Generator().manual_seed(int.from_bytes(key[:8], "little") >> 1)
            weight.copy_(torch.randn(weight.shape, generator=random) * spread)
