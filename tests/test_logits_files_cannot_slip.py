"""Logits in a file of their own: both formats hold the same numbers, and no join with another set of texts goes unseen."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataset.errors import UserError
from dataset.files import file_hash
from evaluation.tasks.table import select_tasks
from task_distillation import logits_file
from task_distillation.logits_file import LogitsChunk, join, logits_writer, read_logits
from task_distillation.transfer_set import TransferRow, read_transfer_set, text_hash, transfer_writer

SST2, STSB, MNLI = select_tasks(["sst2,stsb,mnli"])
TEXTS = [(f"text number {number}",) for number in range(7)]


def values_of(rows: int, outputs: int, seed: int = 0) -> np.ndarray:
    """fp32 of very different sizes."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(rows, outputs)) * 10.0 ** rng.integers(-30, 30, (rows, outputs))).astype(np.float32)


def write(path, task, texts, values, cut=3):
    """In two chunks, the first of `cut` rows."""
    with logits_writer(path, task) as writer:
        for first, last in ((0, cut), (cut, len(texts))):
            writer.write(LogitsChunk(first, [text_hash(row) for row in texts[first:last]], values[first:last]))
    return path


def read(path, task):
    chunks = list(read_logits(path, task))
    return [text for chunk in chunks for text in chunk.hashes], np.concatenate([chunk.values for chunk in chunks])


@pytest.mark.parametrize("task", [SST2, STSB, MNLI], ids=lambda task: task.name)
def test_parquet_and_tsv_hold_the_same_numbers_to_the_bit(task, tmp_path, monkeypatch):
    monkeypatch.setattr(logits_file, "CHUNK_ROWS", 300)  # so that several are read
    texts = [(f"text {number}",) for number in range(1000)]
    values = values_of(1000, task.outputs)
    for name in ("logits.parquet", "logits.tsv"):
        hashes, found = read(write(tmp_path / name, task, texts, values), task)
        assert hashes == [text_hash(row) for row in texts]
        assert found.dtype == np.float32 and found.tobytes() == values.tobytes()


def test_the_columns_are_those_that_were_promised(tmp_path):
    table = pq.read_table(write(tmp_path / "logits.parquet", MNLI, TEXTS, values_of(7, 3)))
    assert table.schema == pa.schema([("row", pa.int64()), ("text_hash", pa.string()), *((f"logits_{n}", pa.float32()) for n in range(3))])
    assert table["row"].to_pylist() == list(range(7))
    head = write(tmp_path / "logits.tsv", STSB, TEXTS, values_of(7, 1)).read_text().split("\n")[0]
    assert head == "row\ttext_hash\tlogits_0"


def test_a_file_that_fails_on_the_way_never_has_its_name(tmp_path):
    for name in ("logits.parquet", "logits.tsv"):
        with pytest.raises(ZeroDivisionError), logits_writer(tmp_path / name, SST2) as writer:
            writer.write(LogitsChunk(0, ["a"], np.zeros((1, 2), np.float32)))
            raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


def drop(rows):
    del rows[4]


def swap(rows):
    rows[2], rows[5] = rows[5], rows[2]


def repeat(rows):
    rows.insert(3, rows[3])


def edit_text(rows):
    rows[5] = TransferRow(("text number 5!",))


def lose_last(rows):
    del rows[-1]


def lose_all(rows):
    del rows[:]


def one_more(rows):
    rows.append(TransferRow(("another",)))


# What happens to the texts -> the row of the logits file that shows it first.
SLIPS = {drop: 4, swap: 2, repeat: 4, edit_text: 5, lose_last: 6, lose_all: 0, one_more: 7}


