"""Tokenizers without transformers (so without torch): from a folder, a file or a hub name.

Special tokens are known by their usual names, of BERT or of RoBERTa, because a bare `tokenizer.json` does not say which
token plays which role. A `vocab.txt` alone becomes BERT's WordPiece tokenizer; whether it lower-cases is read from
`tokenizer_config.json`, else from the vocabulary: one that holds a piece with a capital letter is cased. `vocab.json` with `merges.txt`
becomes RoBERTa's byte-level BPE. GPT-2's tokenizer has one special token, which then pads, begins and ends a sample; with it nothing can
be masked, and nothing is unknown.
"""

import hashlib
import json
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from dataset.errors import UserError

ROLE_NAMES = {
    "pad": ("[PAD]", "<pad>"),
    "cls": ("[CLS]", "<s>"),
    "sep": ("[SEP]", "</s>"),
    "mask": ("[MASK]", "<mask>"),
    "unk": ("[UNK]", "<unk>"),
}
# Rows of the embedding that no text reaches: BERT's and RoBERTa's spare entries.
SPARE_TOKEN = re.compile(r"\[unused\d+\]|madeupword\d+")
BYTE_LEVEL_FILES = ("vocab.json", "merges.txt")
END_OF_TEXT = "<|endoftext|>"  # GPT-2's one special token
HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")


@dataclass(frozen=True)
class SpecialIds:
    """Ids of the five roles, and of every token the tokenizer marks as special (the five among them). `mask` and `unk` are None where the
    tokenizer is a causal model's, see `special_ids`."""

    pad: int
    cls: int
    sep: int
    mask: int | None
    unk: int | None
    all: frozenset[int]


def load_tokenizer(name_or_path: str | Path, lowercase: bool | None = None) -> Tokenizer:
    """The tokenizer in a folder (`tokenizer.json`, else `vocab.txt`, else `vocab.json` and `merges.txt`), in such a file, or of a hub name.

    Padding and truncation are off, whatever the file says: some cut every text to 128 tokens. `lowercase` overrides
    what the tokenizer says about lower-casing; None leaves it. Raises UserError where nothing usable is found.
    """
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        file = next((path / name for name in ("tokenizer.json", "vocab.txt") if (path / name).is_file()), None)
        if file is not None:
            tokenizer = _from_file(file)
        elif all((path / name).is_file() for name in BYTE_LEVEL_FILES):
            tokenizer = _from_merges(path)
        else:
            raise UserError(
                f"{path} has no tokenizer.json and no vocab.txt, nor vocab.json with merges.txt; a tokenizer folder holds one of them"
            )
    elif path.is_file():
        tokenizer = _from_file(path)
    else:
        tokenizer = _from_hub(str(name_or_path))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    if lowercase is not None:
        _set_lowercase(tokenizer, lowercase, name_or_path)
    return tokenizer


