"""With whole-word masking a word of the text is hidden with all its pieces or not at all, for every family of tokenizers."""

import numpy as np
import pytest
from sampling_case import SPECIAL, byte_level, make_samples, wordpiece
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from dataset.errors import UserError
from dataset.samples import SampleSettings
from dataset.tokenizer import masking_exclusions, word_continuations

WORDS = ["play", "ply", "a", "xylo", "un", "playing", "unplayed", "aaa"]
LETTERS = sorted(set("".join(WORDS)))


def pieces() -> Tokenizer:
    """WordPiece: "playing" is play + ##ing, most words are single letters."""
    return wordpiece([*SPECIAL, *LETTERS, *(f"##{letter}" for letter in LETTERS), "play", "##ing", "un", ".", "!"])


def metaspace() -> Tokenizer:
    """A SentencePiece-style tokenizer: "\u2581" leads a word."""
    vocabulary = {token: number for number, token in enumerate(["<s>", "<pad>", "</s>", "<unk>", "<mask>", "\u2581", *LETTERS, ".", "!"])}
    merges = [("\u2581", "p"), ("\u2581p", "l"), ("\u2581", "u"), ("\u2581", "a"), ("\u2581", "x")]
    for left, right in merges:
        vocabulary[left + right] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    return tokenizer


def text() -> bytes:
    rng = np.random.default_rng(3)
    lines = [" ".join(WORDS[number] for number in rng.integers(0, len(WORDS), 9)) for _ in range(400)]
    return "\n\n".join("\n".join(lines[start : start + 20]) for start in range(0, len(lines), 20)).encode()


@pytest.mark.parametrize("make", [pieces, byte_level, metaspace])
def test_words_are_hidden_whole(make, tmp_path):
    tokenizer = make()
    settings = SampleSettings(64, whole_word_masking=True, masked_lm_prob=0.3, short_seq_prob=0)
    _, (shard,) = make_samples(tmp_path, text(), tokenizer, settings)
    special = set(masking_exclusions(tokenizer).tolist())
    whole, seen = 0, set()
    for row, length, positions in zip(shard.ids, shard.lengths, shard.positions, strict=True):
        hidden = np.isin(np.arange(length), positions[positions > 0])
        tokens = [tokenizer.id_to_token(int(token)) for token in row[:length]]
        # Words as a reader sees them: the marks of this family, independent of the code under test.
        begins = [
            number for number in range(1, length - 1)
            if number == 1 or (not tokens[number].startswith("##") if make is pieces else tokens[number][0] in "\u0120\u2581")
        ]
        for start, stop in zip(begins, [*begins[1:], length - 1], strict=True):
            assert hidden[start:stop].all() or not hidden[start:stop].any()
            seen.add(stop - start)
            whole += hidden[start] and stop - start > 1
        assert not hidden[[0, length - 1]].any() and not special & set(row[:length][hidden].tolist())
    assert whole > 300 and len(seen) > 3


def test_marks_come_from_the_decoder():
    continues = word_continuations(pieces())
    vocabulary = pieces().get_vocab()
    assert continues[vocabulary["##ing"]] and not continues[[vocabulary["play"], vocabulary["."], *range(5)]].any()
    tokenizer = byte_level()
    continues, vocabulary = word_continuations(tokenizer), tokenizer.get_vocab()
    assert continues[vocabulary["a"]] and not continues[[vocabulary["\u0120"], *range(5)]].any()
    tokenizer = pieces()
    tokenizer.decoder = decoders.WordPiece(prefix="@@")
    assert not word_continuations(tokenizer).any()
    in_sequence = byte_level()
    in_sequence.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Fuse()])
    assert (word_continuations(in_sequence) == word_continuations(byte_level())).all()
    for silent in (decoders.BPEDecoder(), decoders.Sequence([decoders.Fuse()])):
        tokenizer = byte_level()
        tokenizer.decoder = silent
        with pytest.raises(UserError, match="does not mark where words begin"):
            word_continuations(tokenizer)
    with pytest.raises(UserError, match="does not mark where words begin"):
        word_continuations(Tokenizer(models.BPE({"<unk>": 0}, [])))
