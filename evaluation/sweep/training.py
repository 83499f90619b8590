"""Run after run under one total budget: what is finished is kept, what was begun goes on, what fails is reported and passed over."""

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from dataset.errors import UserError
from evaluation.sweep.child import StopWish, run_logged
from evaluation.sweep.recipe import Recipe
from evaluation.sweep.record import Lock, Record, State
from evaluation.sweep.runs import ROOT, Run, launcher_words

ROUNDING = 1e-3
"""Hours are written in decimals: six runs of 0.1667 are an hour."""
STOPPING_REASONS = ("signal", "deadline")
STOPPED_STATUSES = (0, 75)
"""Of a trainer that somebody else asked to stop: 75, and 0 under torchrun."""


def training_command(recipe: Recipe, run: Run) -> list[str]:
    """The trainer's command line for `run`. It holds --resume, so it starts, goes on with, or leaves alone what is there."""
    return [*launcher_words(recipe.launcher), shown(ROOT / "run_pretraining.py"), *run.words]


def log_of(run: Run, kind: str = "") -> Path:
    """Beside the run's folder, which the trainer may move aside."""
    return run.folder.with_name(f"{run.folder.name}{kind}.log")


def shown(path: Path) -> str:
    """`path` relative to the working folder where it lies below it."""
    absolute, here = path.absolute(), Path.cwd()
    return str(absolute.relative_to(here)) if absolute.is_relative_to(here) else str(path)


def needed(run: Run, state: State) -> float:
    """Hours that `run` may still take: nobody knows before whether steps or an early stop will end it sooner."""
    return 0.0 if state.is_finished else max(0.0, run.hours - state.hours)


def train_all(
    recipe: Recipe, runs: Sequence[Run], record: Record, lock: Lock, wish: StopWish, say: Callable[[str], None],
    *, stop_at_failure: bool = False,
) -> bool:
    """Train every run that is not finished, in order, until the budget, a wish to stop or (if asked for) a failure ends it.

    Returns whether nobody asked it to stop. UserError where not even the first run fits into the budget.
    """
    for number, run in enumerate(runs, 1):
        state, place = record.state(run), f"[{number}/{len(runs)}] {run.id}"
        if state.is_finished:
            say(f"{place}: kept, {state}, {state.hours:.4g} h")
            continue
        spent = record.spent(runs)
        if not fits(recipe, spent, needed(run, state)):
            text = (f"budget_hours {recipe.budget_hours:g}: {spent:.4g} h are spent, and {run.id} may need {needed(run, state):.4g} h more")
            if not any(record.state(one).hours for one in runs):
                raise UserError(f"{recipe.path}: {text}; raise budget_hours, or give runs less time")
            say(f"{text}: stopped before it")
            return True
        say(f"{place}: {'goes on' if state.hours else 'starts'}, {needed(run, state):.4g} h, {shown(log_of(run))}")
        state = _train(recipe, run, record, lock, wish)
        say(f"{place}: {state}, {state.hours:.4g} h")
        if wish.name is not None or state.kind == "unfinished":
            return False
        if state.kind == "failed" and stop_at_failure:
            say("stopped at the first failure (--stop_at_failure)")
            return True
    return True


def fits(recipe: Recipe, spent: float, more: float) -> bool:
    return recipe.budget_hours is None or spent + more <= recipe.budget_hours * (1 + ROUNDING)


def _train(recipe: Recipe, run: Run, record: Record, lock: Lock, wish: StopWish) -> State:
    command = training_command(recipe, run)
    record.started(run)
    log = log_of(run)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file:
        file.write(f"$ {shlex.join(command)}\n")
    status, why = run_logged(command, log, lock, wish)
    state = record.state(run)
    if wish.name is not None or state.is_finished or (status in STOPPED_STATUSES and state.why in STOPPING_REASONS):
        return state
    record.failed(run, why or "ended without a summary")
    return record.state(run)
