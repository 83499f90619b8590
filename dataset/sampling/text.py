"""A text shard in blocks of whole lines, so that memory does not grow with the file."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dataset.errors import UserError

BLOCK_BYTES = 4 << 20
STRICT, REPLACE = "strict", "replace"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class TextBlock:
    """Whole lines of UTF-8, each ended by a line feed; `first_line` counts from 1."""

    text: bytes
    first_line: int


def read_blocks(path: Path, errors: str) -> Iterator[TextBlock]:
    """Blocks of about 4 MB, or of one longer line, the last with a blank line at its end; with `errors` "strict" UserError names the first
    line that is not UTF-8."""
    with path.open("rb") as file:
        first_line, text = 1, file.read(max(BLOCK_BYTES, len(BYTE_ORDER_MARK) + 1)).removeprefix(BYTE_ORDER_MARK)
        while text:
            if not text.endswith(b"\n"):
                text += file.readline()
            if not text.endswith(b"\n"):
                text += b"\n"
            following = file.read(BLOCK_BYTES)
            if not following:
                text += b"\n"
            yield TextBlock(_as_utf8(text.replace(b"\r\n", b"\n"), path, first_line, errors), first_line)
            first_line += text.count(b"\n")
            text = following


def _as_utf8(text: bytes, path: Path, first_line: int, errors: str) -> bytes:
    try:
        text.decode()
    except UnicodeDecodeError as error:
        if errors == REPLACE:
            return text.decode(errors="replace").encode()
        line = first_line + text.count(b"\n", 0, error.start)
        raise UserError(
            f"{path} line {line} is not UTF-8 ({error.reason}); --errors replace goes on, or convert the text, for example with iconv"
        ) from error
    return text
