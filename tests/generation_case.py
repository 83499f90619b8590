"""Causal language models that are small enough to enumerate, and the flags of a short `generate`."""

import json
from pathlib import Path
from typing import Any

WORDS = ["good", "bad", "film", "the", "was"]
EOS = "<eos>"
VOCABULARY = {word: number for number, word in enumerate([*WORDS, EOS])}
# Of `generate`, over a model of the size that `new_config` writes.
SHORT = ["--devices", "cpu", "--precision", "fp32", "--num_train_epochs", "2", "--train_batch_size", "8", "--learning_rate",
         "1e-2", "--max_length", "40", "--max_new_tokens", "32", "--num_samples", "50", "--sample_batch_size", "20"]


def word_tokenizer(begins: bool = False) -> Any:
    """One token for each of WORDS, which a space joins; id 0 is a word. With `begins` every text begins with EOS, as OPT's do."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.WordLevel(VOCABULARY, unk_token=WORDS[0]))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if begins:
        raw.post_processor = processors.TemplateProcessing(single=f"{EOS} $A", special_tokens=[(EOS, VOCABULARY[EOS])])
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token=EOS, **({"bos_token": EOS} if begins else {}))


def make_lm(kind: str = "gpt2", spread: float = 0.3, dropout: float = 0.0, seed: int = 0) -> Any:
    """A model of `kind` with one row for each token of `word_tokenizer`, all weights but those of norms drawn with `spread`.

    The head's are small, so that no token is rare: a text has about six.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    shapes = {
        "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64, "resid_pdrop": dropout, "embd_pdrop": dropout,
                 "attn_pdrop": dropout},
        "mistral": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 24,
                    "sliding_window": 3, "max_position_embeddings": 32},
        "mamba": {"hidden_size": 16, "num_hidden_layers": 2, "state_size": 4},
    }
    ids = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), VOCABULARY[EOS])
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        config = AutoConfig.for_model(kind, vocab_size=len(VOCABULARY), tie_word_embeddings=False, **ids, **shapes[kind])
        model = AutoModelForCausalLM.from_config(config)
        for name, weight in model.named_parameters():
            if "ln_" not in name and "norm" not in name and "A_log" not in name:
                weight.normal_(std=0.15 if name.startswith("lm_head") else spread)
    return model.eval()


def language_model(kind: str = "gpt2", begins: bool = False, **more: Any) -> Any:
    """`make_lm` with its tokenizer as `generate` holds it."""
    from task_distillation.generation.language_model import LanguageModel
    from task_distillation.generation.text import Codec

    return LanguageModel(make_lm(kind, **more), Codec(word_tokenizer(begins), "tiny"), Path("tiny"))


def save_lm(folder: Path, **more: Any) -> Path:
    """`make_lm` with its tokenizer as a Hugging Face folder; returns the folder."""
    from evaluation.fine_tuning.heads import quiet_transformers

    with quiet_transformers():
        make_lm(**more).save_pretrained(folder)
        word_tokenizer().save_pretrained(folder)
    return folder


def new_config(path: Path, **more: Any) -> Path:
    """A --lm_config of a GPT-2 with two layers and dropout; returns its path."""
    settings = {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64, "vocab_size": 300}
    path.write_text(json.dumps(settings | more))
    return path
