"""Text through the table of words has exactly the ids its tokenizer gives to each sentence; other tokenizers do it themselves."""

from itertools import pairwise, product
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sampling_case import NASTY, ODD_VOCABULARY, byte_level, documents_of, plain_ids, wordpiece
from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers

from dataset.errors import UserError
from dataset.sampling import text as blocks
from dataset.sampling import words as tables
from dataset.sampling.text import read_blocks
from dataset.sampling.tokens import BlockTokenizer
from dataset.sampling.words import WordTable, is_wordwise

KINDS = [
    {"lowercase": lowercase, "strip_accents": accents, "clean_text": clean, "handle_chinese_chars": chinese}
    for lowercase, accents, clean, chinese in product((True, False), (None, True, False), (True, False), (True, False))
]


def tokenized(reader: BlockTokenizer, path: Path, errors: str = "strict") -> list[list[list[int]]]:
    """Documents as lists of sentences as lists of ids."""
    documents, current = [], []
    for block in reader.read(path, errors):
        ends = [0, *block.sentence_ends.tolist()]
        assert ends[-1] == len(block.ids) and block.ids.dtype == "int32"
        sentences = [block.ids[start:end].tolist() for start, end in pairwise(ends)]
        done = 0
        for end in block.document_ends.tolist():
            documents.append(current + sentences[done:end])
            current, done = [], end
        current = current + sentences[done:]
    assert not current, "the end of the file ends the last document"
    return documents


def expected_ids(tokenizer: Tokenizer, text: str) -> list[list[list[int]]]:
    return [plain_ids(tokenizer, document) for document in documents_of(text)]


pieces = st.one_of(st.sampled_from(NASTY), st.sampled_from(NASTY), st.characters(codec="utf-8", exclude_characters="\n"))
lines = st.lists(pieces, max_size=12)
texts = st.lists(lines.map("".join), min_size=1, max_size=8)


@settings(deadline=None, derandomize=True, max_examples=200)
@given(
    texts, st.sampled_from(["\n", "\r\n", "\n\n"]), st.booleans(), st.sampled_from(KINDS), st.sampled_from([100, 3]), st.booleans(),
    st.sampled_from([4, 5, 7, 16, 1 << 22]), st.sampled_from([0, 150, 1 << 19]),
)  # fmt: skip
def test_any_text_in_any_blocks_with_any_memory(text, ending, has_mark, kind, longest, normalized, block_bytes, most_words):
    text = ("\ufeff" if has_mark else "") + ending.join(text)
    tokenizer = wordpiece(ODD_VOCABULARY, longest, normalized, **kind)
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory() as folder:
        patch.setattr(blocks, "BLOCK_BYTES", block_bytes)
        patch.setattr(tables, "MOST_WORDS", most_words)
        path = Path(folder) / "training0.txt"
        path.write_bytes(text.encode())
        reader = BlockTokenizer(Tokenizer.from_str(tokenizer.to_str()))
        assert is_wordwise(reader.tokenizer)
        assert tokenized(reader, path) == expected_ids(tokenizer, text)


@pytest.mark.parametrize("kind", [KINDS[0], KINDS[12]])
def test_characters_alone_and_inside_a_word(kind):
    """Most of the code points in use, with letters before, after and around it, and after punctuation."""
    tokenizer = wordpiece(ODD_VOCABULARY, **kind)
    reader = BlockTokenizer(Tokenizer.from_str(tokenizer.to_str()))
    tokenizer.encode_special_tokens = True
    codes = (*range(0x3200), *range(0xA000, 0xAC10), *range(0xF900, 0x10500), *range(0x1F1E0, 0x1F700), 0xE0001)
    characters = [chr(code) for code in codes if chr(code) != "\n"]
    for form in ("{}", "a{}b {}a!{}. a{}"):
        sentences = [form.replace("{}", character) for character in characters]
        ids, ends = reader._table.tokenize("".join(sentence + "\n" for sentence in sentences).encode())
        expected = [encoding.ids for encoding in tokenizer.encode_batch_fast(sentences, add_special_tokens=False)]
        assert [ids[start:end].tolist() for start, end in pairwise([0, *ends.tolist()])] == expected


def test_a_line_of_ten_million_bytes(tmp_path):
    tokenizer = wordpiece(ODD_VOCABULARY)
    part = " ".join(f"ab{number} Bara! é" for number in range(20_000))
    (tmp_path / "training0.txt").write_text(f"doso\n{' '.join([part] * 32)}\na\n", encoding="utf-8")
    assert (tmp_path / "training0.txt").stat().st_size > 10_000_000
    ((first, line, last),) = tokenized(BlockTokenizer(Tokenizer.from_str(tokenizer.to_str())), tmp_path / "training0.txt")
    assert [first, last] == plain_ids(tokenizer, ["doso", "a"])
    assert line == plain_ids(tokenizer, [part])[0] * 32


