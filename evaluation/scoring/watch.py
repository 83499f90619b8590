"""Beside a training that runs: score each marker as it appears, until the run has ended and all its markers are scored."""

import time
from collections.abc import Callable
from pathlib import Path

from dataset.errors import UserError, one_line
from evaluation.scoring.candidates import Candidate, markers_there, run_state


def watch(
    run_dir: Path, score: Callable[[list[Candidate]], None], seconds: float, say: Callable[[str], None] = print,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Call `score` with each new marker, oldest first, looking every `seconds`.

    A marker that a resumed run wrote again under its old name is new. A run that was stopped on the way is waited for: it may be resumed.
    A marker that cannot be scored is told at once, the others go on, and the watch ends with a UserError.
    """
    seen: set[tuple[str, int] | None] = {None}
    failures: list[str] = []
    is_told = False
    while True:
        has_ended = run_state(run_dir)  # before the markers: none appears after the summary
        new = [marker for marker in markers_there(run_dir) if _version(marker) not in seen]
        if new:
            is_told = False
            for marker in new:
                if (version := _version(marker)) is None:
                    continue
                seen.add(version)
                try:
                    score([marker])
                except UserError as error:
                    failures.append(f"{marker.name}: {one_line(error)}")
                    say(failures[-1])
            continue
        scored = len(seen) - 1 - len(failures)
        if has_ended is not None:
            say(f"{run_dir}: the run has ended ({has_ended}), {scored} markers are scored")
            if failures:
                raise UserError(f"{len(failures)} of {len(seen) - 1} markers could not be scored, the others are kept: {failures[0]}")
            return
        if not is_told:
            say(f"{run_dir}: {scored} markers are scored; waiting for the next (Ctrl-C ends the watch, the run goes on)")
            is_told = True
        sleep(seconds)


def _version(marker: Candidate) -> tuple[str, int] | None:
    """Tells a marker from one that was written later under its name; None where a resumed run has moved it away."""
    try:
        return marker.name, (marker.folder / "run_state.json").stat().st_mtime_ns
    except FileNotFoundError:
        return None
