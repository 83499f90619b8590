"""A hand-made MediaWiki dump through the real wikiextractor; failures it hides are found; nothing is left half done."""

import bz2
import time

import pytest
from tiny_corpus import run_script

from dataset import process_data
from dataset.errors import UserError
from dataset.wiki_dump import check_dump, extract_dump

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


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("dump.xml", b"just text", "does not start with <mediawiki"),
        ("dump.xml.bz2", b"<mediawiki>", r"cannot be read .* would work"),
        ("dump.xml.gz", b"<mediawiki>", r"cannot be read .* would work"),
        ("dump.xml", b"\xff\xfe\x00", r"cannot be read .* would work"),
        ("dump.xml", (HEAD + "</mediawiki>\n").encode(), "no article found"),
        ("dump.xml.bz2", bz2.compress(make_dump().encode() * 400)[:-3000], "EOFError.*is the dump whole"),
    ],
)
def test_what_is_no_dump_is_one_line_and_leaves_nothing(tmp_path, name, content, message):
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
    check_dump(dump)
    extract_dump(dump, tmp_path / "text", 1)
    assert (tmp_path / "text" / "AA" / "wiki_00").stat().st_size > 0


@pytest.mark.parametrize("kind", ["bookcorpus", "text"])
def test_every_text_file_below_a_folder_is_one_article(tmp_path, kind):
    folder = tmp_path / "books"
    (folder / "b").mkdir(parents=True)
    (folder / "b" / "two.txt").write_text("\ufeffSecond\r\nbook.\n\n\u2028End.", encoding="utf-8")
    (folder / "a.txt").write_text("First book.\n", encoding="utf-8")
    (folder / "empty.txt").write_text(" \n", encoding="utf-8")
    (folder / "notes.md").write_text("no book")
    for _ in range(2):  # the output in the same folder is not read by the second run
        process_data.main(["-f", str(folder), "-o", str(folder), "--type", kind])
        written = (folder / f"{kind}_one_article_per_line.txt").read_text(encoding="utf-8")
        assert written == "First book.\n\nSecond book. End.\n\n"


def test_a_text_file_in_another_encoding_is_named_and_the_old_output_stays(tmp_path):
    (tmp_path / "old.txt").write_bytes(b"caf\xe9")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "text_one_article_per_line.txt").write_text("before\n\n")
    done = run_script("process_data", "-f", tmp_path, "-o", tmp_path / "out", "--type", "text")
    assert done.returncode == 2 and "old.txt is not UTF-8" in done.stderr and done.stderr.count("\n") == 1
    names = [path.name for path in (tmp_path / "out").iterdir()]
    assert names == ["text_one_article_per_line.txt"]
    assert (tmp_path / "out" / names[0]).read_text() == "before\n\n"
