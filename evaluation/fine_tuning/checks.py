"""Everything about one fine-tuning that flags and files can show, checked without importing torch."""

from pathlib import Path

from dataset.errors import UserError
from evaluation.fine_tuning.model_folder import check_model_folder, read_head
from evaluation.fine_tuning.settings import FineTuningSettings, check_for_kind
from evaluation.tasks.task import Task


def check_fine_tuning(folder: Path, task: Task, settings: FineTuningSettings, teacher: Path | None = None) -> None:
    """UserError unless the encoder in `folder` can be fine-tuned on `task`, and `teacher` was fine-tuned for it."""
    check_for_kind(settings, task.kind)
    check_model_folder(folder, settings.max_seq_length)
    if teacher is not None:
        check_teacher(teacher, task, settings)


def check_teacher(teacher: Path, task: Task, settings: FineTuningSettings) -> None:
    """UserError unless the model in `teacher` was fine-tuned for `task`."""
    try:
        check_model_folder(teacher, settings.max_seq_length)
        read_head(teacher, task)
    except UserError as error:
        raise UserError(f"the teacher {error}") from None


def check_scoring(folder: Path, task: Task, settings: FineTuningSettings) -> None:
    """UserError unless the model in `folder` can be scored on `task` as it is, by its own head."""
    check_for_kind(settings, task.kind)
    check_model_folder(folder, settings.max_seq_length)
    read_head(folder, task)
