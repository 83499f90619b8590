"""Files and folders that appear whole, or not at all, and go the same way: a final name never stands for half of something.

What is written has a hidden name beside the final one until it is on the disk; what is removed gets one first. A process killed in
between leaves at most something with `PARTIAL_PREFIX`, which may be deleted. `locked` keeps a second run out while one is writing.
"""

import errno
import fcntl
import glob
import hashlib
import json
import os
import re
import shutil
import socket
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import xxhash

from dataset.errors import UserError

PARTIAL_PREFIX = ".partial_"
REMOVED_PREFIX = f"{PARTIAL_PREFIX}removed_"  # what remove_folder is deleting
REPLACED_PREFIX = f"{PARTIAL_PREFIX}replaced_"  # what replace_folder has moved away: whole until its replacement has the name
LOCK_NAME = f"{PARTIAL_PREFIX}lock"  # what `locked` holds
PARTIAL_FILE = re.compile(re.escape(PARTIAL_PREFIX) + r"\d+_(?P<name>.+)")  # of `whole_file`
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


def reason(error: Exception) -> str:
    """Why writing or reading failed, in the operating system's words where it has any; one line."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else f"{type(error).__name__}: {error}"
    return " ".join(text.split())[:300]


def file_hash(path: Path) -> str:
    """xxh3-128 of a file: finds damage at the speed of the disk; it is no protection against malice. OSError where it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()


def fsync_path(path: Path) -> None:
    """Make the content of a file, or the renames inside a folder, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_tree(folder: Path) -> None:
    """fsync every file and folder below `folder`, `folder` itself last."""
    for root, _, names in os.walk(folder, topdown=False):
        for name in names:
            fsync_path(Path(root) / name)
        fsync_path(Path(root))


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it becomes `path`, on any error it is removed."""
    path = Path(path)
    partial = path.with_name(f"{PARTIAL_PREFIX}{os.getpid()}_{path.name}")
    try:
        yield partial
        fsync_path(partial)
        os.replace(partial, path)
        fsync_path(path.parent)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside `path`; on success it becomes `path` (replacing it), on error it goes.

    Its name holds this process and machine, so that two processes may write one folder: the last to end has it. What killed processes of
    this machine left of `path` goes too.
    """
    path = Path(path)
    ending = f"_{socket.gethostname()}_{path.name}"
    for left in path.parent.glob(f"{PARTIAL_PREFIX}*{glob.escape(ending)}"):
        process = left.name.removeprefix(PARTIAL_PREFIX).removesuffix(ending)
        if process.isdecimal() and not _is_alive(int(process)):
            remove_path(left)
    partial = path.with_name(f"{PARTIAL_PREFIX}{os.getpid()}{ending}")
    shutil.rmtree(partial, ignore_errors=True)  # of a killed process that had our number
    partial.mkdir(parents=True)
    try:
        yield partial
        _open_to_readers(partial)
        fsync_tree(partial)
        replace_folder(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _is_alive(process: int) -> bool:
    """Whether this machine has a process of that number."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        pass
    return True


def replace_folder(partial: Path, final: Path) -> None:
    """Give the complete folder `partial` the name `final`, in the place of what has it now.

    Killed between its renames it leaves nothing called `final`, but both the new folder (`partial`) and the old one (REPLACED_PREFIX).
    """
    old = final.with_name(f"{REPLACED_PREFIX}{final.name}")
    if final.exists():
        remove_path(old)
        os.replace(final, old)
    try:
        os.replace(partial, final)
    except OSError:
        if old.exists():
            os.replace(old, final)
        raise
    fsync_path(final.parent)
    remove_path(old)


def remove_folder(path: Path) -> None:
    """Delete a folder that nobody must take for a whole one once its deletion has begun."""
    removed = path.with_name(f"{REMOVED_PREFIX}{path.name}")
    remove_path(removed)
    os.replace(path, removed)
    fsync_path(path.parent)
    remove_path(removed)


def remove_path(path: Path) -> None:
    """Delete a hidden file or folder as far as possible; what stays is in nobody's way."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _open_to_readers(folder: Path) -> None:
    """Give every file the permissions that the user's umask means: safetensors writes its files for their owner alone."""
    mask = os.umask(0)
    os.umask(mask)
    for file in folder.rglob("*"):
        if file.is_file():
            file.chmod(0o666 & ~mask)


@contextmanager
def locked(folder: Path, name: str = "") -> Iterator[None]:
    """Make `folder` and be the only one that writes there, or, with `name`, the only one that writes that file there.

    UserError where another process has the lock, on this machine or by a network file system on another one, and where the folder
    cannot be made or written. The system frees the lock however its process ends; a kill leaves the empty sign of it, which is taken over.
    Where the file system has no locks a line says so.
    """
    path = folder / (f"{LOCK_NAME}_{name}" if name else LOCK_NAME)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = _lock(path)
    except OSError as error:
        raise UserError(f"{folder} cannot be made or written ({reason(error)}); another folder would work") from error
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()  # while nobody else can have the lock
        os.close(descriptor)


def _lock(path: Path) -> int:
    """An open file that holds the lock `path`, with this process's name in it."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(descriptor, 200).decode(errors="replace") or "another process"
            os.close(descriptor)
            what = f"{path.parent / path.name.removeprefix(f'{LOCK_NAME}_')}" if path.name != LOCK_NAME else f"{path.parent}"
            raise UserError(f"{what}: {owner} is writing there; waiting for its end, or another folder, would work") from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                os.close(descriptor)
                raise
            print(f"{path.parent}: its file system has no locks; a second run into it would go unnoticed", file=sys.stderr)
        # One that ended after our open has taken its file away: a lock on that would keep nobody out.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                os.ftruncate(descriptor, 0)
                os.write(descriptor, f"process {os.getpid()} of {socket.gethostname()}".encode())
                return descriptor
        os.close(descriptor)


def remove_partials(folder: Path, names: Collection[str]) -> None:
    """Delete what killed runs left of the files `names` in `folder`; only for one who knows that nobody else writes them, see `locked`."""
    for path in folder.glob(f"{PARTIAL_PREFIX}*"):
        if (match := PARTIAL_FILE.fullmatch(path.name)) and match["name"] in names:
            remove_path(path)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path`, whole or not at all."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: object) -> None:
    """Write `value` as indented JSON to `path`, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, sort_keys=False) + "\n")
