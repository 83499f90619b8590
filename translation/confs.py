"""JSON configurations that inherit from one another (`"_inherits_": "base.json"`, or a list of files), as D-BERT has them.

A parent is named relative to the file that names it. Of several parents a later one overrides an earlier one, and a file overrides its
parents. Values are the words that people wrote: 5e-4 stays 5e-4.
"""

import json
from pathlib import Path
from typing import Any

from dataset.errors import UserError, one_line
from dataset.files import reason

INHERITS = "_inherits_"


def read_conf(path: Path) -> dict[str, list[str]]:
    """Key -> its words (true and false for booleans, none for null and ""), with what the file inherits.

    UserError for a file that cannot be read, is not a JSON object, or inherits from itself.
    """
    return _read(path, ())


def _read(path: Path, children: tuple[Path, ...]) -> dict[str, list[str]]:
    place = path.resolve()
    chain = (*children, place)
    if place in children:
        names = " -> ".join(one.name for one in chain[children.index(place):])
        raise UserError(f"{children[-1]}: {INHERITS} goes in a circle ({names}); a file that inherits from no child of its own would work")
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_float=str, parse_int=str, parse_constant=str)
    except OSError as error:
        who = f"{children[-1]}: {INHERITS} names {path.name}: " if children else ""
        raise UserError(f"{who}{path}: {reason(error)}; a file that is there would work") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({one_line(error)}); an object of keys and values would work") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: not a JSON object; keys and values in braces would work")
    parents = content.pop(INHERITS, [])
    parents = [parents] if isinstance(parents, str) else parents
    if not isinstance(parents, list) or not all(isinstance(name, str) and name for name in parents):
        raise UserError(f"{path}: {INHERITS} is {str(parents)[:80]!r}; the name of a file, or a list of names, would work")
    merged: dict[str, list[str]] = {}
    for name in parents:
        merged |= _read(path.parent / name, chain)
    return merged | {key: _words(path, key, value) for key, value in content.items()}


def _words(path: Path, key: str, value: Any) -> list[str]:
    if isinstance(value, list):
        return [word for one in value for word in _words(path, key, one)]
    if isinstance(value, dict):
        raise UserError(f"{path}: {key} is an object; a value or a list of values would work")
    if isinstance(value, bool):
        return ["true" if value else "false"]
    return [value] if value else []
