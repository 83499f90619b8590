"""Plain text in its four layouts: a file is an article, blank lines between articles, a line is an article, and WikiText's headings.

A file that begins as one of another --type is refused, for its marks would be learnt as text.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from dataset.errors import UserError
from dataset.readers.source import Article, Source, each_file
from dataset.readers.streams import read_lines

TXT = (".txt",)
# WikiText writes "= = X = =" where MediaWiki writes "== X ==". A title may hold "=" itself; what counts is how many lead and end the line.
HEADING = re.compile(r"\s*(?P<lead>=(?:\s?=)*)\s*\S.*?\s*(?P<end>=(?:\s?=)*)\s*", re.DOTALL)
LONGEST_HEADING = 1000  # characters
# How files of other types begin, and what reads them.
DUMP, EXTRACTED = re.compile(r"\s*<(mediawiki|page|\?xml)\b"), re.compile(r"\s*<doc id=")


def read_books(source: Source) -> Iterator[str]:
    """Every file below the folder is one article, as in BookCorpus."""
    for path in each_file(source, TXT, "a folder of text files, one article each,"):
        article = Article()
        for number, line in _text_lines(path, source):
            article.add(path, number, line, "--type text (blank lines between articles), lines (one a line) or wikitext")
        yield article.take()


def read_paragraphs(source: Source) -> Iterator[str]:
    """Articles with one or more blank lines between them; the end of a file ends an article too."""
    for path in each_file(source, TXT, "text with blank lines between articles"):
        article = Article()
        for number, line in _text_lines(path, source):
            if not line.isspace():
                article.add(path, number, line, "--type lines (one article a line) or wikitext (= Title = above each)")
            elif article:
                yield article.take()
        if article:
            yield article.take()


def read_one_a_line(source: Source) -> Iterator[str]:
    """Every line is an article, as in DistilBERT's dump.txt."""
    for path in each_file(source, TXT, "text with one article a line"):
        for _, line in _text_lines(path, source):
            yield line


def read_wikitext(source: Source) -> Iterator[str]:
    """`= Title =` alone on a line opens an article (WikiText-2 and -103); titles and headings are dropped, blank lines end nothing.

    Text above the first title is an article of its own. UserError for a file without any title.
    """
    for path in each_file(source, TXT, "one file of WikiText"):
        article, titles, number = Article(), 0, 0
        for number, line in _text_lines(path, source):
            level = heading_level(line)
            if level == 1:
                if titles or article:
                    yield article.take()
                titles += 1
            elif not level and not line.isspace():
                article.add(path, number, line, "--type text (blank lines between articles) or lines (one a line)")
        if not titles:
            raise UserError(f'{path}: none of its {number} lines is a title like "= Title ="; --type text or lines would work')
        yield article.take()


def _text_lines(path: Path, source: Source) -> Iterator[tuple[int, str]]:
    """As `read_lines`; UserError where the first line with text belongs to another type of source."""
    is_first = True
    for number, line in read_lines(path, source):
        if is_first and not line.isspace():
            is_first = False
            found = _other_type(line)
            if found is not None:
                raise UserError(f"{path}, line {number}: {found[0]} is no plain text; --type {found[1]} would work")
        yield number, line


def _other_type(line: str) -> tuple[str, str] | None:
    """(what a first line shows a file to be, the --type for it), None for text."""
    if DUMP.match(line):
        return "XML, such as a MediaWiki dump,", "wiki"
    if EXTRACTED.match(line):
        return "wikiextractor's output", "wikiextractor"
    if line.lstrip().startswith("{"):
        try:
            json.loads(line)
        except (ValueError, RecursionError):
            return None
        return "a JSON object", "jsonl with --field"
    return None


def heading_level(line: str) -> int:
    """1 for the title of an article, 2 and more for a heading inside it, 0 for text."""
    if "=" not in line[:2] or len(line) > LONGEST_HEADING:
        return 0
    match = HEADING.fullmatch(line)
    if not match:
        return 0
    lead, end = match["lead"].count("="), match["end"].count("=")
    spaced = line.strip()[1:2].isspace() and line.strip()[-2:-1].isspace()
    return lead if lead == end and (lead > 1 or spaced) else 0
