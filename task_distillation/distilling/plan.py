"""Everything about a distillation that files can tell before torch is imported: the task, the transfer set, the student, the folder."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from dataset.errors import UserError
from dataset.files import file_hash
from evaluation.fine_tuning.model_folder import fingerprint
from evaluation.tasks.task import Examples, TaskData
from pretraining.args.resolve_run import Resolved
from pretraining.disk import check_writable
from pretraining.run_folder import RunPlan, check_run_folder
from pretraining.tracking import check_tracker
from task_distillation.distilling.catalog import OBJECTIVES, check_methods
from task_distillation.distilling.flags import TaskDataFlags
from task_distillation.distilling.resolve import has_logits, task_words
from task_distillation.logits_file import join
from task_distillation.students.plan import StudentPlan, plan_student
from task_distillation.task_flags import read_task
from task_distillation.transfer_set import TransferRow, holds_logits, read_transfer_set


@dataclass(frozen=True)
class TransferSet:
    """N rows in memory: `texts` one list for each column; `labels` (N,) int64 or fp32 and `logits` (N, C) fp32 where they are learnt
    from, else None. `digest` is of all of these."""

    texts: list[list[str]]
    labels: np.ndarray | None
    logits: np.ndarray | None
    digest: str

    def __len__(self) -> int:
        return len(self.texts[0])


@dataclass(kw_only=True)
class TaskPlan(RunPlan):
    """A distillation that has passed every check that needs no torch."""

    data: TaskData
    student: StudentPlan
    transfer: TransferSet

    def identity(self) -> dict[str, Any]:
        """What the run reads, so that a resumed run notices other texts, logits, dev sets, word vectors or another encoder."""
        student = self.student
        begun_with = [] if student.word_vectors is None else [file_hash(student.word_vectors)]
        begun_with += [] if student.student_path is None else [fingerprint(student.student_path)]
        return {"transfer set": self.transfer.digest, "task's data": self.data.sha256, "student's first weights and tokenizer": begun_with}


def make_plan(resolved: Resolved) -> TaskPlan:
    """Check files against flags; UserError for the first thing that cannot work."""
    args = resolved.args
    check_tracker(args.run.report_to)
    folder = check_run_folder(args)
    check_writable(folder)
    data = read_task(task_words(args.data))
    student = plan_student(args.student, data.task)
    resolved.notes.extend(student.notes)
    if args.data.logits is not None and args.data.transfer_set is None:
        raise UserError(f"--logits {args.data.logits}: of which texts? --transfer_set FILE says it")
    transfer = _read(args.data, data, resolved)
    return TaskPlan(resolved=resolved, folder=folder, data=data, student=student, transfer=transfer)


def _read(flags: TaskDataFlags, data: TaskData, resolved: Resolved) -> TransferSet:
    task, taught = data.task, has_logits(flags, data.task)
    wanted = [OBJECTIVES[part.name] for part in resolved.methods]
    if flags.transfer_set is None:
        rows: Iterable[TransferRow] = _of_examples(data.train)
    else:
        path = Path(flags.transfer_set).expanduser()
        rows = read_transfer_set(path, task)
        if flags.logits is not None and any(row.logits for row in wanted):
            if holds_logits(path, task):
                resolved.notes.append(f"--logits {flags.logits}: beats the logits that {path} itself holds")
            rows = join(rows, Path(flags.logits).expanduser(), task)
    texts: list[list[str]] = []
    labels: list[int | float | None] = []
    logits: list[tuple[float, ...]] = []
    digest = xxhash.xxh3_128()
    for row in rows:
        if not texts:
            texts = [[] for _ in row.texts]
        for column, text in zip(texts, row.texts, strict=True):
            column.append(text)
            digest.update(text.encode("utf-8", "surrogatepass") + b"\t")
        labels.append(row.label)
        if taught:
            logits.append(row.logits)
    check_methods(resolved.methods, task, taught, next((number for number, label in enumerate(labels) if label is None), None))
    kind = np.int64 if task.kind == "classification" else np.float32
    own = np.array(labels, kind) if any(row.labels for row in wanted) else None
    said = np.array(logits, np.float32) if any(row.logits for row in wanted) else None
    for array in (own, said):
        digest.update(b"" if array is None else array.tobytes())
    return TransferSet(texts, own, said, digest.hexdigest())


def _of_examples(examples: Examples) -> Iterator[TransferRow]:
    """The task's own training set as a transfer set of labels."""
    for number in range(len(examples)):
        yield TransferRow(tuple(column[number] for column in examples.texts), examples.labels[number])
