"""`--dataset_name` with local data sets in the hub's form: the very examples, labels, ids and hash of the official TSV and JSON files."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_glue import write_cola, write_mnli, write_rte, write_squad, write_stsb

from dataset.errors import UserError
from evaluation.tasks.hub import read_dataset
from evaluation.tasks.table import load_task, select_tasks
from evaluation.tasks.task import Questions

PAIR = ["sentence1", "sentence2"]
HUB_COLUMNS = {"CoLA": ["sentence"], "RTE": PAIR, "STS-B": PAIR, "MNLI": ["premise", "hypothesis"]}
HUB_NAMES = {"CoLA": "cola", "RTE": "rte", "STS-B": "stsb", "MNLI": "mnli", "SQuAD-1.1": "squad", "SQuAD-2.0": "squad_v2"}
WRITERS = {"CoLA": write_cola, "RTE": write_rte, "STS-B": write_stsb, "MNLI": write_mnli,
           "SQuAD-1.1": write_squad, "SQuAD-2.0": lambda folder: write_squad(folder, "v2.0")}


def named(name):
    return select_tasks([name])[0]


def hub_form(data, label_names=None):
    """The `DatasetDict` that the hub has of these examples: label -1 for none, scores as 32-bit floats, idx counted per split."""
    import datasets

    task = data.task
    sets = {"train": data.train}
    for prefix, parts in (("validation", data.dev), ("test", {} if task.kind == "span" else data.test)):
        sets |= {prefix if name in ("dev", "test") else f"{prefix}_{name}": part for name, part in parts.items()}
    splits = {}
    for split, part in sets.items():
        if isinstance(part, Questions):
            answers = [{"text": texts, "answer_start": starts} for texts, starts in zip(part.answers, part.starts, strict=True)]
            columns = {"id": part.ids, "title": ["x"] * len(part), "context": part.contexts, "question": part.questions, "answers": answers}
            splits[split] = datasets.Dataset.from_dict(columns)
            continue
        columns = dict(zip(HUB_COLUMNS[task.name], part.texts, strict=True))
        names = list(label_names or task.label_names)
        feature = datasets.ClassLabel(names=names) if names else datasets.Value("float32")
        labels = [-1] * len(part) if part.labels is None else part.labels
        if label_names:
            labels = [names.index(task.label_names[label]) for label in labels]
        columns |= {"label": labels, "idx": list(range(len(part)))}
        features = {name: datasets.Value("string") for name in HUB_COLUMNS[task.name]} | {"label": feature, "idx": datasets.Value("int32")}
        splits[split] = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    return datasets.DatasetDict(splits)


def save(data, folder, way, **options):
    form = hub_form(data, **options)
    if way == "save_to_disk":
        form.save_to_disk(str(folder), num_proc=None)
        return folder
    for split, rows in form.items():
        folder.mkdir(parents=True, exist_ok=True)
        if way == "parquet shards":
            for number in range(2):
                rows.shard(2, number, contiguous=True).to_parquet(str(folder / f"{split}-0000{number}-of-00002.parquet"))
        elif way == "arrow":
            form.save_to_disk(str(folder / "saved"))
            (file,) = (folder / "saved" / split).glob("*.arrow")
            file.rename(folder / f"{split}.arrow")
        else:
            rows.to_json(str(folder / f"{split}.jsonl"))
    return folder


@pytest.mark.parametrize(("name", "way"), [
    ("MNLI", "save_to_disk"), ("MNLI", "parquet shards"), ("CoLA", "arrow"), ("CoLA", "jsonl"), ("STS-B", "parquet shards"),
    ("RTE", "save_to_disk"), ("SQuAD-1.1", "parquet shards"), ("SQuAD-2.0", "save_to_disk"),
])
def test_the_same_examples(tmp_path, name, way):
    official = load_task(named(name), WRITERS[name](tmp_path / "glue"), test=True)
    folder = save(official, tmp_path / "hub" / HUB_NAMES[name], way)
    for place in (folder, folder.parent):  # the task's own folder, or a copy of the whole of nyu-mll/glue
        found = load_task(named(name), None, dataset_name=str(place), test=True)
        assert found == official
    assert load_task(named(name), None, dataset_name=str(folder)).test == {}
    assert official.test == official.dev or not name.startswith("SQuAD")


def test_no_torch_is_imported(tmp_path):
    official = load_task(named("rte"), write_rte(tmp_path / "glue"))
    for way in ("parquet shards", "arrow", "jsonl", "save_to_disk"):
        save(official, tmp_path / way, way)
    program = (
        "import sys\nfrom evaluation.tasks.table import load_task, select_tasks\n"
        "for way in sys.argv[1:]:\n    load_task(select_tasks(['rte'])[0], None, dataset_name=way)\n"
        "import evaluation.metrics.squad, evaluation.tasks.submission\n"
        "from evaluation.metrics.glue import METRICS\nfor metric in METRICS.values():\n    metric([0, 1, 1], [0, 1, 0])\n"
        "assert 'torch' not in sys.modules"
    )
    places = [str(tmp_path / way) for way in ("parquet shards", "arrow", "jsonl", "save_to_disk")]
    subprocess.run([sys.executable, "-c", program, *places], check=True, timeout=100, cwd=Path(__file__).parents[1])


def test_the_diagnostic_set_has_no_labels_on_the_hub(tmp_path):
    import datasets

    rows = {"premise": ["p"], "hypothesis": ["h"], "label": [-1], "idx": [0]}
    datasets.DatasetDict({"test": datasets.Dataset.from_dict(rows)}).save_to_disk(str(tmp_path / "ax"))
    found = load_task(named("ax"), None, dataset_name=str(tmp_path), test=True)
    assert (found.dev, found.test["test"].texts, found.test["test"].labels, found.test["test"].ids) == ({}, (["p"], ["h"]), None, ["0"])
    refused(tmp_path, "ax", "AX has no labels there", "diagnostic-full.tsv")


def test_another_order_of_labels_is_translated(tmp_path):
    official = load_task(named("mnli"), write_mnli(tmp_path / "glue"))
    folder = save(official, tmp_path / "mnli", "parquet shards", label_names=["contradiction", "entailment", "neutral"])
    assert load_task(named("mnli"), None, dataset_name=str(folder)) == official


def refused(place, name, *told):
    with pytest.raises(UserError) as caught:
        read_dataset(named(name), str(place), False)
    text = str(caught.value)
    assert [part for part in told if part not in text] == [], text
    assert "\n" not in text


def test_what_is_wrong_with_a_data_set_is_one_line(tmp_path):
    import datasets

    def saved(folder, **splits):
        datasets.DatasetDict({name: datasets.Dataset.from_dict(rows) for name, rows in splits.items()}).save_to_disk(str(tmp_path / folder))
        return tmp_path / folder

    good = {"sentence": ["a", "b"], "label": [0, 1]}
    refused(saved("one", train=good), "cola", "no split validation among train", "CoLA needs train, validation")
    refused(saved("two", train=good, validation={"text": ["a"], "label": [1]}), "cola",
            "split validation: no column 'sentence' among text, label")
    refused(saved("three", train=good, validation={"sentence": ["a"], "label": [-1]}), "cola", "split validation, row 0: label -1")
    refused(saved("four", train=good, validation={"sentence": ["a", None], "label": [1, 1]}), "cola", "row 1: None in column sentence")
    (tmp_path / "five").mkdir()
    for name, count in (("train", 0), ("validation", 2)):
        datasets.Dataset.from_dict(good).select(range(count)).to_parquet(str(tmp_path / "five" / f"{name}.parquet"))
    refused(tmp_path / "five", "cola", "split train: no rows")
    scores = {"sentence1": ["a"], "sentence2": ["b"], "label": [5.5]}
    refused(saved("six", train=scores, validation=scores), "stsb", "split train, row 0: label 5.5, expected a number from 0 to 5")
    answers = {"id": ["1"], "question": ["?"], "context": ["c"], "answers": [{"text": ["c"], "answer_start": [0, 1]}]}
    refused(saved("seven", train=answers, validation=answers), "squad", "split train, row 0: answers", "as many answer_start")
    named_otherwise = datasets.Dataset.from_dict(good).cast_column("label", datasets.ClassLabel(names=["bad", "good"]))
    datasets.DatasetDict({"train": named_otherwise, "validation": named_otherwise}).save_to_disk(str(tmp_path / "eight"))
    refused(tmp_path / "eight", "cola", "labels bad, good; CoLA needs unacceptable, acceptable")
    named_otherwise.save_to_disk(str(tmp_path / "nine"))
    refused(tmp_path / "nine", "cola", "one split, saved alone")
    (tmp_path / "ten").mkdir()
    refused(tmp_path / "ten", "cola", "no data set there")
    (tmp_path / "ten" / "train.parquet").write_bytes(b"no parquet")
    (tmp_path / "ten" / "validation.parquet").write_bytes(b"no parquet")
    refused(tmp_path / "ten", "cola", "--dataset_name")
    (tmp_path / "one" / "train" / "state.json").unlink()
    refused(tmp_path / "one", "cola", "datasets cannot open it for CoLA")
    refused(tmp_path / "no" / "such" / "folder", "cola", "no such folder", "nyu-mll/glue")


BY_NAME = """
import sys
from evaluation.tasks.table import load_task, select_tasks
from dataset.errors import run_command
def main():
    data = load_task(select_tasks(["rte"])[0], None, dataset_name="nyu-mll/glue", test=True)
    print(len(data.train), len(data.dev["dev"]), list(data.test), data.sha256, "torch" in sys.modules)
