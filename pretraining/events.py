"""The events of metrics.jsonl, the lines on the console, and summary.json. Every rank makes the calls, rank 0 writes."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dataset.errors import UserError
from dataset.files import reason, write_json
from pretraining.console import Console, say
from pretraining.run_folder import UNFINISHED_REASONS
from pretraining.signals import Unit
from pretraining.throughput import CostPerToken, share_of_peak
from pretraining.tracking import Tracking, finite


class Events:
    """`tracking` and `console` are None on all ranks but 0."""

    def __init__(
        self, tracking: Tracking | None, console: Console | None, summary: Path, cost: CostPerToken, peak: float | None, devices: int,
        markers: Callable[[], list[str]],
    ) -> None:
        self.tracking, self.console, self.summary = tracking, console, summary
        self.cost, self.peak, self.devices = cost, peak, devices
        self._list_markers = markers
        self._interval_tokens = self._interval_samples = self._interval_steps = 0
        self._interval_started = 0.0
        self._outside = 0.0

    def start_interval(self) -> None:
        self._interval_started, self._outside = time.monotonic(), 0.0
        self._interval_tokens = self._interval_samples = self._interval_steps = 0

    def count(self, counts: dict[Unit, float]) -> None:
        """A step over `counts` was launched."""
        self._interval_tokens += int(counts[Unit.TOKENS])
        self._interval_samples += int(counts[Unit.SEQUENCES])
        self._interval_steps += 1

    def position(self) -> int:
        """Bytes of metrics.jsonl written so far; 0 on the ranks that write none."""
        return self.tracking.metrics.position() if self.tracking is not None else 0

    def say(self, text: str) -> None:
        if self.tracking is not None:
            say(text)

    def log(self, event: str, state: Any, progress: float, values: dict[str, Any], is_new: bool = True) -> None:
        """An event at the hours of the last agreed clock reading. Its work does not count as training speed.

        `is_new` is false for what an earlier piece of the run did: it is logged again and not said again.
        """
        if self.tracking is not None:
            self.tracking.log({"event": event, **_place(state, progress), **values})
            if is_new and event in ("validation", "marker", "checkpoint"):
                shown = ", ".join(f"{name} {value:.6g}" if isinstance(value, float) else f"{name} {value}"
                                  for name, value in values.items())
                say(f"{event} at step {state.step}: {shown}")

    def outside(self, seconds: float) -> None:
        """Validation, checkpoints and exports took `seconds` of this interval."""
        self._outside += seconds

    def train(
        self, state: Any, progress: float, loss: float, means: dict[str, float], rate: float, norm: float | None,
    ) -> None:
        """The `train` event of the interval that ends now."""
        seconds = max(1e-9, time.monotonic() - self._interval_started - self._outside)
        tokens_per_s = self._interval_tokens / seconds
        event = {
            "event": "train", **_place(state, progress), "loss": loss,
            **{f"loss/{name}": mean for name, mean in means.items()}, "lr": rate, "grad_norm": norm,
            "samples_per_s": self._interval_samples / seconds, "tokens_per_s": tokens_per_s,
            "step_s": seconds / max(1, self._interval_steps),
        }
        mfu = share_of_peak(tokens_per_s, self.cost, self.peak, self.devices)
        if mfu is not None:
            event["mfu"] = mfu
        state.timed_tokens += self._interval_tokens
        state.timed_s += seconds
        if self.tracking is not None:
            self.tracking.log(event)
            self.console.update(event)
        self.start_interval()

    def summarise(
        self, exit_reason: str, state: Any, progress: float, why: str | None, saved_step: int | None, closing_s: float,
    ) -> None:
        """summary.json, the last thing a run writes, and the `stop` event. `saved_step`: the step of the newest checkpoint.

        Rank 0 alone calls this. UserError where the disk refuses it.
        """
        self.tracking.log({"event": "stop", **_place(state, progress), "exit_reason": exit_reason})
        self.tracking.close()
        self.console.close()
        try:
            self.write_summary(exit_reason, state, why, saved_step, closing_s)
        except OSError as error:
            raise UserError(f"{self.summary}: cannot be written ({reason(error)}); everything else of the run was saved, and --resume "
                            "writes it once there is room") from None
        kept = f"; the last good state is checkpoints/step_{saved_step}" if exit_reason == "diverged" and saved_step is not None else ""
        say(f"stopped: {exit_reason}{f' ({why})' if why else ''} after {state.step} steps, {state.hours:.3f} h; closing work took "
            f"{closing_s:.1f} s{kept}{'; --resume goes on' if exit_reason in UNFINISHED_REASONS else ''}")

    def write_summary(self, exit_reason: str, state: Any, why: str | None, saved_step: int | None, closing_s: float = 0.0) -> None:
        """summary.json, by whichever rank is left to write it."""
        losses, quality = state.losses_and_quality()
        write_json(self.summary, {
            "exit_reason": exit_reason, "why": why, "hours": state.hours, "closing_s": closing_s, "steps": state.step,
            "samples": state.samples, "tokens": state.tokens,
            "losses": {name: finite(value) for name, value in losses.items()},
            "quality": {name: finite(value) for name, value in quality.items()},
            "tokens_per_s": state.timed_tokens / state.timed_s if state.timed_s else None,
            "checkpoint": None if saved_step is None else f"checkpoints/step_{saved_step}", "markers": self._list_markers(),
        })


def _place(state: Any, progress: float) -> dict[str, Any]:
    return {"step": state.step, "samples": state.samples, "tokens": state.tokens, "hours": state.hours, "progress": progress}
