"""What a reader is told about its input, and what it counts on the way.

A reader is a function from a `Source` to an iterator of articles: plain strings with whatever white space the input has, one article in
memory at a time. Empty ones are yielded too, so that the writer can count what it leaves out.
"""

import dataclasses
import os
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path

from dataset.errors import UserError
from dataset.progress import progress

STRICT, REPLACE = "strict", "replace"
SPLIT = "train"
MAX_ARTICLE = 256 << 20  # bytes of a line, characters of an article: more is a corpus whose articles were not told apart
COMPRESSED = ("", ".gz", ".bz2", ".zst")


@dataclasses.dataclass
class Tally:
    """What `--errors replace` had to change."""

    lines: int = 0
    characters: int = 0


@dataclasses.dataclass
class Source:
    """The input and the flags of one run of process_data; a reader uses the fields that it names in the table of readers."""

    path: Path
    target: Path  # the file being written, which must not be read
    errors: str = STRICT
    field: str = "text"
    dataset_split: str = SPLIT
    dataset_config: str | None = None
    n_processes: int = 1
    tally: Tally = dataclasses.field(default_factory=Tally)
    advance: Callable[[int], object] = lambda n_bytes: None  # told the bytes read from the disk


class Article:
    """Lines of the article that is being read; UserError where they become too many to be one."""

    def __init__(self) -> None:
        self._lines, self._size = StringIO(), 0

    def __bool__(self) -> bool:
        return self._size > 0

    def add(self, path: Path, number: int, line: str, advice: str) -> None:
        """Append line `number` of `path`; `advice` says how to read a corpus that does not come apart here."""
        self._size += len(line)
        if self._size > MAX_ARTICLE:
            raise UserError(too_large(path, number, advice))
        self._lines.write(line)

    def take(self) -> str:
        """The text so far; the next article starts empty."""
        text = self._lines.getvalue()
        self._lines, self._size = StringIO(), 0
        return text


def too_large(path: Path, number: int, advice: str) -> str:
    """The message for an article above MAX_ARTICLE."""
    return f"{path}, line {number}: one article of more than {MAX_ARTICLE >> 20} MB: it seems to be a whole corpus; {advice} would work"


def each_file(source: Source, patterns: tuple[str, ...], what: str) -> Iterator[Path]:
    """The input file, or every file below the input folder that fits, under a bar of the bytes read.

    Files come in the plain order of their paths ("b10" before "b2"), compared folder by folder. Hidden ones and `source.target` are
    passed over. `patterns` are endings such as ".txt", or beginnings such as "wiki_"; the endings of compressed files may follow.
    UserError where no file fits.
    """
    if source.path.is_dir():
        files = [path for path in sorted(_walk(source.path)) if _fits(path.name, patterns) and not _is_same(path, source.target)]
    else:
        files = [source.path]
    if not files:
        raise UserError(f"{source.path} holds no {' or '.join(map(_show, patterns))}, plain or as .gz, .bz2, .zst; {what} would work")
    total = sum(path.stat().st_size for path in files)
    with progress(total=total, unit="B", unit_scale=True, desc=source.path.name) as bar:
        source.advance = bar.update
        yield from files


def _walk(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(root, name) for name in names if not name.startswith("."))


def _fits(name: str, patterns: tuple[str, ...]) -> bool:
    beginnings = tuple(pattern for pattern in patterns if not pattern.startswith("."))
    endings = tuple(pattern + suffix for pattern in patterns if pattern.startswith(".") for suffix in COMPRESSED)
    return name.endswith(endings) or (bool(beginnings) and name.startswith(beginnings))


def _show(pattern: str) -> str:
    return f"*{pattern}" if pattern.startswith(".") else f"{pattern}*"


def _is_same(path: Path, other: Path) -> bool:
    return path.resolve() == other.resolve()
