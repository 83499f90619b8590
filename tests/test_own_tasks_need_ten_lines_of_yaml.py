"""A task of one's own from a YAML file and TSV, CSV or JSON lines; whatever is wrong is named with file and line, or file and key."""

import json

import pytest

from dataset.errors import UserError
from evaluation.tasks.own import read_own_task, task_of_files
from evaluation.tasks.table import load_task, select_tasks
from evaluation.tasks.task import Examples

YAML = """name: reviews
kind: classification
train: data/train.tsv
dev: data/dev.tsv
test: data/test.tsv
text: [title, body]
label: stars
labels: [no, yes]
metrics: [accuracy, f1]
headline: f1
"""
FILES = {
    "train.tsv": 'stars\ttitle\tbody\nno\ta "b\tc, d\nyes\te\tf\n',
    "dev.tsv": "body\ttitle\tstars\ng\th\tyes\n",
    "test.tsv": "title\tbody\ni\tj\n",
    "train.csv": 'stars,title,body\r\nno,"a ""b","c,\nd"\r\nyes,e,f\r\n',
    "dev.csv": "stars,title,body\nyes,h,g\n",
    "train.jsonl": '{"stars": 2, "title": "a", "body": "b"}\n{"stars": 10, "title": "c", "body": "d"}\n'
                   '{"stars": 2, "title": "e", "body": "f"}\n',
    "dev.jsonl": '{"body": "g", "title": "h", "stars": 10, "more": null}\n',
    "scores.tsv": "text\tscore\na\t-1.5\nb\t1e2\n",
}


@pytest.fixture
def place(tmp_path):
    (tmp_path / "data").mkdir()
    for name, text in FILES.items():
        (tmp_path / "data" / name).write_text(text, encoding="utf-8")
    return tmp_path


def described(place, *changes, text=YAML):
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = place / "reviews.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def read(path, test=False):
    return load_task(read_own_task(path), None, test=test)


def as_csv(*more):
    return (("train.tsv", "train.csv"), ("dev.tsv", "dev.csv"), ("test: data/test.tsv\n", ""), *more)


JSONL = (("train.tsv", "train.jsonl"), ("dev.tsv", "dev.jsonl"), ("test: data/test.tsv\n", ""), ("labels: [no, yes]\n", ""))
REGRESSION = (("kind: classification", "kind: regression"), ("train.tsv", "scores.tsv"), ("dev.tsv", "scores.tsv"),
              ("labels: [no, yes]\n", ""),
              ("metrics: [accuracy, f1]\nheadline: f1\n", ""), ("[title, body]", "text"), ("stars", "score"), ("test: data/test.tsv\n", ""))


def test_tsv(place):
    data = read(described(place), test=True)
    task = data.task
    assert (task.name, task.kind, task.label_names, task.metrics, task.headline, task.outputs) == (
        "reviews", "classification", ("no", "yes"), ("accuracy", "f1"), "f1", 2
    )
    assert data.train == Examples((['a "b', "e"], ["c, d", "f"]), [0, 1])
    assert data.dev == {"dev": Examples((["h"], ["g"]), [1])}
    assert data.test == {"test": Examples((["i"], ["j"]), None)}
    assert read(described(place)).test == {}


def test_csv_and_a_format_that_is_given(place):
    data = read(described(place, *as_csv()))
    assert data.train == Examples((['a "b', "e"], ["c,\nd", "f"]), [0, 1])
    (place / "data" / "train.csv").rename(place / "data" / "train")
    assert read(described(place, *as_csv(("train.csv", "train"), ("headline", "format: csv\nheadline")))).sha256 == data.sha256


def test_json_lines_and_labels_from_the_training_file(place):
    data = read(described(place, *JSONL))
    assert data.task.label_names == ("2", "10")  # whole numbers by their value
    assert data.train == Examples((["a", "c", "e"], ["b", "d", "f"]), [0, 1, 0])
    assert read(described(place, ("labels: [no, yes]\n", ""))).task.label_names == ("no", "yes")


def test_regression_with_the_usual_metrics_and_two_dev_sets(place):
    data = read(described(place, *REGRESSION, ("dev: data/scores.tsv", "dev: {near: data/scores.tsv, far: data/scores.tsv}")))
    assert (data.task.metrics, data.task.headline, data.task.outputs) == (("spearman", "pearson"), "spearman", 1)
    assert data.dev == {"near": Examples((["a", "b"],), [-1.5, 100.0]), "far": data.train}


