"""Word vectors in word2vec's and GloVe's text formats: a word and its numbers on every line, word2vec with a line `COUNT WIDTH` before.

The file is read once from its beginning to its end and only the words that are asked for are kept, so that GoogleNews' seven gigabytes
need no memory. Of other lines only the width is looked at. Words are compared as bytes and as they are written: a vocabulary of
lower-cased words finds lower-cased vectors. A word of several (GloVe's 840B file has ". . .") is one word; how many spaces stand between
words and numbers, and a byte order mark, mean nothing.
"""

import codecs
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from dataset.errors import UserError

FORMATS = "word2vec's or GloVe's text format would work"


def check_start(path: Path, width: int) -> None:
    """UserError where the first lines of the file are not vectors of `width` numbers; OSError where it cannot be opened."""
    with path.open("rb") as stream:
        if next(_lines(path, stream, width), None) is None:
            raise UserError(f"{path}: no word vectors in it; {FORMATS}")


def read_vectors(path: Path, rows: Mapping[str, int], width: int, into: np.ndarray) -> int:
    """Put the vectors of the words of `rows` (word -> row) into `into`, fp32 (V, `width`); how many there were.

    UserError with file and line for a line of another width, for what is not a finite number in fp32, for a word that comes again and for
    another number of words than word2vec's first line promises.
    """
    wanted = {word.encode("utf-8", "surrogatepass"): row for word, row in rows.items()}
    seen: dict[int, int] = {}
    with path.open("rb") as stream:
        for number, word, values in _lines(path, stream, width):
            row = wanted.get(word)
            if row is None:
                continue
            if row in seen:
                raise UserError(f"{path}, line {number}: {_shown(word)} again, after line {seen[row]}; keep one of the two")
            seen[row] = number
            numbers = values.split()
            if len(numbers) != width:
                raise _other_width(path, number, word, len(numbers), width)
            try:
                if b"_" in values:  # which Python reads as nothing
                    raise ValueError
                with np.errstate(over="ignore"):  # what is too large for fp32 is found to be infinite
                    into[row] = np.array(numbers, np.float64)
            except ValueError:
                raise UserError(f"{path}, line {number}: {_shown(word)} has something among its numbers that is none; {FORMATS}") from None
            if not np.isfinite(into[row]).all():
                raise UserError(f"{path}, line {number}: {_shown(word)} has a number that is not finite; {FORMATS}")
    return len(seen)


def _lines(path: Path, stream: Iterator[bytes], width: int) -> Iterator[tuple[int, bytes, bytes]]:
    """(number of the line, word, its `width` numbers as written), the header and empty lines left out; UserError for another width, and
    at the end for another number of words than the header's."""
    promised, found_words = None, 0
    for number, line in enumerate(stream, start=1):
        line = line.rstrip(b" \t\r\n")
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
            header = line.split()
            if len(header) == 2 and all(word.isdigit() for word in header) and width > 1:
                if int(header[1]) != width:
                    raise UserError(f"{path}, line 1: vectors of {int(header[1])} numbers, --embedding_size is {width}; "
                                    f"--embedding_size {int(header[1])} would work")
                promised = int(header[0])
                continue
        if not line:
            continue
        word, _, values = line.partition(b" ")
        if values.count(b" ") != width - 1 or not values or not (word or _is_number(values.partition(b" ")[0])):
            words = [word for word in line.split(b" ") if word]
            found = len(words) - next((at for at in range(1, len(words)) if _is_number(words[at])), len(words))
            if found != width:
                raise _other_width(path, number, words[0], found, width)
            word, values = b" ".join(words[:-width]), b" ".join(words[-width:])
        found_words += 1
        yield number, word, values
    if promised not in (None, found_words):
        raise UserError(f"{path}, line 1: promises {promised} words, the file has {found_words}; it is cut off, copy it again, or correct "
                        f"the line")


def _other_width(path: Path, line: int, word: bytes, found: int, width: int) -> UserError:
    # The first line tells the file's width, a later one that it is broken.
    cure = f"--embedding_size {found} would work" if line == 1 and found > 1 else FORMATS
    return UserError(f"{path}, line {line}: {_shown(word)} has {found} numbers, --embedding_size is {width}; {cure}")


def _is_number(word: bytes) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return b"_" not in word


def _shown(word: bytes) -> str:
    return repr(word[:40].decode("utf-8", "replace"))
