"""Output of wikiextractor: its `--json` lines and its `<doc id=...>` text, of any of its versions.

Some versions begin an article's text with its title, some do not (3.1.0: `<doc>` does, `--json` does not), so a JSON line's text loses its
first line only where that is the title. By default 3.1.0 writes &, < and > as entities; they are read as the characters that they stand
for.
"""

from collections.abc import Iterator
from pathlib import Path

from dataset.errors import UserError
from dataset.readers.json_lines import parse_object, text_of
from dataset.readers.source import Article, Source, each_file
from dataset.readers.streams import read_lines

PATTERNS = ("wiki_",)
DOC_OPENS, DOC_CLOSES = "<doc id=", "</doc>"
ADVICE = "output of wikiextractor with </doc> after each article"
WANTED = "a folder of wikiextractor's output (AA/wiki_00 ...)"


def read_extracted(source: Source) -> Iterator[str]:
    """Articles in the order of wikiextractor's files, without titles; each file is JSON lines or `<doc>` text."""
    for path in each_file(source, PATTERNS, WANTED):
        lines = ((number, line) for number, line in read_lines(path, source) if not line.isspace())
        for number, line in lines:
            if line.startswith(DOC_OPENS):
                yield _unescape(_read_doc(path, number, lines))
            elif line.startswith("{"):
                yield _unescape(_read_json(path, number, line, source))
            else:
                raise UserError(f"{path}, line {number}: neither <doc id= nor a JSON object; {WANTED} would work")


def read_own_extract(source: Source) -> Iterator[str]:
    """Articles of `--json --html-safe ""` as wikiextractor 3.1.0 writes it: the text is the text."""
    for path in each_file(source, PATTERNS, WANTED):
        for number, line in read_lines(path, source):
            yield text_of(path, number, parse_object(path, number, line), source)


def _read_json(path: Path, number: int, line: str, source: Source) -> str:
    value = parse_object(path, number, line)
    text = text_of(path, number, value, source)
    first, end, rest = text.partition("\n")
    return rest if end and first.strip() and first.strip() == str(value.get("title", "")).strip() else text


def _read_doc(path: Path, opened: int, lines: Iterator[tuple[int, str]]) -> str:
    article, has_title = Article(), False
    for number, line in lines:
        if line.startswith(DOC_CLOSES):
            return article.take()
        if line.startswith(DOC_OPENS):
            raise UserError(f"{path}, line {number}: an article opens inside the one of line {opened}; {ADVICE} would work")
        if has_title:
            article.add(path, number, line, ADVICE)
        has_title = True
    raise UserError(f"{path}, line {opened}: cut short: no {DOC_CLOSES} until the end of the file; {ADVICE} would work")


def _unescape(text: str) -> str:
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&") if "&" in text else text
