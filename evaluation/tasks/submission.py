"""Predictions on test sets as files: what the GLUE server takes, SQuAD's predictions.json, and the like for tasks of one's own.

GLUE: a file with the header `index<tab>prediction` for each task, the server's file names, its words for the classes (as in the official
files: 0 and 1, or entailment and not_entailment), scores of STS-B cut to 0 to 5 and with 3 decimals.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from dataset.errors import UserError
from dataset.files import whole_file, write_json
from evaluation.tasks.table import LAYOUTS
from evaluation.tasks.task import Examples, Questions, Task

MNLI_NAMES = {"matched": "MNLI-m", "mismatched": "MNLI-mm"}


def write_submission(
    task: Task, set_name: str, examples: Examples | Questions, outputs: np.ndarray | Mapping[str, str], folder: Path
) -> Path:
    """Write the predictions on the set `set_name` into `folder`, which is made if need be; the file's path.

    All of GLUE's files belong into one folder. SQuAD's have one name for both versions, so each has a folder of its own in it.
    `outputs`: for a classification logits of shape (N, classes), for a regression numbers of shape (N,) or (N, 1), for SQuAD texts by id.
    Raises UserError where outputs are not finite (a model that diverged has no predictions); ValueError where their number is wrong.
    """
    if task.kind == "span":
        path = folder / task.name / "predictions.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {name: outputs[name] for name in examples.ids})
        return path
    path = folder / f"{submission_name(task, set_name)}.tsv"
    values = np.asarray(outputs, np.float64)
    if len(values) != len(examples):
        raise ValueError(f"{task.name}: {len(values)} outputs for {len(examples)} examples")
    if not np.isfinite(values).all():
        raise UserError(f"{task.name}: outputs on its {set_name} set are not finite; {path.name} needs a model that did not diverge")
    words = _words(task, values)
    folder.mkdir(parents=True, exist_ok=True)
    ids = examples.ids or [str(number) for number in range(len(examples))]
    with whole_file(path) as partial:
        lines = "".join(f"{name}\t{word}\n" for name, word in zip(ids, words, strict=True))
        partial.write_text(f"index\tprediction\n{lines}", encoding="utf-8", newline="\n")
    return path


def submission_name(task: Task, set_name: str) -> str:
    """The file's name without .tsv: the server's for GLUE, `{task}_{set}` for a task of one's own."""
    if task.name == "MNLI":
        return MNLI_NAMES[set_name]
    return task.name if task.name in LAYOUTS else f"{task.name}_{set_name}"


def _words(task: Task, values: np.ndarray) -> list[str]:
    layout = LAYOUTS.get(task.name)
    if task.kind == "regression":
        numbers = values.reshape(-1)
        if layout is None:
            return [f"{number:.6g}" for number in numbers]
        return [f"{number:.3f}" for number in np.clip(numbers, *layout.limits)]
    written = task.label_names if layout is None else layout.label_values
    return [written[number] for number in values.argmax(axis=1)]
