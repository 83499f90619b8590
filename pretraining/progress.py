"""Where a run is: everything of its state.json that changes from step to step."""

from dataclasses import dataclass, field
from typing import Any

from pretraining.budget import Place

QUALITY = ("accuracy/", "perplexity/", "score/")
"""How the names of held-out numbers begin that are no losses."""


@dataclass
class Progress:
    """Where a run is; saved with every checkpoint. `samples` is the position in the data; `decided` where it was last decided what is due.

    `interval` holds, for every rank, the sums that the next `train` event will average.
    """

    step: int = 0
    samples: int = 0
    tokens: int = 0
    hours: float = 0.0
    markers: list[float] = field(default_factory=list)
    pending_export: float | None = None
    losses: dict[str, float] = field(default_factory=dict)  # and the other held-out numbers, see `losses_and_quality`
    interval: list[dict[str, float]] = field(default_factory=list)
    interval_steps: int = 0
    term_steps: dict[str, int] = field(default_factory=dict)  # in how many of them each term was learnt from
    overflow_steps: int = 0
    rate: float = 0.0
    validated_step: int = -1
    exported_step: int = -1
    decided: Place = field(default_factory=Place)
    timed_tokens: int = 0  # of the steps that `train` events timed, and their seconds
    timed_s: float = 0.0
    longest_gap_s: float = 0.0  # what a deadline has to leave time for
    longest_save_s: float = 0.0

    @classmethod
    def restore(cls, saved: dict[str, Any]) -> "Progress":
        """From what `dataclasses.asdict` made of it, or an empty dict for a run that begins."""
        return cls(**{**saved, "decided": Place(**saved["decided"])}) if saved else cls()

    def losses_and_quality(self) -> tuple[dict[str, float], dict[str, float]]:
        """({"held-out loss": 3.1, ...}, {"accuracy/mlm": 0.4, "score/f1": 0.8, ...}), the latter held out always."""
        names = {name: name.removeprefix("held-out ") for name in self.losses}
        quality = {short: self.losses[name] for name, short in names.items() if short.startswith(QUALITY)}
        return {name: value for name, value in self.losses.items() if names[name] not in quality}, quality
