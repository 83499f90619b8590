"""A student as a Hugging Face folder that any `transformers` user can load, with its card.

The folder holds fp32 safetensors and no pickle. A student without an MLM head is exported as the bare encoder together with the
pooler that its class expects, untrained, and the card says so.
"""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from dataset.errors import UserError
from dataset.files import whole_folder
from dataset.tokenizer import is_lowercasing, load_tokenizer
from pretraining.models.catalog import Architecture
from pretraining.models.loading import model_class
from pretraining.models.student import BuiltModel
from pretraining.objectives.catalog import OBJECTIVES, Part

STUDENT_PREFIX = "student.model."
OBJECTIVE_PREFIX = "objective."


def load_hf_tokenizer(source: str) -> transformers.PreTrainedTokenizerBase:
    """The tokenizer that exports carry, without the padding and truncation that some tokenizer.json files switch on."""
    path = Path(source).expanduser()
    try:
        tokenizer = _local_tokenizer(path) if path.exists() else transformers.AutoTokenizer.from_pretrained(source)
    except Exception as error:  # transformers raises many kinds for a missing or broken tokenizer
        raise UserError(f"--tokenizer_name {source}: cannot be loaded ({str(error).splitlines()[0][:160]}); a local folder with "
                        "tokenizer.json, or a vocab.txt, works") from None
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        backend.no_padding()
        backend.no_truncation()
    return tokenizer


def _local_tokenizer(path: Path) -> transformers.PreTrainedTokenizerBase:
    """A folder's tokenizer, or that of a vocab.txt or tokenizer.json file, lower-casing as the data pipeline does.

    transformers 5 takes no vocab.txt by name (its tokenizer would be empty without a word), and its BERT class builds the normalizer
    anew from `do_lower_case`, true by default, whatever tokenizer.json holds: a cased one would lower-case.
    """
    raw = load_tokenizer(path)
    lowercase = is_lowercasing(raw)
    if path.is_file():
        return transformers.BertTokenizerFast(tokenizer_object=raw, do_lower_case=lowercase)
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(path))
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None and is_lowercasing(backend) != lowercase:
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(path), do_lower_case=lowercase)
    return tokenizer


@dataclass(frozen=True)
class ExportRecipe:
    """What every export of a run shares."""

    built: BuiltModel
    architecture: Architecture
    tokenizer: transformers.PreTrainedTokenizerBase
    flags: dict[str, Any]
    methods: list[Part]
    head_trained: bool
    sequence_length: int
    frozen: list[str] = field(default_factory=list)  # names in the trained module
    kept: list[str] = field(default_factory=list)  # what the user has frozen, names in the student
    layers: dict[str, str] = field(default_factory=dict)  # objective -> the layers it compares

    def export(self, weights: dict[str, torch.Tensor], folder: Path, state: dict[str, Any]) -> None:
        """Write `folder`, whole or not at all: config, weights, tokenizer, card, run_state.json.

        `weights`: fp32 CPU tensors of the trained module by name; projections of objectives are left out. `state`: what run_state.json
        says.
        """
        own = {name.removeprefix(STUDENT_PREFIX): tensor for name, tensor in weights.items() if name.startswith(STUDENT_PREFIX)}
        model = _skeleton(self, own)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with whole_folder(folder) as partial:
            model.save_pretrained(partial)
            self.tokenizer.save_pretrained(partial)
            (partial / "README.md").write_text(model_card(self, model, state), encoding="utf-8")
            (partial / "run_state.json").write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")


def _skeleton(recipe: ExportRecipe, weights: dict[str, torch.Tensor]) -> nn.Module:
    """A model of the student's class that holds `weights` (names as in the student's own state)."""
    built = recipe.built
    with torch.device("meta"):
        model = model_class(recipe.architecture, built.has_head)(built.model.config)
    state = dict(weights) if built.has_head else {**weights, **built.pooler}
    result = model.load_state_dict(state, strict=False, assign=True)
    model.tie_weights()
    left_over = [name for name, tensor in model.named_parameters() if tensor.is_meta]
    if left_over or result.unexpected_keys:
        raise RuntimeError(f"export lacks {left_over} or has {result.unexpected_keys}")
    return model


