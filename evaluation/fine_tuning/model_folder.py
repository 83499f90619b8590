"""What can be known of a Hugging Face model folder without importing torch: is it whole, does it fit, which weights.

A folder that loads "somehow" is the worst case for a benchmark, because the score of random weights is still a score.
So what is missing is an error here, before minutes are spent.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from dataset.errors import UserError

SINGLE_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
SHARDED_WEIGHTS = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model")
# These number positions from pad_token_id + 1, so that many of their position embeddings hold no token.
OFFSET_POSITIONS = ("roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet")


def read_config(folder: Path) -> dict[str, Any]:
    """`config.json` of `folder` as a dictionary; UserError where there is none or it names no model type."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give a Hugging Face model folder on this machine")
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"{folder}: no config.json; give a Hugging Face model folder (config, weights, tokenizer)")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not JSON ({error}); the folder is damaged or was written only in part") from None
    if not isinstance(config, dict) or "model_type" not in config:
        raise UserError(f"{path}: no model_type; give the folder of an encoder that transformers knows")
    return config


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights, in a fixed order; UserError where there is none or one is missing."""
    for name in SINGLE_WEIGHTS:
        if (folder / name).is_file():
            return [folder / name]
    for name in SHARDED_WEIGHTS:
        if (folder / name).is_file():
            shards = set(json.loads((folder / name).read_text(encoding="utf-8"))["weight_map"].values())
            missing = sorted(shard for shard in shards if not (folder / shard).is_file())
            if missing:
                raise UserError(f"{folder}: no {missing[0]}, which {name} lists; copy the whole folder")
            return [folder / shard for shard in sorted(shards)]
    raise UserError(f"{folder}: no weights; expected {SINGLE_WEIGHTS[0]} beside config.json")


def check_model_folder(folder: Path, max_seq_length: int) -> None:
    """Raise UserError unless `folder` has a config, whole weights, a tokenizer and positions for `max_seq_length`."""
    config = read_config(folder)
    files = weight_files(folder)
    if not any((folder / name).is_file() for name in TOKENIZERS):
        raise UserError(f"{folder}: no tokenizer; expected tokenizer.json or vocab.txt beside config.json")
    for path in files:
        if path.suffix == ".safetensors":
            _check_safetensors(path)
    positions = config.get("max_position_embeddings")
    if isinstance(positions, int) and positions > 0:
        if config["model_type"] in OFFSET_POSITIONS:
            positions -= config.get("pad_token_id", 1) + 1
        if max_seq_length > positions:
            raise UserError(
                f"--max_seq_length {max_seq_length}: the model in {folder} has {positions} positions; "
                f"give {positions} or less"
            )


def _check_safetensors(path: Path) -> None:
    """UserError where the header cannot be read or the file is shorter than its header says."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np"):
            pass
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: cannot be read ({error}); the file is damaged or was copied only in part") from None


def fingerprint(folder: Path) -> str:
    """SHA-256 of weights, config and tokenizer: equal for a copied or moved folder, different after any change."""
    names = ("config.json", "tokenizer_config.json", *TOKENIZERS)
    digest = hashlib.sha256()
    for path in [*weight_files(folder), *(folder / name for name in names if (folder / name).is_file())]:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
