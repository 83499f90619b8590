"""Neither the width of a batch, nor what stands in its padding, nor the rows beside it change what a student says of a row."""

import pytest
import torch
from task_students_case import MNLI, SST2, STSB, columns_of, make_student

from task_distillation.students.build import encode
from task_distillation.students.part import Part, collate_parts

STUDENTS = [("bilstm", SST2, {}), ("bilstm", MNLI, {"cell": "gru"}), ("siamese_bilstm", MNLI, {}),
            ("siamese_bilstm", STSB, {"cell": "gru"}), ("kim_cnn", SST2, {}), ("kim_cnn", MNLI, {}),
            ("encoder", SST2, {}), ("encoder", STSB, {})]


@pytest.mark.parametrize(("name", "task", "flags"), STUDENTS)
def test_a_row_has_one_answer_in_every_batch(tmp_path, name, task, flags):
    student, tokenizer = make_student(tmp_path, task, student=name, **flags)
    student.double()
    rows = encode(student.config, tokenizer, columns_of(task))
    count = len(rows[0].lengths)
    assert len(rows) == (2 if name == "siamese_bilstm" else 1) and len({int(length) for length in rows[0].lengths}) > 2
    with torch.no_grad():
        together = student(collate_parts(rows, range_of(count), student.pad_token_id))
        assert together.shape == (count, task.outputs)
        for row in range(count):
            alone = collate_parts(rows, range_of(row, row + 1), student.pad_token_id)
            assert torch.allclose(student(alone), together[row], rtol=0, atol=1e-6)
            assert torch.allclose(student(tuple(padded(part, row + 1) for part in alone)), together[row], rtol=0, atol=1e-6)
    assert len({tuple(answer) for answer in together.tolist()}) == count, "rows that all get one answer would prove nothing"


def range_of(start, stop=None):
    return torch.arange(*((start,) if stop is None else (start, stop))).numpy()


def padded(part: Part, more: int) -> Part:
    """`part` with `more` columns of ids of real words behind it."""
    ids = torch.cat([part.ids, torch.full((len(part.ids), more), 5)], dim=1)
    segments = None if part.segments is None else torch.nn.functional.pad(part.segments, (0, more))
    return Part(ids, part.lengths, segments)
