"""The budget: the only place that reads a clock, and the decisions that follow from one reading of it.

The clock starts with the first training step and runs through validation, checkpoints and exports; the time a run was down is not
charged. It is read once per optimizer step, on rank 0, and everything decided about that step is a function of that number. Beside it
stands the deadline, the wall-clock time at which a scheduler takes the machine away.
"""

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

SECONDS_PER_HOUR = 3600.0
# Far above the rounding of a few float64 operations, far below any step: at 5 steps of one second, step 1 is at 0.19999999999999998
# of the budget, and a marker of 0.2 would come a step late.
ROUNDING = 1e-12


class Clock(ABC):
    """Hours since the first training step of the run, earlier pieces of a resumed run included."""

    def __init__(self, hours_before: float = 0.0) -> None:
        self.hours_before = hours_before

    @abstractmethod
    def start(self) -> None:
        """A training step begins; the first call starts the clock."""

    @abstractmethod
    def step_done(self) -> None:
        """One optimizer step was taken."""

    @abstractmethod
    def hours(self) -> float: ...


class MonotonicClock(Clock):
    _started: float | None = None

    def start(self) -> None:
        if self._started is None:
            self._started = time.monotonic()

    def step_done(self) -> None:
        pass

    def hours(self) -> float:
        running = 0.0 if self._started is None else time.monotonic() - self._started
        return self.hours_before + running / SECONDS_PER_HOUR


class SimulatedClock(Clock):
    """Every optimizer step takes `seconds_per_step`, everything else takes none: for tests and proofs."""

    def __init__(self, seconds_per_step: float, steps_before: int = 0) -> None:
        super().__init__()
        self.seconds_per_step, self.steps = seconds_per_step, steps_before

    def start(self) -> None:
        pass

    def step_done(self) -> None:
        self.steps += 1

    def hours(self) -> float:
        # One product and no running sum: step n reads the same hours in an uninterrupted and in a resumed run.
        return self.steps * self.seconds_per_step / SECONDS_PER_HOUR


@dataclass
class Budget:
    """Hours in, decisions out. `markers` are fractions of `total_hours`, ascending; `passed` those that were acted on."""

    total_hours: float
    exit_hours: float
    max_steps: int
    stop_step: int
    markers: tuple[float, ...]
    passed: list[float] = field(default_factory=list)

    def progress(self, hours: float) -> float:
        """Share of the budget that is used, in [0, 1]."""
        return min(1.0, hours / self.total_hours)

    def stop_reason(self, hours: float, step: int) -> str | None:
        """Why training stops before the next step, or None. `stop_step` bounds steps beside `max_steps` (--num_epochs)."""
        if is_reached(hours, self.exit_hours):
            return "time_budget" if self.exit_hours >= self.total_hours else "early_exit_marker"
        return "max_steps" if step >= min(self.max_steps, self.stop_step) else None

    def take_markers(self, hours: float) -> list[float]:
        """Markers reached at `hours` and not acted on before; they count as passed from now on."""
        reached = [marker for marker in self.markers if marker not in self.passed and is_reached(hours, marker * self.total_hours)]
        self.passed.extend(reached)
        return reached


@dataclass(frozen=True)
class ValidationPlan:
    """When the held-out loss is measured: every so many finished shards, by stage of the budget."""

    begin_every: int
    middle_every: int
    end_every: int
    begin_proportion: float
    end_proportion: float

    def is_due(self, progress: float, shards_before: int, shards_now: int) -> bool:
        """Whether the last step completed a shard whose number is a multiple of the stage's interval."""
        if progress < self.begin_proportion:
            every = self.begin_every
        elif progress > 1 - self.end_proportion:
            every = self.end_every
        else:
            every = self.middle_every
        return crossed_multiple(every, shards_before, shards_now)


@dataclass(frozen=True)
class Place:
    """Where a run is when it decides what is due: finished steps, hours of the agreed reading, finished shards. -1: before the first."""

    step: int = -1
    hours: float = -1.0
    shards: int = -1


@dataclass(frozen=True)
class CheckpointPlan:
    """When a training checkpoint is made: at multiples of steps, of minutes of budget and of shards; below 1 (minutes: 0) never."""

    every_steps: int
    every_minutes: float
    every_shards: int

    def is_due(self, before: Place, now: Place) -> bool:
        """Whether a multiple was reached since the decision at `before`; nothing is due before the first step."""
        return (crossed_multiple(self.every_steps, before.step, now.step) or self._minutes(before.hours) < self._minutes(now.hours)
                or crossed_multiple(self.every_shards, before.shards, now.shards))

    def _minutes(self, hours: float) -> int:
        """How many whole intervals of minutes `hours` hold."""
        return int(max(0.0, hours) * 60 / self.every_minutes * (1 + ROUNDING)) if self.every_minutes > 0 else 0


class Deadline:
    """The wall-clock time by which a run must have saved and stopped. Read on rank 0, once per optimizer step.

    What has to fit before it: the work up to the next look, as long as the longest so far, and one checkpoint, as long as the longest so
    far (before the first: its bytes at 100 MB/s); both half as much again, and `MARGIN_S`.
    """

    MARGIN_S = 10.0
    FIRST_BYTES_PER_S = 100e6

    def __init__(self, at: float | None, checkpoint_bytes: int, longest_gap_s: float = 0.0, longest_save_s: float = 0.0) -> None:
        """`longest_gap_s` and `longest_save_s` are what earlier pieces of the run have seen."""
        self.at = at
        self.longest_gap_s = longest_gap_s
        self.longest_save_s = longest_save_s or checkpoint_bytes / self.FIRST_BYTES_PER_S
        self._looked: float | None = None

    def is_near(self) -> bool:
        """Whether the run must stop before its next step."""
        now = time.monotonic()
        if self._looked is not None:
            self.longest_gap_s = max(self.longest_gap_s, now - self._looked)
        self._looked = now
        return self.at is not None and time.time() + self.reserve_s >= self.at

    def saved_in(self, seconds: float) -> None:
        """A checkpoint took `seconds`."""
        self.longest_save_s = max(self.longest_save_s, seconds)

    @property
    def reserve_s(self) -> float:
        return self.MARGIN_S + 1.5 * (self.longest_gap_s + self.longest_save_s)


def is_reached(hours: float, limit: float) -> bool:
    """Whether `limit` hours are over, but for the rounding of sums and products."""
    return hours >= limit * (1 - ROUNDING)


def crossed_multiple(every: int, before: int, now: int) -> bool:
    """Whether a multiple of `every` lies in (before, now]; never for `every` < 1."""
    return every >= 1 and now // every > max(0, before) // every
