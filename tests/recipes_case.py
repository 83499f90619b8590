"""What the tests of the recipes share: text that can be learnt, one sequence a line, and the data scripts called as their commands call
them."""

import random
from pathlib import Path

from tiny import WORDS
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from dataset import generate_samples, process_data, shard_data
from dataset.tokenizer import END_OF_TEXT

SEQUENCES = 60


def write_text(path: Path, sequences: int = SEQUENCES, seed: int = 0) -> Path:
    """`sequences` lines of two to six sentences; a word is followed by one of two, so that a model has something to find."""
    rng = random.Random(seed)
    lines = []
    for _ in range(sequences):
        sentences = []
        for _ in range(rng.randint(2, 6)):
            place = rng.randrange(len(WORDS))
            words = []
            for _ in range(rng.randint(4, 9)):
                words.append(WORDS[place])
                place = (place + rng.choice((1, 7))) % len(WORDS)
            sentences.append(" ".join(words).capitalize() + ".")
        lines.append(" ".join(sentences))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def text_to_samples(place: Path, text: Path, tokenizer: Path, *flags: str, kind: str = "lines", length: int = 32) -> Path:
    """The three commands of docs/data.md: `place`/articles, `place`/shards and, returned, `place`/samples."""
    process_data.main(["--file", str(text), "--type", kind, "--output_dir", str(place / "articles")])
    shard_data.main(["--dir", str(place / "articles"), "--output_dir", str(place / "shards"), "--num_train_shards", "2",
                     "--num_test_shards", "1", "--frac_test", "0.2", "--n_processes", "1"])
    generate_samples.main(["--dir", str(place / "shards"), "--output_dir", str(place / "samples"), "--model_name", str(tokenizer),
                           "--max_seq_length", str(length), "--n_processes", "1", *flags])
    return place / "samples"


def make_causal_tokenizer(folder: Path) -> Path:
    """A byte-level tokenizer of 257 tokens as GPT-2's files give it: one special token, no mask, no padding."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate([*letters, END_OF_TEXT])}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(END_OF_TEXT, special=True, normalized=False)])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "GPT2TokenizerFast", "model_max_length": 64, "bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", '
        '"unk_token": "<|endoftext|>"}\n', encoding="utf-8")
    return folder
