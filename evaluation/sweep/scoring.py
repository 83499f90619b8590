"""Scores of a sweep's runs: run_glue.py for every finished run, its flags checked by its own parser before anything trains.

Teacher and baselines stand beside every run's curve, but are fine-tuned once: what one run's glue.json knows of them is handed to the
next before it is scored.
"""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dataset.errors import UserError
from evaluation.scoring.candidates import markers_there, named_candidate
from evaluation.scoring.flags import check_flags, make_parser, select_protocol, selected_tasks
from evaluation.scoring.protocols import Protocol
from evaluation.scoring.results import add_result, read_results
from evaluation.sweep.child import StopWish, run_logged
from evaluation.sweep.recipe import Recipe
from evaluation.sweep.record import Lock, Record
from evaluation.sweep.runs import ROOT, Run, command_words, launcher_words
from evaluation.sweep.training import log_of, shown
from evaluation.tasks.task import Task

BESIDE = ("teacher", "baseline")
"""Roles of what is no run of the sweep."""


@dataclass(frozen=True)
class Scoring:
    """What the recipe's `score` means: its words for run_glue.py, the protocol with what they change, the tasks in order."""

    words: tuple[str, ...]
    protocol: Protocol
    tasks: tuple[Task, ...]


def read_scoring(recipe: Recipe) -> Scoring | None:
    """None where the recipe has no `score`; UserError, which begins with the recipe's name, for flags that run_glue.py would refuse."""
    if recipe.score is None:
        if recipe.baselines:
            raise UserError(f"{recipe.path}: baselines without score; score: {{protocol: quick, task_name: [sst2], glue_dir: glue}} would "
                            "say how they are scored")
        return None
    words = command_words(recipe.score)
    for name, folder in recipe.baselines.items():
        words += ["--baseline", f"{name}={folder}"]
    try:
        flags = make_parser("").parse_args(["--run_dir", str(recipe.folder), *words])
        check_flags(flags)
        for text in flags.baseline:
            folder = named_candidate(text).folder
            if not folder.is_dir():
                raise UserError(f"--baseline {text}: {folder}: no such folder")
        if flags.glue_dir is not None and not flags.glue_dir.is_dir():
            raise UserError(f"--glue_dir {flags.glue_dir}: no such folder; it holds SST-2/train.tsv, SST-2/dev.tsv, RTE/ ...")
        return Scoring(tuple(words), select_protocol(flags), tuple(selected_tasks(flags)))
    except UserError as error:
        raise UserError(f"{recipe.path}: score: {error}") from None


def scoring_command(scoring: Scoring, run: Run) -> list[str]:
    """The command line of run_glue.py for every marker of `run`."""
    return [*launcher_words(None), shown(ROOT / "run_glue.py"), "--run_dir", shown(run.folder), *scoring.words]


def score_all(
    scoring: Scoring, runs: Sequence[Run], record: Record, lock: Lock, wish: StopWish, say: Callable[[str], None],
    *, stop_at_failure: bool = False,
) -> list[Run]:
    """Score every finished run, in order, until a wish to stop or (if asked for) a failure; the runs that could not be scored."""
    failed = []
    for number, run in enumerate(runs, 1):
        if wish.name is not None:
            break
        place = f"[{number}/{len(runs)}] {run.id}"
        state = record.state(run)
        if not state.is_finished or not markers_there(run.folder):
            say(f"{place}: not scored: {'no marker in finetune/' if state.is_finished else state}")
            continue
        log = log_of(run, "_scores")
        say(f"{place}: scoring, {shown(log)}")
        _hand_on(run.folder, [one.folder for one in runs if one is not run])
        command = scoring_command(scoring, run)
        with log.open("a", encoding="utf-8") as file:
            file.write(f"$ {shlex.join(command)}\n")
        status, why = run_logged(command, log, lock, wish)
        if status and wish.name is None:
            say(f"{place}: scoring failed ({why})")
            failed.append(run)
            if stop_at_failure:
                break
    return failed


def _hand_on(folder: Path, others: Sequence[Path]) -> None:
    """Put what `others` know of teacher and baselines into the glue.json of `folder`."""
    known = read_results(folder)
    for row in [row for other in others for row in read_results(other) if row.get("role") in BESIDE]:
        if row not in known:
            known.append(row)
            add_result(folder, row)