def special_ids(tokenizer: Tokenizer) -> SpecialIds:
    """Ids of padding, start, separator, mask and unknown token; UserError names the first role without a token.

    Where there is no mask token but GPT-2's end of text, that one fills the first three roles which no token has.
    """
    ids: dict[str, int | None] = {}
    can_mask = any(tokenizer.token_to_id(name) is not None for name in ROLE_NAMES["mask"])
    end = None if can_mask else tokenizer.token_to_id(END_OF_TEXT)
    for role, names in ROLE_NAMES.items():
        found = (tokenizer.token_to_id(name) for name in names)
        ids[role] = next((token_id for token_id in found if token_id is not None), None)
        if ids[role] is None and end is not None:
            ids[role] = end if role in ("pad", "cls", "sep") else None
        elif ids[role] is None:
            raise UserError(f"the tokenizer has no {role} token; one named {' or '.join(names)} would work")
    marked = {token_id for token_id, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    return SpecialIds(**ids, all=frozenset(marked | set(ids.values()) - {None}))


def vocabulary_size(tokenizer: Tokenizer) -> int:
    """Largest token id plus one, added tokens included: the least number of embedding rows that serves."""
    return max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1


def holds_tokenizer(folder: Path) -> bool:
    """Whether a model's folder has a tokenizer's files in it."""
    return any((folder / name).is_file() for name in ("tokenizer.json", "vocab.txt", "vocab.json"))


def masking_exclusions(tokenizer: Tokenizer) -> np.ndarray:
    """Sorted int64 ids that masking neither hides nor puts in: special tokens, spare entries, ids without a token."""
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    spare = {token_id for token, token_id in vocabulary.items() if SPARE_TOKEN.fullmatch(token)}
    gaps = set(range(vocabulary_size(tokenizer))) - set(vocabulary.values())
    return np.array(sorted(special_ids(tokenizer).all | spare | gaps), dtype=np.int64)


def word_continuations(tokenizer: Tokenizer) -> np.ndarray:
    """(vocabulary_size,) bool: the token goes on with the word of the token before it, as the tokenizer's decoder marks it.

    WordPiece marks continuations ("##ing"), byte-level BPE and SentencePiece mark beginnings, so that there punctuation after a word
    counts as part of it. UserError for a tokenizer that marks neither.
    """
    decoder = json.loads(tokenizer.to_str())["decoder"] or {}
    parts = decoder.get("decoders", [decoder])
    marks = {"WordPiece": decoder.get("prefix", "##"), "ByteLevel": "\u0120", "Metaspace": "\u2581"}
    kind = next((part["type"] for part in parts if part.get("type") in marks), None)
    if kind is None:
        raise UserError("the tokenizer does not mark where words begin; masking of single tokens would work")
    continues = np.zeros(vocabulary_size(tokenizer), dtype=bool)
    for token, token_id in tokenizer.get_vocab(with_added_tokens=True).items():
        continues[token_id] = token.startswith(marks[kind]) == (kind == "WordPiece")
    continues[list(special_ids(tokenizer).all)] = False
    return continues


def vocabulary_sha256(tokenizer: Tokenizer) -> str:
    """Hex SHA-256 of the tokens in id order, joined by newlines (an id without a token is an empty line), UTF-8.

    It identifies what ids mean; two tokenizers that share a vocabulary and differ in lower-casing agree.
    """
    tokens = [""] * vocabulary_size(tokenizer)
    for token, token_id in tokenizer.get_vocab(with_added_tokens=True).items():
        tokens[token_id] = token
    return hashlib.sha256("\n".join(tokens).encode()).hexdigest()


def rules_sha256(tokenizer: Tokenizer) -> str:
    """Hex SHA-256 of all that decides how text becomes ids: the tokenizer as JSON in a canonical form, padding and truncation left out.

    Two tokenizers of one vocabulary that differ in lower-casing, accents, merges or where words end do not agree.
    """
    rules = {**json.loads(tokenizer.to_str()), "padding": None, "truncation": None}
    return hashlib.sha256(json.dumps(rules, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def has_no_capitals(tokenizer: Tokenizer) -> bool:
    """Whether the vocabulary knows small letters and, special tokens aside, no capital one: text in capitals becomes unknown tokens."""
    special = special_ids(tokenizer).all
    tokens = [
        token for token, token_id in tokenizer.get_vocab(with_added_tokens=True).items()
        if token_id not in special and not re.fullmatch(r"\[.+\]", token)
    ]  # fmt: skip
    return any(token != token.upper() for token in tokens) and all(token == token.lower() for token in tokens)


def is_lowercasing(tokenizer: Tokenizer) -> bool:
    """Whether the tokenizer's normalizer turns capitals into small letters."""
    return tokenizer.normalizer is not None and tokenizer.normalizer.normalize_str("A") == "a"


def _from_file(path: Path) -> Tokenizer:
    if path.suffix == ".txt":
        return _from_vocabulary(path)
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the Rust side raises bare Exception for whatever the file lacks
        raise UserError(f"{path} is no tokenizer: {error}; a tokenizer.json or a vocab.txt would work") from error


def _from_vocabulary(path: Path) -> Tokenizer:
    """BERT's WordPiece tokenizer for a vocabulary of one token a line; the line number is the id."""
    try:
        tokens = path.read_bytes().decode("utf-8").rstrip("\r\n").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 ({error}); a vocab.txt has one token a line") from error
    vocabulary = {token.rstrip("\r"): token_id for token_id, token in enumerate(tokens)}
    names = [bert for bert, _ in ROLE_NAMES.values()]
    missing = [name for name in names if name not in vocabulary]
    if missing:
        raise UserError(f"{path} lacks {', '.join(missing)}; a WordPiece vocab.txt has them, one token a line")
    lowercase = _config_entry(path.parent, "do_lower_case")
    if lowercase is None:
        lowercase = all(token == token.lower() for token in vocabulary if not re.fullmatch(r"\[.+\]", token))
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(
        ("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"])
    )
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def _from_merges(folder: Path) -> Tokenizer:
    """RoBERTa's byte-level BPE from the two files that `transformers` wrote before it had tokenizer.json."""
    paths = [folder / name for name in BYTE_LEVEL_FILES]
    try:
        tokenizer = Tokenizer(models.BPE.from_file(*map(str, paths), continuing_subword_prefix="", end_of_word_suffix="", fuse_unk=False))
    except Exception as error:  # the Rust side raises bare Exception
        raise UserError(f"{' and '.join(map(str, paths))} are no byte-level BPE: {error}; a tokenizer.json would work") from error
    prefix = bool(_config_entry(folder, "add_prefix_space"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    tokenizer.decoder = decoders.ByteLevel()
    names = [name for _, name in ROLE_NAMES.values() if tokenizer.token_to_id(name) is not None]
    if tokenizer.token_to_id(END_OF_TEXT) is not None:
        names.append(END_OF_TEXT)
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    if {"<s>", "</s>"} <= set(names):
        sep, cls = ((name, tokenizer.token_to_id(name)) for name in ("</s>", "<s>"))
        tokenizer.post_processor = processors.RobertaProcessing(sep, cls, add_prefix_space=prefix)
    return tokenizer


def _config_entry(folder: Path, name: str) -> Any:
    """An entry of the folder's tokenizer_config.json; None where there is no such file or entry."""
    path = folder / "tokenizer_config.json"
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8")).get(name)
    except ValueError as error:
        raise UserError(f"{path} is no JSON ({error}); mend it or take it away") from error


def _from_hub(name: str) -> Tokenizer:
    """A tokenizer from the local hub cache, else from the hub itself."""
    advice = "a local folder with tokenizer.json or vocab.txt, or a vocab.txt file, would work"
    if not HUB_NAME.fullmatch(name):
        raise UserError(f"no tokenizer at {name}: no such file or folder; {advice}")
    import huggingface_hub

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        # The cache is asked first: without a network the hub's client would retry for half a minute.
        cached = huggingface_hub.try_to_load_from_cache(name, "tokenizer.json")
        return Tokenizer.from_file(cached) if isinstance(cached, str) else Tokenizer.from_pretrained(name)
    except Exception as error:  # network, missing repository, wrong file: each has its own class there
        reason = str(error).strip().split("\n")[0]
        raise UserError(f"no tokenizer {name!r}: no such folder, and the hub gave none ({reason}); {advice}") from error


def _set_lowercase(tokenizer: Tokenizer, lowercase: bool, name: str | Path) -> None:
    if is_lowercasing(tokenizer) == lowercase:
        return
    if isinstance(tokenizer.normalizer, normalizers.BertNormalizer):
        tokenizer.normalizer.lowercase = lowercase
    elif tokenizer.normalizer is None:
        tokenizer.normalizer = normalizers.Lowercase()
    else:
        raise UserError(
            f"the tokenizer {name} {'does not lower-case' if lowercase else 'lower-cases'} and its "
            f"{type(tokenizer.normalizer).__name__} normalizer cannot be told otherwise; leave the choice to it"
        )
