"""Every kind of source becomes the same articles, plain or compressed, from a file or a folder; what is odd in a text stays or is white
space, and nothing is lost at the seams of compressed files."""

import json
import subprocess
import sys

import pytest
from reader_case import COMPRESS, articles, write

from dataset.readers.plain import heading_level

WIKITEXT = " \n = Lobster = \n \n A lobster \n = = Size = = \n It is long . \n = 5 \n \n = E = mc = \n Energy = 3 .\n== Deep ==\nEnd = =\n"
PAGE = """<page>
<title>T{0} &amp; co</title>
<ns>0</ns>
<id>{0}</id>
<revision>
<id>9</id>
<text>Page {0} has 3 &gt; 2 &amp;amp; more.

End.</text>
</revision>
</page>
"""
DOC = """<doc id="1" url="u" title="One &amp; all">
One &amp; all

First &lt;b&gt; &amp;amp; one.

Second.

</doc>
<doc id="2" url="u" title="Empty">
Empty

</doc>
"""
JSON = [
    {"id": "1", "title": "One", "text": "One\n\nFirst &lt;b&gt; &amp;amp; one.\nSecond."},
    {"id": "2", "title": "Two", "text": "Two of them.\nTwo"},
    {"id": "3", "title": "Three", "text": "Three"},
    {"id": "4", "title": "", "text": "\nFour"},
    {"id": "5", "text": "Five\nand six"},
    {"id": "6", "title": "Six", "text": ""},
]
SOURCES = {
    "text": ("a.txt", "One\ntwo.\n \t\nThree.\r\n\r\n\r\n\n Four", ["One two.", "Three.", "Four"]),
    "lines": ("dump.txt", "One two.\n\n Three.\r\nFour", ["One two.", "Three.", "Four"]),
    "wikitext": ("wiki.train.tokens", WIKITEXT, ["A lobster It is long . = 5", "Energy = 3 . End = ="]),
    "jsonl": ("a.jsonl", '{"text": "One\\ntwo"}\n\n{"id": 3, "text": "\\u00e9"}\n{"text": null}', ["One two", "é"]),
    "wikiextractor": ("wiki_00", DOC, ["First <b> &amp; one. Second."]),
}


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("kind", SOURCES)
def test_a_file_gives_its_articles_however_it_is_packed(kind, suffix, tmp_path):
    name, content, expected = SOURCES[kind]
    assert articles(kind, write(tmp_path / f"{name}{suffix}", content), tmp_path / "out") == expected


def test_wikiextractors_json_loses_a_first_line_only_where_it_is_the_title(tmp_path, capsys):
    lines = "".join(json.dumps(value) + "\n" for value in JSON)
    expected = ["First <b> &amp; one. Second.", "Two of them. Two", "Three", "Four", "Five and six"]
    assert articles("wikiextractor", write(tmp_path / "in" / "AA" / "wiki_00.bz2", lines).parent, tmp_path) == expected
    assert "5 articles" in (said := capsys.readouterr().out) and "1 empty left out" in said


def test_output_of_the_real_wikiextractor_is_read_like_the_dump_itself(tmp_path):
    head = '<mediawiki>\n<siteinfo>\n<namespaces>\n<namespace key="10">Template</namespace>\n</namespaces>\n</siteinfo>\n'
    dump = write(tmp_path / "dump.xml", head + "".join(PAGE.format(number) for number in range(1, 9)) + "</mediawiki>\n")
    outputs = [articles("wiki", dump, tmp_path)]
    for number, more in enumerate([["--json"], [], ["--json", "--compress"]]):
        command = [sys.executable, "-m", "wikiextractor.WikiExtractor", str(dump), "-o", str(tmp_path / str(number)), *more]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        outputs.append(articles("wikiextractor", tmp_path / str(number), tmp_path))
    assert outputs[0] == [f"Page {number} has 3 > 2 & more. End." for number in range(1, 9)]
    assert outputs[1] == outputs[2] == outputs[3] == outputs[0]


