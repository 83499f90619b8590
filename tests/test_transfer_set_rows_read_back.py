"""What a transfer set was given is what it gives back: texts, labels and logits of every kind of task, in d-bert's columns too."""

import pytest
import yaml

from dataset.errors import UserError
from evaluation.tasks.own import read_own_task
from evaluation.tasks.table import select_tasks
from evaluation.tasks.task import Task
from task_distillation.transfer_set import TransferRow, plain_text, read_transfer_set, text_columns, text_hash, transfer_writer


def task(name: str) -> Task:
    return select_tasks([name])[0]


def own_task(folder, labels: list[str], **more: str) -> Task:
    folder.mkdir(exist_ok=True)
    for name in ("train.tsv", "dev.tsv"):
        (folder / name).write_text("title\tstars\n" + "".join(f"text\t{label}\n" for label in labels))
    (folder / "own.yaml").write_text(yaml.safe_dump(
        {"name": "own", "kind": "classification", "train": "train.tsv", "dev": "dev.tsv", "text": "title", "label": "stars"} | more))
    return read_own_task(folder / "own.yaml")


def write(path, its_task, rows):
    with transfer_writer(path, its_task) as writer:
        for texts, label in rows:
            writer.write(texts, label)
    assert writer.rows == len(rows)
    return path


ROWS = {
    "sst2": [(("a film",), 1), (("bad",), 0), (("no label",), None)],
    "mnli": [(("a b", "c"), 2), (("d", 'a " quote'), 0), (("é ü", "日本"), None)],
    "stsb": [(("a", "b"), 4.25), (("c", "d"), 0.1 + 0.2), (("e", "f"), None)],
    "rte": [(("a", "b"), 0), (("c", "d"), 1)],
}


@pytest.mark.parametrize("name", ROWS)
def test_rows_of_every_kind_of_task(tmp_path, name):
    path = write(tmp_path / "set.tsv", task(name), ROWS[name])
    assert list(read_transfer_set(path, task(name))) == [TransferRow(texts, label) for texts, label in ROWS[name]]


def test_the_file_is_lines_of_plain_cells(tmp_path):
    path = write(tmp_path / "set.tsv", task("sst2"), [(("a\tfilm \n of\u2028two  lines\x0b",), 1), (("lone \ud800",), None)])
    assert path.read_bytes() == b"sentence\tlabel\na film of two lines\tpositive\nlone ?\t\n"
    assert [row.texts for row in read_transfer_set(path, task("sst2"))] == [("a film of two lines",), ("lone ?",)]


def test_labels_in_the_words_of_the_tasks_files_and_of_d_bert(tmp_path):
    path = tmp_path / "set.tsv"
    path.write_text("label\tsentence\n1\ta\npositive\tb\n0\tc\nnegative\td\n")
    assert [row.label for row in read_transfer_set(path, task("sst2"))] == [1, 1, 0, 0]
    path.write_text("index\tquestion\tsentence\tlabel\tlogits_0\tlogits_1\n0\twhy\tso\t1\t-2.5\t3\n0\twho\the\tentailment\t1e1\t0\n")
    assert list(read_transfer_set(path, task("qnli"))) == [
        TransferRow(("why", "so"), 1, (-2.5, 3.0)), TransferRow(("who", "he"), 0, (10.0, 0.0))]
    path.write_text("is_duplicate\tquestion1\tquestion2\tlogits_1\tlogits_0\n0\ta\tb\t1\t2\n")
    assert list(read_transfer_set(path, task("qqp"))) == [TransferRow(("a", "b"), 0, (2.0, 1.0))]
    path.write_text("sentence1\tsentence2\tscore\na\tb\t5.03\n")
    assert list(read_transfer_set(path, task("stsb"))) == [TransferRow(("a", "b"), 5.03)]
    path.write_text("sentence1\tsentence2\tlogits_0\tlogits_1\na\tb\t1\t2\n")
    assert list(read_transfer_set(path, task("mrpc"))) == [TransferRow(("a", "b"), None, (1.0, 2.0))]


def test_the_greatest_number_of_fp32_is_one(tmp_path):
    path = tmp_path / "set.tsv"
    path.write_text("sentence\tlogits_0\tlogits_1\na\t3.40282347e+38\t-3.4028235e38\n")  # written with 9 and 8 digits, both above it
    assert [row.logits for row in read_transfer_set(path, task("sst2"))] == [(3.40282347e38, -3.4028235e38)]


def test_the_tasks_own_columns_are_read(tmp_path):
    path = tmp_path / "set.tsv"
    path.write_bytes(b"\xef\xbb\xbfQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n1\t7\t8\ta b\tc\r\n\r\n\r\n")
    assert list(read_transfer_set(path, task("mrpc"))) == [TransferRow(("a b", "c"), 1)]


def test_a_class_that_is_called_by_a_number_is_not_the_class_of_that_number(tmp_path):
    its_task = own_task(tmp_path / "own", ["1", "2", "5"])
    path = write(tmp_path / "set.tsv", its_task, [(("a",), 2), (("b",), 0)])
    assert path.read_text() == "sentence\tlabel\na\t5\nb\t1\n"
    assert [row.label for row in read_transfer_set(path, its_task)] == [2, 0]
    path.write_text("title\tstars\na\t2\n")
    assert [row.label for row in read_transfer_set(path, its_task)] == [1]
    path.write_text("sentence\tlabel\na\t0\n")
    with pytest.raises(UserError, match=r"line 2: label '0' is none of own's \(1, 2, 5\)"):
        list(read_transfer_set(path, its_task))


def test_what_could_not_be_read_again_is_not_written(tmp_path):
    for texts, label in [(("",), 0), ((" \t",), 0), (("a", "b"), 0), (("a",), 2), (("a",), -1)]:
        with pytest.raises(ValueError, match=r"texts of|label"):
            write(tmp_path / "set.tsv", task("sst2"), [(("fine",), 0), (texts, label)])
    with pytest.raises(ValueError, match="finite"):
        write(tmp_path / "set.tsv", task("stsb"), [(("a", "b"), float("nan"))])
    assert list(tmp_path.iterdir()) == []
    odd = own_task(tmp_path / "own", ["good", " good "])
    with pytest.raises(UserError, match="a class is called ' good '"):
        write(tmp_path / "set.tsv", odd, [])


def test_the_hash_is_of_the_words_and_of_which_text_they_are_in():
    hashes = [text_hash(texts) for texts in (("a b",), ("a", "b"), ("ab",), ("a b", ""), ("A b",))]
    assert len(set(hashes)) == len(hashes) and all(len(one) == 16 and int(one, 16) >= 0 for one in hashes)
    assert text_hash(("a\tfilm ", "b\n")) == text_hash((plain_text("a\tfilm "), "b")) == text_hash(("a film", "b"))
    assert text_hash(("a film",)) == "a9d58747a985eea2"


def test_which_columns_hold_texts(tmp_path):
    assert text_columns(task("qnli")) == ("question", "sentence")
    assert text_columns(own_task(tmp_path / "own", ["a", "b"])) == ("title",)
    with pytest.raises(UserError, match="SQuAD"):
        text_columns(task("squad"))
