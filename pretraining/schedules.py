"""Learning-rate factor as a pure function of position, total and warm-up, all in one unit (hours or optimizer steps).

    position < warm-up:   linear p/w,                exp (p/w)²
    after it:             linear (t − p)/(t − w),    exp decay_rate^((p − w)/decay_step)

The originals divided by max(1, t − w), so that a time budget under an hour jumped down at the end of its warm-up.
"""

from dataclasses import dataclass


def factor(position: float, total: float, warmup: float, curve: str, decay_rate: float, decay_step: float) -> float:
    """Share of the peak learning rate, in [0, 1]. `curve` is linear or exp; `decay_step` is in the unit of `position`."""
    if position < warmup:
        share = position / warmup
        return share if curve == "linear" else share * share
    if curve == "linear":
        return min(1.0, max(0.0, (total - position) / (total - warmup))) if total > warmup else 0.0
    return decay_rate ** ((position - warmup) / decay_step)


@dataclass(frozen=True)
class Schedule:
    """`kind`: time (hours of `total_hours`), step or constant_step (optimizer steps of `max_steps`)."""

    kind: str
    curve: str
    peak: float
    total_hours: float
    max_steps: int
    warmup_proportion: float
    num_warmup_steps: int
    decay_rate: float
    decay_step: float

    def learning_rate(self, hours: float, step: int) -> float:
        """Learning rate of the step after `step` finished ones, at `hours` of budget."""
        if self.kind == "time":
            position, total, warmup = hours, self.total_hours, self.total_hours * self.warmup_proportion
        elif self.kind == "step":
            position, total, warmup = step, self.max_steps, self.max_steps * self.warmup_proportion
        else:
            position, total, warmup = step, self.max_steps, self.num_warmup_steps
        return self.peak * factor(position, total, warmup, self.curve, self.decay_rate, self.decay_step)