@pytest.mark.parametrize("kind", ["bookcorpus", "text", "lines", "jsonl"])
def test_a_folder_is_read_in_the_plain_order_of_paths_without_hidden_files_and_the_output(kind, tmp_path, capsys):
    wrap = (lambda text: json.dumps({"text": text}) + "\n") if kind == "jsonl" else str
    ending = ".jsonl" if kind == "jsonl" else ".txt"
    for name in ("b10", "b2", "a/z", "B", ".hidden", ".cache/c", "a/\xe9", "b2x.md"):
        write(tmp_path / "in" / f"{name}{ending if '.md' not in name else ''}", wrap(f"From {name}."))
    write(tmp_path / "in" / f"c{ending}.zst", wrap("From c."))
    write(tmp_path / "in" / f"empty{ending}", wrap(" \n"))
    expected = [f"From {name}." for name in ("B", "a/z", "a/\xe9", "b10", "b2", "c")]
    for _ in range(2):  # the second run finds the output of the first in its input folder
        assert articles(kind, tmp_path / "in", tmp_path / "in") == expected
    counted = "0 empty" if kind == "text" else "1 empty"
    assert capsys.readouterr().out.count(counted) == 2
    assert not list((tmp_path / "in").glob(".partial*"))


def test_members_of_compressed_files_are_read_to_the_last(tmp_path):
    skippable = b"\x50\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"skip!"
    for suffix, start, between in ((".gz", b"", bytes(20_000)), (".bz2", b"", b""), (".zst", skippable, skippable)):
        parts = [COMPRESS[suffix](f"Part {number}\n".encode() * 40_000) for number in range(3)]
        path = tmp_path / f"dump.txt{suffix}"
        path.write_bytes(start + between.join([*parts, COMPRESS[suffix](b""), COMPRESS[suffix](b"last")]) + bytes(40_000))
        read = articles("lines", path, tmp_path)
        assert len(read) == 120_001 and read[39_999:40_001] == ["Part 0", "Part 1"] and read[-1] == "last"


ODD = "a\x00b\x0bc\x0cd\x1ce\x1df\x1eg\x85h\u2028i\u2029j\xa0k\u3000l\ufeffm\U0001f600\x1b\x7f\ufffd"
ODD_WRITTEN = "a\x00b c d e f g h i j k l\ufeffm\U0001f600\x1b\x7f\ufffd"


@pytest.mark.parametrize("kind", ["bookcorpus", "text", "lines", "jsonl"])
def test_odd_characters_break_nothing_and_end_no_line(kind, tmp_path):
    wrap = (lambda text: json.dumps({"text": text}, ensure_ascii=False)) if kind == "jsonl" else str
    name = "a.jsonl" if kind == "jsonl" else "a.txt"
    path = write(tmp_path / "in" / name, "\ufeff" + wrap(ODD) + "\n")
    assert articles(kind, path.parent, tmp_path / "out") == [ODD_WRITTEN]


def test_a_line_of_ten_megabytes_is_an_article(tmp_path):
    for kind, name in (("lines", "a.txt"), ("jsonl", "a.jsonl")):
        text = "word\t " * 1_700_000
        path = write(tmp_path / name, json.dumps({"text": text}) if kind == "jsonl" else text)
        [article] = articles(kind, path, tmp_path / "out")
        assert article == ("word " * 1_700_000).strip()


def test_headings_are_told_from_text_by_the_signs_at_both_ends():
    levels = {"= A =": 1, " = A = \n": 1, "= E = mc2 =": 1, "= = A = =": 2, "== A ==": 2, " = = = A = = = \n": 3, "===A===": 3}
    levels |= {"=A=": 0, "= A": 0, "A =": 0, "= A = =": 0, "== A =": 0, "": 0, "=": 0, "a = b": 0, "= " + " " * 5000 + "=": 0}
    assert {line: heading_level(line) for line in levels} == levels


def test_replaced_bytes_and_half_characters_are_counted(tmp_path, capsys):
    content = b"\xef\xbb\xbffine \xef\xbf\xbd\nbad \xff\xfe here\xef\xbf\xbd\ncut \xe2\x82\nfine\n"
    path = write(tmp_path / "a.txt", content)
    expected = ["fine \ufffd", "bad \ufffd\ufffd here\ufffd", "cut \ufffd", "fine"]
    assert articles("lines", path, tmp_path, "--errors", "replace") == expected
    assert "3 characters in 2 lines were no UTF-8 and became U+FFFD" in capsys.readouterr().err
    path = write(tmp_path / "a.jsonl", '{"text": "half \\ud800 of"}\n{"text": "whole \\ud83d\\ude00"}\n')
    assert articles("jsonl", path, tmp_path, "--errors", "replace") == ["half \ufffd of", "whole \U0001f600"]
    assert "1 characters in 1 lines" in capsys.readouterr().err
