"""How a flag is declared: a dataclass field whose metadata says everything the parser, the checks and the manual need.

A flag either changes the run, or prints "no effect: why" when it is given, or is an error. The metadata records which, and
`tests/test_every_flag_counts.py` holds every flag to it.
"""

from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

UNLIMITED_STEPS = 2**63 - 1


def parse_bool(text: str) -> bool:
    """`true/1/yes/on` and `false/0/no/off` in any case; ValueError otherwise."""
    lowered = text.strip().lower()
    if lowered in ("true", "1", "yes", "on", "t", "y"):
        return True
    if lowered in ("false", "0", "no", "off", "f", "n"):
        return False
    raise ValueError(f"{text!r} is neither true nor false")


def parse_int(text: str) -> int:
    """A whole number; `1e5` and `100_000` are accepted because people write them."""
    try:
        number = int(text)
    except ValueError:
        try:
            number = float(text)
        except ValueError:
            number = float("nan")
        if not number.is_integer():
            raise ValueError(f"{text!r} is not a whole number") from None
    if abs(number) > UNLIMITED_STEPS:
        raise ValueError(f"{text[:20]!r}... is beyond 64 bits")
    return int(number)


def parse_bool_or_path(text: str) -> bool | str:
    """`true` and `false` mean the bare flag and its absence; everything else is a path."""
    try:
        return parse_bool(text) if text.strip().lower() in ("true", "false") else text
    except ValueError:
        return text


@dataclass(frozen=True)
class FlagInfo:
    """What is known about one flag. `kind` turns a command-line word into the value."""

    name: str
    default: Any
    kind: Callable[[str], Any]
    help: str
    choices: tuple[str, ...] | None = None
    no_effect: str | None = None
    bare: Any = None  # the value of the flag without a word after it; None: a word is needed
    metavar: str | None = None  # what --help shows in the place of its value

    @property
    def is_bool(self) -> bool:
        return self.kind is parse_bool

    @property
    def placeholder(self) -> str:
        """What --help shows in the place of the value."""
        return self.metavar or {parse_bool: "true|false", int: "N", parse_int: "N", float: "X"}.get(self.kind, "WORD")

    def convert(self, word: object) -> Any:
        """The value that a command-line word or a recipe's scalar or list stands for; ValueError if it stands for none."""
        if isinstance(word, (list, tuple)):
            if any(isinstance(item, (list, tuple, dict)) for item in word):
                raise ValueError("found lists or mappings inside a list, expected a value or a list of values")
            word = ",".join(str(item) for item in word)
        if isinstance(word, dict):
            raise ValueError("found a mapping, expected a value or a list of values")
        value = self.kind(str(word))
        if self.choices is not None and value not in self.choices:
            raise ValueError(f"{value!r} is not one of {', '.join(self.choices)}")
        return value


def flag(
    default: Any,
    help: str,
    kind: Callable[[str], Any] | None = None,
    *,
    choices: tuple[str, ...] | None = None,
    no_effect: str | None = None,
    bare: Any = None,
    metavar: str | None = None,
) -> Any:
    """A dataclass field that is a command-line flag.

    `kind` defaults to the type of `default`. A default of None means "decided by the rest of the run"; `help` says how.
    `no_effect` is the reason printed when any value but the default is given.
    """
    if kind is None:
        kind = {bool: parse_bool, int: parse_int, float: float, str: str}[type(default)]
    if kind is parse_bool:
        bare = True
    metadata = {
        "kind": kind, "help": help, "choices": choices, "no_effect": no_effect, "bare": bare, "metavar": metavar,
    }
    return field(default=default, metadata=metadata)


def flags_of(group: type) -> list[FlagInfo]:
    """The flags of one group (a dataclass), in the order they are written."""
    infos = []
    for one in fields(group):
        assert one.default is not MISSING
        infos.append(FlagInfo(name=one.name, default=one.default, **one.metadata))
    return infos
