"""What must be known of a student to read texts for it and to build it again: the content of its folder's config.json. No torch.

An own student's config.json is this and nothing else. A Hugging Face encoder's is that of `transformers`, with what `transformers` has no
place for (which task, how texts are read) under the key `task_distillation`.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataset.errors import UserError, nearest, one_line
from dataset.files import reason
from evaluation.tasks.task import Task
from pretraining.args.flags import flags_of
from task_distillation.students.catalog import STUDENTS, Architecture
from task_distillation.students.flags import StudentFlags

FORMAT_VERSION = 1
CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer.json"
EXTRA = "task_distillation"
_INFO = {info.name: info for info in flags_of(StudentFlags)}


@dataclass(frozen=True)
class StudentConfig:
    """`task` as far as its outputs go: name, kind, names of the classes. `columns`: texts of a row, 1 or 2. `sizes`: flag -> value of
    those that the architecture has, {} for an encoder. `segments`: whether an encoder is told the texts of a pair apart."""

    architecture: str
    task: Task
    columns: int
    max_length: int
    sizes: dict[str, Any]
    segments: bool = False

    @property
    def row(self) -> Architecture:
        return STUDENTS[self.architecture]

    @property
    def parts(self) -> int:
        """Sequences that the student reads of a row: 2 only where each text is read by itself."""
        return self.columns if self.row.pairs == "separate" else 1

    def to_json(self) -> dict[str, Any]:
        task = {"name": self.task.name, "kind": self.task.kind, "label_names": list(self.task.label_names)}
        sizes = {name: list(size) if isinstance(size, tuple) else size for name, size in self.sizes.items()}
        return {"format_version": FORMAT_VERSION, "architecture": self.architecture, "task": task, "columns": self.columns,
                "max_length": self.max_length, "segments": self.segments, "sizes": sizes}

    @classmethod
    def from_json(cls, content: Any) -> "StudentConfig":
        """ValueError, KeyError, TypeError or AttributeError for anything that `to_json` does not write."""
        if content["format_version"] != FORMAT_VERSION:
            raise ValueError(f"format_version {content['format_version']!r}, this version reads {FORMAT_VERSION}")
        name = content["architecture"]
        if name not in STUDENTS:
            raise ValueError(f"architecture {name!r}{nearest(str(name), STUDENTS)}")
        task = content["task"]
        if task["kind"] not in ("classification", "regression"):
            raise ValueError(f"task of kind {task['kind']!r}")
        labels = tuple(str(label) for label in task["label_names"])
        if (task["kind"] == "classification") != (len(labels) > 1):
            raise ValueError(f"{len(labels)} label_names of a {task['kind']}")
        sizes = {size: _INFO[size].convert(content["sizes"][size]) for size in STUDENTS[name].sizes}
        columns, length = int(content["columns"]), int(content["max_length"])
        if columns not in (1, 2) or length < 1:
            raise ValueError(f"columns {columns}, max_length {length}")
        return cls(name, Task(str(task["name"]), task["kind"], (), "", labels), columns, length, sizes, content["segments"] is True)


def read_student_config(folder: Path) -> StudentConfig:
    """The config of the student in `folder`, of either kind; UserError, in one line, for anything that `to_json` does not write."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give one that distil wrote (finetune/progress_...)")
    path = folder / CONFIG
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{folder}: no {CONFIG}; give a student's folder, as distil writes it (finetune/progress_...)") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({reason(error)}); give a folder that can be") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({one_line(error)}); the folder is damaged, copy it again") from None
    if isinstance(content, dict) and "model_type" in content:
        content = content.get(EXTRA)
        if content is None:
            raise UserError(f"{path}: a Hugging Face model that distil did not write; give a student's folder")
    try:
        return StudentConfig.from_json(content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else one_line(error)
        raise UserError(f"{path}: not a student's config ({what}); the folder is damaged, copy it again") from None
