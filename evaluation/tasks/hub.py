"""The same tasks from `datasets`: a name on the Hugging Face hub (`nyu-mll/glue`, `rajpurkar/squad`) or a local path.

Local paths: what `save_to_disk` wrote, or a folder with a Parquet, Arrow or JSON lines file (or several) for each split, such as
`validation_matched-00000-of-00001.parquet`; or a folder that holds one of these for each task, by its name on the hub (`sst2`, `mnli`), as
a copy of `nyu-mll/glue` is. The library's own guess of splits from file names is not used: it takes MNLI's two validation sets for one.

Examples, labels and ids come out as from the official files: scores were stored as 32-bit floats and mean the shortest decimal number that
rounds to them; classes are compared by name where the data set names them, so another order is translated; a label of -1 is none.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dataset.errors import UserError, one_line
from dataset.hub import SHOWN, check_on_hub
from evaluation.tasks.examples import content_sha256
from evaluation.tasks.squad import SQUAD_1, SQUAD_2
from evaluation.tasks.task import Examples, Questions, Task, TaskData

PAIR, NLI = ("sentence1", "sentence2"), ("premise", "hypothesis")
ON_HUB: dict[str, tuple[str, tuple[str, ...]]] = {
    "CoLA": ("cola", ("sentence",)),
    "SST-2": ("sst2", ("sentence",)),
    "MRPC": ("mrpc", PAIR),
    "STS-B": ("stsb", PAIR),
    "QQP": ("qqp", ("question1", "question2")),
    "MNLI": ("mnli", NLI),
    "QNLI": ("qnli", ("question", "sentence")),
    "RTE": ("rte", PAIR),
    "WNLI": ("wnli", PAIR),
    "AX": ("ax", NLI),
    SQUAD_1.name: ("squad", ("question", "context")),
    SQUAD_2.name: ("squad_v2", ("question", "context")),
}
"""Of each task its name on the hub and its columns of text there."""
SUFFIXES = (".parquet", ".arrow", ".jsonl")
BATCH = 4096  # rows


def read_dataset(task: Task, name: str, test: bool) -> TaskData:
    """Every set of `task` from the data set `name`; UserError in one line for one that is not there or does not hold the task.

    `test`: the test sets as well, where there are such.
    """
    kinds = ("matched", "mismatched") if task.name == "MNLI" else ("",)
    read = _questions if task.kind == "span" else _examples
    needed = [] if task.name == "AX" else ["train", *(f"validation_{kind}".rstrip("_") for kind in kinds)]
    dev_splits = {kind or "dev": f"validation_{kind}".rstrip("_") for kind in kinds}
    test_splits = {kind or "test": f"test_{kind}".rstrip("_") for kind in kinds}
    splits = _open(task, name)
    if missing := [split for split in needed if split not in splits]:
        raise UserError(f"--dataset_name {name}: no split {missing[0]} among {', '.join(splits)}; {task.name} needs {', '.join(needed)}")
    empty = Examples(tuple([] for _ in ON_HUB[task.name][1]), [])
    train = read(task, name, "train", splits["train"]) if needed else empty
    dev = {set_name: read(task, name, split, splits[split]) for set_name, split in dev_splits.items() if split in splits}
    tests = {set_name: read(task, name, split, splits[split], labelled=False)
             for set_name, split in test_splits.items() if test and split in splits}
    if test and task.kind == "span" and not tests:
        tests = dev  # as from the official files, which have no test set
    if not dev and not tests:
        raise UserError(
            f"--dataset_name {name}: {task.name} has no labels there; --do_predict, or --glue_dir with diagnostic-full.tsv, would work"
        )
    return TaskData(task, train, dev, content_sha256([train, *dev.values()]), tests)


def _open(task: Task, name: str) -> dict[str, Any]:
    """The splits of `task` in the data set `name`, by their names."""
    path = Path(name).expanduser()
    files = _local_files(task, path) if path.exists() else None  # before the library is imported, which takes a second or two
    if files is None and not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        raise UserError(f"--dataset_name {name}: no such folder; a folder, or a name on the hub such as nyu-mll/glue, would work")
    import datasets

    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # it would say before us, in its own words, what is wrong
    datasets.disable_progress_bars()
    try:
        if files is None:
            return _open_on_hub(datasets, task, name)
        if isinstance(files, Path):
            return dict(datasets.load_from_disk(str(files)))
        return {split: datasets.concatenate_datasets([_read_file(datasets, part) for part in parts]) for split, parts in files.items()}
    except UserError:
        raise
    except Exception as error:  # whatever the library's many readers raise
        raise UserError(f"--dataset_name {name}: datasets cannot open it for {task.name}: {one_line(error)[:SHOWN]}") from None


def _local_files(task: Task, path: Path) -> Path | dict[str, list[Path]]:
    """The folder that save_to_disk wrote, or the files of each split."""
    below = path / ON_HUB[task.name][0]
    folder = below if below.is_dir() else path
    if (folder / "dataset_dict.json").is_file():
        return folder
    if (folder / "state.json").is_file():
        raise UserError(f"--dataset_name {folder}: one split, saved alone; a DatasetDict of train and validation would work")
    files: dict[str, list[Path]] = {}
    for file in sorted([*folder.glob("*"), *folder.glob("data/*")]):
        if file.suffix in SUFFIXES:
            files.setdefault(file.stem.split("-")[0], []).append(file)
    if not files:
        raise UserError(f"--dataset_name {folder}: no data set there; what save_to_disk wrote, or files such as train.parquet, would work")
    return files


def _read_file(datasets: Any, path: Path) -> Any:
    """Neither copied into the library's cache nor streamed, for which it imports torch."""
    if path.suffix == ".arrow":
        return datasets.Dataset.from_file(str(path))
    import pyarrow.json
    import pyarrow.parquet

    read = pyarrow.parquet.read_table if path.suffix == ".parquet" else pyarrow.json.read_json
    return datasets.Dataset(datasets.table.InMemoryTable(read(str(path))))


