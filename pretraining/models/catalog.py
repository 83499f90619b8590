"""Architectures in one table: where the layers, the embeddings and the MLM head of each `transformers` class are.

Imports no torch: flags are checked against this table before anything heavy is loaded. Adding an architecture is adding a row.
"""

import json
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
    decoder: str
    # Positions that a tokenizer's maximal length cannot use (RoBERTa counts from padding_idx + 1).
    reserved_positions: int = 0


ARCHITECTURES: dict[str, Architecture] = {
    "bert-mlm": Architecture(
        family="bert", mlm_class="BertForMaskedLM", base_class="BertModel",
        base="bert", layers="bert.encoder.layer", head="cls.predictions", decoder="cls.predictions.decoder",
    ),
    "bert-mlm-roberta": Architecture(
        family="roberta", mlm_class="RobertaForMaskedLM", base_class="RobertaModel",
        base="roberta", layers="roberta.encoder.layer", head="lm_head", decoder="lm_head.decoder", reserved_positions=2,
    ),
}

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
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{flag} {path}: config.json is not JSON ({error}); save the model again with save_pretrained") from None
    weights = next((name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if weights is None:
        raise UserError(f"{flag} {path}: no weights in it; one of {', '.join(WEIGHT_FILES)} is needed")
    found = config.get("model_type") if isinstance(config, dict) else None
    if found != architecture.family:
        raise UserError(f"{flag} {path}: config.json says model_type {found!r}, --model_type needs {architecture.family!r}; "
                        f"known: {', '.join(f'{name} ({row.family})' for name, row in ARCHITECTURES.items())}")
    return ModelFolder(folder, config, _has_head(folder / weights, architecture, f"{flag} {path}"))


def _has_head(weights: Path, architecture: Architecture, source: str) -> bool | None:
    """Whether the weights hold an MLM head, read from the names in the file; None for a pickle, which is not opened here."""
    prefix = f"{architecture.head}."
    if weights.name.endswith(".index.json"):
        return any(name.startswith(prefix) for name in json.loads(weights.read_text())["weight_map"])
    if weights.suffix == ".safetensors":
        try:
            with weights.open("rb") as file:
                size = int.from_bytes(file.read(8), "little")
                if not 0 < size < 100_000_000:
                    raise ValueError("no header")
                names = json.loads(file.read(size))
        except ValueError:
            raise UserError(f"{source}: {weights.name} is not a safetensors file; copy it again") from None
        return any(name.startswith(prefix) for name in names)
    return None
