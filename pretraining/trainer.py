"""The loop: one message between ranks, one decision, one optimizer step; until the budget, the steps, a signal or a deadline end it.

It takes any module that returns (loss, shares of the global mean by term) and says for every share of the budget what it needs of a
teacher and which of its weights rest; it knows no encoder. Everything that decides about a step (stop, markers, validation, checkpoint,
learning rate) follows from one reading of rank 0's clock and from the step's number.
"""

import contextlib
import math
import time
import traceback
from dataclasses import dataclass
from typing import Any, NoReturn

import torch

from dataset.errors import UserError, one_line
from pretraining.averages import LossSums
from pretraining.batches.loader import StepLoader
from pretraining.batches.order import GlobalOrder
from pretraining.budget import Budget, CheckpointPlan, Clock, Deadline, Place, ValidationPlan
from pretraining.checkpoint import SaveError
from pretraining.control import AgreedError, Control, StepMessage
from pretraining.engine import Engine
from pretraining.events import Events
from pretraining.outputs import Outputs
from pretraining.progress import Progress
from pretraining.run_folder import UNFINISHED_REASONS
from pretraining.schedules import Schedule
from pretraining.signals import Unit
from pretraining.stopping import EarlyStop, StopSignal


@dataclass
class Rhythm:
    """How often things happen."""

    print_steps: int
    checkpoints: CheckpointPlan
    validation: ValidationPlan
    finetune_at_end: bool
    seed: int


