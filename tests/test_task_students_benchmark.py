"""benchmarks/task_students.py: a teacher, a student and its programs measured in turns in one process."""

import json

import pytest
import tiny_glue
from task_students_case import MNLI, make_student

from benchmarks.task_students import main
from dataset.errors import UserError
from task_distillation.serving.command import main as export
from task_distillation.students.folder import save_student


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark")
    student, tokenizer = make_student(folder, MNLI, student="siamese_bilstm")
    (folder / "student").mkdir()
    save_student(folder / "student", student, tokenizer)
    export([str(folder / "student"), "--formats", "torchscript,onnx", "--output_dir", str(folder / "served")])
    return [str(tiny_glue.make_model(folder / "teacher")), str(folder / "student"), str(folder / "served")]


def test_every_model_and_program_is_measured_and_told(folders, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("benchmarks.task_students.TURN_SECONDS", 0.001)
    main([*folders, "--length", "8", "--batches", "1", "3", "--rounds", "2", "--json", str(tmp_path / "found.json")])
    found = json.loads((tmp_path / "found.json").read_text())
    names = ["teacher", "student", "served torchscript", "served onnx"]
    assert [one["name"] for one in found["models"]] == names
    sizes = {one["name"]: (one["parameters"], one["file_bytes"]) for one in found["models"]}
    assert sizes["student"][0] == sizes["served onnx"][0] < sizes["teacher"][0] and len({size for _, size in sizes.values()}) == 4
    assert all(one["seconds"].keys() == {"1", "3"} and all(len(turns) == 2 and min(turns) > 0 for turns in one["seconds"].values())
               for one in found["models"])
    lines = capsys.readouterr().out.splitlines()
    assert [line[:20].strip() for line in lines[3:7]] == names
    ratio = sizes["teacher"][0] / sizes["student"][0]
    assert f"{ratio:.1f}" in lines[4].split()


def test_mistakes_are_one_line(folders, tmp_path):
    teacher, student, served = folders
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "serving.json").write_text("{}")
    for arguments, message in [
        ([], "give a teacher's folder and a student's, or --shapes alone"),
        ([teacher], "give a teacher's folder and a student's, or --shapes alone"),
        ([student, teacher], "no Hugging Face encoder; give the teacher's folder first"),
        ([teacher, str(tmp_path / "none")], "no such folder"),
        ([teacher, str(broken)], "serving.json: not an export's record"),
        ([teacher, served, "--rounds", "1"], "--rounds from 2"),
    ]:
        with pytest.raises(UserError, match=message):
            main(arguments)
