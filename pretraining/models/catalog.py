"""Architectures in one table: where the layers, the embeddings and the MLM head of each `transformers` class are.

Imports no torch: flags are checked against this table before anything heavy is loaded. Adding an architecture is adding a row.
"""

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataset.errors import UserError


@dataclass(frozen=True)
class Architecture:
    """One row. Module paths are relative to the class named by `mlm_class`.

    `family` is `config.json`'s `model_type`; `mlm_class` and `base_class` are names in `transformers`.
    """

    family: str
    mlm_class: str
    base_class: str
    base: str
    layers: str
    head: str
    # Positions that a tokenizer's maximal length cannot use (RoBERTa counts from padding_idx + 1).
    reserved_positions: int = 0


ARCHITECTURES: dict[str, Architecture] = {
    "bert-mlm": Architecture(
        family="bert", mlm_class="BertForMaskedLM", base_class="BertModel",
        base="bert", layers="bert.encoder.layer", head="cls.predictions",
    ),
    "bert-mlm-roberta": Architecture(
        family="roberta", mlm_class="RobertaForMaskedLM", base_class="RobertaModel",
        base="roberta", layers="roberta.encoder.layer", head="lm_head", reserved_positions=2,
    ),
}

# What config.json must say in whole numbers, and what it may leave to the defaults of `transformers`.
_SIZES = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
_OPTIONAL_SIZES = ("max_position_embeddings", "type_vocab_size")
_OPTIONAL_NUMBERS = ("hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range", "layer_norm_eps")

_LARGEST_HEADER = 100_000_000  # bytes, the limit of the safetensors format

WEIGHT_FILES = (
    "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json",
)


@dataclass(frozen=True)
class ModelFolder:
    """A Hugging Face folder as its config.json describes it. `has_head` is None where only loading can tell."""

    path: Path
    config: dict[str, Any]
    has_head: bool | None

    @property
    def family(self) -> str:
        return self.config.get("model_type", "?")


def read_model_folder(path: str, flag: str, architecture: Architecture) -> ModelFolder:
    """What config.json and the weights' index in `path` say; a UserError naming `flag` for a folder that cannot work."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise UserError(f"{flag} {path}: no such folder; give a Hugging Face folder with config.json and model.safetensors")
    config_file = folder / "config.json"
    if not config_file.is_file():
        raise UserError(f"{flag} {path}: no config.json in it; give a Hugging Face folder")
    try:
        config = json.loads(config_file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{flag} {path}: config.json is not JSON ({error}); save the model again with save_pretrained") from None
    weights = next((name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if weights is None:
        raise UserError(f"{flag} {path}: no weights in it; one of {', '.join(WEIGHT_FILES)} is needed")
    found = config.get("model_type") if isinstance(config, dict) else None
    if found != architecture.family:
        raise UserError(f"{flag} {path}: config.json says model_type {found!r}, --model_type needs {architecture.family!r}; "
                        f"known: {', '.join(f'{name} ({row.family})' for name, row in ARCHITECTURES.items())}")
    if config.get("is_decoder"):
        raise UserError(f"{flag} {path}: config.json says is_decoder, which attends to the left only; an encoder is needed")
    _check_sizes(config, f"{flag} {path}")
    names = _weight_names(folder / weights, f"{flag} {path}")
    has_head = None if names is None else any(name.startswith(f"{architecture.head}.") for name in names)
    return ModelFolder(folder, config, has_head)


def _check_sizes(config: dict[str, Any], source: str) -> None:
    missing = [name for name in _SIZES if name not in config]
    if missing:
        raise UserError(f"{source}: config.json lacks {missing[0]}; save the model again with save_pretrained")
    for name in (*_SIZES, *_OPTIONAL_SIZES):
        value = config.get(name, 1)
        if type(value) is not int or not 0 < value < 2**31:
            raise UserError(f"{source}: config.json says {name} {value!r}, expected a whole number above 0")
    for name in _OPTIONAL_NUMBERS:
        value = config.get(name, 0)
        if type(value) not in (int, float) or not 0 <= value < 1:
            raise UserError(f"{source}: config.json says {name} {value!r}, expected a number from 0 to below 1")
    if not isinstance(config.get("hidden_act", ""), str):
        raise UserError(f"{source}: config.json says hidden_act {config['hidden_act']!r}, expected a name such as gelu")
    if config["hidden_size"] % config["num_attention_heads"]:
        raise UserError(f"{source}: config.json says hidden_size {config['hidden_size']}, which does not divide by "
                        f"num_attention_heads {config['num_attention_heads']}")


def _weight_names(weights: Path, source: str) -> list[str] | None:
    """Names of the stored weights; None for a pickle, which is not opened here. UserError for a file that is not whole."""
    if weights.name.endswith(".index.json"):
        return _indexed_names(weights, source)
    if weights.suffix != ".safetensors":
        with weights.open("rb") as file:
            is_bare_pickle = file.read(1) == b"\x80"  # as torch saved before 1.6; a zip archive since
        if not is_bare_pickle and not zipfile.is_zipfile(weights):
            raise UserError(f"{source}: {weights.name} is not a file of torch.save, or was cut short; copy it again")
        return None
    try:
        with weights.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if not 0 < size < _LARGEST_HEADER:
                raise ValueError("no header")
            entries = {name: entry for name, entry in json.loads(file.read(size)).items() if name != "__metadata__"}
        end = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
    except (ValueError, AttributeError, TypeError, KeyError, IndexError, RecursionError):
        raise UserError(f"{source}: {weights.name} is not a safetensors file; copy it again") from None
    found, expected = weights.stat().st_size, 8 + size + end
    if found != expected:
        raise UserError(f"{source}: {weights.name} has {found} bytes, expected {expected}; copy it again")
    return list(entries)


def _indexed_names(index: Path, source: str) -> list[str]:
    try:
        places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        missing = sorted({place for place in places.values() if not (index.parent / place).is_file()})
    except (ValueError, AttributeError, TypeError, KeyError, RecursionError):
        raise UserError(f"{source}: {index.name} is no index of weights; copy it again") from None
    if missing:
        raise UserError(f"{source}: {index.name} names {missing[0]}, which is not there; copy the whole folder again")
    return list(places)
