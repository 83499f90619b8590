"""Score every model on every task under a protocol: find what is known, do what is missing, keep each score at once.

All mistakes that files can show (models, data, settings) are found before torch is imported. A second call does only what is new. What is
drawn and put together is what the call asked for, not all that glue.json holds, since rows of different settings belong in no one curve.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from dataset.errors import UserError
from evaluation.fine_tuning.checks import check_fine_tuning, check_scoring
from evaluation.fine_tuning.model_folder import fingerprint, read_config
from evaluation.fine_tuning.settings import FineTuningSettings, check_for_kind
from evaluation.scoring.candidates import Candidate, check_names
from evaluation.scoring.jobs import AS_IT_IS, FINE_TUNING, Done, Job, Source, run_jobs, select_devices
from evaluation.scoring.protocols import Protocol
from evaluation.scoring.results import MEASURED, Row, add_result, find_result, read_results, same_score
from evaluation.tasks.table import DIAGNOSTIC, select_tasks
from evaluation.tasks.task import Task

DIAGNOSTIC_TRAINED_ON = "MNLI"


@dataclass(frozen=True)
class Wanted:
    """What a call asks for beside models, tasks and protocol."""

    output_dir: Path
    source: Source
    mode: str = FINE_TUNING
    teacher: Path | None = None
    devices: str = "auto"
    predict: bool = False
    save_models: bool = False
    overwrite: bool = False


class Scorer:
    """Knows the protocol, the tasks with their data and the folder of results; `score` may be called again as models appear.

    UserError where a task's data cannot work, before any training.
    """

    def __init__(self, tasks: Sequence[Task], protocol: Protocol, wanted: Wanted, say: Callable[[str], None] = print) -> None:
        self.tasks, self.protocol, self.wanted, self._say = list(tasks), protocol, wanted, say
        self._say_once = cache(say)  # what holds for every model needs one line
        self._start_tasks = {task.name: self._start_task(task) for task in tasks}
        for task in dict.fromkeys([*tasks, *filter(None, self._start_tasks.values())]):
            wanted.source.load(task)
        for task in tasks:
            for settings in protocol.points(task.name):
                check_for_kind(settings, task.kind)
        self._teacher_sha256 = None
        if wanted.teacher is not None:
            read_config(wanted.teacher)
            self._teacher_sha256 = fingerprint(wanted.teacher)
        self._known = [] if wanted.overwrite else read_results(wanted.output_dir)
        self._devices: list[str] | None = None

    def score(self, models: Sequence[Candidate]) -> list[Row]:
        """Rows of all `models` by model, task, grid point and seed. UserError for a model that cannot work, before any training, and, after
        all others are done and kept, for jobs that failed."""
        check_names(models)
        for model in models:
            for task in self.tasks:
                self._check(model, task)
        try:
            self.wanted.output_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{self.wanted.output_dir}: cannot be made ({error.strerror}); give a folder that can be written") from None
        first, then, rows = self._plan(models)
        if first or then:
            self._devices = self._devices or select_devices(self.wanted.devices)
        done = self._run(first, 0, len(first) + len(then))
        lost = {id(job) for job in then if job.folder in {missed.job.save_to for missed in done if missed.failure}}
        done += self._run([job for job in then if id(job) not in lost], len(first), len(first) + len(then))
        failed = [f"{result.job.name}: {result.failure}" for result in done if result.failure]
        for row, twin in self._twins:
            if "metrics" in twin:
                row.update(self._reuse(row, twin))
        if failed:
            total, more = len(first) + len(then), f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
            raise UserError(f"{len(failed)} of {total} fine-tunings failed, the others are kept and a second call does what is missing: "
                            f"{failed[0]}{more}")
        return rows

    def _check(self, model: Candidate, task: Task) -> None:
        for settings in self.protocol.points(task.name):
            if self.wanted.mode == AS_IT_IS:
                check_scoring(model.folder, task, settings)
            else:
                check_fine_tuning(model.folder, task, settings, None if task.name == DIAGNOSTIC else self.wanted.teacher)

    def _start_task(self, task: Task) -> Task | None:
        """The task whose fine-tuned encoder `task` begins with."""
        name = DIAGNOSTIC_TRAINED_ON if task.name == DIAGNOSTIC else self.protocol.start_from.get(task.name)
        return select_tasks([name])[0] if name is not None and self.wanted.mode == FINE_TUNING else None

    def _plan(self, models: Sequence[Candidate]) -> tuple[list[Job], list[Job], list[Row]]:
        """(jobs that others begin with, the other jobs, all rows: those that are known complete)."""
        first: dict[Path, Job] = {}
        then, rows = [], []
        self._twins: list[tuple[Row, Row]] = []  # one model under two names: (the second's row, the first's)
        for model in models:
            weights = fingerprint(model.folder)
            for task in self.tasks:
                points = self.protocol.points(task.name)
                # A model as it is has no seed: one pass says all.
                for settings in points if self.wanted.mode == FINE_TUNING else points[:1]:
                    job = self._job(model, weights, task, settings)
                    known = find_result([*self._known, *rows], job.row)
                    files = [path for path in (job.save_to, job.submit_to) if path is not None]
                    if known is not None and all(path.is_dir() for path in files):
                        rows.append(self._reuse(job.row, known))
                        continue
                    rows.append(job.row)
                    twin = next((other.row for other in then if same_score(other.row, job.row)), None)
                    if twin is not None and not files:
                        self._twins.append((job.row, twin))
                        continue
                    then.append(job)
                    if job.row["start"] is not None and not job.folder.is_dir():
                        first.setdefault(job.folder, self._start_job(model, weights, job, settings))
        return list(first.values()), then, rows

    def _job(self, model: Candidate, weights: str, task: Task, settings: FineTuningSettings) -> Job:
        wanted, start_task = self.wanted, self._start_tasks[task.name]
        data = wanted.source.load(task)
        row = {"model": model.name, "role": model.role, "folder": str(model.folder), "task": task.name, "task_version": task.version}
        if model.marker is not None:
            row |= asdict(model.marker)
        start = None
        folder = model.folder
        if start_task is not None:
            start = {"task": start_task.name, "task_version": start_task.version, "data_sha256": wanted.source.load(start_task).sha256,
                     "settings": asdict(self._start_settings(start_task, settings))}
            key = hashlib.sha256(json.dumps([weights, start, self._teacher_sha256], sort_keys=True).encode()).hexdigest()[:16]
            folder = wanted.output_dir / "started_from" / f"{start_task.name}_{key}"
        row |= {
            "headline": task.headline, "seed": settings.seed, "settings": asdict(settings), "protocol": self.protocol.describe(),
            "weights_sha256": weights, "data_sha256": data.sha256, "mode": wanted.mode, "teacher_sha256": self._teacher_sha256,
            "start": start,
        }
        place = Path(model.name) / task.name / self._point_name(settings)
        return Job(
            row, folder, task, wanted.source, settings, AS_IT_IS if task.name == DIAGNOSTIC else wanted.mode, wanted.teacher,
            save_to=wanted.output_dir / "models" / place if wanted.save_models and task.name != DIAGNOSTIC else None,
            submit_to=wanted.output_dir / "submissions" / place if wanted.predict else None,
        )

    def _start_job(self, model: Candidate, weights: str, job: Job, settings: FineTuningSettings) -> Job:
        """The fine-tuning whose encoder `job` begins with: an ordinary score whose model is kept."""
        start_task = self._start_tasks[job.task.name]
        start_settings = self._start_settings(start_task, settings)
        row = job.row | {"task": start_task.name, "task_version": start_task.version, "headline": start_task.headline, "start": None,
                         "settings": asdict(start_settings), "data_sha256": job.row["start"]["data_sha256"]}
        return Job(row, model.folder, start_task, self.wanted.source, start_settings, FINE_TUNING, self.wanted.teacher, save_to=job.folder)

    def _start_settings(self, start_task: Task, settings: FineTuningSettings) -> FineTuningSettings:
        """Those of the same seed and grid point."""
        same = [point for point in self.protocol.points(start_task.name)
                if point.seed == settings.seed and all(getattr(point, key) == getattr(settings, key) for key in self.protocol.grid)]
        return same[0]

    def _point_name(self, settings: FineTuningSettings) -> str:
        point = "".join(f"{key}_{getattr(settings, key)}_" for key in self.protocol.grid)
        return f"{point}seed_{settings.seed}"

    def _reuse(self, row: Row, known: Row) -> Row:
        row = row | {name: known[name] for name in MEASURED}
        origin = "" if known["model"] == row["model"] else f" as {known['model']}"
        self._say(f"{row['task']}  {row['model']} seed {row['seed']}: {headline_text(row)}, already scored{origin}, skipped")
        if row != known:
            add_result(self.wanted.output_dir, row)
        return row

    def _run(self, jobs: Sequence[Job], before: int, total: int) -> list[Done]:
        results = []
        for number, result in enumerate(run_jobs(jobs, self._devices or []) if jobs else (), start=before + 1):
            for note in result.notes:
                self._say_once(note)
            if result.failure:
                self._say(f"{result.job.name}: failed: {result.failure}  [{number} of {total}]")
            else:
                row = result.job.row
                row.update(result.fields)
                add_result(self.wanted.output_dir, row)
                self._known.append(row)
                took = f"in {row['train_seconds']:.0f} s on {row['device']}"
                self._say(f"{result.job.name}: {headline_text(row)} {took}  [{number} of {total}]")
            results.append(result)
        return results


def headline_text(row: Row) -> str:
    """The headline of a complete row, in percent."""
    value = "diverged" if row["diverged"] else f"{100 * row['metrics'][row['headline']]:.1f}"
    return f"{row['headline']} {value}"
