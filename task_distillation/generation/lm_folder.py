"""What can be known of a causal language model's folder, or of a configuration for a new one, without importing torch.

A name in config.json can lie, so `language_model.py` asks the loaded model too: no token may see the ones after it.
"""

import json
import re
from pathlib import Path
from typing import Any

from dataset.errors import UserError, one_line
from dataset.files import reason
from evaluation.fine_tuning.model_folder import DECODERS, TOKENIZERS, read_config, weight_files
from task_distillation.generation.flags import SamplingSettings, TrainingSettings

HEADS = ("ForCausalLM", "LMHeadModel", "DoubleHeadsModel", "ModelWithLMHead")
"""What an architecture's name ends in where it predicts the next token."""
SEQ2SEQ = re.compile(r".*t5|bart|mbart|plbart|mvp$|pegasus|marian|led$|prophetnet|xlm-prophetnet|whisper|blenderbot|fsmt|m2m_100|nllb")
ENCODERS = re.compile(r"(?!.*decoder).*(bert|electra|rembert|roformer)|xlm|big_bird$|data2vec|ernie$|mpnet|longformer|funnel|fnet")
POSITIONS = ("n_positions", "max_position_embeddings", "n_ctx", "max_seq_len", "max_sequence_length")
EXAMPLE = '{"model_type": "gpt2", "n_layer": 4}'
WOULD_WORK = "a GPT-2, OPT, Llama or Qwen would work"


def check_lm_folder(folder: Path, training: TrainingSettings, sampling: SamplingSettings) -> None:
    """UserError unless `folder` has the config, the weights and the tokenizer of a causal language model with room for the texts."""
    config = read_config(folder)
    check_causal(folder, config)
    weight_files(folder)
    check_tokenizer_folder(folder)
    check_positions(folder, config, training, sampling)


def read_new_config(path: Path, training: TrainingSettings, sampling: SamplingSettings) -> dict[str, Any]:
    """The JSON of --lm_config; UserError where it cannot be read, is no configuration, or is not that of a causal language model."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"--lm_config {path}: {reason(error)}; a JSON file such as {EXAMPLE} would work") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"--lm_config {path}: not JSON ({one_line(error)})") from None
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise UserError(f"--lm_config {path}: no model_type; a JSON object such as {EXAMPLE} would work")
    size = config.get("vocab_size")
    if size is not None and (type(size) is not int or size < 1):
        raise UserError(f"--lm_config {path}: vocab_size is {str(size)[:40]}; a whole number above 0 would work")
    architectures = config.get("architectures")
    if architectures is not None and not (isinstance(architectures, list) and all(isinstance(name, str) for name in architectures)):
        raise UserError(f"--lm_config {path}: architectures is {str(architectures)[:40]!r}; a list of names would work")
    check_causal(path, config)
    check_positions(path, config, training, sampling)
    return config


def check_tokenizer_folder(folder: Path) -> None:
    """UserError unless `folder` holds files of a tokenizer."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give one with a tokenizer in it")
    if not any((folder / name).is_file() for name in TOKENIZERS):
        raise UserError(f"{folder}: no tokenizer; expected tokenizer.json, or vocab.json with merges.txt")


def check_causal(where: Path, config: dict[str, Any]) -> None:
    """UserError where `config` says that its model is an encoder, or one that turns a sequence into another.

    An architecture that the config does not name passes unless its family is known.
    """
    model_type, architectures = config["model_type"], config.get("architectures") or []
    has_head = any(name.endswith(HEADS) for name in architectures)
    is_pair = config.get("is_encoder_decoder") or (SEQ2SEQ.match(model_type) and not has_head)
    is_named_otherwise = bool(architectures) and not has_head and not DECODERS.match(model_type)
    is_encoder = not config.get("is_decoder") and (ENCODERS.match(model_type) or is_named_otherwise)
    if is_pair or is_encoder:
        raise UserError(f"{where}: a language model that is not causal ({', '.join([model_type, *architectures[:1]])}); {WOULD_WORK}")


def check_positions(where: Path, config: dict[str, Any], training: TrainingSettings, sampling: SamplingSettings, start: int = 0) -> None:
    """UserError where the model has fewer positions than the flags ask for; a config that names none passes.

    `start`: tokens that begin every text. The last new token is not read, so that a text of one prefix and N new ones takes N positions.
    """
    known = next((value for name in POSITIONS if isinstance(value := config.get(name), int) and value > 0), None)
    if known is None:
        return
    for name, value, most in (("max_length", training.max_length, known), ("max_new_tokens", sampling.max_new_tokens, known - start)):
        if value > most:
            raise UserError(f"--{name} {value}: the language model in {where} has {known} positions; --{name} {most} would work")
