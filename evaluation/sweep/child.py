"""One program at a time, its output in a log file, and the wish to stop passed on to it.

A Ctrl-C reaches the program through the terminal and once more from here, which the trainer takes for one wish; the sweep then waits
until the program has saved itself. A second Ctrl-C some seconds later means: at once.
"""

import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

from evaluation.sweep.record import Lock

POLL_S = 0.1
PATIENCE_S = 3.0
"""A Ctrl-C so long after the first wish is a second one; the trainer's own number."""
LAST_WORDS = 300
"""Characters of a failure that are repeated on the console."""


class StopWish:
    """Remembers that SIGINT, SIGTERM or SIGHUP came, and whether a Ctrl-C came again; a context manager."""

    NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

    def __init__(self) -> None:
        self.name: str | None = None
        self.insists = 0
        self._first = 0.0

    def __enter__(self) -> "StopWish":
        self._before = {number: signal.getsignal(number) for number in self.NUMBERS}
        for number, before in self._before.items():
            if before != signal.SIG_IGN:  # nohup
                signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.name is None:
            self.name, self._first = signal.Signals(number).name, time.monotonic()
        elif number == signal.SIGINT and time.monotonic() - self._first > PATIENCE_S:
            self.insists += 1


def wait_for(process: subprocess.Popen, wish: StopWish, terminal_s: float = 0.0) -> int:
    """The exit status of `process`, negative for a signal. A wish to stop becomes one SIGTERM, every further Ctrl-C a SIGINT.

    `terminal_s`: seconds that a first Ctrl-C, which the terminal has sent to the process as well, has to end it before it is told.
    """
    asked_at, told, insisted = None, False, 0
    while True:
        with suppress(subprocess.TimeoutExpired):
            return process.wait(POLL_S)
        if wish.name is not None and asked_at is None:
            asked_at = time.monotonic()
        if asked_at is not None and not told and (wish.name != "SIGINT" or time.monotonic() - asked_at >= terminal_s):
            process.send_signal(signal.SIGTERM)
            told = True
        if wish.insists > insisted:
            process.send_signal(signal.SIGINT)
            insisted = wish.insists


def run_logged(command: Sequence[str], log: Path, lock: Lock, wish: StopWish) -> tuple[int, str]:
    """Run `command`, appending what it says to `log`; (exit status, the line that says why where that is not 0)."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        began = file.tell()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, pass_fds=(lock.descriptor,))
        lock.hold(process.pid)
        status = wait_for(process, wish)
        lock.hold()
    return status, "" if status == 0 else _last_words(log, began, status)


def _last_words(log: Path, began: int, status: int) -> str:
    """The last line that begins with `error:`, else the last line at all, of what `log` holds from byte `began` on."""
    with log.open("rb") as file:
        file.seek(max(began, log.stat().st_size - 65536))
        lines = [line.strip() for line in file.read().decode(errors="replace").replace("\r", "\n").splitlines() if line.strip()]
    ended = f"killed by {signal.Signals(-status).name}" if status < 0 else f"status {status}"
    said = next((line for line in reversed(lines) if line.startswith("error:")), lines[-1] if lines and status > 0 else "")
    return f"{ended}: {said[:LAST_WORDS]}" if said else ended