def test_the_memory_of_words_is_bounded_and_forgetting_changes_nothing(monkeypatch):
    monkeypatch.setattr(tables, "MOST_WORDS", 300)
    tokenizer = wordpiece(ODD_VOCABULARY)
    reader = BlockTokenizer(Tokenizer.from_str(tokenizer.to_str()))
    sizes = []
    for start in range(0, 3000, 100):
        text = " ".join(f"é{number}" for number in range(start - 50, start + 50))
        ids, _ = reader._table.tokenize(f"{text}\n".encode())
        assert ids.tolist() == plain_ids(tokenizer, [text])[0]
        sizes.append(len(reader._table._numbers))
    assert max(sizes) <= 400 and sizes != sorted(sizes)
    monkeypatch.setattr(tables, "MOST_BYTES", 0)
    reader._table.tokenize(b"new1 words2\n")
    reader._table.tokenize(b"a\n")
    assert b"new1" not in reader._table._numbers, "the bytes of words are bounded too"


def changed(**parts) -> Tokenizer:
    tokenizer = wordpiece(ODD_VOCABULARY)
    for name, part in parts.items():
        setattr(tokenizer, name, part)
    return tokenizer


def with_added_word() -> Tokenizer:
    tokenizer = wordpiece(ODD_VOCABULARY)
    tokenizer.add_tokens([AddedToken("new word", single_word=False)])
    return tokenizer


@pytest.mark.parametrize(
    "tokenizer",
    [
        byte_level(),
        changed(normalizer=normalizers.Sequence([normalizers.NFD(), normalizers.Lowercase()])),
        changed(normalizer=None),
        changed(pre_tokenizer=pre_tokenizers.Whitespace()),
        with_added_word(),
    ],
    ids=["bytes", "normalizer", "no normalizer", "pre-tokenizer", "added word"],
)
def test_any_other_tokenizer_tokenizes_itself(tokenizer, tmp_path, monkeypatch):
    text = "Bara new word doso!\nÉ [MASK] a\n  [CLS] b  \n\n\x0b\na\u2028b\n \t\ncé\n"
    path = tmp_path / "training0.txt"
    path.write_text(text, encoding="utf-8")
    documents = [["Bara new word doso!", "É [MASK] a", "[CLS] b"], ["a\u2028b"], ["cé"]]
    # Sentences but a document's first are led by the space that stood there in running text.
    expected = [plain_ids(tokenizer, [document[0], *(f" {sentence}" for sentence in document[1:])]) for document in documents]
    for size in (4, 9, 30, 1 << 22):
        monkeypatch.setattr(blocks, "BLOCK_BYTES", size)
        reader = BlockTokenizer(Tokenizer.from_str(tokenizer.to_str()))
        assert not is_wordwise(reader.tokenizer) and reader._table is None
        assert tokenized(reader, path) == expected


def test_a_tokenizer_that_takes_special_tokens_from_text_is_not_wordwise():
    tokenizer = wordpiece(ODD_VOCABULARY)
    assert not is_wordwise(tokenizer)
    tokenizer.encode_special_tokens = True
    assert is_wordwise(tokenizer)
    ids, ends = WordTable(tokenizer).tokenize(b"")
    assert ids.tolist() == [] and ends.tolist() == []


@pytest.mark.parametrize("size", [4, 6, 9, 1 << 22])
def test_what_is_not_utf8_is_named_by_its_line_or_replaced(tmp_path, monkeypatch, size):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", size)
    path = tmp_path / "training0.txt"
    path.write_bytes("\ufeffa\r\n\r\nb é\n".encode() + b"\xe2\x82\na\xed\xa0\x80b\n\xff")
    with pytest.raises(UserError, match=rf"{path} line 4 is not UTF-8 \(.*\); --errors replace goes on"):
        list(read_blocks(path, "strict"))
    assert next(read_blocks(path, "replace")).first_line == 1
    text = b"".join(block.text for block in read_blocks(path, "replace")).decode()
    assert text == "a\n\nb é\n\ufffd\na\ufffd\ufffd\ufffdb\n\ufffd\n\n", "the end of the file ends the last document"
    tokenizer = wordpiece(ODD_VOCABULARY)
    assert tokenized(BlockTokenizer(Tokenizer.from_str(tokenizer.to_str())), path, "replace") == expected_ids(tokenizer, text)
