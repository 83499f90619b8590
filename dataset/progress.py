"""Progress of long work on stderr: a bar on a terminal, a line a minute in a log."""

import sys
from typing import Any

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 60.0


class _Lines:
    """stderr for a tqdm without a terminal: every state is a line, and nothing is written over."""

    def write(self, text: str) -> None:
        if line := text.strip():
            sys.stderr.write(f"{line}\n")

    def flush(self) -> None:
        sys.stderr.flush()


class _InALog(tqdm):
    monitor_interval = 0  # no thread: with miniters=1 every update looks at the clock


def progress(*iterable: Any, **settings: Any) -> tqdm:
    """A tqdm of the same arguments. Without a terminal what ends within a minute is silent."""
    if sys.stderr.isatty():
        return tqdm(*iterable, **settings)
    has_end = settings.get("total") is not None or (bool(iterable) and hasattr(iterable[0], "__len__"))
    state = "{n_fmt} of {total_fmt}{unit}, {rate_noinv_fmt}, {remaining} left" if has_end else "{n_fmt}{unit}, {rate_noinv_fmt}"
    every = dict.fromkeys(("delay", "mininterval", "maxinterval"), SECONDS_BETWEEN_LINES)
    return _InALog(*iterable, **settings, **every, file=_Lines(), miniters=1,
                   bar_format="{desc}: " + ("{percentage:.0f}%, " if has_end else "") + state)