def test_the_fewest_lines(place):
    text = "name: x\nkind: classification\ntrain: data/train.tsv\ndev: data/dev.tsv\ntext: body\nlabel: stars\n"
    task = read_own_task(described(place, text=text))
    assert (task.metrics, task.headline, task.label_names) == (("accuracy",), "accuracy", ("no", "yes"))


def test_selection_beside_known_tasks(place):
    path = described(place)
    assert [task.name for task in select_tasks(["rte"], [path])] == ["RTE", "reviews"]
    assert [task.name for task in select_tasks([], [path])] == ["reviews"]
    assert [task.name for task in select_tasks(["Reviews,RTE"], [path])] == ["reviews", "RTE"]
    assert len({*select_tasks(["rte"], [path]), *select_tasks([], [path])}) == 2  # hashable, and equal if read again
    for name in ("sst2", "SST_2"):
        with pytest.raises(UserError, match=r"another task is called 'SST-2' already"):
            select_tasks([], [described(place, ("name: reviews", f"name: {name}"))])
    with pytest.raises(UserError, match=r"called 'reviews' already"):
        select_tasks([], [path, described(place)])


@pytest.mark.parametrize(("file", "text", "kind", "labels", "texts"), [
    ("a.csv", "label,idx,body\nno,0,a\nyes,1,b\n", "classification", ("no", "yes"), (["a", "b"],)),
    ("a.tsv", "label\tleft\tright\n2\ta\tb\n10\tc\td\n", "classification", ("2", "10"), (["a", "c"], ["b", "d"])),
    ("a.tsv", "more\tsentence2\tsentence1\tlabel\nx\ta\tb\t1\ny\tc\td\t-.5\n", "regression", (), (["b", "d"], ["a", "c"])),
    ("a.json", '{"text": "a", "label": 1.5}\n{"text": "b", "label": 2}\n', "regression", (), (["a", "b"],)),
    ("a.tsv", "text\tlabel\na\t1.\nb\t1_.5\n", "classification", ("1.", "1_.5"), (["a", "b"],)),
])
def test_files_without_a_description(tmp_path, file, text, kind, labels, texts):
    path = tmp_path / file
    path.write_text(text)
    task = task_of_files(path, path)
    data = load_task(task, None)
    assert (task.name, task.kind, task.label_names, data.train.texts, data.dev) == ("own_a", kind, labels, texts, {"dev": data.train})
    assert task.headline == {"classification": "accuracy", "regression": "spearman"}[kind]
    (tmp_path / "my set").mkdir()
    train = (tmp_path / "my set" / "train").with_suffix(path.suffix)
    train.write_text(text)
    assert task_of_files(train, path).name == "own_my_set"


@pytest.mark.parametrize(("text", "told"), [
    ("", "line 1: the file is empty"),
    ("text\tlabel\n", "no examples"),
    ("text\tstars\n", "no 'label'"),
    ("a\tb\tc\tlabel\n", "found columns 'a, b, c, label'; label and one or two of text would work, or --task_file"),
    ("idx\tlabel\n", "found columns 'idx, label'"),
    ("text\tlabel\na\t1\n", "one label, '1'"),
])
def test_mistakes_in_files_without_a_description(tmp_path, text, told):
    path = tmp_path / "a.tsv"
    path.write_text(text)
    refused(lambda: task_of_files(path, path), str(path), told)
    refused(lambda: task_of_files(tmp_path / "b.tsv", path), "--train_file", "b.tsv: no such file")
    refused(lambda: task_of_files(path, tmp_path / "b.tsv"), "--validation_file", "b.tsv: no such file")


@pytest.mark.parametrize(("changes", "told"), [
    ([("headline", "headlin")], ["unknown key 'headlin'; did you mean headline?", "known keys are name, kind"]),
    ([("label: stars\n", "")], ["no label; a task of one's own needs name, kind"]),
    ([("kind: classification", "kind: clasification")], ["kind 'clasification'", "classification or regression"]),
    ([("name: reviews", "name: my reviews")], ["name 'my reviews'"]),
    ([("name: reviews", "name: ../reviews")], ["name '../reviews'"]),
    ([("name: reviews", "name:")], ["name: ''; one value"]),
    ([("f1]", "f2]")], ["unknown metric 'f2' of a classification; did you mean f1?"]),
    ([("f1]", "pearson]")], ["unknown metric 'pearson' of a classification"]),
    ([("headline: f1", "headline: matthews")], ["headline 'matthews' is not one of the metrics accuracy, f1"]),
    ([("[title, body]", "[title, body, stars]")], ["3 text columns"]),
    ([("[title, body]", "[]")], ["text: []"]),
    ([("[title, body]", "[title, title]")], ["text: ['title', 'title']; a list of different values"]),
    ([("[no, yes]", "[no, yes, maybe]")], ["metric f1 is of two labels and there are 3; macro_f1"]),
    ([("[no, yes]", "[no]")], ["one label, 'no'"]),
    ([("data/dev.tsv", "data/def.tsv")], ["dev: no file", "data/def.tsv"]),
    ([("train: data/train.tsv", "train: {a: data/train.tsv, b: data/dev.tsv}")], ["train: 2 files"]),
    ([("headline", "format: xml\nheadline")], ["format 'xml'; tsv, csv, jsonl"]),
    ([("label: stars", "label: stars\nlabel: title")], ["line 1: not YAML ('label' is written twice)"]),
    ([("name: reviews", "name: [reviews")], ["line 2", "not YAML"]),
    ([(YAML, "- name")], ["not a mapping"]),
    ([("kind: classification", "kind: regression"), ("[accuracy, f1]", "[pearson]"), ("headline: f1", "headline: pearson")],
     ["labels of a regression"]),
])
def test_mistakes_in_the_description(place, changes, told):
    path = described(place, *changes)
    refused(lambda: read_own_task(path), str(path), *told)


