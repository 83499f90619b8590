"""Rows of text files that hold examples: TSV as GLUE writes it, CSV and JSON lines. A broken row is named by file and line.

GLUE's files hold unbalanced double quotes, so a TSV line is split at tabs and at nothing else. CSV is read with its quotes, where a row may
span lines. Columns are found by their name, never by position.
"""

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataset.errors import UserError
from dataset.files import reason

SHOWN = 200


@dataclass(frozen=True)
class Rows:
    """The wanted columns of a file, by name, and the line where each row begins (from 1).

    `columns` lacks the optional columns that the file has not. `broken`: the lines that were passed over.
    """

    lines: list[int]
    columns: dict[str, list[str]]
    broken: list[int]


def read_rows(
    path: Path, wanted: Sequence[str], *, whose: str, file_format: str = "tsv", optional: Sequence[str] = (),
    header: Sequence[str] = (), most_broken: float = 0.0,
) -> Rows:
    """The columns `wanted` (and those of `optional` that are there) of the file at `path`.

    `whose`: the task's name, for messages. `file_format`: one of FORMATS. `header`: the columns of a file without a header line.
    `most_broken`: the share of rows that may have a wrong number of columns; they are passed over and listed.
    Raises UserError with file and line for a file that cannot be read, is empty or not UTF-8, lacks a column or has a broken row.
    """
    text = decode(path, read_bytes(path))
    if not text.strip():
        raise UserError(f"{path}, line 1: the file is empty; {whose} needs columns {', '.join(wanted)}")
    if file_format == "jsonl":
        return _json_rows(path, text, wanted, optional, whose)
    lines = FORMATS[file_format](path, text)
    columns = list(header) if header else next(lines)[1]
    if missing := [name for name in wanted if name not in columns]:
        raise UserError(
            f"{path}, line 1: found columns {', '.join(columns)[:SHOWN]!r} and no {missing[0]!r}; {whose} needs columns {', '.join(wanted)}"
        )
    at = {name: columns.index(name) for name in (*wanted, *optional) if name in columns}
    rows = Rows([], {name: [] for name in at}, [])
    places = [(rows.columns[name], position) for name, position in at.items()]
    for number, row in lines:
        if len(row) != len(columns):
            if most_broken:
                rows.broken.append(number)
                continue
            raise UserError(_ragged(path, number, len(row), columns))
        rows.lines.append(number)
        for values, position in places:
            values.append(row[position])
    if len(rows.broken) > most_broken * (len(rows.lines) + len(rows.broken)):
        raise UserError(
            f"{path}, line {rows.broken[0]}: this line and {len(rows.broken) - 1} others, of {len(rows.lines) + len(rows.broken)}, lack "
            f"the expected {len(columns)} columns ({', '.join(columns)[:SHOWN]}); of the official file's next to none"
        )
    return _not_empty(path, rows)


def column_names(path: Path, file_format: str) -> list[str]:
    """The columns of a file with a header line, or the names in the first object of one with JSON lines; UserError as `read_rows`."""
    text = decode(path, read_bytes(path))
    if not text.strip():
        raise UserError(f"{path}, line 1: the file is empty; a header and one example a line would work")
    if file_format == "jsonl":
        return list(_json_object(path, 1, text.split("\n", 1)[0]))
    return next(FORMATS[file_format](path, text))[1]


def read_bytes(path: Path) -> bytes:
    """The file's content; UserError where there is none to be had."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {reason(error)}; a readable file would work") from None


def decode(path: Path, content: bytes) -> str:
    """UTF-8 text without its byte order mark; UserError with the line of the first byte that is none."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: not UTF-8 ({error.reason}); save the file as UTF-8") from None


def _ragged(path: Path, line: int, found: int, columns: Sequence[str]) -> str:
    return f"{path}, line {line}: found {found} columns, expected {len(columns)} ({', '.join(columns)[:SHOWN]})"


def _not_empty(path: Path, rows: Rows) -> Rows:
    if not rows.lines:
        raise UserError(f"{path}: a header and no examples; expected one example a line")
    return rows


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """One after another, for the biggest files are hundreds of megabytes; empty lines at the end are dropped.

    str.splitlines would also split at form feeds and Unicode separators, which occur inside sentences.
    """
    end = len(text.rstrip("\r\n"))
    start = number = 0
    while start <= end:
        stop = text.find("\n", start, end)
        stop = end if stop < 0 else stop
        number += 1
        yield number, text[start:stop]
        start = stop + 1


def _tsv(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    for number, line in _lines(text):
        yield number, line.removesuffix("\r").split("\t")


def _csv(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text.rstrip("\r\n"), newline=""), strict=True)
    line = 1
    try:
        for row in reader:
            yield line, row
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path}, line {line}: not CSV ({error}); a quote inside quotes is written twice; in TSV none counts") from None


def _json_object(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise UserError(f"{path}, line {number}: not JSON ({error}); one object a line would work") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}, line {number}: found {line[:40]!r}; one JSON object a line would work")
    return value


def _json_rows(path: Path, text: str, wanted: Sequence[str], optional: Sequence[str], whose: str) -> Rows:
    rows = Rows([], {name: [] for name in wanted}, [])
    for number, line in _lines(text):
        value = _json_object(path, number, line)
        if missing := [name for name in wanted if name not in value]:
            found = ", ".join(value)[:SHOWN]
            raise UserError(f"{path}, line {number}: found {found!r} and no {missing[0]!r}; {whose} needs {', '.join(wanted)}")
        if not rows.lines:
            rows.columns.update({name: [] for name in optional if name in value})
        rows.lines.append(number)
        for name, values in rows.columns.items():
            cell = value.get(name)
            if cell is None or isinstance(cell, list | dict):
                raise UserError(f"{path}, line {number}: found {json.dumps(cell)[:40]} as {name!r}; a text or a number would work")
            values.append(cell if isinstance(cell, str) else json.dumps(cell))
    return _not_empty(path, rows)


LineReader = Callable[[Path, str], Iterator[tuple[int, list[str]]]]
FORMATS: dict[str, LineReader | None] = {"tsv": _tsv, "csv": _csv, "jsonl": None}  # JSON lines have names in every row and no header