@pytest.mark.parametrize("slip", SLIPS, ids=lambda slip: slip.__name__)
@pytest.mark.parametrize("name", ["logits.parquet", "logits.tsv"])
def test_texts_that_slipped_are_named_by_file_and_row(slip, name, tmp_path):
    path = write(tmp_path / name, SST2, TEXTS, values_of(7, 2))
    rows = [TransferRow(texts, label=1) for texts in TEXTS]
    joined = list(join(rows, path, SST2))
    assert [row.logits for row in joined] == [tuple(map(float, row)) for row in values_of(7, 2)] and {row.label for row in joined} == {1}
    slip(rows)
    with pytest.raises(UserError) as error:
        list(join(rows, path, SST2))
    said = str(error.value)
    assert said.startswith(str(path)) and f"row {SLIPS[slip]}" in said and "\n" not in said


# What happens to the lines of a TSV of logits (the header is line 0) -> what is said.
BROKEN = {
    "row dropped": (lambda lines: lines.pop(4), "row 3 (line 5): its number is 4"),
    "rows swapped": (lambda lines: lines.insert(2, lines.pop(5)), "row 1 (line 3): its number is 4"),
    "row twice": (lambda lines: lines.insert(3, lines[3]), "row 3 (line 5): its number is 2"),
    "not a number": (lambda lines: lines.__setitem__(4, lines[4].rpartition("\t")[0] + "\tx"), "row 3 (line 5)"),
    "not finite": (lambda lines: lines.__setitem__(4, lines[4].rpartition("\t")[0] + "\tnan"), "row 3 (line 5): logits that are not all"),
    "beyond fp32": (lambda lines: lines.__setitem__(4, lines[4].rpartition("\t")[0] + "\t1e39"), "row 3 (line 5): logits that are not all"),
    "an underscore": (lambda lines: lines.__setitem__(4, lines[4].rpartition("\t")[0] + "\t1_0"), "row 3 (line 5): '3\\t"),
    "ragged": (lambda lines: lines.__setitem__(4, lines[4] + "\t1"), "row 3 (line 5): found 5 columns, expected 4"),
    "no hash": (lambda lines: lines.__setitem__(0, lines[0].replace("text_hash", "hash")), "no 'text_hash'"),
    "of three classes": (lambda lines: lines.__setitem__(0, lines[0] + "\tlogits_2"), "SST-2 has 2 outputs"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_broken_tsv_is_named_by_line(fault, tmp_path):
    path = write(tmp_path / "logits.tsv", SST2, TEXTS, values_of(7, 2))
    change, told = BROKEN[fault]
    lines = path.read_text().splitlines()
    change(lines)
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError) as error:
        list(read_logits(path, SST2))
    assert str(error.value).startswith(str(path)) and told in str(error.value)


def test_a_tsv_with_a_byte_order_mark_is_read_and_one_that_lost_its_end_is_not(tmp_path):
    path = write(tmp_path / "logits.tsv", SST2, TEXTS, values_of(7, 2))
    whole = path.read_bytes()
    path.write_bytes(b"\xef\xbb\xbf" + whole)
    assert read(path, SST2)[1].tobytes() == values_of(7, 2).tobytes()
    for lost in (1, 2, 3):  # digits, so what is left are numbers
        path.write_bytes(whole[:-lost])
        with pytest.raises(UserError, match=r"logits.tsv, row 6 \(line 8\): no line end"):
            list(read_logits(path, SST2))


def test_a_bit_that_flips_in_parquet_changes_no_number_unseen(tmp_path):
    path = write(tmp_path / "logits.parquet", SST2, [(f"text {number}",) for number in range(400)], values_of(400, 2), cut=200)
    whole, random = path.read_bytes(), np.random.default_rng(0)
    hashes, values = read(path, SST2)
    seen = 0
    for at in random.integers(4, len(whole) - 1200, 80):  # what is before the footer
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << random.integers(8)]) + whole[at + 1 :])
        try:
            found = read(path, SST2)
        except UserError as error:
            assert str(error).startswith(str(path)) and "\n" not in str(error)
            seen += 1
        else:
            assert found[0] == hashes and found[1].tobytes() == values.tobytes()
    assert seen > 60


