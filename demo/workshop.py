"""Stages that are done whole or not at all, remembered between calls, one call at a time.

A record beside the work says for each stage what went in (a hash), whether it finished and how long it took. A stage is reused when it
finished with the same input and its result is still there. A record that was started and not finished tells a stage that it goes on.
The lock is inherited by the programs that a stage starts, so it holds for as long as any of them lives, even when the demo was killed.
"""

import fcntl
import hashlib
import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dataset.errors import UserError
from dataset.files import write_json

INTERRUPTED = 130


@dataclass
class Workshop:
    """`root`: the checkout, where commands run; `folder`: everything that is made, below `root` for paths that can be pasted."""

    root: Path
    folder: Path
    say: Callable[[str], None] = lambda text: print(text, flush=True)
    seconds: dict[str, float] = field(default_factory=dict)
    """Stage -> how long it took when it was done, in this call or an earlier one."""
    reused: set[str] = field(default_factory=set)
    _keys: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = (self.folder / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"another call works in {self.folder}, or a program that it started; wait for it, or end it") from None

    def do(
        self, name: str, title: str, inputs: Sequence[Any], is_there: Callable[[], bool], work: Callable[[bool], Any],
        after: Sequence[str] = (),
    ) -> None:
        """Run `work` unless it is done; it is told whether an earlier call began the same and did not finish.

        `inputs` (JSON) and the stages named in `after` decide what the result is. `is_there`: the result has not been removed.
        """
        key = _hash([list(inputs), [self._keys[stage] for stage in after]])
        path = self.folder / "stages" / f"{name}.json"
        record = _read(path)
        same = record.get("key") == key
        self._keys[name] = key
        if same and record.get("finished") and is_there():
            self.seconds[name] = record["seconds"]
            self.reused.add(name)
            self.say(f"[{name}] reused: {title} (took {seconds_text(record['seconds'])} when it was done)")
            return
        unfinished = same and not record.get("finished")
        self.say(f"[{name}] {'going on with' if unfinished else 'now'}: {title}")
        path.parent.mkdir(exist_ok=True)
        write_json(path, {"key": key, "finished": False})
        started = time.monotonic()
        work(unfinished)
        self.seconds[name] = time.monotonic() - started
        write_json(path, {"key": key, "finished": True, "seconds": round(self.seconds[name], 2)})
        self.say(f"[{name}] done in {seconds_text(self.seconds[name])}")

    def run(self, *arguments: str | Path) -> None:
        """Run `python ARGUMENTS` in the checkout, its output going where ours goes, and print it so that it can be pasted.

        UserError where it fails. A Ctrl-C or SIGTERM is passed on, and the program may take the time it needs to save itself.
        """
        command = [self.shown(sys.executable), *map(self.shown, arguments)]
        self.say(f"  $ {shlex.join(command)}")
        process = subprocess.Popen([sys.executable, *command[1:]], cwd=self.root, pass_fds=(self._lock.fileno(),))
        before = signal.signal(signal.SIGTERM, _leave)
        try:
            status = process.wait()
        except (KeyboardInterrupt, _Terminated) as interruption:
            # Of a Ctrl-C the terminal has told the program as well.
            if isinstance(interruption, _Terminated):
                process.terminate()
            process.wait()
            self.say("stopped; the next call goes on from here")
            raise SystemExit(INTERRUPTED) from None
        finally:
            signal.signal(signal.SIGTERM, before)
        if status:
            raise UserError(f"{command[1]} ended with status {status}, see above; the next call goes on from here")

    def shown(self, part: str | Path) -> str:
        """A path below the checkout relative to it, anything else as it is."""
        text = str(part)
        return text.removeprefix(f"{self.root}/")


class _Terminated(BaseException):
    """SIGTERM, as something that `except` can catch: waiting again inside the handler would wait for the interrupted wait's lock."""


def _leave(*_: object) -> None:
    raise _Terminated


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def seconds_text(seconds: float) -> str:
    """9.3 s, 3 min 12 s."""
    return f"{seconds:.1f} s" if seconds < 59.95 else f"{round(seconds) // 60} min {round(seconds) % 60:02d} s"
