"""Score models on tasks under a protocol: find what is known, do what is missing, keep each score at once.

All mistakes that files can show (models, data, settings) are found before torch is imported. A second call does only what is new. What is
put together is what the call asked for, not all that glue.json holds, since rows of different settings belong in no one curve.
"""

from collections.abc import Callable, Sequence
from functools import cache

from dataset.errors import UserError
from evaluation.scoring.candidates import Candidate, check_names
from evaluation.scoring.jobs import Job, run_jobs, select_devices
from evaluation.scoring.plan import Planner, Wanted
from evaluation.scoring.protocols import Protocol
from evaluation.scoring.results import MEASURED, Known, Row, add_results, is_complete, read_results
from evaluation.tasks.task import Task


class Scorer:
    """Knows what is wanted and the scores that there are; `score` may be called again as models appear.

    UserError where tasks, protocol or results cannot work, before any training.
    """

    def __init__(self, tasks: Sequence[Task], protocol: Protocol, wanted: Wanted, say: Callable[[str], None] = print) -> None:
        self._planner, self._wanted, self._say = Planner(tasks, protocol, wanted), wanted, say
        self._say_once = cache(say)  # what holds for every model needs one line
        there = read_results(wanted.output_dir)
        self._known = Known([] if wanted.overwrite else there)
        self._devices: list[str] | None = None
        self.failures: list[str] = []
        """A line for every job that failed; the others are kept, and a second call does what is missing."""
        self.done = 0
        """Jobs that were tried."""
        if wanted.predict:
            for task in tasks:
                if not wanted.source.load(task).test:
                    say(f"{task.name}: no test set beside its dev set, so nothing is predicted for a submission")

    def score(self, models: Sequence[Candidate]) -> list[Row]:
        """Complete rows by model, task, grid point and seed; those of jobs that failed are missing. UserError for a model that cannot work,
        before any training."""
        check_names(models)
        for model in models:
            self._planner.check(model)
        try:
            self._wanted.output_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{self._wanted.output_dir}: cannot be made ({error.strerror}); give a folder that can be written") from None
        plan = self._planner.plan(models, self._known)
        self._reuse(plan.known)
        if plan.first or plan.then:
            self._devices = self._devices or select_devices(self._wanted.devices)
        total = len(plan.first) + len(plan.then)
        self._run(plan.first, 0, total)
        # One whose start failed fails at once, and says that the folder is not there.
        self._run(plan.then, len(plan.first), total)
        self._reuse([(row, twin) for row, twin in plan.twins if is_complete(twin)])
        return [row for row in plan.rows if is_complete(row)]

    def _reuse(self, pairs: Sequence[tuple[Row, Row]]) -> None:
        changed = []
        for row, older in pairs:
            row.update({name: older[name] for name in MEASURED})
            origin = "" if older["model"] == row["model"] else f" as {older['model']}"
            self._say(f"{_name(row)}: {headline_text(row)}, already scored{origin}, skipped")
            if row != older:
                changed.append(row)
        add_results(self._wanted.output_dir, changed)

    def _run(self, jobs: Sequence[Job], before: int, total: int) -> None:
        if not jobs:
            return
        for number, result in enumerate(run_jobs(jobs, self._devices), start=before + 1):
            self.done += 1
            for note in result.notes:
                self._say_once(note)
            row = result.job.row
            name = _name(row)
            if result.failure:
                self.failures.append(f"{name}: {result.failure}")
                self._say(f"{name}: failed: {result.failure}  [{number} of {total}]")
                continue
            row.update(result.fields)
            add_results(self._wanted.output_dir, [row])
            self._known.add(row)
            took = f"in {row['train_seconds']:.0f} s on {row['device']}"
            left = "".join(f", kept in {path}" for path in (result.job.save_to, result.job.submit_to) if path is not None and path.is_dir())
            self._say(f"{name}: {headline_text(row)} {took}{left}  [{number} of {total}]")


def _name(row: Row) -> str:
    """`RTE  student seed 3`, with the point of a grid; without a seed for a model as it is."""
    point = "".join(f" {name} {value}" for name, value in row["grid_point"].items())
    return f"{row['task']}  {row['model']}{point}" + (f" seed {row['seed']}" if "seed" in row["settings"] else "")


def headline_text(row: Row) -> str:
    """The headline of a complete row, in percent."""
    if row["headline"] not in row["metrics"]:
        return "predicted, with no labels to score"
    value = "diverged" if row["diverged"] else f"{100 * row['metrics'][row['headline']]:.1f}"
    return f"{row['headline']} {value}"
