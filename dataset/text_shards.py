"""Sets of text files that belong together, such as text shards `training{i}.txt` and `test{i}.txt`: whole, never two sets mixed."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from dataset.errors import UserError
from dataset.files import PARTIAL_PREFIX, fsync_path, fsync_tree, reason

SHARD_NAME = re.compile(r"(training|test)\d+\.txt")
COPY_BYTES = 1 << 20
BOM = b"\xef\xbb\xbf"


def shard_names(num_train: int, num_test: int) -> list[str]:
    """File names of all shards, train shards first."""
    return [f"training{index}.txt" for index in range(num_train)] + [f"test{index}.txt" for index in range(num_test)]


def text_files(folder: Path) -> list[Path]:
    """The *.txt of a folder, sorted. Hidden files are left out: they are what an interrupted run left."""
    return sorted(path for path in folder.glob("*.txt") if path.is_file() and not path.name.startswith("."))


@contextmanager
def whole_set(folder: Path, names: re.Pattern, overwrite: bool) -> Iterator[Path]:
    """Yield an empty temporary folder in `folder`; on success its files take the place of all files called `names` there.

    UserError where there are such files and not `overwrite`, and for an error of the operating system, such as a full disk: what is
    there stays.
    """
    if not overwrite and _called(folder, names):
        raise UserError(f"{folder} holds {_called(folder, names)[0].name} and its like already; another folder or --overwrite would work")
    partial = folder.absolute() / f"{PARTIAL_PREFIX}texts"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
        partial.mkdir()
        yield partial
        fsync_tree(partial)
        for path in _called(folder, names):
            path.unlink()
        for path in sorted(partial.iterdir()):
            os.replace(path, folder / path.name)
        fsync_path(folder)
    except OSError as error:
        where = f"{error.filename}: " if error.filename and not str(error.filename).startswith(str(partial)) else ""
        raise UserError(f"{folder}: nothing was written: {where}{reason(error)}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _called(folder: Path, names: re.Pattern) -> list[Path]:
    return sorted(path for path in folder.glob("*.txt") if names.fullmatch(path.name))


def check_space(folder: Path, needed: int) -> None:
    """UserError where the disk of `folder`, which must exist, has less than `needed` bytes free."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(f"{folder} has {free / 1e9:.2f} GB free; {needed / 1e9:.2f} GB would work")


def append_text(source: Path, start: int, end: int, output: BinaryIO) -> None:
    """Copy bytes [start, end) of a text to `output` and close it with the blank line that ends an article.

    A byte order mark is dropped and an empty text left out.
    """
    tail = b""
    with source.open("rb") as file:
        file.seek(start)
        while start < end and (piece := file.read(min(COPY_BYTES, end - start))):
            output.write(piece.removeprefix(BOM) if start == 0 else piece)
            start += len(piece)
            tail = (tail + piece)[-4:]
    if tail and not tail.endswith((b"\n\n", b"\n\r\n")):
        output.write(b"\n" if tail.endswith(b"\n") else b"\n\n")
