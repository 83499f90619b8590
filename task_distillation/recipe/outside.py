"""What a recipe's steps read that none of them has made, by content: a path that names something else now is noticed. Imports no torch."""

from pathlib import Path

import xxhash

from dataset.errors import UserError
from dataset.files import file_hash
from evaluation.fine_tuning.model_folder import TOKENIZERS, fingerprint
from evaluation.tasks.task import TaskData
from task_distillation.recipe.steps import Step

TASK = "the task"


class Outside:
    """Hashes of the task's examples and classes, and of models and files; each path is read once."""

    def __init__(self, data: TaskData) -> None:
        said = f"{data.sha256} {data.task.kind} {data.task.label_names}"
        self._task = xxhash.xxh3_128_hexdigest(said.encode())
        self._known: dict[Path, str | None] = {}

    def of(self, step: Step) -> dict[str, str | None]:
        """What `step` reads -> a hash of its content, None where nothing is there. An export reads its student alone."""
        task = {} if step.command == "export" else {TASK: self._task}
        return task | {flag: self._content(path) for flag, path in step.reads.items()}

    def _content(self, path: Path) -> str | None:
        if path not in self._known:
            self._known[path] = _hash(path)
        return self._known[path]


def _hash(path: Path) -> str | None:
    if path.is_file():
        return file_hash(path)
    if not path.is_dir():
        return None
    try:
        return fingerprint(path)
    except UserError:  # a tokenizer has no weights
        return " ".join(file_hash(path / name) for name in TOKENIZERS if (path / name).is_file())