@pytest.mark.parametrize("name", ["logits.parquet", "logits.tsv"])
def test_beside_its_record_any_change_of_a_file_is_seen(name, tmp_path):
    path = write(tmp_path / name, SST2, TEXTS, values_of(7, 2))
    record = tmp_path / f"{name}.json"
    record.write_text(json.dumps({"identity": {}, "xxh3": file_hash(path)}))
    assert read(path, SST2)[1].tobytes() == values_of(7, 2).tobytes()
    whole = path.read_bytes()
    path.write_bytes(whole[:-2] + bytes([whole[-2] ^ 1]) + whole[-1:])  # another last digit, or no Parquet any more
    with pytest.raises(UserError, match=f"{name}: damaged or edited since {name}.json beside it was written"):
        list(read_logits(path, SST2))
    record.write_text("[]x")
    with pytest.raises(UserError, match=f"{name}.json: not what this command writes"):
        list(read_logits(path, SST2))


def test_broken_parquet_is_named_by_row(tmp_path):
    path = write(tmp_path / "logits.parquet", SST2, TEXTS, values_of(7, 2))
    table = pq.read_table(path)
    for change, told in (
        (lambda: table.take([0, 1, 2, 4, 3, 5, 6]), "row 3: its number is 4"),
        (lambda: table.take([0, 1, 3, 4, 5, 6]), "row 2: its number is 3"),
        (lambda: table.set_column(3, "logits_1", pa.array([0, 1, None, 3, 4, 5, 6], pa.float32())), "row 2: nothing under 'logits_1'"),
        (lambda: table.set_column(3, "logits_1", pa.array([0, 1, 2, 3, 4, np.inf, 6], pa.float32())), "row 5: logits that are not all"),
        (lambda: table.drop_columns(["logits_1"]), "SST-2 has 2 outputs"),
        (lambda: table.drop_columns(["row"]), "no 'row'"),
        (lambda: table.set_column(1, "text_hash", pa.array([[1]] * 7)), "not a Parquet file of logits"),
    ):
        pq.write_table(change(), path)
        with pytest.raises(UserError) as error:
            list(read_logits(path, SST2))
        assert str(error.value).startswith(str(path)) and told in str(error.value)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError, match="not a Parquet file of logits"):
        list(read_logits(path, SST2))
    for name, told in (("no.parquet", "No such file"), ("no.tsv", "No such file"), ("logits.csv", "logits.parquet or logits.tsv")):
        with pytest.raises(UserError, match=told):
            list(read_logits(tmp_path / name, SST2))


def test_logits_of_other_programs_numbers_are_read(tmp_path):
    """pandas writes 64-bit numbers and large strings."""
    path = write(tmp_path / "logits.parquet", SST2, TEXTS, values_of(7, 2))
    table = pq.read_table(path)
    wide = pa.schema([("row", pa.int32()), ("text_hash", pa.large_string()), ("logits_0", pa.float64()), ("logits_1", pa.float64())])
    pq.write_table(table.cast(wide), path)
    assert read(path, SST2)[1].tobytes() == values_of(7, 2).tobytes()


def test_a_transfer_set_and_its_logits_go_through_files(tmp_path):
    with transfer_writer(tmp_path / "set.tsv", STSB) as writer:
        for number in range(5):
            writer.write((f"one  {number}", "two\tthree"), number / 4)
    rows = list(read_transfer_set(tmp_path / "set.tsv", STSB))
    path = write(tmp_path / "logits.parquet", STSB, [row.texts for row in rows], values_of(5, 1), cut=2)
    joined = list(join(read_transfer_set(tmp_path / "set.tsv", STSB), path, STSB))
    assert [row.logits[0] for row in joined] == values_of(5, 1)[:, 0].tolist() and [row.label for row in joined] == [0, .25, .5, .75, 1]
