"""A hand-made MediaWiki dump through the real wikiextractor; failures it hides are found; nothing is left half done."""

import bz2
import time

import pytest
from reader_case import articles, write

from dataset import process_data
from dataset.errors import UserError
from dataset.readers.wiki_dump import extract_dump

PAGE = """  <page>
    <title>{title}</title>
    <ns>{namespace}</ns>
    <id>{number}</id>
    {redirect}<revision>
      <id>{number}1</id>
      <text bytes="1" xml:space="preserve">{text}</text>
    </revision>
  </page>
"""
HEAD = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/" xml:lang="en">
  <siteinfo>
    <sitename>Wikipedia</sitename>
    <base>https://en.wikipedia.org/wiki/Main_Page</base>
    <namespaces>
      <namespace key="0" case="first-letter" />
      <namespace key="1" case="first-letter">Talk</namespace>
      <namespace key="10" case="first-letter">Template</namespace>
    </namespaces>
  </siteinfo>
"""


def make_page(number: int, text: str, namespace: int = 0, redirect: str = "") -> str:
    return PAGE.format(title=f"Title{number}", namespace=namespace, number=number, text=text, redirect=redirect)


def make_dump() -> str:
    pages = [
        make_page(1, "'''Bara''' is a [[town|small town]] &amp; more &lt;ref&gt;note&lt;/ref&gt;.\n\nIt has 3 &gt; 2."),
        make_page(2, "Talk about it.", namespace=1),
        make_page(3, "", redirect='<redirect title="Title1" />\n    '),
        make_page(4, "{{Infobox|a=b}}"),
        *(make_page(number, f"Article {number} speaks.\n\n== Head ==\nOf {number} things.") for number in range(5, 60)),
    ]
    return HEAD + "".join(pages) + "</mediawiki>\n"


EXPECTED = ["Bara is a small town & more. It has 3 > 2."] + [
    f"Article {number} speaks. Head. Of {number} things." for number in range(5, 60)
]


@pytest.fixture(scope="module")
def dump(tmp_path_factory):
    path = tmp_path_factory.mktemp("dump") / "wiki dump; echo.xml.bz2"
    path.write_bytes(bz2.compress(make_dump().encode()))
    return path


@pytest.mark.parametrize("n_processes", ["1", "3"])
def test_articles_come_in_dump_order_without_titles_talk_redirects_and_empty_ones(dump, tmp_path, n_processes):
    process_data.main(["-f", str(dump), "-o", str(tmp_path / "out"), "--type", "wiki", "--n_processes", n_processes])
    written = tmp_path / "out" / "wiki_one_article_per_line.txt"
    assert written.read_text(encoding="utf-8") == "".join(f"{article}\n\n" for article in EXPECTED)
    assert list((tmp_path / "out").iterdir()) == [written]


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_a_dump_is_read_however_it_is_packed(tmp_path, suffix):
    path = write(tmp_path / f"dump.xml{suffix}", make_dump())
    assert articles("wiki", path, tmp_path / "out") == EXPECTED
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["wiki_one_article_per_line.txt"]


def test_invalid_utf8_is_replaced_when_asked_and_half_characters_always(tmp_path, capsys):
    dump = make_dump().encode().replace(b"Article 8", b"&amp;#xD800;Article 8")
    expected = [*EXPECTED[:4], f"\ufffd{EXPECTED[4]}", *EXPECTED[5:]]
    assert articles("wiki", write(tmp_path / "dump.xml.bz2", dump), tmp_path / "out") == expected
    assert "1 characters in 1 lines" in capsys.readouterr().err
    broken = write(tmp_path / "dump.xml.bz2", dump.replace(b"Article 7 speaks", b"Article 7 \xffspeaks"))
    expected[3] = "Article 7 \ufffdspeaks. Head. Of 7 things."
    assert articles("wiki", broken, tmp_path / "out", "--errors", "replace") == expected
    assert "2 characters in 2 lines" in capsys.readouterr().err


BAD_LINE = make_dump().encode().split(b"\n").index(b"Of 30 things.</text>") + 1
CUT = make_dump()[:-400]
LAST_LINE = CUT.rstrip().count("\n") + 1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("dump.xml", b"just text", "does not start with <mediawiki"),
        ("dump.xml.bz2", b"<mediawiki>", r"is no bz2 file"),
        ("dump.xml.gz", b"<mediawiki>", r"is no gz file"),
        ("dump.xml", b"\xff\xfe\x00", r"dump.xml, line 1: not UTF-8"),
        ("dump.xml", (HEAD + "</mediawiki>\n").encode(), "no article found"),
        ("dump.xml", make_dump().encode().replace(b"Of 30", b"Of \xe9 30"), f"line {BAD_LINE}: not UTF-8"),
        ("dump.xml.bz2", bz2.compress(make_dump().encode() * 400)[:-3000], r"line \d{5,}: damaged or cut short"),
        ("dump.xml", CUT.encode() + b"\n\n", f"line {LAST_LINE}: the dump ends without </mediawiki>: it is cut short"),
        ("dump.xml.bz2", bz2.compress(CUT.encode()), f"line {LAST_LINE}: the dump ends without </mediawiki>"),
    ],
)
def test_what_is_no_whole_dump_is_one_line_and_leaves_nothing(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        process_data.main(["-f", str(tmp_path / name), "-o", str(tmp_path / "out"), "--type", "wiki"])
    assert not (tmp_path / "out").exists() or list((tmp_path / "out").iterdir()) == []


WORKER_DIES = """import sys, time
print("Traceback (most recent call last):\\n  File\\nKeyError: 7", file=sys.stderr, flush=True)
time.sleep(600)
"""


def fake_wikiextractor(folder, body: str) -> None:
    """A package that stands in for wikiextractor and runs `body`."""
    package = folder / "wikiextractor"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "WikiExtractor.py").write_text(body)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("import sys; sys.exit('out of luck')", "out of luck"),
        ("import os; os.kill(os.getpid(), 9)", "ended with status -9"),
        ("import sys; print('REDUCER_EXIT incomplete: 3', file=sys.stderr)", "articles are missing"),
        (WORKER_DIES, "KeyError: 7"),
    ],
)
def test_a_failure_that_wikiextractor_hides_ends_the_step(dump, tmp_path, monkeypatch, body, message):
    fake_wikiextractor(tmp_path, body)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    start = time.monotonic()
    with pytest.raises(UserError, match=f"wikiextractor .*{message}"):
        process_data.main(["-f", str(dump), "-o", str(tmp_path / "out"), "--type", "wiki"])
    assert time.monotonic() - start < 60
    assert list((tmp_path / "out").iterdir()) == []


def test_modules_in_the_current_folder_do_not_stand_in_for_others(dump, tmp_path, monkeypatch):
    (tmp_path / "bz2.py").write_text("raise SystemExit('wrong module')")
    monkeypatch.chdir(tmp_path)
    extract_dump(dump, tmp_path / "text", 1)
    assert (tmp_path / "text" / "AA" / "wiki_00").stat().st_size > 0
