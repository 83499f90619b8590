"""Tiny tokenizers, models, shards and batches for the training tests: made anew from seeds, in milliseconds."""

import json
from pathlib import Path
from typing import Any

import numpy as np

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PAD, UNK, CLS, SEP, MASK = range(5)
WORDS = [first + second + third for first in "bdfgklmn" for second in "aeiou" for third in ("", "ra", "so")]
VOCABULARY = len(SPECIAL) + len(WORDS)
PREDICTIONS = 6
MASKED_SHARE = 0.15


def make_tokenizer(folder: Path, continuations: bool = False) -> Path:
    """A WordPiece tokenizer of `VOCABULARY` tokens in `folder` (vocab.txt, tokenizer.json, tokenizer_config.json); returns the folder.

    With `continuations` every second word of the vocabulary goes on with the one before it ("##...").
    The files are written without transformers, so a test may call this and start nothing heavy.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    folder.mkdir(parents=True, exist_ok=True)
    words = [f"##{word}" if continuations and number % 2 else word for number, word in enumerate(WORDS)]
    (folder / "vocab.txt").write_text("\n".join([*SPECIAL, *words]) + "\n", encoding="utf-8")
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *words])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIAL])
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", SEP), ("[CLS]", CLS))
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "tokenizer_class": "BertTokenizerFast", "do_lower_case": True, "model_max_length": 64, "pad_token": "[PAD]",
        "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]",
    }) + "\n", encoding="utf-8")
    return folder


def tokenizer_sha256(folder: Path) -> str:
    """The hash that shards of the tokenizer in `folder` carry."""
    from dataset.tokenizer import load_tokenizer, vocabulary_sha256

    return vocabulary_sha256(load_tokenizer(folder))


FAMILIES = {
    "bert": ("BertForMaskedLM", "BertModel"),
    "roberta": ("RobertaForMaskedLM", "RobertaModel"),
    "roberta-prelayernorm": ("RobertaPreLayerNormForMaskedLM", "RobertaPreLayerNormModel"),
    "distilbert": ("DistilBertForMaskedLM", "DistilBertModel"),
    "electra": ("ElectraForMaskedLM", "ElectraModel"),
    "modernbert": ("ModernBertForMaskedLM", "ModernBertModel"),
    "gpt2": ("GPT2LMHeadModel", "GPT2Model"),
}
MODEL_TYPES = {family: "gpt2-clm" if family == "gpt2" else f"{family}-mlm" for family in FAMILIES}


def make_config(family: str, layers: int, hidden: int, heads: int, vocab: int, dropout: float) -> Any:
    """The configuration of `make_model`, under the names that `family` has in `transformers`."""
    import transformers

    if family == "gpt2":
        settings = {"n_embd": hidden, "n_layer": layers, "n_head": heads, "n_inner": 2 * hidden, "n_positions": 64, "resid_pdrop": dropout,
                    "embd_pdrop": dropout, "attn_pdrop": dropout}
    elif family == "distilbert":
        settings = {"dim": hidden, "n_layers": layers, "n_heads": heads, "hidden_dim": 2 * hidden, "max_position_embeddings": 64,
                    "dropout": dropout, "attention_dropout": dropout}
    else:
        settings = {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads, "intermediate_size": 2 * hidden,
                    "max_position_embeddings": 66 if family.startswith("roberta") else 64}
        if family == "modernbert":
            settings |= {"mlp_dropout": dropout, "embedding_dropout": dropout, "attention_dropout": dropout, "local_attention": 6}
        else:
            settings |= {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout,
                         "type_vocab_size": 1 if family == "roberta" else 2}
    if family == "electra":
        settings["embedding_size"] = hidden // 2
    if family in ("roberta", "roberta-prelayernorm", "modernbert", "gpt2"):
        settings |= {"pad_token_id": PAD, "bos_token_id": CLS, "eos_token_id": SEP}
    if family == "modernbert":
        settings |= {"cls_token_id": CLS, "sep_token_id": SEP}
    return transformers.AutoConfig.for_model(family, vocab_size=vocab, **settings)


def make_model(
    family: str = "bert", layers: int = 4, hidden: int = 32, heads: int = 4, head: bool = True, vocab: int = VOCABULARY, seed: int = 0,
    dropout: float = 0.1,
) -> Any:
    """A random `transformers` model of `family`, a key of `FAMILIES`, in memory and in eval mode, with its language-model head or without.

    Every parameter is drawn anew with a spread of 0.1 (norm weights around 1), so that no bias is 0 and no two layers are alike.
    ModernBERT sees 3 tokens to either side in all layers but 0 and 3; ELECTRA's embeddings are half as wide as its layers.
    """
    import torch
    import transformers

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = getattr(transformers, FAMILIES[family][not head])(make_config(family, layers, hidden, heads, vocab, dropout))
        norms = {f"{path}.weight" for path, module in model.named_modules() if isinstance(module, torch.nn.LayerNorm)}
        for name, parameter in model.named_parameters():
            parameter.normal_(mean=float(name in norms), std=0.1)
    return model.eval()


def make_teacher(
    folder: Path, layers: int = 4, hidden: int = 32, heads: int = 4, head: bool = True, vocab: int = VOCABULARY, seed: int = 0,
    family: str = "bert",
) -> Path:
    """`make_model` saved in `folder` with the tokenizer of `make_tokenizer`; returns the folder.

    64 positions, dropout 0.1 in config.json. `head=False` saves the bare encoder with its pooler.
    """
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    make_tokenizer(folder)
    make_model(family, layers, hidden, heads, head, vocab, seed).save_pretrained(folder)
    return folder


def sample_arrays(rows: int, length: int, masking: str, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Samples of 4 to `length` real tokens with the keys and dtypes of a shard; every second one has a second segment.

    With masking `static` each has min(PREDICTIONS, max(1, round(0.15 n))) masked tokens.
    """
    input_ids, input_mask, segment_ids = (np.zeros((rows, length), np.int32) for _ in range(3))
    positions, labels = (np.zeros((rows, PREDICTIONS), np.int32) for _ in range(2))
    for row, real in enumerate(rng.integers(4, length, rows, endpoint=True)):
        input_ids[row, :real] = rng.integers(len(SPECIAL), VOCABULARY, real)
        input_ids[row, 0], input_ids[row, real - 1] = CLS, SEP
        input_mask[row, :real] = 1
        segment_ids[row, real // 2 : real] = row % 2
        count = min(PREDICTIONS, max(1, round(MASKED_SHARE * int(real))))
        positions[row, :count] = np.sort(rng.choice(np.arange(1, real - 1), min(count, real - 2), replace=False))
        labels[row, :count] = input_ids[row, positions[row, :count]]
        if masking == "static":
            input_ids[row, positions[row, :count]] = MASK
    stored = {"masked_lm_positions": positions, "masked_lm_ids": labels} if masking == "static" else {}
    return {"input_ids": input_ids, "input_mask": input_mask, "segment_ids": segment_ids, **stored}


def make_shards(
    folder: Path, train: int = 2, test: int = 1, rows: int = 40, length: int = 32, masking: str = "static", seed: int = 0,
    uneven: bool = False, next_sentence: bool = False, whole_words: bool = False, continuations: bool = False,
) -> Path:
    """`train` and `test` shards in `folder` as the tokenizer of `make_tokenizer` would give them; returns the folder.

    Sample lengths run evenly from 4 to `length`; `masking` is static or none. Shards have `rows` rows each, or with `uneven` shard i
    has rows + i. `next_sentence` adds labels of next-sentence prediction, `whole_words` the attribute that asks for them. With
    `continuations` the tokenizer is that of `make_tokenizer(continuations=True)`.
    """
    import tempfile

    from dataset.shard_format import write_shard

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        digest = tokenizer_sha256(make_tokenizer(Path(temporary), continuations))
    for split, count in (("train", train), ("test", test)):
        for index in range(count):
            attributes = {
                "format_version": 1, "split": split, "masking": masking, "tokenizer_sha256": digest, "vocab_size": VOCABULARY,
                "pad_token_id": PAD, "cls_token_id": CLS, "sep_token_id": SEP, "mask_token_id": MASK, "max_seq_length": length,
                "max_predictions_per_seq": PREDICTIONS, "masked_lm_prob": MASKED_SHARE, "seed": seed, "duplicate": 0,
                "source": f"tiny_{index}", **({"whole_word_masking": 1} if whole_words else {}),
            }
            rng = np.random.default_rng([seed, split == "test", index])
            arrays = sample_arrays(rows + index * uneven, length, masking, rng)
            if next_sentence:
                arrays["next_sentence_labels"] = (np.arange(len(arrays["input_ids"])) % 2).astype(np.int8)
            write_shard(folder / f"{split}_shard_{index}.hdf5", arrays, attributes)
    return folder


def make_batch(lengths: tuple[int, ...] = (9, 4, 12), width: int | None = None, seed: int = 0, predictions: int = 2) -> Any:
    """A `Batch` of sequences of `lengths` real tokens in `width` columns (default: the longest), each with up to `predictions` masks.

    Tokens, segments and masks depend on `lengths` and `seed` and not on `width`.
    """
    import torch

    from pretraining.signals import Batch

    rng = np.random.default_rng(seed)
    width = width or max(lengths)
    ids, segments = np.zeros((len(lengths), width), np.int64), np.zeros((len(lengths), width), np.int64)
    masked_index, labels = [], []
    for row, real in enumerate(lengths):
        ids[row, :real] = rng.integers(len(SPECIAL), VOCABULARY, real)
        segments[row, real // 2 : real] = 1
        for position in sorted(rng.choice(np.arange(1, real), min(predictions, real - 1), replace=False).tolist()):
            masked_index.append(row * width + position)
            labels.append(int(ids[row, position]))
            ids[row, position] = MASK
    mask = np.arange(width) < np.array(lengths)[:, None]
    return Batch.make(
        input_ids=torch.from_numpy(ids), token_type_ids=torch.from_numpy(segments), mask=torch.from_numpy(mask),
        masked_index=torch.tensor(masked_index, dtype=torch.int64), labels=torch.tensor(labels, dtype=torch.int64),
        next_sentence_labels=torch.arange(len(lengths)) % 2)