run_command(main)
"""


def by_name(home, offline):
    environment = {**os.environ, "HF_HUB_OFFLINE": offline, "HF_HOME": str(home), "HF_ENDPOINT": "http://127.0.0.1:9"}
    place = Path(__file__).parents[1]
    return subprocess.run([sys.executable, "-c", BY_NAME], env=environment, capture_output=True, text=True, timeout=100, cwd=place)


def test_without_network_a_name_is_one_line(tmp_path):
    for offline, told in (("1", "datasets cannot open it for RTE"), ("0", "the hub has not answered")):
        start = time.monotonic()
        found = by_name(tmp_path, offline)
        assert (found.returncode, found.stderr.count("\n")) == (2, 1), found.stderr
        assert told in found.stderr
        assert time.monotonic() - start < 60


def test_a_set_in_the_librarys_cache_needs_no_network(tmp_path):
    import datasets

    official = load_task(named("rte"), write_rte(tmp_path / "glue"))
    splits = hub_form(official)
    cache = tmp_path / "home" / "datasets" / "nyu-mll___glue" / "rte" / "0.0.0" / ("a" * 40)
    cache.mkdir(parents=True)
    for split, rows in splits.items():
        rows.save_to_disk(str(tmp_path / split))
        (file,) = (tmp_path / split).glob("*.arrow")
        file.rename(cache / f"glue-{split}.arrow")
    infos = [{"name": split, "num_examples": len(rows), "dataset_name": "glue"} for split, rows in splits.items()]
    datasets.DatasetInfo(
        features=splits["train"].features, builder_name="parquet", dataset_name="glue", config_name="rte", version="0.0.0",
        splits=datasets.SplitDict.from_split_dict(infos, dataset_name="glue"),
    ).write_to_directory(str(cache))
    other = cache.parents[2] / "cola"  # another task of GLUE is there too
    shutil.copytree(cache.parents[1], other)
    information = other / "0.0.0" / cache.name / "dataset_info.json"
    information.write_text(information.read_text().replace('"config_name": "rte"', '"config_name": "cola"'))
    found = by_name(tmp_path / "home", "1")
    assert found.stdout == f"64 32 [] {official.sha256} False\n", found.stderr