def _open_on_hub(datasets: Any, task: Task, name: str) -> dict[str, Any]:
    """Downloaded once into the library's cache, and from there where HF_HUB_OFFLINE is set."""
    check_on_hub("--dataset_name", name, "a path, nyu-mll/glue with network, or HF_HUB_OFFLINE=1 for a set in the cache")
    config = ON_HUB[task.name][0] if name.split("/")[-1] == "glue" else None
    return dict(datasets.load_dataset(name, config))


def _columns(task: Task, name: str, split: str, rows: Any, wanted: Sequence[str], optional: Sequence[str] = ()) -> dict[str, list]:
    """The columns `wanted`, and those of `optional` that are there."""
    where = f"--dataset_name {name}, split {split}"
    columns: dict[str, list] = {}
    try:
        batches = rows.with_format(None).iter(batch_size=BATCH)
        for batch in batches:
            if missing := [column for column in wanted if column not in batch]:
                raise UserError(f"{where}: no column {missing[0]!r} among {', '.join(batch)}; {task.name} needs {', '.join(wanted)}")
            for column in (*wanted, *(column for column in optional if column in batch)):
                columns.setdefault(column, []).extend(batch[column])
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{where}: datasets cannot read it to its end: {one_line(error)[:SHOWN]}") from None
    if not columns:
        raise UserError(f"{where}: no rows; {task.name} needs some")
    for column in ON_HUB[task.name][1]:
        for number, text in enumerate(columns[column]):
            if not isinstance(text, str):
                raise UserError(f"{where}, row {number}: {text!r} in column {column}; a text would work")
    return columns


def _examples(task: Task, name: str, split: str, rows: Any, labelled: bool = True) -> Examples:
    texts = ON_HUB[task.name][1]
    columns = _columns(task, name, split, rows, [*texts, "label"] if labelled else texts, () if labelled else ("idx",))
    labels = None
    if labelled:
        labels = []
        read = _score if task.kind == "regression" else _class_reader(task, name, split, rows)
        for number, value in enumerate(columns["label"]):
            label = read(value)
            if label is None:
                expected = "a number from 0 to 5" if task.kind == "regression" else f"one of {', '.join(task.label_names)}"
                raise UserError(f"--dataset_name {name}, split {split}, row {number}: label {value!r}, expected {expected}")
            labels.append(label)
    return Examples(tuple(columns[text] for text in texts), labels, [str(number) for number in columns.get("idx", [])])


def _score(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    shortest = float(str(np.float32(value)))
    return shortest if 0.0 <= shortest <= 5.0 else None


def _class_reader(task: Task, name: str, split: str, rows: Any) -> Any:
    """From a label of this data set to the task's class number, None for one that is none; by name where the data set has names."""
    names = getattr((rows.features or {}).get("label"), "names", None)
    if names is not None and set(names) != set(task.label_names):
        raise UserError(
            f"--dataset_name {name}, split {split}: labels {', '.join(names)[:SHOWN]}; {task.name} needs {', '.join(task.label_names)}"
        )
    classes = {number: task.label_names.index(one) for number, one in enumerate(names or task.label_names)}
    classes |= {one: number for number, one in enumerate(task.label_names)}
    return lambda value: classes.get(value) if isinstance(value, int | str) else None


def _questions(task: Task, name: str, split: str, rows: Any, labelled: bool = True) -> Questions:
    columns = _columns(task, name, split, rows, ["id", "question", "context", *(["answers"] if labelled else [])])
    answers = starts = None
    if labelled:
        answers, starts = [], []
        for number, answer in enumerate(columns["answers"]):
            texts, at = (answer.get(key) if isinstance(answer, dict) else None for key in ("text", "answer_start"))
            least = 1 if task.name == SQUAD_1.name else 0
            if not isinstance(texts, list) or not isinstance(at, list) or len(texts) != len(at) or len(texts) < least:
                raise UserError(
                    f"--dataset_name {name}, split {split}, row {number}: answers {str(answer)[:80]}; "
                    f"{least} or more text, with as many answer_start, would work"
                )
            answers.append(texts)
            starts.append(at)
    return Questions([str(one) for one in columns["id"]], columns["question"], columns["context"], answers, starts)
