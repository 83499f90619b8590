"""The runs of a sweep, every one checked by the trainer's own parser before any starts. Imports no torch.

What decides a run is all its flags after parsing, so a recipe may be reordered, commented and extended; what only says how loudly or how
safely a run works may change at any time.
"""

import itertools
import math
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataset.errors import UserError
from evaluation.sweep.points import Point, make_points
from evaluation.sweep.recipe import Recipe, Words
from pretraining.args.parser import INFO, parse
from pretraining.args.resolve import resolve
from pretraining.launch import Launch
from pretraining.preflight import Plan, make_plan

ROOT = Path(__file__).resolve().parents[2]
PLACE = ("output_dir", "job_name", "current_run_id")
ONE_CALL = ("overwrite", "dry_run", "print_config", "load_training_checkpoint", "allow_changes")
FREE = frozenset({
    *PLACE, "project_name", "print_steps", "report_to", "num_workers", "minutes_between_checkpoints", "steps_between_checkpoints",
    "num_epochs_between_checkpoints", "keep_checkpoints", "keep_marker_checkpoints", "steps_per_print", "wall_clock_breakdown",
}) | {name for name, info in INFO.items() if info.no_effect}
"""Flags that may change between calls: they decide neither what is computed nor what is measured."""


@dataclass(frozen=True)
class Run:
    """One point with one seed. `flags`: every flag's value as parsed; `words`: the trainer's command line without its launcher."""

    point: Point
    seed: int
    id: str
    folder: Path
    words: tuple[str, ...]
    flags: dict[str, Any]
    hours: float
    """The most that it trains: --total_training_time, or --early_exit_time_marker before it."""

    @property
    def decisive(self) -> dict[str, Any]:
        """The flags that make it this run."""
        return {name: value for name, value in self.flags.items() if name not in FREE}


def make_runs(recipe: Recipe) -> list[Run]:
    """All runs, the first seed of every point first, so that a sweep that is cut short compares points on equal seeds.

    UserError, which names the point, for flags that cannot work together, and for two points that are one run.
    """
    points, launch = make_points(recipe), _launch(recipe.launcher)
    launcher_words(recipe.launcher)
    runs = [_run(recipe, point, seed, launch) for seed in (recipe.seeds or (None,)) for point in points]
    _check_distinct(recipe, [(run, run.decisive) for run in runs])
    return runs


def check_files(recipe: Recipe, runs: Sequence[Run], longest: int = 0) -> list[str]:
    """Teacher, student, shards and folder of every point of `runs` as the trainer would check them; notes on flags, each once.

    UserError, which names the point, for the first that cannot work, for a student without positions for the `longest` text that it will
    be scored on, and for two points that files make one run.
    """
    launch = _launch(recipe.launcher)
    first: dict[str, Run] = {}
    for run in runs:
        first.setdefault(run.point.id, run)
    notes: dict[str, str] = {}
    planned = []
    for run in first.values():
        with _named(recipe, run.point):
            plan = make_plan(resolve(parse(list(run.words)), launch))
            positions = _positions(plan)
            if positions is not None and longest > positions:
                raise UserError(f"score: --max_seq_length {longest}: the student has {positions} positions; give {positions} or less")
        found = plan.resolved.args.as_dict()
        planned.append((run, {name: value for name, value in found.items() if name not in FREE}))
        for note in plan.resolved.notes:
            notes.setdefault(note, run.point.id)
    _check_distinct(recipe, planned)
    return [f"{point}: {note}" for note, point in notes.items()]


def _positions(plan: Plan) -> int | None:
    """How many word pieces a student can read; None where its config does not say."""
    config, family = plan.student.config, plan.student.architecture
    positions = config.get("max_position_embeddings")
    return positions - family.reserved_positions(config) if isinstance(positions, int) and positions > 0 else None


def launcher_words(launcher: str | None) -> list[str]:
    """The command before run_pretraining.py: `python`, or none, is the running interpreter; UserError for a program that is not there."""
    words = shlex.split(launcher or "python")
    if words[:1] == ["python"]:
        return [sys.executable, *words[1:]]
    if shutil.which(words[0]) is None:
        beside = Path(sys.executable).with_name(words[0])
        if "/" in words[0] or not beside.is_file():
            raise UserError(f"launcher: {launcher}: no program {words[0]} on the PATH; python, torchrun or deepspeed would work")
        words[0] = str(beside)
    return words


def command_words(words: Words) -> list[str]:
    """`--flag word` for every flag that has one."""
    found: list[str] = []
    for name, text in words.items():
        if text is not None:
            found += [f"--{name}={text}"] if text.startswith("-") else [f"--{name}", text]
    return found


@contextmanager
def _named(recipe: Recipe, point: Point) -> Iterator[None]:
    """Names recipe and point in what the trainer complains about."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{recipe.path}: {point.id}: {error}") from None


def _run(recipe: Recipe, point: Point, seed: int | None, launch: Launch) -> Run:
    words = ["--config", recipe.config] if recipe.config else []
    words += command_words({**recipe.flags, **point.words})
    with _named(recipe, point):
        if seed is None:
            seed = parse(words).run.seed
        run_id = f"{point.id}/seed_{seed}"
        words += command_words({"seed": str(seed), "output_dir": str(recipe.output_dir), "job_name": recipe.name,
                                "current_run_id": run_id})
        args = parse([*words, "--resume"])
        misplaced = next((name for name in ONE_CALL if name in args.given), None)
        if misplaced is not None:
            raise UserError(f"--config {recipe.config}: {misplaced} belongs to one call and not to a run; leave it out")
        flags = args.as_dict()
        resolved = resolve(args, launch)
    return Run(point, seed, run_id, recipe.folder / run_id, (*words, "--resume"), flags, resolved.exit_hours)


def _check_distinct(recipe: Recipe, runs: Sequence[tuple[Run, dict[str, Any]]]) -> None:
    seen: dict[str, Run] = {}
    for run, flags in runs:
        other = seen.setdefault(repr(sorted(flags.items())), run)
        if other is not run:
            raise UserError(f"{recipe.path}: {other.point.id} and {run.point.id} are the same run: all their flags mean the same; "
                            "take one of them out, or exclude it")


def _launch(launcher: str | None) -> Launch:
    """Rank 0 of as many ranks as the launcher's words name; of 1 where it is the machine's to say, so that no batch is refused wrongly."""
    ranks = {"nproc_per_node": 1, "nnodes": 1, "num_gpus": 1, "num_nodes": 1, "np": 1, "n": 1}
    words = [part for text in shlex.split(launcher or "") for part in text.split("=", 1)]
    for name, value in itertools.pairwise(words):
        key = name.lstrip("-").replace("-", "_")
        if name.startswith("-") and key in ranks and value.isascii() and value.isdigit():
            ranks[key] = int(value)
    return Launch(0, max(1, math.prod(ranks.values())), 0, launched=False)
