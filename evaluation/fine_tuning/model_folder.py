"""What can be known of a Hugging Face model folder without importing torch: is it whole, does it fit, which weights.

A folder that loads "somehow" is the worst case for a benchmark, because the score of random weights is still a score.
So what is missing is an error here, before minutes are spent.
"""

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dataset.errors import UserError, one_line
from dataset.files import reason
from evaluation.tasks.task import Task

INDEX = ".index.json"
WEIGHTS = ("model.safetensors", f"model.safetensors{INDEX}", "pytorch_model.bin", f"pytorch_model.bin{INDEX}")
"""In transformers' order: it loads the first that is there."""
TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model", "spm.model", "tokenizer.model")
BESIDE_TOKENIZERS = ("merges.txt", "bpe.codes", "special_tokens_map.json", "added_tokens.json")
"""Parts of a tokenizer that are none alone."""
# These number positions from pad_token_id + 1, so that many of their position embeddings hold no token.
OFFSET_POSITIONS = ("roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "longformer", "xmod")
# Every architecture of a causal or a sequence-to-sequence model that transformers has ends in one of these, but for the bare ones.
NO_ENCODERS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration", "DoubleHeadsModel")
DECODERS = re.compile(r"gpt|llama|mistral|ministral|mixtral|qwen|gemma|phi\d?$|phimoe|opt$|bloom|falcon|olmo|mpt$|mamba|ctrl|xlnet"
                      r"|.*decoder|.*t5|bart|mbart|plbart|pegasus|marian|led$|.*transducer|prophetnet|whisper|deepseek|glm|cohere|stablelm|smollm")
HEADS = {"classification": "ForSequenceClassification", "regression": "ForSequenceClassification", "span": "ForQuestionAnswering"}
GENERIC_LABEL = re.compile(r"LABEL_\d+")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | str) and re.fullmatch(r"\d+", str(value), re.ASCII) is not None


_EXPECTED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "model_type": (lambda value: isinstance(value, str), "a name such as bert"),
    "architectures": (lambda value: isinstance(value, list) and all(isinstance(name, str) for name in value), "a list of names"),
    "id2label": (lambda value: isinstance(value, dict) and all(map(_is_number, value)), "a mapping of numbers to names"),
    "label2id": (lambda value: isinstance(value, dict) and all(map(_is_number, value.values())), "a mapping of names to numbers"),
    "num_labels": (_is_number, "a number"),
    "pad_token_id": (lambda value: isinstance(value, int), "a number"),
    "max_position_embeddings": (lambda value: isinstance(value, int), "a number"),
    "problem_type": (lambda value: isinstance(value, str), "a name"),
    **dict.fromkeys(("num_hidden_layers", "n_layers"), (lambda value: isinstance(value, int) and value > 0, "a number of layers from 1")),
}
"""Key of config.json -> whether a value is what is read of it here, and what would be."""


