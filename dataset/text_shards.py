"""Sets of text files that belong together, such as text shards `training{i}.txt` and `test{i}.txt`: whole, never two sets mixed.

A set is written to a hidden folder. One rename of that folder, once all of it is on the disk, decides that the set is to stand; its files
then get their final names one by one. Killed among those, it leaves the hidden folder with its list of names: whoever reads the texts is
refused, and the next `whole_set` in that folder finishes first. Nothing is lost at any point, the old set until then nor the new one after.
"""

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from dataset.errors import UserError
from dataset.files import PARTIAL_PREFIX, fsync_path, fsync_tree, locked, reason, remove_folder

SHARD_NAME = re.compile(r"(training|test)\d+\.txt")
UNFINISHED = ".unfinished_set"  # a folder: a set whose files are getting their names
MANIFEST = "set.json"  # in it: the script, the pattern of the names, and the size of every file
COPY_BYTES = 1 << 20
# Unicode's property White_Space in UTF-8; not U+001C to U+001F, of which tokenizers may make tokens.
WHITE_SPACE = re.compile(rb"(\s|\xc2[\x85\xa0]|\xe1\x9a\x80|\xe2\x80[\x80-\x8a\xa8\xa9\xaf]|\xe2\x81\x9f|\xe3\x80\x80)*")
BOM = b"\xef\xbb\xbf"


def shard_names(num_train: int, num_test: int) -> list[str]:
    """File names of all shards, train shards first."""
    return [f"training{index}.txt" for index in range(num_train)] + [f"test{index}.txt" for index in range(num_test)]


def text_files(folder: Path) -> list[Path]:
    """The *.txt of a folder, sorted. Hidden files are left out: they are what an interrupted run left.

    UserError where a run ended, or is, among the renames of a set: half of it may be the old one.
    """
    if (folder / UNFINISHED).is_dir():
        script = _read_manifest(folder)["script"]
        raise UserError(f"{folder} holds half a set: {script} ended while it named the files; {script} into it again would finish them")
    return sorted(path for path in folder.glob("*.txt") if path.is_file() and not path.name.startswith("."))


def is_blank(line: bytes) -> bool:
    """Whether a line of UTF-8 is nothing but white space, Unicode's included: what lies between documents."""
    return WHITE_SPACE.fullmatch(line) is not None


@contextmanager
def whole_set(folder: Path, names: re.Pattern, overwrite: bool, script: str) -> Iterator[Path]:
    """Yield an empty temporary folder in `folder`; on success its files take the place of all files called `names` there.

    `script` stands in messages. UserError where there are such files and not `overwrite`, where another run is writing to `folder`, and for
    an error of the operating system, such as a full disk: what is there stays.
    """
    with locked(folder):
        partial = folder.absolute() / f"{PARTIAL_PREFIX}texts"
        try:
            _finish_interrupted(folder, overwrite)
            _refuse_old(folder, names, overwrite)
            shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
            partial.mkdir()
            yield partial
            sizes = {path.name: path.stat().st_size for path in sorted(partial.iterdir())}
            _refuse_old(folder, names, overwrite)  # hours may have passed
            (partial / MANIFEST).write_text(json.dumps({"script": script, "names": names.pattern, "sizes": sizes}), encoding="utf-8")
            fsync_tree(partial)
            os.replace(partial, folder / UNFINISHED)
        except OSError as error:
            where = f"{error.filename}: " if error.filename and not str(error.filename).startswith(str(partial)) else ""
            raise UserError(f"{folder}: nothing was written: {where}{reason(error)}") from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        _finish(folder)


def _finish_interrupted(folder: Path, overwrite: bool) -> None:
    """Give the files of an interrupted set their names, or with `overwrite` take away what is left of one that lost some."""
    if not (folder / UNFINISHED).is_dir():
        return
    manifest = _read_manifest(folder)
    script, sizes = manifest["script"], manifest["sizes"]
    lost = [name for name in sizes if not any(_has_size(place / name, sizes[name]) for place in (folder / UNFINISHED, folder))]
    if not lost:
        _finish(folder)
        print(f"{folder}: the set of {len(sizes)} texts that {script} left, ended while it named them, is whole now", file=sys.stderr)
    elif overwrite:
        for path in _called(folder, re.compile(manifest["names"])):
            path.unlink()
        remove_folder(folder / UNFINISHED)
    else:
        raise UserError(f"{folder} holds half a set, of which {lost[0]} is lost; --overwrite would make it anew")


def _finish(folder: Path) -> None:
    """The second half of `whole_set`, as often as it takes: new names, then the rest of the old set, then the list."""
    try:
        manifest = _read_manifest(folder)
        fsync_path(folder)
        for name in manifest["sizes"]:
            if (folder / UNFINISHED / name).exists():
                os.replace(folder / UNFINISHED / name, folder / name)
        for path in _called(folder, re.compile(manifest["names"])):
            if path.name not in manifest["sizes"]:
                path.unlink()
        fsync_path(folder)
        remove_folder(folder / UNFINISHED)
    except OSError as error:
        raise UserError(f"{folder}: half of the texts have their names ({reason(error)}); the same again would finish them") from error


def _read_manifest(folder: Path) -> dict:
    path = folder / UNFINISHED / MANIFEST
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({reason(error)}); making the texts anew in another folder would work") from error


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _refuse_old(folder: Path, names: re.Pattern, overwrite: bool) -> None:
    if not overwrite and (old := _called(folder, names)):
        raise UserError(f"{folder} holds {old[0].name} and its like already; another folder or --overwrite would work")


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
