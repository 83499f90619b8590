"""Whatever is wrong with a transfer set is one line with its file and line."""

import pytest

from dataset.errors import UserError
from evaluation.tasks.table import select_tasks
from task_distillation.transfer_set import read_transfer_set, transfer_writer

HEAD = "sentence\tlabel\tlogits_0\tlogits_1\n"
BAD = {
    "no file": ("sst2", None, ": No such file"),
    "nothing": ("sst2", "", ": an empty transfer set"),
    "a byte order mark": ("sst2", "\ufeff", ": an empty transfer set"),
    "a header": ("sst2", HEAD, ": an empty transfer set"),
    "a header and empty lines": ("sst2", HEAD + "\n\r\n", ": an empty transfer set"),
    "no text column": ("sst2", "text\tlabel\na\t1\n", ", line 1: found columns 'text, label' and no 'sentence'; SST-2 needs sentence"),
    "one text of two": ("qqp", "question1\tlabel\na\t1\n", ", line 1: found columns 'question1, label' and no 'sentence1'; QQP needs "
                        r"sentence1, sentence2 \(or question1, question2\)"),
    "CoLA's file without header": ("cola", "gj04\t1\t\tA sentence .\n", ", line 1: .* no 'sentence'"),
    "a column twice": ("sst2", "sentence\tsentence\na\tb\n", ", line 1: two columns are called 'sentence'"),
    "a label twice": ("sst2", "sentence\tlabel\tlabel\na\t1\t0\n", ", line 1: two columns are called 'label'"),
    "too few logits": ("mnli", "sentence1\tsentence2\tlogits_0\tlogits_1\na\tb\t1\t2\n", ", line 1: found logits_0, logits_1; MNLI has 3"),
    "logits from 1": ("sst2", "sentence\tlogits_1\tlogits_2\na\t1\t2\n", ", line 1: found logits_1, logits_2; SST-2 has 2 outputs"),
    "a column too few": ("sst2", HEAD + "a\t1\t1\t2\nb\t1\t2\n", ", line 3: found 3 columns, expected 4"),
    "a column too many": ("sst2", HEAD + "a\tb\t1\t1\t2\n", ", line 2: found 5 columns, expected 4"),
    "an empty line between": ("sst2", HEAD + "a\t1\t1\t2\n\nb\t1\t1\t2\n", ", line 3: found 1 columns, expected 4"),
    "an empty line first": ("sst2", "\n" + HEAD, ", line 1: found columns '' and no 'sentence'"),
    "an empty text": ("sst2", HEAD + " \t1\t1\t2\n", ", line 2: nothing under 'sentence'"),
    "an empty second text": ("rte", "sentence1\tsentence2\na\tb\nc\t\n", ", line 3: nothing under 'sentence2'"),
    "a label out of range": ("sst2", HEAD + "a\t2\t1\t2\n", r", line 2: label '2' is none of SST-2's \(0, 1, negative, positive\)"),
    "a number out of range": ("qnli", "sentence1\tsentence2\tlabel\na\tb\t2\n", ", line 2: label '2' is none of QNLI's"),
    "a score that is none": ("stsb", "sentence1\tsentence2\tscore\na\tb\tgood\n", ", line 2: 'good' under 'score' is not a finite number"),
    "an infinite logit": ("sst2", HEAD + "a\t1\tinf\t2\n", ", line 2: 'inf' under 'logits_0' is not a finite number"),
    "a logit beyond fp32": ("sst2", HEAD + "a\t1\t1e300\t2\n", ", line 2: '1e300' under 'logits_0' is not a finite number in fp32"),
    "a score beyond fp32": ("stsb", "sentence1\tsentence2\tscore\na\tb\t-3.5e38\n", ", line 2: '-3.5e38' under 'score' is not a finite"),
    "a number of MNLI's": ("mnli", "sentence1\tsentence2\tlabel\na\tb\tneutral\na\tb\t1\n", r", line 3: label '1': programs number the "
                           r"classes of MNLI in different orders; their names \(entailment, neutral, contradiction\) would work"),
    "a missing logit": ("sst2", HEAD + "a\t1\t1\t\n", ", line 2: '' under 'logits_1' is not a finite number"),
    "an underscore": ("sst2", HEAD + "a\t1\t1_0\t2\n", ", line 2: '1_0' under 'logits_0' is not a finite number"),
}


@pytest.mark.parametrize("case", BAD)
def test_it_is_one_line_with_file_and_line(tmp_path, case):
    name, content, message = BAD[case]
    path = tmp_path / "set.tsv"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=message) as caught:
        list(read_transfer_set(path, select_tasks([name])[0]))
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_bytes_that_are_no_text(tmp_path):
    path = tmp_path / "set.tsv"
    path.write_bytes(b"sentence\tlabel\na\t1\n\xff\t1\n")
    with pytest.raises(UserError, match="line 3: not UTF-8"):
        list(read_transfer_set(path, select_tasks(["sst2"])[0]))


def test_good_rows_come_before_the_bad_one(tmp_path):
    path = tmp_path / "set.tsv"
    path.write_text("sentence\tlabel\ngood\t1\nbad\n")
    rows = read_transfer_set(path, select_tasks(["sst2"])[0])
    assert next(rows).texts == ("good",)
    with pytest.raises(UserError, match="line 3"):
        next(rows)


def test_an_error_leaves_what_was_there(tmp_path):
    path = tmp_path / "set.tsv"
    path.write_text("before")
    with pytest.raises(UserError, match="halfway"), transfer_writer(path, select_tasks(["sst2"])[0]) as writer:
        writer.write(("a",), 1)
        raise UserError("halfway")
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written(tmp_path):
    with pytest.raises(UserError, match="cannot be written"), transfer_writer(tmp_path / "none" / "set.tsv", select_tasks(["sst2"])[0]):
        pass
