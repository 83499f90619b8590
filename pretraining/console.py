"""What a person sees while training: a bar of the budget on a terminal, a plain line now and then elsewhere. Rank 0 only.

Nothing here ends a run: a log on a full disk or a closed pipe loses lines.
"""

import contextlib
import sys
from typing import Any

from tqdm import tqdm


def say(text: str) -> None:
    """A line on stderr that does not tear the bar."""
    with contextlib.suppress(OSError):
        tqdm.write(text, file=sys.stderr)
        sys.stderr.flush()


def clock_text(hours: float) -> str:
    """1.5 -> 1:30:00."""
    seconds = max(0, round(hours * 3600))
    return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


class Console:
    """`exit_hours` and `max_steps` bound the run; the bar shows whichever is nearer."""

    def __init__(self, exit_hours: float, max_steps: int) -> None:
        self.exit_hours, self.max_steps = exit_hours, max_steps
        self._bar = tqdm(total=100.0, bar_format="{l_bar}{bar}| {postfix}", file=sys.stderr) if sys.stderr.isatty() else None

    def update(self, event: dict[str, Any]) -> None:
        """Show a `train` event."""
        used = max(event["hours"] / self.exit_hours, event["step"] / self.max_steps)
        left = event["hours"] * (1 / used - 1) if used > 0 else self.exit_hours
        text = (f"step {event['step']}  {clock_text(event['hours'])} used  {clock_text(left)} left  loss {event['loss']:.4f}  "
                f"lr {event['lr']:.2e}  {event['samples_per_s']:.1f} samples/s  {event['tokens_per_s']:.0f} tokens/s")
        with contextlib.suppress(OSError):
            if self._bar is None:
                print(f"{min(used, 1.0):6.1%}  {text}", file=sys.stderr, flush=True)
            else:
                self._bar.n = min(100.0, 100 * used)
                self._bar.set_postfix_str(text)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
