"""Articles become sentences without losing, joining or cutting a word, whatever characters, line ends and lengths they have; bytes
that are no text are named by file and line; a full disk costs neither the old shards nor leaves half of the new ones."""

import os
import resource
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_corpus import ROOT, folder_bytes, make_articles, read_text_shard, write_articles

from dataset import articles, shard_data, windows
from dataset.articles import split_sentences
from dataset.errors import UserError

AWKWARD = ["\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029", "\ufeff", "\u3000", "\r", "\t", "\x00", "。", "…", "é", "“", "”"]
PIECES = st.sampled_from([*AWKWARD, *'aZ.!?"()[]- ', "Mr. ", "U.S. ", "He left. ", '"Go." ', ".--But ", "[1] "])
PLAIN = [f"Number {index} is here, and {word} stays." for index, word in enumerate(["the dog", "a cat", "my aunt"] * 300)]


def shard(folder, output, *flags, train=2, test=1):
    shard_data.main([
        "--dir", str(folder), "-o", str(output), "--num_train_shards", str(train), "--num_test_shards", str(test),
        "--frac_test", "0.3" if test else "0", "--n_processes", "1", *flags,
    ])  # fmt: skip


def found_articles(folder) -> list[str]:
    return sorted(" ".join(article) for path in folder.glob("*.txt") for article in read_text_shard(path))


@settings(max_examples=400, deadline=None)
@given(st.lists(PIECES, max_size=60).map("".join), st.sampled_from([5, 30, articles.SPAN]), st.sampled_from(["en", "zh", "de"]))
def test_sentences_hold_the_words_of_the_article_in_order(text, span, language):
    whole, articles.SPAN = articles.SPAN, span
    try:
        sentences = split_sentences(text, language)
    finally:
        articles.SPAN = whole
    assert all(sentence and sentence == " ".join(sentence.split()) for sentence in sentences)
    if "。" in text:  # ends a sentence without a space
        assert "".join("".join(sentences).split()) == "".join(text.split())
    else:
        assert " ".join(sentences).split() == text.split()


def test_long_articles_are_split_as_short_ones_are():
    assert split_sentences(" ".join(PLAIN), "en") == PLAIN


def test_a_stray_quotation_mark_swallows_no_more_than_a_span():
    sentences = split_sentences(" ".join(['It is 5" long.', *PLAIN, 'It is 6" wide.']), "en")
    assert len(sentences) > 0.9 * len(PLAIN) and max(map(len, sentences)) <= 2 * articles.SPAN


def test_quotation_marks_stay_with_their_sentence():
    assert split_sentences('She said "I know it." Then he left. "Go now." It ended.--But no.', "en") == [
        'She said "I know it."', "Then he left.", '"Go now."', "It ended.--But no.",
    ]  # fmt: skip
    assert split_sentences("他来了。我走了！好。", "zh") == ["他来了。", "我走了！", "好。"]


def test_a_line_of_ten_megabytes_takes_a_moment():
    start = time.perf_counter()
    for unit in ("word ", 'He said "no. '):
        text = (unit * (10_000_000 // len(unit))).strip()
        assert "".join(split_sentences(text, "en")).replace(" ", "") == text.replace(" ", "")
    assert time.perf_counter() - start < 20, "time grows faster than the line"


def test_articles_of_any_shape_become_articles(tmp_path):
    lines = [
        b"\xef\xbb\xbfOne here. Two there.\r\n", b"\r\n", b" \t \n", b"word\n", "Un\u2028deux\x0btrois\x85quatre\x1c.\n".encode(), b"...\n",
        ("long " * 400_000).encode() + b"\n", "\ufeffnot a mark.\n".encode(), b"No end of the file",
    ]  # fmt: skip
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "b.txt").write_bytes(b"".join(lines))
    (tmp_path / "in" / "c.txt").write_bytes(b"\xef\xbb\xbfSecond file.\n")
    (tmp_path / "in" / "d.txt").write_bytes(b"")
    (tmp_path / "in" / ".partial_1_e.txt").write_bytes(b"Left by a dead run.\n")
    shard(tmp_path / "in", tmp_path / "out")
    expected = ["One here. Two there.", "word", "Un deux trois quatre .", "...", "long " * 399_999 + "long", "\ufeffnot a mark."]
    assert found_articles(tmp_path / "out") == sorted([*expected, "No end of the file", "Second file."])
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"training0.txt", "training1.txt", "test0.txt"}
    for path in (tmp_path / "out").iterdir():
        assert all(line == " ".join(line.split()) for line in path.read_bytes().decode().split("\n"))
        assert len(path.read_text(encoding="utf-8").splitlines()) == path.read_bytes().count(b"\n")


