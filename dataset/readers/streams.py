"""Bytes and lines of files, plain or compressed, to their true end or an error that names the file and the line.

What ends early looks like a shorter file to some readers of compressed files (zstandard's, and bz2's where its second stream is damaged),
and gzip's gives an error before the text that lies ahead of the damage. So the files are taken apart member by member here.
"""

import bz2
import io
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import zstandard

from dataset.errors import UserError, one_line
from dataset.files import reason
from dataset.readers.source import MAX_ARTICLE, REPLACE, Source, too_large

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
REPLACEMENT = "\ufffd"
BUFFER = 1 << 20
CHUNK = 1 << 14  # compressed bytes at a time: text shrinks to a hundredth at the very best, so a chunk stays small when it is open
LONGEST_WINDOW = 1 << 31  # bytes; `zstd --long=31`, which large corpora are packed with, and as much memory for those
SURROGATES = re.compile("[\ud800-\udfff]")
MAGIC = {
    ".gz": re.compile(rb"\x1f\x8b\x08"),
    ".bz2": re.compile(rb"BZh[1-9](1AY&SY|\x17\x72\x45\x38\x50\x90)"),
    ".zst": re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"),
}


class _CountedFile(io.FileIO):
    """A file that tells how far it was read."""

    def __init__(self, path: Path, advance: Callable[[int], object]) -> None:
        super().__init__(path)
        self._advance = advance

    def readinto(self, buffer) -> int:
        count = super().readinto(buffer)
        self._advance(count)
        return count


class _Members(io.RawIOBase):
    """The content of compressed members (gzip), streams (bz2) or frames (zstd) one after the other; EOFError where the last is cut short.

    Zero bytes after a member are padding, as tapes have it.
    """

    def __init__(self, file: io.BufferedReader, new_decompressor: Callable) -> None:
        self._file, self._new_decompressor = file, new_decompressor
        self._decompressor = new_decompressor()
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        while not self._ready:
            if self._decompressor.eof:
                data = self._next_member(self._decompressor.unused_data)
                if not data:
                    return 0
                self._decompressor = self._new_decompressor()
            else:
                data = self._file.read(CHUNK)
                if not data:
                    raise EOFError("the compressed data ends too early")
            self._ready = memoryview(self._decompressor.decompress(data))
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def _next_member(self, data: bytes) -> bytes:
        """The first bytes of the next member, of which `data` is already read; b"" at the end of the file."""
        while not (start := data.lstrip(b"\0")):
            data = self._file.read(CHUNK)
            if not data:
                break
        return start


DECOMPRESSORS = {
    ".gz": lambda: zlib.decompressobj(wbits=31),  # 31: gzip's header and checksum
    ".bz2": bz2.BZ2Decompressor,
    ".zst": lambda: zstandard.ZstdDecompressor(max_window_size=LONGEST_WINDOW).decompressobj(),
}


@contextmanager
def open_bytes(path: Path, advance: Callable[[int], object]) -> Iterator[io.BufferedReader]:
    """The decompressed bytes of `path`, compressed as its suffix says; `advance` is told the bytes read from the disk.

    UserError where suffix and content disagree. Damage is found when it is reached (OSError, EOFError, zlib.error, ZstdError).
    """
    with ExitStack() as stack:
        file = stack.enter_context(io.BufferedReader(_CountedFile(path, advance), BUFFER))
        _check_suffix(path, file.peek(16))
        if path.suffix in DECOMPRESSORS:
            file = stack.enter_context(io.BufferedReader(_Members(file, DECOMPRESSORS[path.suffix]), BUFFER))
        yield file


def _check_suffix(path: Path, head: bytes) -> None:
    if path.suffix in MAGIC:
        if not MAGIC[path.suffix].match(head):
            raise UserError(f"{path} is no {path.suffix[1:]} file, whatever its name says; a whole one, or another name, would work")
        return
    for suffix, magic in MAGIC.items():
        if magic.match(head):
            raise UserError(f"{path} holds {suffix[1:]} data; the name {path.name}{suffix} would work")


def read_lines(path: Path, source: Source) -> Iterator[tuple[int, str]]:
    """(number from 1, line with its "\\n") of a text file; only "\\n" ends a line. A byte order mark is dropped.

    Bytes that are no UTF-8 become U+FFFD and are counted where `source.errors` is "replace". UserError for them otherwise, for a line
    above MAX_ARTICLE and for a file that cannot be read to its end, with the file and the line.
    """
    number = 0
    try:
        with open_bytes(path, source.advance) as file:
            while line := file.readline(MAX_ARTICLE + 1):
                number += 1
                if len(line) > MAX_ARTICLE:
                    raise UserError(too_large(path, number, "a --type that tells its articles apart (--help lists all)"))
                if number == 1:
                    line = line.removeprefix(BYTE_ORDER_MARK)
                try:
                    text = line.decode()
                except UnicodeDecodeError as error:
                    text = _replace(path, number, line, error, source)
                yield number, text
    except (EOFError, zlib.error, zstandard.ZstdError) as error:
        raise UserError(f"{path}, line {number + 1}: damaged or cut short ({one_line(error)}); a whole file would work") from error
    except OSError as error:
        # bz2 reports damage as an OSError that has no number.
        damage = "cannot be read" if error.errno else "damaged"
        raise UserError(f"{path}, line {number + 1}: {damage} ({reason(error)}); a whole, readable file would work") from error


def check_surrogates(path: Path, number: int, text: str, source: Source) -> str:
    """`text` without the halves of characters that a JSON escape can make and no file can hold; replaced or UserError as for bytes."""
    halves = len(SURROGATES.findall(text))
    if not halves:
        return text
    if source.errors != REPLACE:
        raise UserError(f"{path}, line {number}: half a character (a lone \\ud800 to \\udfff); --errors replace would go on")
    source.tally.lines += 1
    source.tally.characters += halves
    return SURROGATES.sub(REPLACEMENT, text)


def _replace(path: Path, number: int, line: bytes, error: UnicodeDecodeError, source: Source) -> str:
    if source.errors != REPLACE:
        raise UserError(
            f"{path}, line {number}: not UTF-8 (byte 0x{line[error.start]:02x} at column {error.start + 1}); "
            "--errors replace, or converting it, for example with iconv, would work"
        ) from error
    text = line.decode(errors="replace")
    source.tally.lines += 1
    source.tally.characters += text.count(REPLACEMENT) - line.count(REPLACEMENT.encode())
    return text