def model_card(recipe: ExportRecipe, model: nn.Module, state: dict[str, Any]) -> str:
    """The README.md of an export: what it is, from what, how long, how good, and what was not trained."""
    flags, built = recipe.flags, recipe.built
    teacher = flags["teacher_path"] if flags["distillation"] else None
    auto_class = recipe.architecture.auto_class if built.has_head else "AutoModel"
    parameters = sum(parameter.numel() for parameter in model.parameters())
    objectives = "\n".join(f"- `{part.name}`, weight {part.weight:g}{_stage(part, state['progress'])}: {OBJECTIVES[part.name].summary} "
                           f"({OBJECTIVES[part.name].paper}){_compared(recipe, part)}" for part in recipe.methods)
    losses = "\n".join(f"| {name} | {value:.6g} |" for name, value in state["losses"].items()) or "| none measured yet | |"
    quality = [f"| {name} | {value:.6g} |" for name, value in state.get("quality", {}).items()]
    lines = [
        "---", "library_name: transformers", f"tags: [{'distillation, ' if teacher else ''}academic-budget]", "---", "",
        f"# {flags['job_name']}{' ' + flags['current_run_id'] if flags['current_run_id'] else ''}: "
        f"{model.config.num_hidden_layers}-layer {model.config.model_type} student", "",
        f"Exported at {state['progress']:.0%} of a budget of {flags['total_training_time']:g} h "
        f"({state['hours']:.3f} h, step {state['step']}, {state['samples']} samples, {state['tokens']} tokens).", "",
        f"- teacher: {teacher or 'none'}",
        f"- student: {model.config.num_hidden_layers} layers, {model.config.hidden_size} wide, {parameters / 1e6:.1f} M parameters",
        f"- first weights: {_origin(flags)}",
        f"- data: {flags['dataset_path']}, sequences of up to {recipe.sequence_length} tokens",
        "", "## Objective", "", objectives, "", "## Losses", "", "| loss | value |", "|---|---|", losses, "",
        *(["## On held-out text", "", "| share of right answers, or perplexity | value |", "|---|---|", *quality, ""] if quality else []),
        "## What was not trained", "", *_untrained(recipe), "", "## Use", "", "```python",
        f"from transformers import {auto_class}, AutoTokenizer", "",
        f'model = {auto_class}.from_pretrained("path/of/this/folder")',
        'tokenizer = AutoTokenizer.from_pretrained("path/of/this/folder")', "```", "",
    ]
    return "\n".join(lines)


def _stage(part: Part, progress: float) -> str:
    if part.since > 0:
        return f" from {part.since:.0%} of the budget on{', not begun yet' if progress < part.since else ''}"
    return f" up to {part.until:.0%} of the budget" if math.isfinite(part.until) else ""


def _compared(recipe: ExportRecipe, part: Part) -> str:
    return f"; layers (student-teacher): {recipe.layers[part.name]}" if part.name in recipe.layers else ""


def _origin(flags: dict[str, Any]) -> str:
    if flags["student_initialize"] is True:
        return f"teacher layers {flags['student_layers']} and its embeddings"
    return f"the folder {flags['student_initialize']}" if flags["student_initialize"] else f"random, seed {flags['seed']}"


def _untrained(recipe: ExportRecipe) -> list[str]:
    lines = _untrained_head(recipe)
    modules = list(dict.fromkeys(name.removeprefix(STUDENT_PREFIX).rpartition(".")[0] for name in recipe.frozen
                                 if name.startswith(STUDENT_PREFIX)))
    if modules:
        lines += ["", "No loss reached these, and they have their first values: " + ", ".join(f"`{name}`" for name in modules) + "."]
    if recipe.kept:
        lines += ["", "Frozen as asked, with their first values: " + ", ".join(f"`{name}`" for name in recipe.kept) + "."]
    if any(part.since > 0 for part in recipe.methods):
        lines += ["", "The objectives of one stage of the budget reach weights that those of another do not; these rest in the meantime."]
    return lines


def _untrained_head(recipe: ExportRecipe) -> list[str]:
    if not recipe.built.has_head:
        pooler = " The pooler is copied or random and was not trained." if recipe.built.pooler else ""
        return [f"This is a bare encoder: neither the teacher nor the objective has a masked-language-model head.{pooler}"]
    if not recipe.head_trained:
        is_tied = getattr(recipe.built.model.config, "tie_word_embeddings", True)
        untrained, decoder = ("transform and bias", "Its decoder is tied to the embeddings, which were. ") if is_tied else (
            "transform, bias and decoder", "")
        return [f"The masked-language-model head's {untrained} were not trained: no loss reached them. {decoder}Do not rely on the logits; "
                "fine-tune, or use the hidden states."]
    return ["Everything that the objectives reach was trained, the language-model head included."]