def read_config(folder: Path) -> dict[str, Any]:
    """`config.json` of `folder` as a dictionary; UserError where there is none, it names no model type, or what is read of it is of
    another type than transformers writes."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give a Hugging Face model folder on this machine")
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"{folder}: no config.json; give a Hugging Face model folder (config, weights, tokenizer)")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({reason(error)}); give a folder that can be") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({one_line(error)}); the folder is damaged or was written only in part") from None
    if not isinstance(config, dict) or "model_type" not in config:
        raise UserError(f"{path}: no model_type; give the folder of an encoder that transformers knows")
    for key, (is_good, expected) in _EXPECTED.items():
        if config.get(key) is not None and not is_good(config[key]):
            raise UserError(f"{path}: {key} is {str(config[key])[:100]!r}; {expected} would work, as transformers writes it")
    if config["model_type"] is None:
        raise UserError(f"{path}: model_type is null; give the folder of an encoder that transformers knows")
    return config


def weight_files(folder: Path) -> list[Path]:
    """The files of the weights that transformers loads, in a fixed order; UserError where there is none or one is missing."""
    name = next((name for name in WEIGHTS if (folder / name).is_file()), None)
    if name is None:
        raise UserError(f"{folder}: no weights; expected {WEIGHTS[0]} beside config.json")
    if not name.endswith(INDEX):
        return [folder / name]
    shards = _shards(folder / name)
    missing = [shard for shard in shards if not (folder / shard).is_file()]
    if missing:
        raise UserError(f"{folder}: no {missing[0]}, which {name} lists; copy the whole folder")
    return [folder / shard for shard in shards]


def _shards(index: Path) -> list[str]:
    """The names of files that an index of weights lists, sorted."""
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except OSError as error:
        raise UserError(f"{index}: cannot be read ({reason(error)}); give a folder that can be") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{index}: not an index of weights ({type(error).__name__}: {one_line(error)}); copy the whole folder") from None
    if not names or not all(isinstance(name, str) and name for name in names):
        raise UserError(f"{index}: its weight_map names no files; copy the whole folder")
    return sorted(names)


def check_model_folder(folder: Path, max_seq_length: int) -> None:
    """Raise UserError unless `folder` is an encoder with a config, whole weights, a tokenizer and positions for `max_seq_length`."""
    config = read_config(folder)
    check_encoder(folder, config)
    files = weight_files(folder)
    if not any((folder / name).is_file() for name in TOKENIZERS):
        raise UserError(f"{folder}: no tokenizer; expected tokenizer.json or vocab.txt beside config.json")
    for path in files:
        if path.suffix == ".safetensors":
            _check_safetensors(path)
    positions = config.get("max_position_embeddings")
    if isinstance(positions, int) and positions > 0:
        if config["model_type"] in OFFSET_POSITIONS:
            pad = config.get("pad_token_id")
            positions -= (1 if pad is None else pad) + 1
        if max_seq_length > positions:
            raise UserError(
                f"--max_seq_length {max_seq_length}: the model in {folder} has {positions} positions; "
                f"give {positions} or less"
            )


def check_encoder(folder: Path, config: dict[str, Any]) -> None:
    """UserError where `config` is of a model that reads from left to right, or of an encoder and a decoder.

    Such a model has a last token and no first one to classify, and transformers would take the last of a padded row.
    """
    architectures = config.get("architectures") or []
    marks = [name for name in ("is_decoder", "is_encoder_decoder") if config.get(name)]
    if marks or DECODERS.match(config["model_type"]) or any(name.endswith(NO_ENCODERS) for name in architectures):
        raise UserError(f"{folder}: not an encoder ({', '.join([config['model_type'], *architectures[:1], *marks])}); "
                        f"a BERT, RoBERTa, DistilBERT, ELECTRA, DeBERTa or ModernBERT would work")


def read_head(folder: Path, task: Task) -> tuple[list[int], str | None]:
    """(the head's output for each class of `task`, a line to print or None) of a folder that was fine-tuned for the task.

    Classes are paired by the names in config.json, whatever order they have there; case, spaces, dashes and underscores do not count.
    Where it names none (LABEL_0, ...), the task's order is taken and the line says so. For a regression or span the outputs are in order.
    UserError for a folder without a head of the task's kind, and for other classes or another number of outputs than the task's.
    """
    config = read_config(folder)
    head = HEADS[task.kind]
    architectures = config.get("architectures") or []
    if not any(name.endswith(head) for name in architectures):
        raise UserError(f"{folder}: {', '.join(architectures) or 'no architecture'} in its config.json, so no head for {task.name}; "
                        f"give a model that was fine-tuned for it (*{head})")
    names = _label_names(config)
    if len(names) != task.outputs or (task.kind == "classification" and config.get("problem_type") == "regression"):
        raise UserError(f"{folder}: its head gives {len(names)} outputs ({', '.join(names)[:100]}), {task.name} needs {task.outputs}; "
                        f"give a model that was fine-tuned for {task.name}")
    in_order = list(range(task.outputs))
    if task.kind != "classification":
        return in_order, None
    if all(GENERIC_LABEL.fullmatch(name) for name in names):
        return in_order, f"{folder}: config.json does not name its labels; taken in the order {', '.join(task.label_names)}"
    position = {_plain(name): output for output, name in enumerate(names)}
    if set(position) != {_plain(name) for name in task.label_names}:
        raise UserError(f"{folder}: its labels are {', '.join(names)[:100]}, those of {task.name} are {', '.join(task.label_names)}; "
                        f"give a model that was fine-tuned for {task.name}")
    return [position[_plain(name)] for name in task.label_names], None


def _label_names(config: dict[str, Any]) -> list[str]:
    """The names of a head's outputs in their order; transformers leaves them out of config.json where there are two and unnamed."""
    if config.get("id2label"):
        named = {int(output): str(name) for output, name in config["id2label"].items()}
    elif config.get("label2id"):
        named = {int(output): str(name) for name, output in config["label2id"].items()}
    else:
        named = {output: f"LABEL_{output}" for output in range(int(config.get("num_labels") or 2))}
    return [named.get(output, f"LABEL_{output}") for output in range(len(named))]


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]", "", name).lower()


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
    names = ("config.json", "tokenizer_config.json", *TOKENIZERS, *BESIDE_TOKENIZERS)
    digest = hashlib.sha256()
    for path in [*weight_files(folder), *(folder / name for name in names if (folder / name).is_file())]:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
