"""Any text through all three steps: every article whole in one split, every token in one sample of each duplicate, every mask legal."""

from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sampling_case import NASTY, ODD_VOCABULARY, Here, plain_ids, read_shard
from tiny_corpus import STEMS, make_articles

from dataset import generate_samples, jobs, process_data, shard_data
from dataset.tokenizer import load_tokenizer

LENGTH, DUPLICATES = 16, 2
WORDS = ["Bara", "no", *STEMS, *(f"##{digit}" for digit in range(10)), *map(str, range(10))]


# A blank line would end the article; what str.splitlines takes for a line's end would not.
inner = [piece for piece in NASTY if piece not in ("\r", "\x0b", "\x0c")]
sentences = ["Bara doso. ", "Luti 5! ", "\n", '? "', "e.g. ", "(a)"]
pieces = st.one_of(st.sampled_from(inner), st.sampled_from(sentences), st.characters(codec="utf-8", exclude_characters="\r\x0b\x0c"))
bodies = st.lists(pieces, max_size=20).map("".join)


@settings(deadline=None, derandomize=True, max_examples=25)
@given(st.lists(bodies, min_size=4, max_size=10), st.sampled_from(["0", "1"]), st.booleans(), st.integers(0, 3), st.booleans())
def test_any_documents(bodies, lowercase, whole_words, seed, has_pairs):
    # A name at the front tells articles apart; what is left of a line that was blank is no article.
    articles = [
        f"Bara no {number}. " + "\n".join(line for line in body.split("\n") if line.strip()) for number, body in enumerate(bodies)
    ]
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory() as name:
        patch.setattr(jobs, "ProcessExecutor", Here)
        run_pipeline(Path(name), "\n\n".join(articles), lowercase, whole_words, seed, has_pairs)
        check_pipeline(Path(name), articles, lowercase == "1", has_pairs)


def run_pipeline(folder: Path, text: str, lowercase: str, whole_words: bool, seed: int, has_pairs: bool) -> None:
    (folder / "a.txt").write_text(text, encoding="utf-8", newline="")
    vocabulary = [*(token for token in ODD_VOCABULARY if token.strip()), *WORDS]
    (folder / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    process_data.main(["--type", "text", "-f", str(folder / "a.txt"), "-o", str(folder / "processed")])
    shares = ["--num_train_shards", "2", "--num_test_shards", "1", "--frac_test", "0.3", "--seed", str(seed)]
    shard_data.main(["--dir", str(folder / "processed"), "-o", str(folder / "text"), *shares])
    generate_samples.main([
        "--dir", str(folder / "text"), "-o", str(folder / "samples"), "--vocab_file", str(folder / "vocab.txt"),
        "--do_lower_case", lowercase, "--max_seq_length", str(LENGTH), "--dup_factor", str(DUPLICATES), "--seed", str(seed),
        *(["--whole_word_masking"] if whole_words else []), *(["--nsp"] if has_pairs else []),
    ])  # fmt: skip


def check_pipeline(folder: Path, articles: list[str], lowercase: bool, has_pairs: bool) -> None:
    tokenizer = load_tokenizer(folder / "vocab.txt", lowercase)
    by_shard = {}
    for name in ("training0", "training1", "test0"):
        text = (folder / "text" / f"{name}.txt").read_bytes().decode()
        by_shard[name] = [article.split("\n") for article in text.split("\n\n") if article]
        assert by_shard[name], "no shard is empty"
    found = [" ".join(sentences) for documents in by_shard.values() for sentences in documents]
    assert sorted(found) == sorted(" ".join(article.split()) for article in articles), "each article whole and in one place"
    for name, documents in by_shard.items():
        tokens = [list(chain.from_iterable(plain_ids(tokenizer, document))) for document in documents]
        assert all(tokens)
        split, number = ("test", 0) if name == "test0" else ("train", int(name[-1]))
        files = {"train": 2, "test": 1}[split]
        for duplicate in range(DUPLICATES):
            check_shard(read_shard(folder / "samples" / f"{split}_shard_{number + duplicate * files}.hdf5"), tokens, has_pairs)


def check_shard(shard, documents: list[list[int]], has_pairs: bool) -> None:
    is_text = np.arange(LENGTH) < shard.lengths[:, None]
    is_text[:, 0] = False
    rows = np.arange(len(shard.ids))
    is_text[rows, shard.lengths - 1] = False
    if has_pairs:
        middle = shard.lengths - 1 - shard.segments.sum(axis=1)
        is_text[rows, middle] = False
        is_text &= (shard.segments == 0) | (shard.is_random == 0)[:, None]
        assert (shard.ids[rows, middle] == 3).all() and (middle > 1).all()
    else:
        assert (shard.lengths >= 3).all()
    # With pairs, a text shard of one article of one token has no sample; these articles all have more.
    assert shard.ids[is_text].tolist() == list(chain.from_iterable(documents)), "every token once, in order"
    used = shard.positions > 0
    hidden = np.take_along_axis(shard.ids, shard.positions, axis=1)[used]
    assert (hidden == shard.labels[used]).all() and not np.isin(hidden, [0, 1, 2, 3, 4, 5]).any(), "no special, no spare token"
    assert (np.take_along_axis(shard.positions, np.argsort(~used, axis=1, kind="stable"), axis=1) == shard.positions).all()
    shown = np.take_along_axis(shard.shown, shard.positions, axis=1)[used]
    assert not np.isin(shown, [0, 1, 2, 3, 5]).any(), "what is put in is [MASK] or a token of text"


def test_articles_of_known_sentences(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "ProcessExecutor", Here)
    articles = [" ".join(sentences) for sentences in make_articles(60)]
    run_pipeline(tmp_path, "\n\n".join(articles), "0", False, 1, False)
    check_pipeline(tmp_path, articles, False, False)
    assert len((tmp_path / "text" / "training0.txt").read_text().split("\n")) > 150
