"""From models, tasks and protocol to what has to be done: rows as far as they are known before, jobs, and which jobs begin with others.

What a job leaves beside its score (a model, a submission) lies in a folder whose name holds a hash of all that decides it, so that it can
never be taken for another's.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from dataset.errors import UserError
from evaluation.fine_tuning.checks import check_fine_tuning, check_scoring
from evaluation.fine_tuning.model_folder import fingerprint, read_config
from evaluation.fine_tuning.settings import SCORING_SETTINGS, FineTuningSettings, check_for_kind
from evaluation.scoring.candidates import Candidate
from evaluation.scoring.jobs import AS_IT_IS, FINE_TUNING, Job, Source
from evaluation.scoring.protocols import Protocol, own_head_protocol
from evaluation.scoring.results import Known, Row, identity
from evaluation.tasks.examples import content_sha256
from evaluation.tasks.table import DIAGNOSTIC, TASKS, select_tasks
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


@dataclass
class Plan:
    """`rows` are all that were asked for, in order; those of jobs get their score when the job is done."""

    rows: list[Row] = field(default_factory=list)
    known: list[tuple[Row, Row]] = field(default_factory=list)
    """(row, an older one with its score)."""
    twins: list[tuple[Row, Row]] = field(default_factory=list)
    """(row, the row of a job with the same score): one model under two names."""
    first: list[Job] = field(default_factory=list)
    """Whose models other jobs begin with."""
    then: list[Job] = field(default_factory=list)


class Planner:
    """UserError where tasks, protocol or teacher cannot work, before any training and without torch."""

    def __init__(self, tasks: Sequence[Task], protocol: Protocol, wanted: Wanted) -> None:
        self.tasks, self.wanted = list(tasks), wanted
        self.protocol = own_head_protocol(protocol) if wanted.mode == AS_IT_IS else protocol
        known = {task.name for task in (*TASKS, *tasks)}
        unknown = next((name for name in (*protocol.tasks, *protocol.start_from) if name not in known), None)
        if unknown is not None:
            raise UserError(f"protocol {protocol.name}: {unknown} is no task; known are {', '.join(sorted(known))}")
        self._starts = {task.name: self._start_of(task) for task in tasks}
        self._load()
        for task in dict.fromkeys([*tasks, *filter(None, self._starts.values())]):
            for settings in self.protocol.points(task.name):
                check_for_kind(settings, task.kind)
        self._teacher_sha256 = None
        if wanted.teacher is not None:
            read_config(wanted.teacher)
            self._teacher_sha256 = fingerprint(wanted.teacher)

    def _load(self) -> None:
        """Read all data; where several tasks lack theirs, all of them are named."""
        errors: dict[str, UserError] = {}
        for task in self.tasks:
            try:
                self.wanted.source.load(task)
            except UserError as error:
                errors[task.name] = error
        if errors:
            good = [task.name for task in self.tasks if task.name not in errors]
            others = f" (missing too: {', '.join(list(errors)[1:])}; --task_name {','.join(good)} would work)"
            more = others if len(errors) > 1 and good else ""
            raise UserError(f"{next(iter(errors.values()))}{more}")
        for name, start in self._starts.items():
            if start is not None:
                try:
                    self.wanted.source.load(start)
                except UserError as error:
                    raise UserError(f"{name} starts from {start.name}: {error}") from None

    def check(self, model: Candidate) -> None:
        """UserError where `model` cannot do all the tasks."""
        for task in self.tasks:
            start = self._starts[task.name]
            for settings in self.protocol.points(task.name):
                if self.wanted.mode == AS_IT_IS:
                    check_scoring(model.folder, task, settings)
                elif task.name != DIAGNOSTIC:
                    check_fine_tuning(model.folder, task, settings, self.wanted.teacher)
                if start is not None:
                    check_fine_tuning(model.folder, start, self._start_settings(start, settings), self._start_teacher(task))

    def plan(self, models: Sequence[Candidate], known: Known) -> Plan:
        """What `models` still need, given the scores in `known`."""
        plan, by_identity = Plan(), {}
        starts: dict[Path, Job] = {}
        for model in models:
            weights = fingerprint(model.folder)
            for task in self.tasks:
                points = self.protocol.points(task.name)
                # A model as it is has no seed: one pass says all.
                for settings in points if self.wanted.mode == FINE_TUNING else points[:1]:
                    job = self._job(model, weights, task, settings)
                    plan.rows.append(job.row)
                    older, twin = known.find(job.row), by_identity.get(identity(job.row))
                    left = [path for path in (job.save_to, job.submit_to) if path is not None]
                    if older is not None and (older["diverged"] or all(path.is_dir() for path in left)):
                        plan.known.append((job.row, older))
                    elif twin is not None and not left:
                        plan.twins.append((job.row, twin.row))
                    else:
                        by_identity[identity(job.row)] = job
                        plan.then.append(job)
                        if job.row["start"] is not None and not job.folder.is_dir():
                            starts.setdefault(job.folder, self._start_job(model, weights, job))
        # A start that is asked for as a score too is done once.
        asked = {identity(start.row): start.save_to for start in starts.values()}
        plan.first = [replace(job, save_to=asked[identity(job.row)]) for job in plan.then if identity(job.row) in asked]
        plan.then = [job for job in plan.then if identity(job.row) not in asked]
        done = {identity(job.row) for job in plan.first}
        plan.first += [start for start in starts.values() if identity(start.row) not in done]
        return plan

    def _start_of(self, task: Task) -> Task | None:
        """The task whose fine-tuned encoder `task` begins with."""
        name = DIAGNOSTIC_TRAINED_ON if task.name == DIAGNOSTIC else self.protocol.start_from.get(task.name)
        if name is None or self.wanted.mode == AS_IT_IS:
            return None
        start = select_tasks([name])[0]
        if start.kind == "span" or start.name == DIAGNOSTIC:
            raise UserError(f"protocol {self.protocol.name}: {task.name} cannot start from {start.name}; MNLI would work")
        return start

    def _start_teacher(self, task: Task) -> Path | None:
        """The diagnostic set has no other training; the teacher of another task knows nothing of the start's classes."""
        return self.wanted.teacher if task.name == DIAGNOSTIC else None

    def _start_settings(self, start: Task, settings: FineTuningSettings) -> FineTuningSettings:
        """Those of the same seed and grid point."""
        return next(point for point in self.protocol.points(start.name)
                    if point.seed == settings.seed and all(getattr(point, key) == getattr(settings, key) for key in self.protocol.grid))

    def _row(self, model: Candidate, weights: str, task: Task, settings: FineTuningSettings) -> Row:
        row = {"model": model.name, "role": model.role, "folder": str(model.folder), "task": task.name, "task_version": task.version}
        if model.marker is not None:
            row |= asdict(model.marker)
        said = asdict(settings)
        if self.wanted.mode == AS_IT_IS:
            said = {name: said[name] for name in SCORING_SETTINGS}
        return row | {
            "headline": task.headline, "metric_names": list(task.metrics), "seed": settings.seed, "settings": said,
            "protocol": self.protocol.describe(), "weights_sha256": weights, "data_sha256": self.wanted.source.load(task).sha256,
            "mode": self.wanted.mode, "teacher_sha256": self._teacher_sha256, "start": None,
            "grid_point": {name: said[name] for name in self.protocol.grid},
        }

    def _job(self, model: Candidate, weights: str, task: Task, settings: FineTuningSettings) -> Job:
        wanted, start, folder = self.wanted, self._starts[task.name], model.folder
        row = self._row(model, weights, task, settings)
        if start is not None:
            begun = self._start_row(model, weights, task, settings)
            row["start"] = {name: begun[name] for name in ("task", "task_version", "data_sha256", "settings", "teacher_sha256")}
            folder = self._saved(begun)
        test = wanted.source.load(task).test
        return Job(
            row, folder, task, wanted.source, settings, AS_IT_IS if task.name == DIAGNOSTIC else wanted.mode, wanted.teacher,
            save_to=self._saved(row) if wanted.save_models and task.name != DIAGNOSTIC else None,
            submit_to=self._place("submissions", row, content_sha256(test.values())) if wanted.predict and test else None,
        )

    def _start_row(self, model: Candidate, weights: str, task: Task, settings: FineTuningSettings) -> Row:
        start = self._starts[task.name]
        taught = self._teacher_sha256 if self._start_teacher(task) is not None else None
        return self._row(model, weights, start, self._start_settings(start, settings)) | {"teacher_sha256": taught}

    def _start_job(self, model: Candidate, weights: str, job: Job) -> Job:
        """The fine-tuning whose encoder `job` begins with: an ordinary score whose model is kept."""
        start = self._starts[job.task.name]
        row = self._start_row(model, weights, job.task, job.settings)
        return Job(row, model.folder, start, self.wanted.source, self._start_settings(start, job.settings), FINE_TUNING,
                   self._start_teacher(job.task), save_to=job.folder)

    def _saved(self, row: Row) -> Path:
        return self._place("models", row)

    def _place(self, kind: str, row: Row, *more: str) -> Path:
        key = hashlib.sha256(json.dumps([identity(row), *more]).encode()).hexdigest()[:8]
        point = "".join(f"{name}_{value}_" for name, value in row["grid_point"].items())
        return self.wanted.output_dir / kind / row["model"] / row["task"] / f"{point}seed_{row['seed']}_{key}"
