"""Reasons to stop before the budget is used: a run that has failed, or somebody who asks."""

import contextlib
import math
import os
import signal
import time
from types import FrameType


class EarlyStop:
    """Decides from held-out losses and loss scales that a run is lost (--use_early_stopping), and records why.

    NaN or infinite losses end any run as `diverged`, asked or not: what follows would be hours of nothing.
    """

    def __init__(self, enabled: bool, after_minutes: float, above_loss: float, scale_limit: int) -> None:
        self.enabled, self.after_minutes, self.above_loss, self.scale_limit = enabled, after_minutes, above_loss, scale_limit
        self.reason: str | None = None
        self.why: str | None = None

    def diverge(self, why: str) -> None:
        self.reason, self.why = "diverged", why

    def look_at_loss(self, loss: float, hours: float) -> None:
        """Called with every held-out loss."""
        if not math.isfinite(loss):
            self.diverge(f"the held-out loss is {loss}")
        elif self.enabled and hours * 60 > self.after_minutes and loss > self.above_loss:
            self.reason = "early_stop"
            self.why = f"the held-out loss {loss:.4f} is above {self.above_loss} after {self.after_minutes} minutes"

    def look_at_scale(self, steps_at_one: int) -> None:
        """Called after every fp16 step with the number of steps within this shard whose loss scale was down to 1."""
        if self.enabled and steps_at_one >= self.scale_limit:
            self.diverge(f"the fp16 loss scale was down to 1 for {steps_at_one} steps of one shard")


class StopSignal:
    """Remembers SIGTERM, SIGINT, SIGUSR1 and SIGHUP, so that all ranks can agree to save and stop before the next step.

    A SIGHUP that is ignored (nohup) stays ignored.

    The same wish often arrives twice, from a scheduler or a terminal and once more from the launcher, so repetitions change nothing. Only
    somebody who presses Ctrl-C again after `PATIENCE_S` means that it should end at once. Handlers belong to the main thread: the loader's
    thread is never interrupted.
    """

    NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
    PATIENCE_S = 3.0

    def __init__(self, speaks: bool = False) -> None:
        """`speaks`: whether to say that the wish was heard; until the next step nothing else tells."""
        self.name: str | None = None  # of the first signal that came
        self._first = 0.0
        self._speaks = speaks
        for number in self.NUMBERS:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._note)

    @property
    def asked(self) -> bool:
        return self.name is not None

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.name is None:
            self._first, self.name = now, signal.Signals(number).name
            if self._speaks:
                # Not through Python's buffered streams, in the middle of whose writing this may come.
                text = f"note: {self.name}: saving and stopping before the next step (Ctrl-C again after 3 s: at once)\n"
                with contextlib.suppress(OSError):
                    os.write(2, text.encode())
        elif number == signal.SIGINT and now - self._first > self.PATIENCE_S:
            raise KeyboardInterrupt
