"""JSON lines: one object a line with the text in a named field."""

import json
from collections.abc import Iterator
from pathlib import Path

from dataset.errors import UserError, one_line
from dataset.readers.source import Source, each_file
from dataset.readers.streams import check_surrogates, read_lines

PATTERNS = (".jsonl", ".json", ".ndjson")
NAMES_SHOWN = 10


def read_json_lines(source: Source) -> Iterator[str]:
    """The field `source.field` of every line; blank lines are passed over, a null is an empty article."""
    for path in each_file(source, PATTERNS, "JSON lines"):
        for number, line in read_lines(path, source):
            if not line.isspace():
                yield text_of(path, number, parse_object(path, number, line), source)


def parse_object(path: Path, number: int, line: str) -> dict:
    """The JSON object on line `number`; UserError where it is none."""
    advice = "an object on each line, or --type datasets for other JSON, would work"
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}, line {number}: no JSON ({one_line(error)}); {advice}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}, line {number}: a JSON {type(value).__name__}, not an object; {advice}")
    return value


def text_of(path: Path, number: int, value: dict, source: Source) -> str:
    """The string in the field `source.field`; UserError where there is none."""
    name = source.field
    if name not in value:
        names = ", ".join(list(value)[:NAMES_SHOWN]) or "none"
        raise UserError(f"{path}, line {number}: no field {name}; its fields are {names}")
    text = value[name]
    if text is None:
        return ""
    if not isinstance(text, str):
        raise UserError(f"{path}, line {number}: the field {name} is of type {type(text).__name__}; a field of text would work")
    return check_surrogates(path, number, text, source)
