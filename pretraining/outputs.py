"""What a run puts on the disk beside its metrics: held-out losses measured, checkpoints, exports. Every rank makes the calls."""

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from torch import nn

from dataset.files import reason
from pretraining.checkpoint import Keep, SaveError, checkpoint_step, complete_checkpoints, save_checkpoint
from pretraining.control import Control
from pretraining.engine import Engine
from pretraining.run_folder import RunFolder


class Recipe(Protocol):
    """How a run's student becomes a folder; `flags` are the run's."""

    flags: dict[str, Any]

    def export(self, weights: dict[str, torch.Tensor], folder: Path, state: dict[str, Any]) -> None: ...


class HeldOut(Protocol):
    """Measures the trained module on what it does not learn from: "loss" and whatever else there is to tell, by name."""

    def measure(self, module: nn.Module, teacher: Any, limit: int | None = None) -> dict[str, float]: ...


class Outputs:
    """`weights` are the objectives' by name. `timed` is told the seconds that each piece of work took."""

    def __init__(
        self, folder: RunFolder, control: Control, validator: HeldOut | None, recipe: Recipe, weights: dict[str, float], keep: Keep,
        extra_state: Callable[[], dict[str, Any]], timed: Callable[[float], None], validation_limit: int | None = None,
    ) -> None:
        self.folder, self.control, self.validator, self.recipe = folder, control, validator, recipe
        self.weights, self._keep, self._extra_state, self._timed = weights, keep, extra_state, timed
        self._validation_limit = validation_limit

    def validate(self, engine: Engine, teacher: Any) -> dict[str, float] | None:
        """Held-out losses, or None without --do_validation."""
        if self.validator is None:
            return None
        started = time.monotonic()
        losses = self.validator.measure(engine.module, teacher, self._validation_limit)
        self._timed(time.monotonic() - started)
        return losses

    def save(self, engine: Engine, state: Any, hours: float, metrics_bytes: int) -> str:
        """A training checkpoint of `state` at `hours` of rank 0's clock; returns its folder relative to the run's.

        `metrics_bytes`: the length of metrics.jsonl, to which a resumed run cuts it back. SaveError on all ranks where the disk refuses it.
        """
        started = time.monotonic()
        saved = {"progress": {**asdict(state), "hours": hours}, "marker": state.pending_export, "metrics_bytes": metrics_bytes,
                 "scaler": engine.scaler_state(), "flags": self.recipe.flags,
                 "world_size": self.control.world_size, **self._extra_state()}
        try:
            path = save_checkpoint(self.folder.checkpoints, state.step, engine, saved, self.control, self._keep)
        finally:
            self._timed(time.monotonic() - started)
        return str(path.relative_to(self.folder.path))

    def newest_step(self) -> int | None:
        """The step of the newest checkpoint on the disk, or None."""
        found = complete_checkpoints(self.folder.checkpoints)
        return checkpoint_step(found[0]) if found else None

    def has_export(self, state: Any, fraction: float) -> bool:
        """Whether the export of this step is there, from before a kill."""
        return (self.folder.finetune / marker_name(fraction, state.step) / "run_state.json").is_file()

    def export(self, engine: Engine, state: Any, fraction: float) -> str:
        """The student as a Hugging Face folder named after `fraction` of the budget; returns its path relative to the run's.

        SaveError on all ranks where the disk refuses it.
        """
        started = time.monotonic()
        path = self.folder.finetune / marker_name(fraction, state.step)
        weights = engine.master_weights()

        def work() -> str | None:
            if self.has_export(state, fraction):
                return None
            losses, quality = state.losses_and_quality()
            try:
                self.recipe.export(weights, path, {
                    "progress": fraction, "step": state.step, "samples": state.samples, "tokens": state.tokens, "hours": state.hours,
                    "validation_loss": state.losses.get("held-out loss"), "losses": losses, "quality": quality,
                })
            except (OSError, SafetensorError) as error:
                return f"{path}: {reason(error)}"
            return None

        problem = self.control.on_first(work)
        self._timed(time.monotonic() - started)
        if problem is not None:
            raise SaveError(problem)
        return str(path.relative_to(self.folder.path))


def marker_name(fraction: float, step: int) -> str:
    """progress_0.25_step_40."""
    return f"progress_{round(fraction, 4)}_step_{step}"


def marker_step(path: Path) -> int:
    return int(path.name.rpartition("_")[2])


def markers(finetune: Path) -> list[Path]:
    """The exports in a run's finetune folder, oldest first."""
    return sorted(finetune.glob("progress_*_step_*"), key=marker_step)
