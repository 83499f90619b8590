"""A checkpoint of academic-budget-bert as a Hugging Face folder, and back.

    python -m pretraining.convert_budget_bert --input_dir old_student --output_dir student
    python -m pretraining.convert_budget_bert --input_dir student --output_dir old_student --linear separate

The direction is read off the folder: one whose config.json or weights speak their language becomes one of ours, any other BERT one of
theirs. Weights keep every bit and their data type. Post-LN models become BERT, pre-LN ones RoBERTa-PreLayerNorm. What no class of
transformers computes exactly is refused.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from dataset.errors import OneLineParser, UserError, run_command
from dataset.files import whole_folder

OURS, THEIRS = "hugging-face", "budget-bert"
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt")


def parse_flags(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = OneLineParser(prog="pretraining.convert_budget_bert", description=__doc__, allow_abbrev=False,
                           formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input_dir", type=Path, required=True, help="folder with config.json and the weights")
    parser.add_argument("--output_dir", type=Path, required=True, help="folder to make; it must not exist")
    parser.add_argument("--to", choices=(OURS, THEIRS), help="what to make; default: the other of the two")
    parser.add_argument("--linear", choices=("fused", "separate"),
                        help="their --fused_linear_layer true or false; default: as the model had it, else fused")
    return parser.parse_args(arguments)


def convert(flags: argparse.Namespace) -> Path:
    """Write the other layout of `flags.input_dir`, whole or not at all; returns the folder."""
    folder, target = flags.input_dir.expanduser(), flags.output_dir.expanduser()
    if target.exists():
        raise UserError(f"--output_dir {target}: it exists; choose a new folder")
    config = _read_config(folder)
    source = f"--input_dir {folder}"
    from pretraining.models.budget_bert import bias_note, is_theirs, to_ours, to_theirs

    found = THEIRS if is_theirs(config) else OURS
    weights = _read_weights(folder)
    if any("dense_act" in name or "PreAttentionLayerNorm" in name for name in weights):
        found = THEIRS
    if flags.to == found:
        raise UserError(f"--to {flags.to}: {folder} is of that layout already; leave the flag out to make the other")
    if found == THEIRS:
        if flags.linear is not None:
            raise UserError("--linear says how academic-budget-bert's layout is written, and this folder is of it already; leave it out")
        note = bias_note(config, weights)
        config, weights = to_ours(config, weights, source)
        _check_complete(config, weights, source)
        if note is not None:
            print(f"note: {note}")
    else:
        _check_complete(config, weights, source)
        config, weights = to_theirs(config, weights, None if flags.linear is None else flags.linear == "fused", source)
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole_folder(target) as partial:
        (partial / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        _write_weights(partial, weights, found)
        for name in _TOKENIZER_FILES:
            if (folder / name).is_file():
                shutil.copyfile(folder / name, partial / name)
    return target


def _check_complete(config: dict[str, Any], weights: dict[str, Any], source: str) -> None:
    """UserError unless `weights`, by our names, hold every weight of the encoder that `config` describes, in its shape."""
    import torch

    from pretraining.models.catalog import ARCHITECTURES, model_type_of
    from pretraining.models.loading import make_config, model_class

    try:
        architecture = ARCHITECTURES[model_type_of(config["model_type"])]
        with torch.device("meta"):
            model = model_class(architecture, has_head=False)(make_config(architecture.canonical(config), architecture))
    except Exception as error:  # a config.json of anything at all: transformers has many kinds of complaints
        raise UserError(f"{source}: config.json describes no BERT ({str(error).splitlines()[0][:160]}); copy it again") from None
    found = {name.removeprefix(f"{architecture.base}."): tensor.shape for name, tensor in weights.items()}
    lost = [name for name, tensor in model.state_dict().items() if not name.startswith("pooler.") and found.get(name) != tensor.shape]
    if lost:
        raise UserError(f"{source}: {len(lost)} weights are missing or of another shape than config.json says, such as {lost[0]}; the "
                        "folder of a whole model converts")


def _read_config(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    if not file.is_file():
        raise UserError(f"--input_dir {folder}: no config.json in it; a folder with config.json and pytorch_model.bin or model.safetensors "
                        "is needed")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{file}: not JSON ({error}); copy it again") from None
    if not isinstance(config, dict):
        raise UserError(f"{file}: no configuration of a model; copy it again")
    return config


def _read_weights(folder: Path) -> dict[str, Any]:
    """Every tensor of model.safetensors, else of pytorch_model.bin, which is read as data and never run."""
    import torch
    from safetensors.torch import load_file

    file = next((folder / name for name in ("model.safetensors", "pytorch_model.bin") if (folder / name).is_file()), None)
    if file is None:
        raise UserError(f"--input_dir {folder}: no weights in it; pytorch_model.bin or model.safetensors is needed")
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        weights = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # safetensors, zip and pickle each have their own kind for a broken file
        raise UserError(f"{file}: cannot be read as weights ({str(error).splitlines()[0][:160]}); copy it again") from None
    if not isinstance(weights, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in weights.values()):
        raise UserError(f"{file}: no dictionary of weights; the pytorch_model.bin of a fine-tune checkpoint is needed")
    return weights


def _write_weights(folder: Path, weights: dict[str, Any], found: str) -> None:
    import torch
    from safetensors.torch import save_file

    if found == OURS:
        torch.save(weights, folder / "pytorch_model.bin")
    else:
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / "model.safetensors", metadata={"format": "pt"})


def main() -> None:
    target = convert(parse_flags())
    print(f"wrote {target}")


if __name__ == "__main__":
    run_command(main)
