"""Reading a pickled list of arrays or of integers without running anything that is in it.

`pickle.load` calls whatever a pickle names. Here the stdlib's parser (pickletools) gives the operations one by one, and a stack machine of
our own knows those that NumPy arrays and integers need. It has no operation that imports or calls: the few names such pickles hold
(`GLOBALS`, of NumPy 1 and 2, protocols 0 to 5) are understood as descriptions, and any other name ends the reading.

Items are handed over as they come, so memory does not grow with the list. A pickle may refer back to anything in it, so a first pass
collects what it does refer to, and only that is remembered in the second.
"""

import pickletools
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from dataset.errors import UserError, one_line

INTEGER_CODES = frozenset(sign + size for sign in "iu" for size in "1248")
ARRAY_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")
BUFFER_MODULES = ("numpy.core.numeric", "numpy._core.numeric")
GLOBALS = frozenset(
    [("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")]
    + [(module, name) for module in ARRAY_MODULES for name in ("_reconstruct", "scalar")]
    + [(module, "_frombuffer") for module in BUFFER_MODULES]
)
REFERENCES = frozenset(["GET", "BINGET", "LONG_BINGET"])
STORES = frozenset(["PUT", "BINPUT", "LONG_BINPUT"])
LITERALS = frozenset(
    "BININT BININT1 BININT2 INT LONG LONG1 LONG4 STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8 "
    "UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8".split()
)
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@dataclass(frozen=True)
class _Name:
    """What the pickle calls a class or function: never looked up."""

    module: str
    name: str


@dataclass
class _Type:
    """A dtype on its way: its code ("u2"), then its byte order."""

    code: str
    order: str = "<"

    def numpy(self) -> np.dtype:
        return np.dtype(self.order + self.code)


@dataclass
class _Array:
    """An array on its way: empty until its state comes."""

    value: np.ndarray | None = None


class _List(list):
    """The outermost list: its items are handed over, not kept."""


_MARK = object()


def read_arrays(path: Path) -> Iterator[list[np.ndarray]]:
    """The items of a pickled list of one-dimensional integer arrays, some at a time; UserError where there is anything else."""
    number = 0
    for items in _read_items(path):
        arrays = [item.value if isinstance(item, _Array) else None for item in items]
        wrong = next((place for place, array in enumerate(arrays) if array is None), None)
        if wrong is not None:
            raise UserError(f"{path}: item {number + wrong} of the list is {_kind(items[wrong])}, expected an array of integers")
        yield arrays
        number += len(items)


def read_integers(path: Path) -> list[int]:
    """A pickled list of integers; UserError where there is anything else."""
    numbers: list[int] = []
    for items in _read_items(path):
        for item in items:
            if type(item) is not int:
                raise UserError(f"{path}: item {len(numbers)} of the list is {_kind(item)}, expected an integer")
            numbers.append(item)
    return numbers


def _read_items(path: Path) -> Iterator[list[Any]]:
    wanted: set[int] = set()
    for opcode, argument, _ in _operations(path):
        if opcode in REFERENCES:
            wanted.add(int(argument))
    with closing(_operations(path)) as operations:
        yield from _Machine(path, wanted).run(operations)


def _operations(path: Path) -> Iterator[tuple[str, Any, int]]:
    """(name of the operation, its argument, its place in the file)."""
    place = 0
    try:
        with path.open("rb") as file:
            for opcode, argument, place in pickletools.genops(file):
                yield opcode.name, argument, place
            if file.read(1):
                raise UserError(f"{path}: more follows the end of the pickle at byte {place}; one list in a file would work")
    except FileNotFoundError as error:
        raise UserError(f"no file {path}") from error
    except (OSError, ValueError, MemoryError, OverflowError) as error:  # what the parser raises for a cut or broken pickle
        raise UserError(f"{path} is no whole pickle: {one_line(error)[:200]}, after byte {place}; copy or make it anew") from error


def _kind(item: Any) -> str:
    return f"the name {item.module}.{item.name}" if isinstance(item, _Name) else f"of type {type(item).__name__.strip('_').lower()}"


