"""Architectures in one table: where the layers, the embeddings and the MLM head of each `transformers` class are.

Imports no torch: flags are checked against this table before anything heavy is loaded. Adding an architecture is adding a row here
(and, for narrower students of it, one in `pretraining.models.weights`).
"""

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dataset.errors import UserError

# What BERT's class of `transformers` takes where config.json is silent.
_DEFAULTS = {"hidden_act": "gelu", "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1, "max_position_embeddings": 512,
             "type_vocab_size": 2, "initializer_range": 0.02, "layer_norm_eps": 1e-12}


@dataclass(frozen=True)
class Architecture:
    """One row. `family` is `config.json`'s `model_type`; `head_class` and `base_class` are names in `transformers`.

    base and the paths of head are relative to head_class; layers and final_norm to base_class; attention to a layer.
    """

    family: str
    head_class: str
    base_class: str
    base: str
    layers: str  # the list of encoder layers
    attention: str  # the module of a layer that calls the attention function
    head: tuple[str, ...]  # modules of the language-model head, in the order they are run
    auto_class: str = "AutoModelForMaskedLM"  # what loads an export that has a head
    final_norm: str | None = None  # normalises what the last layer gives
    next_sentence: str | None = None  # relative to head_class; reads the pooler
    token_types: bool = True
    positions: str | None = "embeddings.position_embeddings"  # relative to base_class; None: positions are no weights
    causal: bool = False
    windowed: bool = False  # some layers see a window only
    counts_from_padding: bool = False  # the first token's position is pad_token_id + 1
    pre_ln: bool = False
    embedding_norm: bool = True  # a LayerNorm after the embeddings
    fixed_norm_eps: float | None = None  # of its LayerNorms, where no setting changes it
    head_is_tied: bool = False  # the head is the embeddings used once more: a folder without it has it still
    inner_widths: int | None = None  # intermediate_size in widths, where config.json says none
    # What this family takes where config.json is silent and BERT would take something else; None: it has no such setting.
    defaults: Mapping[str, Any] = field(default_factory=dict)
    # Our name of a setting (BERT's) -> the names that this family's config.json has for it, where they differ.
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def canonical(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """config.json's content under our names, the family's defaults filled in.

        Where a setting of ours is several of the family's and these differ, ours is the first and the others stay beside it.
        """
        config = dict(config)
        for name, theirs in self.names.items():
            found = [config[one] for one in theirs if one in config]
            if found:
                agree = all(value == found[0] for value in found)
                for one in theirs if agree else theirs[:1]:
                    config.pop(one, None)
                config[name] = found[0]
        for name, default in {**_DEFAULTS, **self.defaults}.items():
            if default is not None:
                config.setdefault(name, default)
        if self.inner_widths is not None and config.get("intermediate_size") is None and type(config.get("hidden_size")) is int:
            config["intermediate_size"] = self.inner_widths * config["hidden_size"]
        return config

    def native(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The inverse of `canonical`: our names back to the family's."""
        config = dict(config)
        for name, theirs in self.names.items():
            if name in config:
                value = config.pop(name)
                config[theirs[0]] = value
                for one in theirs[1:]:
                    config.setdefault(one, value)
        return config

    @property
    def segments(self) -> str | None:
        """The token-type embeddings, relative to base_class; None where the family has none."""
        return "embeddings.token_type_embeddings" if self.token_types else None

    def own_name(self, name: str) -> str:
        """The name that this family's config.json has for our `name`."""
        return self.names.get(name, (name,))[0]

    def reserved_positions(self, config: Mapping[str, Any]) -> int:
        """How many of max_position_embeddings no token uses; `config` under our names."""
        if not self.counts_from_padding:
            return 0
        padding = config.get("pad_token_id")
        return (1 if padding is None else padding) + 1

    def in_head(self, name: str) -> bool:
        """Whether the weight `name` of head_class belongs to the language-model head."""
        return any(name.startswith(f"{path}.") for path in self.head)


_BERT = Architecture(
    family="bert", head_class="BertForMaskedLM", base_class="BertModel", base="bert", layers="encoder.layer", attention="attention.self",
    head=("cls.predictions",),
)

ARCHITECTURES: dict[str, Architecture] = {
    "bert-mlm": _BERT,
    "bert-mlm-nsp": replace(
        _BERT, head_class="BertForPreTraining", next_sentence="cls.seq_relationship", auto_class="AutoModelForPreTraining"),
    "roberta-mlm": Architecture(
        family="roberta", head_class="RobertaForMaskedLM", base_class="RobertaModel", base="roberta", layers="encoder.layer",
        attention="attention.self", head=("lm_head",), counts_from_padding=True,
    ),
    "roberta-prelayernorm-mlm": Architecture(
        family="roberta-prelayernorm", head_class="RobertaPreLayerNormForMaskedLM", base_class="RobertaPreLayerNormModel",
        base="roberta_prelayernorm", layers="encoder.layer", attention="attention.self", head=("lm_head",), final_norm="LayerNorm",
        counts_from_padding=True, pre_ln=True,
    ),
    "distilbert-mlm": Architecture(
        family="distilbert", head_class="DistilBertForMaskedLM", base_class="DistilBertModel", base="distilbert",
        layers="transformer.layer", attention="attention", head=("vocab_transform", "activation", "vocab_layer_norm", "vocab_projector"),
        token_types=False, fixed_norm_eps=1e-12, defaults={"type_vocab_size": None, "layer_norm_eps": None},
        names={"hidden_size": ("dim",), "num_hidden_layers": ("n_layers",), "num_attention_heads": ("n_heads",),
               "intermediate_size": ("hidden_dim",), "hidden_act": ("activation",), "hidden_dropout_prob": ("dropout",),
               "attention_probs_dropout_prob": ("attention_dropout",)},
    ),
    "electra-mlm": Architecture(
        family="electra", head_class="ElectraForMaskedLM", base_class="ElectraModel", base="electra", layers="encoder.layer",
        attention="attention.self", head=("generator_predictions", "generator_lm_head"), defaults={"embedding_size": 128},
    ),
    "modernbert-mlm": Architecture(
        family="modernbert", head_class="ModernBertForMaskedLM", base_class="ModernBertModel", base="model", layers="layers",
        attention="attn", head=("head", "decoder"), final_norm="final_norm", token_types=False, windowed=True, pre_ln=True,
        positions=None,
        defaults={"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "max_position_embeddings": 8192,
                  "type_vocab_size": None, "layer_norm_eps": 1e-5},
        names={"hidden_act": ("hidden_activation",), "attention_probs_dropout_prob": ("attention_dropout",),
               "hidden_dropout_prob": ("mlp_dropout", "embedding_dropout"), "layer_norm_eps": ("norm_eps",)},
    ),
    "gpt2-clm": Architecture(
        family="gpt2", head_class="GPT2LMHeadModel", base_class="GPT2Model", base="transformer", layers="h", attention="attn",
        head=("lm_head",), auto_class="AutoModelForCausalLM", final_norm="ln_f", token_types=False, causal=True, pre_ln=True,
        embedding_norm=False, head_is_tied=True, inner_widths=4, positions="wpe",
        defaults={"hidden_act": "gelu_new", "max_position_embeddings": 1024, "type_vocab_size": None, "layer_norm_eps": 1e-5},
        names={"hidden_size": ("n_embd",), "num_hidden_layers": ("n_layer",), "num_attention_heads": ("n_head",),
               "intermediate_size": ("n_inner",), "hidden_act": ("activation_function",), "max_position_embeddings": ("n_positions",),
               "hidden_dropout_prob": ("resid_pdrop", "embd_pdrop"), "attention_probs_dropout_prob": ("attn_pdrop",),
               "layer_norm_eps": ("layer_norm_epsilon",)},
    ),
}
# What the originals call them.
MODEL_TYPE_ALIASES = {"bert-mlm-roberta": "roberta-mlm"}
MODEL_TYPES = (*ARCHITECTURES, *MODEL_TYPE_ALIASES)

# What config.json must say in whole numbers, and what it may leave to the defaults of `transformers`.
_SIZES = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
_OPTIONAL_SIZES = ("max_position_embeddings", "type_vocab_size", "embedding_size")
_OPTIONAL_NUMBERS = ("hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range", "layer_norm_eps")

_LARGEST_HEADER = 100_000_000  # bytes, the limit of the safetensors format

WEIGHT_FILES = (
    "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json",
)


def find_architecture(model_type: str) -> Architecture:
    """The row that a value of --model_type names, an original's name included. KeyError for any other."""
    return ARCHITECTURES[MODEL_TYPE_ALIASES.get(model_type, model_type)]


def model_type_of(family: str) -> str:
    """The --model_type of a family (config.json's model_type): its first row. KeyError for an unknown one."""
    return {row.family: name for name, row in reversed(ARCHITECTURES.items())}[family]


@dataclass(frozen=True)
class ModelFolder:
    """A Hugging Face folder. `config` is its config.json under our names. `has_head` is None where only loading can tell."""

    path: Path
    config: dict[str, Any]
    has_head: bool | None
    architecture: Architecture

    @property
    def family(self) -> str:
        return self.architecture.family


def read_model_folder(path: str, flag: str, architecture: Architecture | None = None) -> ModelFolder:
    """What config.json and the weights' index in `path` say; a UserError naming `flag` for a folder that cannot work.

    architecture: what the folder must hold; None takes the row of the folder's own family, the one without next-sentence head.
    """
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
    if isinstance(config, dict) and "encoder_ln_mode" in config and not config.get("hugging_face"):
        raise UserError(f"{flag} {path}: a folder of academic-budget-bert; python -m pretraining.convert_budget_bert --input_dir {path} "
                        "--output_dir NEW makes one that works")
    weights = next((name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if weights is None:
        raise UserError(f"{flag} {path}: no weights in it; one of {', '.join(WEIGHT_FILES)} is needed")
    architecture = _check_family(config, f"{flag} {path}", architecture)
    if config.get("is_decoder") and not architecture.causal:
        raise UserError(f"{flag} {path}: config.json says is_decoder, which attends to the left only; an encoder is needed")
    config = architecture.canonical(config)
    _check_sizes(config, f"{flag} {path}", architecture)
    names = _weight_names(folder / weights, f"{flag} {path}")
    if architecture.head_is_tied and config.get("tie_word_embeddings", True):
        has_head = True
    else:
        has_head = None if names is None else any(map(architecture.in_head, names))
    return ModelFolder(folder, config, has_head, architecture)


def _check_family(config: Any, source: str, architecture: Architecture | None) -> Architecture:
    found = config.get("model_type") if isinstance(config, dict) else None
    known = ", ".join(f"{name} ({row.family})" for name, row in ARCHITECTURES.items())
    if architecture is None:
        if found not in {row.family for row in ARCHITECTURES.values()}:
            raise UserError(f"{source}: config.json says model_type {found!r}, which is no architecture of ours; known: {known}")
        return ARCHITECTURES[model_type_of(found)]
    if found != architecture.family:
        raise UserError(f"{source}: config.json says model_type {found!r}, --model_type needs {architecture.family!r}; known: {known}")
    return architecture


def _check_sizes(config: dict[str, Any], source: str, architecture: Architecture) -> None:
    """The settings that shape the model are there and make sense; messages say them as the family's config.json does."""
    missing = [name for name in _SIZES if name not in config]
    if missing:
        raise UserError(f"{source}: config.json lacks {architecture.own_name(missing[0])}; save the model again with save_pretrained")
    for name in (*_SIZES, *_OPTIONAL_SIZES):
        value = config.get(name, 1)
        if type(value) is not int or not 0 < value < 2**31:
            raise UserError(f"{source}: config.json says {architecture.own_name(name)} {value!r}, expected a whole number above 0")
    for name in _OPTIONAL_NUMBERS:
        value = config.get(name, 0)
        if type(value) not in (int, float) or not 0 <= value < 1:
            raise UserError(f"{source}: config.json says {architecture.own_name(name)} {value!r}, expected a number from 0 to below 1")
    if not isinstance(config.get("hidden_act", ""), str):
        raise UserError(f"{source}: config.json says {architecture.own_name('hidden_act')} {config['hidden_act']!r}, expected a name such "
                        "as gelu")
    if config["hidden_size"] % config["num_attention_heads"]:
        raise UserError(f"{source}: config.json says {architecture.own_name('hidden_size')} {config['hidden_size']}, which does not divide "
                        f"by {architecture.own_name('num_attention_heads')} {config['num_attention_heads']}")


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


def markdown_table() -> str:
    """The README's table of architectures; `python -m pretraining.models.catalog` prints it."""
    aliases = {row: alias for alias, row in MODEL_TYPE_ALIASES.items()}
    lines = ["| `--model_type` | `transformers` class | an export loads with | what it is |", "|---|---|---|---|"]
    for name, row in ARCHITECTURES.items():
        words = [word for is_so, word in (
            (name in aliases, f"the originals' `{aliases.get(name)}`"), (row.pre_ln and not row.causal, "pre-LN"),
            (row.windowed, "some layers see a window"), (row.next_sentence is not None, "with next-sentence prediction"),
            (row.causal, "causal")) if is_so]
        lines.append(f"| `{name}` | `{row.head_class}` | `{row.auto_class}` | {', '.join(words)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(markdown_table())
