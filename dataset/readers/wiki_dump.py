"""Articles of a MediaWiki dump, by the `wikiextractor` package run as a program of its own.

wikiextractor (3.1.0) sorts its output by page, so the number of its processes changes nothing. What it does not do is
fail: it exits with 0 on input that is no dump, on one that is cut short, and when one of its workers died (then articles are missing), and
it waits forever when its main process or every worker died. So the start of the dump is looked at first, the whole of it is read beside
wikiextractor, its messages are followed, and a traceback or its word "incomplete" ends it. Templates that print today's date make text
depend on the day.

It runs under `supervise`, so that none of its processes outlives this one, however that ends.

wikiextractor reads no zstd and no bytes that are not UTF-8; for those it gets a copy (gzip, a third of the XML) beside the output.
"""

import contextlib
import gzip
import os
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import BinaryIO

from dataset.errors import UserError
from dataset.files import PARTIAL_PREFIX, remove_path
from dataset.readers.extracted import read_own_extract
from dataset.readers.source import REPLACE, Source, each_file
from dataset.readers.streams import read_lines

OPENS, CLOSES = "<mediawiki", "</mediawiki>"
HEAD_CHARACTERS = 1 << 16
FOLDER_PREFIX = f"{PARTIAL_PREFIX}wiki_"
SUPERVISE = Path(__file__).with_name("supervise.py")
BYTES_PER_FILE = "100M"
MESSAGES_KEPT = 5
# What wikiextractor says of a dump that it cannot read on; reading it ourselves tells the line.
READING_ERRORS = ("EOFError", "OSError", "UnicodeDecodeError", "zlib.error", "gzip.BadGzipFile")
WANTED = "a whole MediaWiki XML dump (.xml, .xml.bz2, .xml.gz or .xml.zst) would work"


def read_dump(source: Source) -> Iterator[str]:
    """Articles of the dump in its order, without titles, talk pages and redirects; files in between go beside `source.target`.

    Whoever calls this has the lock of `source.target`: what a killed run left of such files is removed.
    """
    check_head(source)
    for path in source.target.parent.glob(f"{FOLDER_PREFIX}*"):
        remove_path(path)
    with tempfile.TemporaryDirectory(prefix=FOLDER_PREFIX, dir=source.target.parent) as folder:
        text = Path(folder) / "text"
        if source.errors == REPLACE or source.path.suffix == ".zst":
            copy = Path(folder) / "dump.xml.gz"
            with gzip.open(copy, "wb", compresslevel=1) as file:
                read_to_end(source, copy=file)
            extract_dump(copy, text, source.n_processes)
        else:
            extract_dump(source.path, text, source.n_processes, lambda stop: read_to_end(source, stop))
        # A dump's entities can name half characters; that must not end hours of work.
        yield from read_own_extract(replace(source, path=text, errors=REPLACE))


def check_head(source: Source) -> None:
    """UserError where the file does not start like a MediaWiki XML dump."""
    characters = 0
    for _, line in read_lines(source.path, source):
        if OPENS in line:
            return
        characters += len(line)
        if characters > HEAD_CHARACTERS:
            break
    raise UserError(f"{source.path} does not start with {OPENS}>; {WANTED}")


def read_to_end(source: Source, stop: Event | None = None, copy: BinaryIO | None = None) -> None:
    """Read the whole dump, writing its lines to `copy`, until `stop` is set; UserError where it is damaged or has no end."""
    last_line, last_number = "", 0
    for path in each_file(source, (), WANTED):
        for number, line in read_lines(path, source):
            if copy:
                copy.write(line.encode())
            if not line.isspace():
                last_line, last_number = line, number
            if stop and stop.is_set():
                return
    if not last_line.rstrip().endswith(CLOSES):
        raise UserError(f"{source.path}, line {last_number}: the dump ends without {CLOSES}: it is cut short; {WANTED}")


def extract_dump(path: Path, folder: Path, n_processes: int, check: Callable[[Event], None] | None = None) -> None:
    """Run wikiextractor on `path`, writing JSON lines below `folder`; UserError where it fails or loses articles.

    `check` reads the dump at the same time, until the event it is given is set; what it raises ends wikiextractor.
    """
    # -P keeps files of the current folder from standing in for modules; html-safe "" leaves & < > as they are.
    command = [sys.executable, "-P", "-m", "wikiextractor.WikiExtractor", str(path), "--json", "--html-safe", ""]
    command += ["--processes", str(n_processes), "-b", BYTES_PER_FILE, "-o", str(folder)]
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", str(SUPERVISE), *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )
    stop = Event()
    with ThreadPoolExecutor(max_workers=1) as pool:
        try:
            checked = pool.submit(check or Event.is_set, stop)
            checked.add_done_callback(lambda done: done.exception() and _end(process))
            failure = _follow(process)
            if failure is None or checked.done() or failure.startswith(READING_ERRORS):
                checked.result()
        finally:
            stop.set()
            _end(process)
            status = process.wait()
            process.stdin.close()
            process.stderr.close()
    if failure:
        raise UserError(f"wikiextractor failed on {path}: {failure}; is the dump whole?")
    if status:
        raise UserError(f"wikiextractor ended with status {status} on {path}")


def _end(process: subprocess.Popen) -> None:
    # SIGTERM, not SIGKILL: its resource tracker outlives it long enough to free the shared memory.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)


def _follow(process: subprocess.Popen) -> str | None:
    """Pass wikiextractor's messages on until it is done; returns what went wrong, None when nothing did."""
    recent: deque[str] = deque(maxlen=MESSAGES_KEPT)
    in_traceback = False
    for line in process.stderr:
        recent.append(line.strip())
        if line.startswith("Traceback"):
            in_traceback = True
        elif in_traceback:
            if not line.startswith(" "):
                return line.strip()
        elif "REDUCER_EXIT incomplete" in line:
            return "a worker died and articles are missing"
        else:
            print(line, end="", file=sys.stderr)
    return " ".join(recent) if process.wait() else None
