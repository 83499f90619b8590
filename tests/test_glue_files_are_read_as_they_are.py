"""The official TSV files with their quotes, byte order marks and line ends; a broken line is named, never skipped."""

import pytest

from dataset.errors import UserError
from evaluation.metrics.glue import METRICS
from evaluation.tasks.table import TASKS, load_task, select_tasks

FILES = {
    "SST-2": ("sentence\tlabel", ["it 's a \"charming journey . \t1", "bleak\x0c and\u2028 desperate \t0"]),
    "RTE": ("index\tsentence1\tsentence2\tlabel", ["0\tA \"b.\tC.\tnot_entailment", "1\tD.\t\"E.\tentailment"]),
    "MRPC": (
        "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String",
        ['1\t1355540\t1355592\tHe said so .\t" The pie " does " not fit .', "0\t20\t21\tOne .\tTwo ."],
    ),
}
EXPECTED = {
    "SST-2": (([FILES["SST-2"][1][0][:-2], FILES["SST-2"][1][1][:-2]],), [1, 0]),
    "RTE": ((['A "b.', "D."], ["C.", '"E.']), [1, 0]),
    "MRPC": ((["He said so .", "One ."], ['" The pie " does " not fit .', "Two ."]), [1, 0]),
}
LAYOUTS = {
    "plain": lambda lines: "\n".join(lines) + "\n",
    "byte order mark": lambda lines: "\ufeff" + "\n".join(lines) + "\n",
    "CRLF": lambda lines: "\r\n".join(lines) + "\r\n",
    "no last line end": lambda lines: "\ufeff" + "\r\n".join(lines),
    "empty lines at the end": lambda lines: "\n".join(lines) + "\n\n\n",
}


def task_named(name):
    return select_tasks([name])[0]


def write(glue_dir, name, text, folder=None):
    place = glue_dir / (folder or name)
    place.mkdir(parents=True, exist_ok=True)
    for part in ("train.tsv", "dev.tsv"):
        (place / part).write_bytes(text.encode("utf-8"))
    return glue_dir


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", FILES)
def test_three_layouts(tmp_path, name, layout):
    header, lines = FILES[name]
    data = load_task(task_named(name), write(tmp_path, name, LAYOUTS[layout]([header, *lines])))
    for examples in (data.train, data.dev):
        assert (examples.texts, examples.labels) == EXPECTED[name]


def test_columns_are_found_by_name(tmp_path):
    text = "label\tnote\tsentence\n1\tx\tgood\n0\ty\tbad\n"
    assert load_task(task_named("sst2"), write(tmp_path, "SST-2", text)).dev.texts == (["good", "bad"],)


@pytest.mark.parametrize("folder", ["SST-2", "SST2", "sst2"])
def test_usual_folder_names(tmp_path, folder):
    header, lines = FILES["SST-2"]
    assert load_task(task_named("SST-2"), write(tmp_path, "SST-2", "\n".join([header, *lines]), folder)).dev.labels == [1, 0]


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("SST-2", "sentence\tlabel\ngood\t1\nbad\n", ["line 3", "found 1 columns", "expected 2 (sentence, label)"]),
        ("SST-2", "sentence\tlabel\ngood\tvery\t1\n", ["line 2", "found 3 columns", "expected 2"]),
        ("SST-2", "sentence\tlabel\ngood\t1\n\nbad\t0\n", ["line 3", "found 1 columns"]),
        ("SST-2", "sentence\tlabel\ngood\t2\n", ["line 2", "'2'", "column label", "0, 1"]),
        ("SST-2", "text\tlabel\ngood\t1\n", ["line 1", "'text, label'", "sentence, label"]),
        ("SST-2", "sentence\tlabel\n", ["no examples"]),
        ("SST-2", "", ["line 1", "sentence, label"]),
        ("RTE", "index\tsentence1\tsentence2\tlabel\n0\ta\tb\tmaybe\n", ["line 2", "'maybe'", "entailment, not_entailment"]),
        ("MRPC", "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t2\t3\ta\n", ["line 2", "found 4 columns", "expected 5"]),
    ],
)
def test_broken_lines_are_named(tmp_path, name, text, told):
    with pytest.raises(UserError) as caught:
        load_task(task_named(name), write(tmp_path, name, text))
    assert str(tmp_path / name / "train.tsv") in str(caught.value)
    assert [part for part in told if part not in str(caught.value)] == []


def test_bytes_that_are_not_utf8_are_named(tmp_path):
    write(tmp_path, "SST-2", "sentence\tlabel\ngood\t1\n")
    (tmp_path / "SST-2" / "dev.tsv").write_bytes(b"sentence\tlabel\ngood\t1\ncaf\xe9\t0\n")
    with pytest.raises(UserError, match=r"dev\.tsv, line 3: not UTF-8"):
        load_task(task_named("SST-2"), tmp_path)


def test_names_of_tasks_in_any_spelling():
    assert [task.name for task in select_tasks(["sst2,MRPC", "SST-2", "rte"])] == ["SST-2", "MRPC", "RTE"]
    with pytest.raises(UserError, match="'sst3'; known tasks are SST-2, RTE, MRPC"):
        select_tasks(["sst3"])


def test_every_row_of_the_table_is_complete():
    for task in TASKS:
        assert task.headline in task.metrics
        assert set(task.metrics) <= set(METRICS)
        assert len(task.label_values) == len(task.label_names) == len(set(task.label_values))


def test_changed_data_has_another_hash(tmp_path):
    header, lines = FILES["SST-2"]
    first = load_task(task_named("SST-2"), write(tmp_path, "SST-2", "\n".join([header, *lines])))
    (tmp_path / "SST-2" / "dev.tsv").write_text("sentence\tlabel\nother\t1\n")
    assert load_task(task_named("SST-2"), tmp_path).sha256 != first.sha256
