"""Scores of a sweep's runs: run_glue.py for every finished run, its flags checked by its own parser before anything trains.

Teacher and baselines stand beside every run's curve, but are fine-tuned once: what one run's glue.json knows of them is handed to the
next before it is scored.
"""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dataset.errors import UserError
from evaluation.fine_tuning.checks import check_teacher
from evaluation.scoring.candidates import Candidate, check_names, markers_there, named_candidate
from evaluation.scoring.flags import check_flags, make_parser, scores_as_is, select_protocol, selected_tasks
from evaluation.scoring.jobs import Source, select_devices
from evaluation.scoring.plan import Planner, Wanted
from evaluation.scoring.protocols import Protocol
from evaluation.scoring.results import Known, add_results, read_results
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
    """What the recipe's `score` means: its words for run_glue.py, the protocol with what they change, the tasks in order, what is wanted
    beside these, the recipe's baselines, and whether the runs' own teacher is one too."""

    words: tuple[str, ...]
    protocol: Protocol
    tasks: tuple[Task, ...]
    wanted: Wanted
    baselines: tuple[Candidate, ...]
    with_teacher: bool

    @property
    def longest(self) -> int:
        """Word pieces that a model must have positions for."""
        return max(settings.max_seq_length for task in self.tasks for settings in self.protocol.points(task.name))


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
        if scores_as_is(flags):
            raise UserError("without do_train models are scored with the heads that they have, and a run's exports have none for a task; "
                            "without do_eval, or with do_train: true, would work")
        wanted = Wanted(recipe.folder, Source(flags.glue_dir, flags.dataset_name, flags.do_predict), teacher=flags.teacher_path,
                        devices=flags.devices, predict=flags.do_predict)
        return Scoring(tuple(words), select_protocol(flags), tuple(selected_tasks(flags)), wanted,
                       tuple(named_candidate(text) for text in flags.baseline), flags.with_teacher)
    except UserError as error:
        raise UserError(f"{recipe.path}: score: {error}") from None


def check_scoring(recipe: Recipe, scoring: Scoring, runs: Sequence[Run], *, here: bool) -> None:
    """Everything that run_glue.py would find wrong after the training and that can be known before it: data, teacher, baselines, their
    names and, if it is `here` that scores are computed, devices. UserError, which begins with the recipe's name.

    Imports torch only where `devices` names a GPU.
    """
    try:
        planner = Planner(scoring.tasks, scoring.protocol, scoring.wanted)
        if scoring.wanted.teacher is not None:
            for task in scoring.tasks:
                for settings in scoring.protocol.points(task.name):
                    check_teacher(scoring.wanted.teacher, task, settings)
        teachers = [_teacher(runs)] if scoring.with_teacher else []
        check_names([*teachers, *scoring.baselines])
        for model in scoring.baselines:
            try:
                planner.check(model)
            except UserError as error:
                raise UserError(f"--baseline {model.name}={model.folder}: {error}") from None
        for model in teachers:
            planner.check(model)
        if here and any(name.strip() not in ("auto", "cpu") for name in scoring.wanted.devices.split(",")):
            select_devices(scoring.wanted.devices)
    except UserError as error:
        raise UserError(f"{recipe.path}: score: {error}") from None


def _teacher(runs: Sequence[Run]) -> Candidate:
    """The one teacher of all `runs`; UserError where there is none, or more than one."""
    folders = list(dict.fromkeys(run.flags["teacher_path"] if run.flags["distillation"] else None for run in runs))
    if len(folders) > 1:
        raise UserError(f"with_teacher: the runs have {len(folders)} teachers ({', '.join(map(str, folders))}), and their table one; "
                        "baselines: {teacher: FOLDER} would work")
    if folders[0] is None:
        raise UserError("with_teacher: the runs are not distilled; baselines: {teacher: FOLDER} would work")
    return Candidate("teacher", Path(folders[0]), "teacher")


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
    """Put what `others` know of teacher and baselines into the glue.json of `folder`, each score once."""
    known, new = Known(read_results(folder)), []
    for row in [row for other in others for row in read_results(other) if row.get("role") in BESIDE]:
        if known.find(row) is None:
            known.add(row)
            new.append(row)
    add_results(folder, new)
