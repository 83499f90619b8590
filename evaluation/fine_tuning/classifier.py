"""An encoder folder as a classifier: loaded quietly, with nothing random in it but the new head, which is seeded.

transformers fills whatever a checkpoint lacks with random numbers and prints a table. Here only weights outside the
encoder, and a pooler (an MLM student has none), may be new; anything else missing is an error, since a score of random
layers would pass for a score. New weights are drawn per tensor from (seed, name), so that every marker of a run starts
with the same head, whatever else its folder holds or lacks. A folder that was fine-tuned before keeps only its encoder:
MNLI's head under RTE is how published RTE scores came to be irreproducible.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from dataset.errors import UserError
from evaluation.fine_tuning.model_folder import read_config
from evaluation.tasks.table import Examples, Task


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


def load_classifier(
    folder: Path, task: Task, seed: int
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, list[str]]:
    """Model (fp32, CPU), tokenizer and the names of its new weights; UserError for a folder that does not load whole.

    The model's config names the task's labels in the order of `task.label_names`.
    """
    labels = dict(enumerate(task.label_names))
    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            model, info = AutoModelForSequenceClassification.from_pretrained(
                folder, id2label=labels, label2id={name: number for number, name in labels.items()},
                dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True,
                local_files_only=True, trust_remote_code=False,
            )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        reason = str(error).strip().split("\n")[0][:300]
        raise UserError(f"{folder}: transformers cannot load it as a classifier: {reason}") from None
    new = _new_weights(folder, model, info)
    draw_new_weights(model, new, seed)
    return model, tokenizer, new


def _new_weights(folder: Path, model: PreTrainedModel, info: dict) -> list[str]:
    """Names of the parameters that are not the folder's; UserError where one of them belongs to the encoder."""
    encoder = f"{model.base_model_prefix}."
    new = set(info["missing_keys"]) | {key for key, *_ in info["mismatched_keys"]}
    lost = sorted(name for name in new if name.startswith(encoder) and ".pooler." not in name)
    if lost:
        raise UserError(
            f"{folder}: {len(lost)} weights of the encoder are missing or of another shape, first {lost[0]}; "
            f"export the model again with save_pretrained"
        )
    # What the folder's own head was trained on is unknown, so a head that loaded is made new as well.
    if any(name.endswith("ForSequenceClassification") for name in read_config(folder).get("architectures") or []):
        new |= {name for name, _ in model.named_parameters() if not name.startswith(encoder)}
    return sorted(new)


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


def encode(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, examples: Examples, max_seq_length: int
) -> tuple[dict[str, list[list[int]]], np.ndarray]:
    """Tokenizer outputs by name, unpadded and cut to `max_seq_length` (of a pair the longer text first), and lengths.

    Padding and truncation are said outright because tokenizer.json may carry its own. UserError where an id has no row
    in the model's embeddings: then folder and tokenizer do not belong together.
    """
    encoded = dict(tokenizer(*examples.texts, truncation="longest_first", max_length=max_seq_length, padding=False))
    # A tokenizer of BERT's kind gives segments to any model; one that has a single kind (RoBERTa), or none, has no row for the second.
    segments = ("token_type_ids",) if getattr(model.config, "type_vocab_size", 0) > 1 else ()
    encoded = {name: encoded[name] for name in ("input_ids", "attention_mask", *segments) if name in encoded}
    rows = model.get_input_embeddings().num_embeddings
    largest = max(max(ids) for ids in encoded["input_ids"])
    if largest >= rows:
        raise UserError(
            f"{model.name_or_path}: its tokenizer gives id {largest}, its model has {rows} embeddings; "
            f"put the tokenizer beside the model that was trained with it"
        )
    return encoded, np.array([len(ids) for ids in encoded["input_ids"]])
