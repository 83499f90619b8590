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


def write_cola(glue_dir: Path, train: int = 64, dev: int = 32) -> Path:
    """Without header lines, as the official files are."""
    rows = {
        name: [["gj04", str(label), "" if label else "*", text] for text, label in sentences(count, seed)]
        for name, count, seed in (("train", train, 5), ("dev", dev, 6))
    }
    return _write_tsv(glue_dir / "CoLA", None, rows)


def write_stsb(glue_dir: Path, train: int = 64, dev: int = 32) -> Path:
    """The score is 4.25 for a sentence with a good word and 0.6 for one with a bad one; the other sentence is the same everywhere."""
    header = ["index", "genre", "filename", "year", "old_index", "source1", "source2", "sentence1", "sentence2", "score"]
    rows = {
        name: [
            [str(number), "news", "f", "2012", str(number), "none", "none", "the film", text, "4.250" if label else "0.6"]
            for number, (text, label) in enumerate(sentences(count, seed))
        ]
        for name, count, seed in (("train", train, 7), ("dev", dev, 8))
    }
    return _write_tsv(glue_dir / "STS-B", header, rows)


def write_mnli(glue_dir: Path, train: int = 96, dev: int = 32, test: int = 8) -> Path:
    """Two dev and test sets; contradiction for a bad word, neutral for `fine`, entailment for `good`."""
    start = ["index", "promptID", "pairID", "genre", "sentence1_binary_parse", "sentence2_binary_parse", "sentence1_parse",
             "sentence2_parse", "sentence1", "sentence2"]
    folder = glue_dir / "MNLI"
    for name, count, seed, more in (
        ("train", train, 9, ["label1", "gold_label"]),
        ("dev_matched", dev, 10, ["label1", "label2", "label3", "label4", "label5", "gold_label"]),
        ("dev_mismatched", dev, 11, ["label1", "label2", "label3", "label4", "label5", "gold_label"]),
        ("test_matched", test, 12, []), ("test_mismatched", test, 13, []),
    ):
        rows = []
        for number, (text, label) in enumerate(sentences(count, seed)):
            word = ("neutral" if "fine" in text.split() else "entailment") if label else "contradiction"
            rows.append([str(number), "1", "1n", "fiction", *["( parse )"] * 4, "the film", text, *[word] * len(more)])
        _write_tsv(folder, start + more, {name: rows})
    return glue_dir


def write_squad(glue_dir: Path, version: str = "v1.1", train: int = 64, dev: int = 16) -> Path:
    """The answer is the one word of the context that tells its class; in v2.0 it is missing from every third context."""
    folder = glue_dir / "SQuAD"
    folder.mkdir(parents=True, exist_ok=True)
    for name, count, seed in (("train", train, 14), ("dev", dev, 15)):
        paragraphs = []
        for number, (text, _) in enumerate(sentences(count, seed)):
            found = next(word for word in text.split() if word in WORDS[:4])
            none = version == "v2.0" and number % 3 == 2
            context = " ".join("the" if word in WORDS[:4] else word for word in text.split()) if none else text
            answers = [] if none else [{"text": found, "answer_start": f" {text} ".index(f" {found} ")}]
            question = {"id": f"{name}{number}", "question": "the film was", "answers": answers}
            paragraphs.append({"context": context, "qas": [question | ({"is_impossible": none} if version == "v2.0" else {})]})
        content = {"version": version, "data": [{"title": "films", "paragraphs": paragraphs}]}
        (folder / f"{name}-{version}.json").write_text(json.dumps(content))
    return glue_dir


def _write_tsv(folder: Path, header: list[str] | None, files: dict[str, list[list[str]]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in files.items():
        (folder / f"{name}.tsv").write_text("".join("\t".join(row) + "\n" for row in [*([header] if header else []), *rows]))
    return folder.parent
