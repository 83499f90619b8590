"""Tiny encoders and GLUE folders for the evaluation tests: seconds to train, and a task that can be learned."""

import json
import random
from pathlib import Path

WORDS = ["good", "fine", "bad", "poor", "film", "plot", "the", "a", "was", "and", "very", "actor", "scene", "music"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def make_model(folder: Path, kind: str = "BertForMaskedLM", seed: int = 0, dropout: float = 0.1, **tokenizer: dict) -> Path:
    """A random BERT of class `kind` (2 layers, 32 wide) in the layout of an export; `tokenizer` as Tokenizer state."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    vocabulary = {word: number for number, word in enumerate([*SPECIAL, *WORDS])}
    raw = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    if tokenizer.get("padding"):
        raw.enable_padding(**tokenizer["padding"])
    if tokenizer.get("truncation"):
        raw.enable_truncation(**tokenizer["truncation"])
    config = transformers.BertConfig(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        getattr(transformers, kind)(config).save_pretrained(folder)
    names = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    transformers.BertTokenizerFast(tokenizer_object=raw, **names).save_pretrained(folder)
    if tokenizer:
        # save_pretrained keeps neither setting; other people's folders do have them.
        raw.save(str(folder / "tokenizer.json"))
    return folder


def sentences(count: int, seed: int) -> list[tuple[str, int]]:
    """Sentences of 3 to 12 words with one word that tells the class: 1 for good and fine, 0 for bad and poor."""
    source = random.Random(seed)
    rows = []
    for _ in range(count):
        label = source.randrange(2)
        words = source.choices(WORDS[4:], k=source.randint(2, 11))
        words.insert(source.randrange(len(words) + 1), source.choice(WORDS[:2] if label else WORDS[2:4]))
        rows.append((" ".join(words), label))
    return rows


def write_sst2(glue_dir: Path, train: int = 256, dev: int = 64) -> Path:
    folder = glue_dir / "SST-2"
    folder.mkdir(parents=True)
    for name, count, seed in (("train", train, 1), ("dev", dev, 2)):
        rows = "".join(f"{text}\t{label}\n" for text, label in sentences(count, seed))
        (folder / f"{name}.tsv").write_text(f"sentence\tlabel\n{rows}")
    return glue_dir


def write_rte(glue_dir: Path, train: int = 64, dev: int = 32) -> Path:
    folder = glue_dir / "RTE"
    folder.mkdir(parents=True)
    for name, count, seed in (("train", train, 3), ("dev", dev, 4)):
        rows = "".join(
            f"{number}\tthe film\t{text}\t{'not_entailment' if label else 'entailment'}\n"
            for number, (text, label) in enumerate(sentences(count, seed))
        )
        (folder / f"{name}.tsv").write_text(f"index\tsentence1\tsentence2\tlabel\n{rows}")
    return glue_dir


def make_run(run_dir: Path, markers: list[tuple[float, int, float]]) -> Path:
    """A run directory with a marker for each (fraction, step, hours), in the order given."""
    for number, (fraction, step, hours) in enumerate(markers):
        folder = make_model(run_dir / "finetune" / f"progress_{fraction}_step_{step}", seed=number)
        state = {"progress": fraction, "step": step, "hours": hours, "validation_loss": None}
        (folder / "run_state.json").write_text(json.dumps(state))
    return run_dir