@pytest.mark.parametrize(("changes", "file", "text", "told"), [
    ((), "dev.tsv", "body\ttitle\tstars\ng\th\tmaybe\n", ["line 2: found 'maybe' in column stars, expected one of no, yes"]),
    ((), "dev.tsv", "body\ttitle\tstars\ng\th\n", ["line 2: found 2 columns, expected 3 (body, title, stars)"]),
    ((), "dev.tsv", "body\tname\tstars\ng\th\tno\n", ["line 1: found columns 'body, name, stars' and no 'title'"]),
    ((), "dev.tsv", "", ["line 1: the file is empty"]),
    ((), "dev.tsv", "body\ttitle\tstars\n", ["no examples"]),
    ((), "dev.tsv", b"body\ttitle\tstars\na\tb\tno\n\xff\tb\tno\n", ["line 3: not UTF-8"]),
    (as_csv(), "dev.csv", 'stars,title,body\nno,"a\nb",c\nno,"d" e,f\n', ["line 4: not CSV"]),
    (as_csv(), "dev.csv", 'stars,title,body\nno,"a\nb",c\nno,"d\n', ["line 4: not CSV"]),
    (as_csv(), "dev.csv", 'stars,title,body\nno,"a\nb",c\nno,d\n', ["line 4: found 2 columns"]),
    (JSONL, "dev.jsonl", '{"body": "g", "title": "h", "stars": 2}\n{"body": 1}\n', ["line 2: found 'body' and no 'title'"]),
    (JSONL, "dev.jsonl", '{"body": "g", "title": null, "stars": 2}\n', ["line 1: found null as 'title'"]),
    (JSONL, "dev.jsonl", '{"body": "g", "title": "h", "stars": 2}\n{"body"\n', ["line 2: not JSON"]),
    (JSONL, "dev.jsonl", "[1]\n", ["line 1: found '[1]'; one JSON object"]),
    (JSONL, "train.jsonl", '{"body": "g", "title": "h", "stars": 2}\n', ["one label, '2'"]),
    (REGRESSION, "scores.tsv", "text\tscore\na\t1\nb\t1_0\n", ["line 3: found '1_0' in column score"]),
    (REGRESSION, "scores.tsv", "text\tscore\na\t1\nb\tinf\n", ["line 3: found 'inf' in column score, expected a finite number"]),
])
def test_mistakes_in_the_files(place, changes, file, text, told):
    target = place / "data" / file
    target.write_bytes(text if isinstance(text, bytes) else text.encode())
    refused(lambda: read(described(place, *changes)), str(target), *told)


def test_files_that_are_not_there_and_names_that_tell_no_format(place):
    refused(lambda: read_own_task(place / "none.yaml"), "--task_file", "none.yaml: no such file")
    (place / "data" / "train.txt").write_text(FILES["train.tsv"])
    path = described(place, ("train.tsv", "train.txt"))
    refused(lambda: read_own_task(path), "train.txt: its name does not tell its format", "format: tsv")
    rows = "\n".join(json.dumps({"stars": number, "title": "a", "body": "b"}) for number in range(1001))
    (place / "data" / "train.jsonl").write_text(rows)
    refused(lambda: read_own_task(described(place, *JSONL)), "train.jsonl: 1001 labels in column stars; kind: regression")


def refused(load, *told):
    with pytest.raises(UserError) as caught:
        load()
    text = str(caught.value)
    assert [part for part in told if part not in text] == [], text
    assert "\n" not in text
