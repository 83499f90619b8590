"""Prediction files: names, words and numbers as GLUE's server takes them, SQuAD's JSON, and a like file for a task of one's own."""

import json
import math

import numpy as np
import pytest

from dataset.errors import UserError
from evaluation.tasks.submission import write_submission
from evaluation.tasks.table import select_tasks
from evaluation.tasks.task import Examples, Questions, Task

FIRST = np.array([[2.0, 1.0], [-3.0, -1.0]], np.float32)  # classes 0 and 1
NLI = np.array([[0.0, 0.1, 0.2], [3.0, 1.0, 2.0], [0.0, 9.0, 1.0]], np.float32)


def written(folder, name, set_name, count, outputs, ids=()):
    task = name if isinstance(name, Task) else select_tasks([name])[0]
    path = write_submission(task, set_name, Examples((["x"] * count,), None, list(ids)), outputs, folder)
    assert path.parent == folder
    return path.name, path.read_bytes().decode()


@pytest.mark.parametrize(("name", "file", "words"), [
    ("cola", "CoLA.tsv", "01"), ("sst2", "SST-2.tsv", "01"),
    ("mrpc", "MRPC.tsv", "01"), ("qqp", "QQP.tsv", "01"),
    ("wnli", "WNLI.tsv", "01"),
    ("qnli", "QNLI.tsv", ["entailment", "not_entailment"]), ("rte", "RTE.tsv", ["entailment", "not_entailment"]),
])
def test_two_classes(tmp_path, name, file, words):
    assert written(tmp_path / "new" / "folder", name, "test", 2, FIRST) == (file, f"index\tprediction\n0\t{words[0]}\n1\t{words[1]}\n")


@pytest.mark.parametrize(("name", "set_name", "file"), [
    ("mnli", "matched", "MNLI-m.tsv"), ("mnli", "mismatched", "MNLI-mm.tsv"), ("ax", "test", "AX.tsv"),
])
def test_three_classes_with_the_files_own_ids(tmp_path, name, set_name, file):
    expected = "index\tprediction\n7\tcontradiction\n9\tentailment\n12\tneutral\n"
    assert written(tmp_path, name, set_name, 3, NLI, ["7", "9", "12"]) == (file, expected)


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_scores_are_cut_to_the_range(tmp_path, shape):
    outputs = np.array([-0.2, 5.3, 2.71828, 0.0005], np.float32).reshape(shape)
    assert written(tmp_path, "stsb", "test", 4, outputs) == ("STS-B.tsv", "index\tprediction\n0\t0.000\n1\t5.000\n2\t2.718\n3\t0.001\n")


def test_tasks_of_ones_own(tmp_path):
    own = Task("reviews", "classification", ("accuracy",), "accuracy", ("bad", "good"))
    assert written(tmp_path, own, "far", 2, FIRST) == ("reviews_far.tsv", "index\tprediction\n0\tbad\n1\tgood\n")
    own = Task("scores", "regression", ("pearson",), "pearson")
    expected = "index\tprediction\n0\t-1234.5\n1\t0.25\n"
    assert written(tmp_path, own, "test", 2, np.array([[-1234.5], [0.25]])) == ("scores_test.tsv", expected)


def test_squad(tmp_path):
    questions = Questions(["b", "a"], ["?", "?"], ["é", "é"], None, None)
    path = write_submission(select_tasks(["squad"])[0], "dev", questions, {"a": "é\n", "b": "", "c": "of another set"}, tmp_path)
    assert path == tmp_path / "SQuAD-1.1" / "predictions.json"
    assert json.loads(path.read_text()) == {"b": "", "a": "é\n"}
    assert write_submission(select_tasks(["squad2"])[0], "dev", questions, dict.fromkeys("ab", ""), tmp_path) != path


def test_nothing_is_written_of_a_model_that_diverged_or_of_other_examples(tmp_path):
    for value in (math.nan, math.inf):
        with pytest.raises(UserError, match=r"SST-2: outputs on its test set are not finite"):
            written(tmp_path, "sst2", "test", 2, np.array([[0.0, 1.0], [value, 0.0]]))
    with pytest.raises(ValueError, match="2 outputs for 3 examples"):
        written(tmp_path, "sst2", "test", 3, FIRST)
    assert list(tmp_path.iterdir()) == []