class _Machine:
    """The stack and the memo of a pickle, with nothing that calls."""

    def __init__(self, path: Path, wanted: set[int]) -> None:
        self._path, self._wanted = path, wanted
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._stored = 0
        self._place = 0

    def run(self, operations: Iterator[tuple[str, Any, int]]) -> Iterator[list[Any]]:
        """Items of the outermost list, as each operation adds them."""
        names: dict[str, Callable[[], None]] = {
            "TUPLE": lambda: self._push(tuple(self._pop_to_mark())),
            "STACK_GLOBAL": self._stack_global,
            "REDUCE": self._reduce,
            "BUILD": self._build,
            "MARK": lambda: self._push(_MARK),
        }
        is_done = False
        for opcode, argument, self._place in operations:
            if opcode in LITERALS:
                self._stack.append(argument)
            elif opcode in STORES or opcode == "MEMOIZE":
                self._store(self._stored if opcode == "MEMOIZE" else int(argument))
            elif opcode in REFERENCES:
                self._push(self._memo[int(argument)] if int(argument) in self._memo else self._refuse(f"no memo {argument}"))
            elif opcode in CONSTANTS:
                self._push(CONSTANTS[opcode])
            elif opcode in TUPLES:
                self._push(tuple(reversed([self._pop() for _ in range(TUPLES[opcode])])))
            elif opcode == "GLOBAL":
                self._name(*str(argument).split(" ", 1))
            elif opcode in names:
                names[opcode]()
            elif opcode in ("EMPTY_LIST", "LIST"):
                items = self._pop_to_mark() if opcode == "LIST" else []
                self._push(_List() if not self._stack else self._refuse("a list inside a list"))
                if items:
                    yield items
            elif opcode in ("APPENDS", "APPEND"):
                items = self._pop_to_mark() if opcode == "APPENDS" else [self._pop()]
                if not (len(self._stack) == 1 and isinstance(self._stack[0], _List)):
                    self._refuse("items for something that is no list")
                yield items
            elif opcode == "STOP":
                is_done = len(self._stack) == 1 and isinstance(self._stack[0], _List)
            elif opcode == "INST":
                self._name(*str(argument).split(" ", 1))
                self._refuse("an instance of a class")
            elif opcode not in ("PROTO", "FRAME"):
                self._refuse(f"the operation {opcode}")
        if not is_done:
            raise UserError(f"{self._path} is no pickled list; the files of binarized_data and token_counts are")

    def _refuse(self, what: str) -> NoReturn:
        raise UserError(
            f"{self._path}: {what} at byte {self._place}; only lists of integer arrays or of integers are read, and nothing in them is run"
        )

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _pop(self) -> Any:
        if not self._stack or self._stack[-1] is _MARK:
            self._refuse("nothing on the stack")
        return self._stack.pop()

    def _pop_to_mark(self) -> list[Any]:
        items = []
        while self._stack and self._stack[-1] is not _MARK:
            items.append(self._stack.pop())
        if not self._stack:
            self._refuse("no mark on the stack")
        self._stack.pop()
        items.reverse()
        return items

    def _store(self, number: int) -> None:
        self._stored += 1
        if number in self._wanted:
            value = self._pop()
            self._stack.append(value)
            self._memo[number] = value

    def _stack_global(self) -> None:
        name, module = self._pop(), self._pop()
        self._name(module, name)

    def _name(self, module: Any, name: Any) -> None:
        if (module, name) not in GLOBALS:
            self._refuse(f"the name {one_line(ValueError(f'{module}.{name}'))[:100]}")
        self._push(_Name(module, name))

    def _reduce(self) -> None:
        arguments, name = self._pop(), self._pop()
        if not isinstance(name, _Name) or not isinstance(arguments, tuple):
            self._refuse("a call")
        self._push(self._understand(name, arguments))

    def _understand(self, name: _Name, arguments: tuple) -> Any:
        """What calling `name` with `arguments` would give, for the few names there are."""
        match name.name, arguments:
            case "dtype", (str(code), *_) if code in INTEGER_CODES:
                return _Type(code)
            case "_reconstruct", (_Name(name="ndarray"), (0,), b"b" | "b"):
                return _Array()
            case "_frombuffer", (bytes() | bytearray() as content, _Type() as kind, (int(size),), "C" | "F"):
                return _Array(self._array(content, kind, size))
            case "scalar", (_Type() as kind, bytes() as content):
                return int(self._array(content, kind, 1)[0])
            case "encode", (str(text), "latin1") if all(ord(letter) < 256 for letter in text):
                return text.encode("latin1")
        self._refuse(f"arguments of {name.module}.{name.name} that make no array of integers")

    def _build(self) -> None:
        state, value = self._pop(), self._pop()
        match value, state:
            case _Type(), (_, "<" | ">" | "|" as order, None, None, None, -1, -1, 0):
                value.order = order
            case _Array(value=None), (_, (int(size),), _Type() as kind, bool(), bytes() as content):
                value.value = self._array(content, kind, size)
            case _Array(value=None), (_, (int(size),), _Type() as kind, bool(), str(text)) if all(ord(letter) < 256 for letter in text):
                value.value = self._array(text.encode("latin1"), kind, size)
            case _:
                self._refuse(f"a state that makes no array of integers of {_kind(value)}")
        self._push(value)

    def _array(self, content: bytes | bytearray, kind: _Type, size: int) -> np.ndarray:
        numbers = kind.numpy()
        if len(content) != size * numbers.itemsize:
            self._refuse(f"{len(content)} bytes for an array of {size} numbers of {numbers.itemsize} bytes")
        return np.frombuffer(content, dtype=numbers)