def test_what_is_no_utf8_is_named_by_file_and_line_or_replaced(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(articles, "BLOCK_BYTES", 64)
    (tmp_path / "in").mkdir()
    lines = [b"A line that is fine, number %d.\n" % number for number in range(20)]
    lines[13], lines[17] = b"A caf\xe9.\n", b"\xff\xfe two of them \xe9.\n"
    (tmp_path / "in" / "a.txt").write_bytes(b"".join(lines))
    # The job's process has its own block size, but blocks are listed here.
    with pytest.raises(UserError, match=r"a\.txt line 14 is not UTF-8 \(byte 0xe9, .* byte\); iconv, or --errors replace, would"):
        shard(tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    shard(tmp_path / "in", tmp_path / "out", "--errors", "replace")
    found = found_articles(tmp_path / "out")
    assert len(found) == 20 and "A caf\ufffd." in found and "\ufffd\ufffd two of them \ufffd." in found
    assert "2 lines were not UTF-8" in capsys.readouterr().err


def test_what_cannot_be_balanced_is_said(tmp_path, capsys):
    write_articles(tmp_path / "in" / "a.txt", [PLAIN, ["One."], ["Two."], ["Three."]])
    shard(tmp_path / "in", tmp_path / "out")
    printed = capsys.readouterr()
    assert "from the mean, as articles are large for so many shards" in printed.err and "of all), none more than" in printed.out


def test_windows_bound_what_lies_about_and_do_not_depend_on_blocks(tmp_path, monkeypatch):
    write_articles(tmp_path / "in" / "a.txt", make_articles(300))
    write_articles(tmp_path / "in" / "b.txt", make_articles(100, seed=1))
    one_window = tmp_path / "one"
    shard(tmp_path / "in", one_window, train=4, test=2)
    seen = []
    deal_out = windows.deal_out

    def look(window, shard_of, shards):
        seen.append(sum(len(part.sentences) for part in window))
        deal_out(window, shard_of, shards)
        left = [path for path in shards[0].parent.glob("part_*") if path in {part.path for part in window[:-1]}]
        assert not left, "a part lies about although all of it was dealt out"

    monkeypatch.setattr(windows, "deal_out", look)
    monkeypatch.setattr(windows, "WINDOW_ARTICLES", 64)
    outputs = []
    for block in (1 << 20, 3000):
        monkeypatch.setattr(articles, "BLOCK_BYTES", block)
        shard(tmp_path / "in", tmp_path / f"out{block}", train=4, test=2)
        outputs.append(folder_bytes(tmp_path / f"out{block}"))
        assert seen == [64] * 6 + [16]
        seen.clear()
    assert len(outputs[0]) == 6 and outputs[0] == outputs[1] != folder_bytes(one_window)
    assert found_articles(tmp_path / "out3000") == found_articles(one_window)
    monkeypatch.setattr(windows, "WINDOW_BYTES", 9000)
    shard(tmp_path / "in", tmp_path / "bytes", train=4, test=2)
    assert len(seen) > 7 and sum(seen) == 400 and found_articles(tmp_path / "bytes") == found_articles(one_window)


def test_a_window_has_an_article_for_every_shard(tmp_path, monkeypatch):
    monkeypatch.setattr(windows, "WINDOW_BYTES", 1)
    parts = [windows.Part(tmp_path / str(number), 0, np.ones(5, np.int64), np.full(5, 9)) for number in range(4)]
    assert [[len(part.sentences) for part in window] for window in windows.windows(parts, least=7)] == [[5, 2], [3, 4], [1, 5]]


def test_a_full_disk_is_one_line_and_keeps_the_old_shards(tmp_path, monkeypatch):
    write_articles(tmp_path / "in" / "a.txt", make_articles(400))
    out = tmp_path / "out"
    out.mkdir()
    (out / "training0.txt").write_text("old\n\n")
    usage = type("Usage", (), {"free": 1000})
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda _: usage)
        with pytest.raises(UserError, match=r"out has 0\.00 GB free; .* GB would work"):
            shard(tmp_path / "in", out, "--overwrite")
    size = (tmp_path / "in" / "a.txt").stat().st_size
    # A part may not become as large as the text (the job's error), a shard not half as large (our own).
    for limit in (size // 3, int(size * 1.5)):
        command = [sys.executable, str(ROOT / "dataset" / "shard_data.py"), "--dir", tmp_path / "in", "-o", out, "--num_train_shards", "1"]
        command += ["--num_test_shards", "0", "--frac_test", "0", "--overwrite", "--n_processes", "1"]
        if limit > size:
            write_articles(tmp_path / "in" / "b.txt", make_articles(400, seed=1))
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60,
            preexec_fn=lambda limit=limit: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        )  # fmt: skip
        assert done.returncode == 2 and "File too large" in done.stderr and "Traceback" not in done.stderr, done.stderr
        assert len([line for line in done.stderr.splitlines() if line.startswith("error: ")]) == 1
        assert {path.name: path.read_text() for path in out.iterdir()} == {"training0.txt": "old\n\n"}
    assert os.listdir(out) == ["training0.txt"]  # noqa: PTH208
