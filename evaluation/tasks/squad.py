"""SQuAD 1.1 and 2.0 from the official JSON files, as questions in the order of the file.

Texts are kept as they are. In the official training files a few answers do not stand at their `answer_start`; they are kept too, for
scoring needs only the text, and what can be trained on is decided where tokens are made. A question of 2.0 has no answer if its list of
answers is empty, as the official scorer decides; `plausible_answers` are not read. In 1.1 such a question is an error: it belongs to 2.0.
"""

import json
from pathlib import Path
from typing import Any

from dataset.errors import UserError
from evaluation.tasks.examples import content_sha256
from evaluation.tasks.rows import decode, read_bytes
from evaluation.tasks.task import Questions, Task, TaskData

SQUAD_1 = Task("SQuAD-1.1", "span", ("f1", "exact"), "f1")
SQUAD_2 = Task("SQuAD-2.0", "span", ("f1", "exact"), "f1")
SQUAD = (SQUAD_1, SQUAD_2)
VERSIONS = {SQUAD_1.name: "v1.1", SQUAD_2.name: "v2.0"}
FOLDERS = {
    SQUAD_1.name: ("SQuAD", "squad", "SQUAD", "SQuAD-1.1", "SQuAD1.1", "squad-1.1", "squad1.1", "squad_v1", "squad1", "."),
    SQUAD_2.name: ("SQuAD", "squad", "SQUAD", "SQuAD-2.0", "SQuAD2.0", "squad-2.0", "squad2.0", "squad_v2", "squad2", "."),
}


def read_squad(task: Task, glue_dir: Path, test: bool) -> TaskData:
    """Training and dev questions of `task` from below `glue_dir`.

    With `test` also what to predict: the questions of a test file, or, as the official test set is not given out, those of dev.
    Raises UserError for files that are not there, broken JSON (with its line) and missing or wrong fields (with their place).
    """
    if not glue_dir.is_dir():
        raise UserError(f"--glue_dir {glue_dir}: no such folder; give the one that holds SQuAD/train-{VERSIONS[task.name]}.json")
    train, dev, held_out = (f"{part}-{VERSIONS[task.name]}.json" for part in ("train", "dev", "test"))
    folders = [glue_dir / name for name in FOLDERS[task.name]]
    folder = next((folder for folder in folders if (folder / train).is_file() or (folder / dev).is_file()), folders[0])
    for name in (train, dev):
        if not (folder / name).is_file():
            raise UserError(f"{folder}: no {name}; {task.name} needs {train} and {dev} there")
    sets = {name: read_questions(task, folder / name) for name in (train, dev)}
    tests = {}
    if test:
        with_file = (folder / held_out).is_file()
        tests = {"test": read_questions(task, folder / held_out, labelled=False)} if with_file else {"dev": sets[dev]}
    return TaskData(task, sets[train], {"dev": sets[dev]}, content_sha256(sets.values()), tests)


def read_questions(task: Task, path: Path, labelled: bool = True) -> Questions:
    """Every question of one file in SQuAD's format; answers and starts are None if not `labelled`."""
    text = decode(path, read_bytes(path))
    try:
        content = json.loads(text)
    except ValueError as error:
        found = "the file is empty" if not text.strip() else f"not JSON ({error})"
        line = f", line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise UserError(f"{path}{line}: {found}; SQuAD's official file would work") from None
    found = Questions([], [], [], [] if labelled else None, [] if labelled else None)
    for number, article in enumerate(_field(path, "the file", content, "data", list)):
        at = f"data[{number}]"
        for position, paragraph in enumerate(_field(path, at, article, "paragraphs", list)):
            place = f"{at}.paragraphs[{position}]"
            context = _field(path, place, paragraph, "context", str)
            for index, question in enumerate(_field(path, place, paragraph, "qas", list)):
                _add(task, path, f"{place}.qas[{index}]", context, question, found)
    if not found.ids:
        raise UserError(f"{path}: no questions in it; SQuAD's official file would work")
    if len(set(found.ids)) < len(found.ids):
        seen: set[str] = set()
        twice = next(name for name in found.ids if name in seen or seen.add(name))
        raise UserError(f"{path}: two questions have the id {twice!r}; one id a question would work")
    return found


def _add(task: Task, path: Path, place: str, context: str, question: Any, found: Questions) -> None:
    found.ids.append(_field(path, place, question, "id", str))
    found.questions.append(_field(path, place, question, "question", str))
    found.contexts.append(context)
    if found.answers is None:
        return
    answers = _field(path, place, question, "answers", list)
    texts = [_field(path, f"{place}.answers[{number}]", answer, "text", str) for number, answer in enumerate(answers)]
    starts = [_field(path, f"{place}.answers[{number}]", answer, "answer_start", int) for number, answer in enumerate(answers)]
    if not texts and task is SQUAD_1:
        raise UserError(f"{path}: {place} has no answer, as in 2.0 only; --task_name {SQUAD_2.name} would work")
    if texts and question.get("is_impossible") is True:
        raise UserError(f"{path}: {place} is_impossible and has an answer; one of the two would work")
    found.answers.append(texts)
    found.starts.append(starts)


def _field(path: Path, place: str, value: Any, name: str, kind: type) -> Any:
    """`value[name]`, which must be there and of type `kind`."""
    if not isinstance(value, dict) or name not in value:
        raise UserError(f"{path}: no {name!r} in {place}; SQuAD's official format has one")
    if not isinstance(value[name], kind) or isinstance(value[name], bool):
        raise UserError(f"{path}: {name!r} in {place} is of type {type(value[name]).__name__}, expected {kind.__name__}")
    return value[name]
