"""For the tests of samples: awkward text, tokenizers of both families, and what a shard says once its masks are undone."""

from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from dataset.samples import SampleCounts, SampleJob, SampleSettings, write_samples

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
NASTY = [
    *(chr(code) for code in (0, 1, 9, 11, 12, 13, 27, 28, 29, 30, 31, 127, 0x85, 0xA0, 0xAD, 0x1680,
        0x2003, 0x2028, 0x2029, 0x200B, 0x3000)),
    "\ufeff", "\ufffd", "\ue000", "\U000e0001", "\u0301", "\u0323", "\u0338", "!\u0301", " \u0301", "é", "e\u0301", "É", "Å",
    "\u212b", "\u212a", "Σ", "σ", "ς", "ΟΔΟΣ", "İ", "ı", "I", "ß", "ẞ", "ﬁ", "≠", "≮", "\u037e", "\u1fef", "…", "—", "“", "½",
    "中", "日本", "각", "\u30ab\u3099", "👩\u200d👩\u200d👧", "🇩🇪", "ก็", "\u0905\u093f", "\u05d0\u05b0", "[MASK]", "[CLS]", "[unused0]",
    "##ing", "##", "a" * 99, "a" * 100, "a" * 101, "é" * 100, "e\u0301" * 60, "Bara", "doso", "ing", "a", "b", "B", "!", "?", ".",
    "-", "_", "~", "`", "$", "<", "[", "]", "#", "1", " ", " ",
]  # fmt: skip
# Words that text can spell, and entries that it must not reach: capitals where text is lower-cased, spaces, control characters, "##" alone.
ODD_VOCABULARY = [
    *SPECIAL, "[unused0]", "##", "a", "b", "B", "##a", "##b", "##B", "Bara", "doso", "##s", "##ing", "ing", "\x01", "\x0b", "a b",
    "A", "aB", "ab", "aa", "##aa", "é", "e", "##e", "E", "É", "##é", "中", "σ", "ς", "##σ", "!", "?", ".", "-", "_", "~", "`", "<",
    "=", ";", "[", "]", "MASK", "mask", "cls", "#", "i", "##i", "ı", "1", "1a", "un", "\u0301", "##\u0301", "", " ", "k", "K",
    "!!", "##!", "..", "s", "##\x00", "a" * 99, "a" * 100, "a" * 101, "\u2173", "\xa0",
]  # fmt: skip


def wordpiece(vocabulary: list[str], longest: int = 100, normalized: bool = False, **normalizer: bool | None) -> Tokenizer:
    """BERT's tokenizer of `vocabulary`; `normalized`: its special tokens are looked for in normalized text."""
    ids = {token: number for number, token in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=longest))
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=normalized) for name in SPECIAL])
    tokenizer.normalizer = normalizers.BertNormalizer(**normalizer)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def byte_level() -> Tokenizer:
    """A RoBERTa-style tokenizer of single bytes: padding is 1, and 0 is the start token."""
    names = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate([*names, *letters])}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(names)
    return tokenizer


def numbered_words(count: int) -> Tokenizer:
    """A tokenizer that knows `count` words: "w0", "w1" and so on, with ids from 5 on."""
    return wordpiece([*SPECIAL, *(f"w{number}" for number in range(count))], lowercase=False)


def documents_of(text: str) -> list[list[str]]:
    """Documents of a text shard as lists of sentences; a line of nothing but white space (Unicode's White_Space) ends a document."""
    documents: list[list[str]] = [[]]
    for line in text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n"):
        if [character for character in line if not character.isspace() or character in "\x1c\x1d\x1e\x1f"]:
            documents[-1].append(line)
        elif documents[-1]:
            documents.append([])
    return documents if documents[-1] else documents[:-1]


def plain_ids(tokenizer: Tokenizer, sentences: list[str]) -> list[list[int]]:
    """Ids of each sentence as the tokenizer gives them, with special tokens read as the text they are."""
    tokenizer = Tokenizer.from_str(tokenizer.to_str())
    tokenizer.encode_special_tokens = True
    return [tokenizer.encode(sentence, add_special_tokens=False).ids for sentence in sentences]


@dataclass(frozen=True)
class Shard:
    """A shard in memory: `shown` as stored, `ids` (n, L) with the masks undone, `lengths` (n,) real tokens of each row."""

    shown: np.ndarray
    ids: np.ndarray
    lengths: np.ndarray
    segments: np.ndarray
    positions: np.ndarray | None
    labels: np.ndarray | None
    is_random: np.ndarray | None


def read_shard(path: Path) -> Shard:
    """Read a shard and check that its rows are filled from the left."""
    with h5py.File(path) as file:
        arrays = {key: file[key][:] for key in file}
    shown, mask = arrays["input_ids"], arrays["input_mask"]
    lengths = mask.sum(axis=1, dtype=np.int64)
    assert (mask == (np.arange(shown.shape[1]) < lengths[:, None])).all()
    ids, positions, labels = shown.copy(), arrays.get("masked_lm_positions"), arrays.get("masked_lm_ids")
    if positions is not None:
        rows, slots = np.nonzero(positions)
        ids[rows, positions[rows, slots]] = labels[rows, slots]
    return Shard(shown, ids, lengths, arrays["segment_ids"], positions, labels, arrays.get("next_sentence_labels"))


def make_samples(
    folder: Path, text: bytes, tokenizer: Tokenizer, settings: SampleSettings, duplicates: int = 1
) -> tuple[SampleCounts, list[Shard]]:
    """Samples of `text` through files in `folder`, one shard a duplicate."""
    source = folder / "training0.txt"
    source.write_bytes(text)
    targets = tuple((number, folder / f"train_shard_{number}.hdf5") for number in range(duplicates))
    counts = write_samples(SampleJob(source, "train", 0, targets), settings, tokenizer.to_str())
    return counts, [read_shard(path) for _, path in targets]


class Here:
    """An executor that does a job where it is submitted: starting a process for each of these tiny runs would take minutes."""

    workers = 1

    def __init__(self, _: int) -> None:
        pass

    def submit(self, work, *arguments) -> Future:
        future: Future = Future()
        try:
            future.set_result(work(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future

    def value(self, future: Future):
        return future.result()

    def reason(self, error: BaseException) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        pass
