"""Articles of a MediaWiki dump, by the `wikiextractor` package run as a program of its own.

wikiextractor (3.1.0) sorts its output by page, so the number of its processes changes nothing. What it does not do is
fail: it exits with 0 on input that is no dump and when one of its workers died (then articles are missing), and it
waits forever when its main process or every worker died. So the input is looked at first, its messages are followed,
and a traceback or its word "incomplete" ends it. Templates that print today's date make text depend on the day.
"""

import bz2
import contextlib
import gzip
import json
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from dataset.errors import UserError

OPENERS = {".bz2": bz2.open, ".gz": gzip.open}
HEAD_CHARACTERS = 1 << 16
BYTES_PER_FILE = "100M"
MESSAGES_KEPT = 5


def check_dump(path: Path) -> None:
    """UserError where `path` does not start like a MediaWiki XML dump (plain, .bz2 or .gz)."""
    # The same choice by suffix as wikiextractor's, so that what passes here opens there.
    opener = OPENERS.get(path.suffix, open)
    wanted = "a MediaWiki XML dump (.xml, .xml.bz2 or .xml.gz) would work"
    try:
        with opener(path, "rt", encoding="utf-8") as dump:
            head = dump.read(HEAD_CHARACTERS)
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}); {wanted}") from error
    if "<mediawiki" not in head:
        raise UserError(f"{path} does not start with <mediawiki>; {wanted}")


def extract_dump(path: Path, folder: Path, n_processes: int) -> None:
    """Run wikiextractor on `path`, writing JSON lines below `folder`; UserError where it fails or loses articles."""
    # -P keeps files of the current folder from standing in for modules; html-safe "" leaves & < > as they are.
    command = [sys.executable, "-P", "-m", "wikiextractor.WikiExtractor", str(path), "--json", "--html-safe", ""]
    command += ["--processes", str(n_processes), "-b", BYTES_PER_FILE, "-o", str(folder)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )
    try:
        failure = _follow(process)
    finally:
        # SIGTERM, not SIGKILL: its resource tracker outlives it long enough to free the shared memory.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        status = process.wait()
        process.stderr.close()
    if failure:
        raise UserError(f"wikiextractor failed on {path}: {failure}; is the dump whole?")
    if status:
        raise UserError(f"wikiextractor ended with status {status} on {path}")


def read_articles(folder: Path) -> Iterator[str]:
    """Text of every article below `folder` in dump order, on one line each, without titles; empty articles left out."""
    for file in sorted(folder.glob("*/wiki_*")):
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                text = " ".join(json.loads(line)["text"].split())
                if text:
                    yield text


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