class Trainer:
    """Runs from `progress` to an exit reason; `outputs` does what reaches the disk, `events` what is told.

    `saved_step`: the step whose checkpoint this run's folder holds already, because it goes on from it.
    """

    def __init__(
        self, engine: Engine, teacher: Any, loader: StepLoader, order: GlobalOrder, budget: Budget, clock: Clock, deadline: Deadline,
        schedule: Schedule, control: Control, rhythm: Rhythm, early_stop: EarlyStop, signal: StopSignal, outputs: Outputs, events: Events,
        progress: Progress, saved_step: int | None, device: torch.device,
    ) -> None:
        self.engine, self.teacher, self.loader, self.order = engine, teacher, loader, order
        self.budget, self.clock, self.deadline, self.schedule, self.control = budget, clock, deadline, schedule, control
        self.rhythm, self.early_stop, self.signal = rhythm, early_stop, signal
        self.outputs, self.events, self.progress, self.device = outputs, events, progress, device
        self._sums = LossSums(control, device)
        self._saved_step = saved_step
        self._pending_step = progress.step  # the step that `progress.pending_export` is of
        self._reached: list[float] = []  # markers that an early stop left for the closing work
        self._refused = ""  # why the disk took no checkpoint or export

    def run(self) -> str:
        """Train until something ends it; returns the exit reason of summary.json. AgreedError where the end could not be saved."""
        state = self.progress
        self._sums.start(state.interval)
        if self._saved_step is not None:
            # metrics.jsonl was cut back to what it held when this checkpoint was about to be saved.
            self._log_checkpoint(f"checkpoints/step_{state.step}", is_new=False)
        if state.pending_export is not None:
            self.clock.start()
            self._export()
        if state.validated_step == state.step and "held-out loss" in state.losses:
            # A loss that ended the run ends it again, though nothing is due at a step that was decided before.
            self.early_stop.look_at_loss(state.losses["held-out loss"], state.decided.hours)
        self.events.start_interval()
        batches, error = self._next_batches()
        while True:
            counts = {unit: sum(batch.counts[unit] for batch in batches) for unit in Unit}
            message = self.control.exchange(
                self.clock.hours(), counts, self.signal.asked, self.deadline.is_near(), failed=error is not None)
            state.hours = message.hours
            self.engine.module.begin_step(self.budget.progress(state.hours))
            if state.interval_steps and state.step % self.rhythm.print_steps == 0:
                self._report()
            reason = message.stop or self.budget.stop_reason(state.hours, state.step)
            if self.early_stop.reason is not None or reason is not None:
                return self._close(self.early_stop.reason or reason)
            if message.failed:
                self._give_up(error)
            if self._between_steps():
                continue  # that took time: the step is decided by a reading of the clock that knows of it
            self.step(batches, message)
            batches, error = self._next_batches()

    def _next_batches(self) -> tuple[list, Exception | None]:
        """The next step's micro-batches, or why there are none: an error that only matters if the step is taken."""
        try:
            return next(self.loader), None
        except Exception as error:
            return [], error

    def _give_up(self, error: Exception | None) -> NoReturn:
        """Save, then end all ranks with the error of those that cannot read their part of the next step."""
        self._save()
        if error is not None and not isinstance(error, UserError):
            traceback.print_exception(error)
        found = self.control.gather(None if error is None else one_line(error))
        rank, text = next((rank, text) for rank, text in enumerate(found) if text is not None)
        raise AgreedError(text if self.control.world_size == 1 else f"rank {rank}: {text}")

    def _between_steps(self) -> bool:
        """What falls due after the last step: validation, markers, checkpoints. True if there was something; then it is done."""
        state = self.progress
        before, now = state.decided, Place(state.step, state.hours, self.order.shards_finished(state.samples))
        state.decided = now
        if now.shards > before.shards:
            state.overflow_steps = 0
        reached = self.budget.take_markers(state.hours)
        due = before == Place() or self.rhythm.validation.is_due(self.budget.progress(state.hours), before.shards, now.shards)
        save = self.rhythm.checkpoints.is_due(before, now)
        if reached or due:
            self._validate()
        if self.early_stop.reason is not None:
            self._reached = reached
            return True
        if reached:
            self._reach(reached)
        elif save:
            self._save()
            if state.pending_export is not None:  # the disk refused it at its marker
                self._export()
        return bool(reached) or due or save

    def step(self, batches: list, message: StepMessage) -> None:
        """One optimizer step over this rank's micro-batches."""
        state, engine = self.progress, self.engine
        self.clock.start()
        state.rate = self.schedule.learning_rate(state.hours, state.step)
        engine.set_learning_rate(state.rate)
        module = engine.module
        teacher_needs, idle = module.teacher_needs, module.idle_parameters()
        for number, batch in enumerate(batches):
            on_device = batch.to(self.device)
            signals = self.teacher(on_device, teacher_needs) if teacher_needs is not None else None
            # Dropout is a function of (seed, step, place of the micro-batch in the global batch): nothing to save, nothing to replay.
            torch.manual_seed(dropout_seed(self.rhythm.seed, state.step, batch.micro_index))
            learnt = engine.forward_backward(on_device, signals, message.counts)
            self._sums.add(learnt)
            if number == len(batches) - 1 and (state.step + 1) % self.rhythm.print_steps == 0:
                engine.note_gradient_norm()
            engine.micro_step_done(idle)
        for name in learnt:
            state.term_steps[name] = state.term_steps.get(name, 0) + 1
        self.clock.step_done()
        state.step += 1
        state.interval_steps += 1
        state.samples += int(message.counts[Unit.SEQUENCES])
        state.tokens += int(message.counts[Unit.TOKENS])
        if self.early_stop.enabled and engine.precision.name == "fp16":
            state.overflow_steps += engine.loss_scale <= 1.0
            self.early_stop.look_at_scale(state.overflow_steps)
        self.events.count(message.counts)

    def _report(self, closing: bool = False) -> None:
        """The `train` event of the steps since the last one. At closing the interval is short and no gradient norm was noted."""
        state = self.progress
        sums = self._sums.over_ranks()
        means = {name: total / state.term_steps[name] for name, total in sums.items()}
        # Per step, also where a term was learnt from in some of them only.
        loss = math.fsum(self.outputs.weights[name.split("/")[0]] * total for name, total in sums.items()) / state.interval_steps
        state.losses = {**{name: value for name, value in state.losses.items() if name.startswith("held-out")},
                        "training loss": loss, **{f"training loss/{name}": mean for name, mean in means.items()}}
        self._sums.start([])
        state.interval, state.interval_steps, state.term_steps = [], 0, {}
        self.events.train(state, self.budget.progress(state.hours), loss, means, state.rate,
                          None if closing else self.engine.gradient_norm())
        if not math.isfinite(loss):
            self.early_stop.diverge(f"the training loss is {loss} at step {state.step}")

    def _validate(self) -> None:
        """Held-out losses, once per step however often it is asked for: a resumed run may come by the same step again."""
        state = self.progress
        if state.validated_step == state.step:
            if "held-out loss" in state.losses:
                self.early_stop.look_at_loss(state.losses["held-out loss"], state.hours)
            return
        losses = self.outputs.validate(self.engine, self.teacher)
        if losses is None:
            return
        state.validated_step = state.step
        training = {name: value for name, value in state.losses.items() if name.startswith("training")}
        state.losses = {**{f"held-out {name}": value for name, value in losses.items()}, **training}
        self.events.log("validation", state, self.budget.progress(state.hours), losses)
        self.early_stop.look_at_loss(losses["loss"], state.hours)

    def _reach(self, markers: list[float]) -> None:
        """One export for all markers reached at once, named after the last."""
        if len(markers) > 1:
            self.events.say(f"markers {', '.join(map(str, markers))} were reached at once; one export stands for them")
        self.progress.markers = list(self.budget.passed)
        self._save_and_export(markers[-1])

    def _save_and_export(self, fraction: float) -> None:
        """The checkpoint comes first and knows of the export, so that a kill in between is mended on resume."""
        self.progress.pending_export, self._pending_step = fraction, self.progress.step
        self._save()
        if self.early_stop.reason != "diverged":
            self._export()

    def _export(self) -> None:
        """The student as it is now, named after the marker it stands for. What the disk refuses stays pending."""
        state = self.progress
        fraction, is_new = state.pending_export, not self.outputs.has_export(state, state.pending_export)
        try:
            folder = self.outputs.export(self.engine, state, fraction)
        except SaveError as error:
            self._refuse(f"no export at step {state.step}", error)
            return
        state.pending_export, state.exported_step = None, state.step
        self.events.log("marker", state, self.budget.progress(state.hours), {"fraction": fraction, "folder": folder}, is_new)

    def _save(self) -> None:
        """A training checkpoint, unless this step has one. The run ends as diverged where losses or weights are not finite any more."""
        state = self.progress
        if self._saved_step == state.step and state.pending_export is None:
            return
        if state.pending_export is not None and self._pending_step != state.step:
            # The export that the disk refused at its marker will be of this step, and is named after it.
            state.pending_export, self._pending_step = self.budget.progress(state.hours), state.step
        state.interval = self._sums.of_every_rank()
        sums = [value for own in state.interval for value in own.values()]
        if not (all(map(math.isfinite, sums)) and self.engine.weights_are_finite()):
            self.early_stop.diverge(f"losses or weights are not finite at step {state.step}; nothing of it was saved")
            return
        state.longest_gap_s, state.longest_save_s = self.deadline.longest_gap_s, self.deadline.longest_save_s
        started = time.monotonic()
        try:
            # The clock's reading now, so that a resumed run is charged for the validation that came before.
            folder = self.outputs.save(self.engine, state, self.clock.hours(), self.events.position())
        except SaveError as error:
            self._refuse(f"no checkpoint at step {state.step}", error)
            return
        self.deadline.saved_in(time.monotonic() - started)
        self._saved_step = state.step
        self._log_checkpoint(folder)

    def _refuse(self, what: str, error: SaveError) -> None:
        self._refused = str(error)
        self.events.say(f"warning: {what}: {error}; what was saved before is whole, and the next occasion tries again")

    def note_rank_failure(self, why: str) -> None:
        """summary.json of a run that lost a rank; called beside the loop, which may never move again."""
        with contextlib.suppress(OSError):
            if self.events.summary.exists():
                return  # the run had ended before the rank did
            self.events.write_summary("rank_failure", self.progress, why, self.outputs.newest_step())

    def _log_checkpoint(self, folder: str, is_new: bool = True) -> None:
        self.events.log("checkpoint", self.progress, self.budget.progress(self.progress.hours), {"folder": folder}, is_new)

    def _close(self, reason: str) -> str:
        """Work after the last step: final validation, export, checkpoint, summary. Its time is reported apart."""
        started, state = time.monotonic(), self.progress
        self.loader.close()
        if reason not in UNFINISHED_REASONS:
            self._last_words(reason)
        if self.early_stop.reason != "diverged":
            self._save()
            if state.pending_export is not None and reason not in UNFINISHED_REASONS:
                self._export()  # the disk refused it before
        reason = self.early_stop.reason or reason
        unsaved = self._saved_step != state.step or (state.pending_export is not None and reason not in UNFINISHED_REASONS)
        if unsaved and reason != "diverged":
            newest = "there is no checkpoint" if self._saved_step is None else f"the newest checkpoint is step_{self._saved_step}"
            raise AgreedError(f"the run ended ({reason}) at step {state.step} and could not be saved whole ({self._refused}); {newest}: "
                              "mend that and --resume")
        why = self._why(reason)
        # All ranks wait for it: a launcher that sees one of them end may take the others away.
        self.control.on_first(lambda: self.events.summarise(
            reason, state, self.budget.progress(state.hours), why, self._saved_step, time.monotonic() - started))
        return reason

    def _why(self, reason: str) -> str | None:
        """What a person wants to know beside the reason; all ranks call it together."""
        if reason == "signal":
            heard = self.control.gather(self.signal.name)
            return next((f"{name} at rank {rank}" if len(heard) > 1 else name for rank, name in enumerate(heard) if name), None)
        if reason == "deadline":
            return f"a step and a checkpoint may take {self.deadline.reserve_s:.0f} s, and it is that near"
        return self.early_stop.why

    def _last_words(self, reason: str) -> None:
        """The last report, validation and export of a run that will not go on."""
        state = self.progress
        not_begun = self.engine.module.not_begun()
        if not_begun:
            self.events.say(f"warning: {', '.join(not_begun)} never began: the run ends at {self.budget.progress(state.hours):.0%} of the "
                            "budget, before that stage")
        if state.interval_steps:
            self._report(closing=True)
        if "diverged" in (reason, self.early_stop.reason):
            return
        self._validate()
        if self.early_stop.reason == "diverged":
            return
        reached = self._reached + self.budget.take_markers(state.hours)
        if reached:
            self._reach(reached)
        elif self.rhythm.finetune_at_end and state.exported_step != state.step:
            self._save_and_export(self.budget.progress(state.hours))


def dropout_seed(seed: int, step: int, micro_index: int) -> int:
    """A 64-bit seed from three counters, by SplitMix64's mixing: near counters give unrelated seeds."""
    value = seed
    for counter in (step, micro_index):
        value = (value + 0x9E3779B97F4A7C15 * (counter + 1)) & 0xFFFFFFFFFFFFFFFF
        value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        value ^= value >> 31
    return value
