"""Exported students answer as the student does, for rows of any number and width, in a process that has none of our code."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from task_students_case import MNLI, SST2, STSB, make_student

from dataset.errors import UserError
from task_distillation.serving.command import main
from task_distillation.serving.formats import FORMATS
from task_distillation.serving.recurrent import kept_whole
from task_distillation.students.build import encode
from task_distillation.students.folder import load_student, save_student
from task_distillation.students.part import collate_parts

STUDENTS = {
    "bilstm": (SST2, {"student": "bilstm"}), "siamese": (MNLI, {"student": "siamese_bilstm", "cell": "gru"}),
    "pairs": (STSB, {"student": "bilstm", "cell": "gru"}), "kim_cnn": (SST2, {"student": "kim_cnn"}),
    "encoder": (SST2, {"student": "encoder"}), "encoder_of_pairs": (MNLI, {"student": "encoder"}),
}
QUICK = ("bilstm", "siamese")
CASES = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in STUDENTS]


def save(folder: Path, name: str) -> Path:
    task, flags = STUDENTS[name]
    student, tokenizer = make_student(folder, task, **flags)
    (folder / "student").mkdir()
    save_student(folder / "student", student, tokenizer)
    return folder / "student"


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Name of a student -> (its folder, what `export` wrote); each made once."""
    made = {}

    def export(name):
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            made[name] = save(folder, name), folder / "served"
            assert main([str(made[name][0]), "--output_dir", str(made[name][1])]) == 0
        return made[name]

    return export


def rows_of(columns: int) -> list[list[str]]:
    """Rows of 1 to 40 words; more than a student of 32 tokens reads."""
    words = ["good", "film", "xyzzy", "the", "[MASK]", "plot"]
    first = [" ".join(words[at % len(words)] for at in range(count, 2 * count)) for count in (4, 1, 40, 9, 2)]
    return [first, first[::-1]][:columns]


@pytest.mark.parametrize("name", CASES)
def test_programs_answer_as_the_student_for_any_number_and_width_of_rows(exported, name):
    import onnxruntime

    folder, served = exported(name)
    loaded = load_student(folder)
    tokens = encode(loaded.config, loaded.tokenizer, rows_of(loaded.config.columns))
    session = onnxruntime.InferenceSession(str(served / "student.onnx"))
    programs = [torch.export.load(served / "student.pt2").module(), torch.jit.load(served / "student.torchscript"),
                lambda *inputs: torch.from_numpy(session.run(["logits"], {one.name: tensor.numpy() for one, tensor in zip(
                    session.get_inputs(), inputs, strict=True)})[0])]
    for chosen in ([0], [1], [2], [3, 4], [0, 1, 2, 3, 4], [2, 0] * 20):
        parts = collate_parts(tokens, np.array(chosen), loaded.module.pad_token_id)
        inputs = [tensor for part in parts for tensor in part if tensor is not None]
        with torch.no_grad():
            expected = loaded.module(parts)
            for program in programs:
                assert torch.allclose(program(*inputs), expected, rtol=0, atol=1e-6)


def readme_programs(served: Path) -> dict[str, str]:
    """Format -> the README's Python."""
    return dict(re.findall(r"## (\w+)\n\n```python\n(.*?)```", (served / "README.md").read_text(), flags=re.DOTALL))


@pytest.mark.parametrize(("name", "formats"), [
    ("siamese", ("onnx",)), *(pytest.param(name, tuple(FORMATS), marks=pytest.mark.slow) for name in STUDENTS)])
def test_the_readmes_programs_run_beside_their_files_and_import_nothing_of_ours(exported, name, formats):
    folder, served = exported(name)
    blocks = readme_programs(served)
    assert blocks.keys() == set(FORMATS)
    ours = ("task_distillation", "transformers", "evaluation", "dataset", *(["torch"] if formats == ("onnx",) else []))
    known = f"\nimport sys\nprint(sum(name in sys.modules for name in {ours}))"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", "\n".join(blocks[one] for one in formats) + known], cwd=served,
                          env=environment, capture_output=True, text=True, check=True)
    *answers, imported = map(json.loads, done.stdout.strip().splitlines())
    assert imported == 0
    loaded = load_student(folder)
    columns = [["a good film", "dull"], ["the film is good", "what fun"]][: loaded.config.columns]
    tokens = encode(loaded.config, loaded.tokenizer, columns)
    with torch.no_grad():
        expected = loaded.module(collate_parts(tokens, np.arange(2), loaded.module.pad_token_id)).numpy()
    assert len(answers) == len(formats) and all(np.abs(np.array(answer) - expected).max() < 1e-6 for answer in answers)


@pytest.mark.parametrize("form", FORMATS)
def test_the_readmes_programs_take_texts_without_a_token(exported, form, monkeypatch):
    """Alone and beside others."""
    folder, served = exported("bilstm")
    loaded, code = load_student(folder), readme_programs(served)[form]
    monkeypatch.chdir(served)
    for texts in (["a good film", "dull"], ["", " "], ["", "good film", " "]):
        names = {}
        exec(code.replace('read(["a good film", "dull"])', f"read({texts!r})"), names)
        parts = collate_parts(encode(loaded.config, loaded.tokenizer, [texts]), np.arange(len(texts)), 0)
        with torch.no_grad():
            expected = loaded.module(parts).numpy()
        assert all(np.array_equal(found, wanted) for found, wanted in zip(names["inputs"], parts[0][:2], strict=True))
        assert names["logits"].shape == expected.shape and np.abs(names["logits"] - expected).max() < 1e-6


@pytest.mark.parametrize("name", QUICK)
def test_recurrent_layers_are_one_operator_and_no_loop(exported, name):
    """A loop over words would hold for one width, or run each word from Python."""
    import onnx

    _, served = exported(name)
    kind = STUDENTS[name][1].get("cell", "lstm")
    layers = 2 * (1 if name == "bilstm" else 2)
    program = torch.export.load(served / "student.pt2")
    assert sum(str(node.target) == f"aten.{kind}.input" for node in program.graph.nodes) == layers
    assert sum(node.op_type == kind.upper() for node in onnx.load(served / "student.onnx").graph.node) == layers


def test_torchs_own_kernels_are_back_afterwards():
    before = [dict(operator.py_kernels) for operator in (torch.ops.aten.lstm.input, torch.ops.aten.gru.input)]
    with pytest.raises(ZeroDivisionError), kept_whole():
        assert torch.ops.aten.lstm.input.py_kernels != before[0] and torch.ops.aten.gru.input.py_kernels != before[1]
        raise ZeroDivisionError
    assert before == [operator.py_kernels for operator in (torch.ops.aten.lstm.input, torch.ops.aten.gru.input)]


def test_what_was_made_is_told(exported):
    _, served = exported("bilstm")
    record = json.loads((served / "serving.json").read_text())
    assert {path.name for path in served.iterdir()} == {"student.pt2", "student.torchscript", "student.onnx", "tokenizer.json", "README.md",
                                                        "serving.json"}
    assert record["formats"].keys() == set(FORMATS) and record["failed"] == {}
    for found in record["formats"].values():
        assert found["bytes"] == (served / found["file"]).stat().st_size and 0 <= found["max_difference"] < 1e-5
    assert record["versions"]["torch"] == torch.__version__ and record["inputs"] == ["ids", "lengths"]
    assert record["outputs"] == ["negative", "positive"] and len(set(record["checked"]["widths"])) > 2


@pytest.fixture
def saved(tmp_path):
    return save(tmp_path, "bilstm")


def export(student: Path, *more: str, formats: str = "torchscript") -> int:
    return main([str(student), "--formats", formats, "--output_dir", str(student.parent / "served"), *more])


def test_a_program_that_differs_is_an_error_and_leaves_nothing(saved, monkeypatch):
    from task_distillation.serving import programs

    right = programs.open_program

    def wrong(name, path):
        program = right(name, path)
        return lambda inputs: program(inputs) + (3e-5 if name == "torchscript" and inputs[0].shape[0] == 7 else 0)

    monkeypatch.setattr(programs, "open_program", wrong)
    with pytest.raises(UserError, match=r"^torchscript: its logits differ from the student's by 3e-05 on 7 rows"):
        export(saved, formats="onnx,torchscript")
    assert {path.name for path in saved.parent.iterdir()} == {"student"}


def test_numbers_that_are_none_count_as_a_difference(saved, monkeypatch):
    from task_distillation.serving import programs

    monkeypatch.setattr(programs, "open_program", lambda name, path: lambda inputs: np.full((len(inputs[0]), 2), np.nan, np.float32))
    with pytest.raises(UserError, match="differ from the student's by nan"):
        export(saved)


def test_a_format_that_fails_is_one_line_and_loses_no_other(saved, monkeypatch, capsys):
    def fail(*arguments, **settings):
        raise RuntimeError("not on\nthis torch")

    monkeypatch.setattr(torch.onnx, "export", fail)
    assert export(saved, formats="onnx,torchscript") == 1
    assert capsys.readouterr().err == "onnx could not be made: RuntimeError: not on this torch\n"
    served = saved.parent / "served"
    record = json.loads((served / "serving.json").read_text())
    assert record["failed"] == {"onnx": "RuntimeError: not on this torch"} and record["formats"].keys() == {"torchscript"}
    assert not (served / "student.onnx").exists() and "student.onnx" not in (served / "README.md").read_text()
    monkeypatch.undo()
    assert export(saved, formats="onnx,torchscript") == 0, "what failed is tried again"
    assert (served / "student.onnx").is_file()


def test_where_nothing_can_be_made_nothing_is_written(saved, monkeypatch):
    from task_distillation.serving import command

    monkeypatch.setitem(command.FORMATS, "onnx", replace(FORMATS["onnx"], packages=("onnx", "no_such_runtime")))
    with pytest.raises(UserError, match="onnx could not be made: it needs no_such_runtime: pip install no_such_runtime"):
        export(saved, formats="onnx")
    assert not (saved.parent / "served").exists()


def test_a_second_export_does_nothing_or_needs_to_be_told(saved, capsys):
    served = saved.parent / "served"
    assert export(saved) == 0
    with pytest.raises(UserError, match="or in other formats; --overwrite replaces it"):
        export(saved, formats="onnx")
    before = (served / "student.torchscript").stat().st_mtime_ns
    assert export(saved) == 0 and "nothing to do" in capsys.readouterr().out
    assert (served / "student.torchscript").stat().st_mtime_ns == before
    student, tokenizer = make_student(saved.parent, seed=1)
    save_student(saved, student, tokenizer)
    with pytest.raises(UserError, match="has an export of another student"):
        export(saved)
    assert export(saved, "--overwrite") == 0
    assert (served / "student.torchscript").stat().st_mtime_ns != before


def test_a_folder_of_somebody_else_is_never_replaced(saved):
    served = saved.parent / "served"
    served.mkdir()
    (served / "thesis.tex").write_text("years of work")
    for more in ((), ("--overwrite",)):
        with pytest.raises(UserError, match="is there and no export of ours"):
            export(saved, *more)
    assert (served / "thesis.tex").read_text() == "years of work"


def test_mistakes_are_one_line(saved, tmp_path):
    for student, formats, message in [
        (saved, "onxx", "--formats onxx: no such format; did you mean onnx"),
        (saved, "", "--formats of none"),
        (tmp_path / "nothing", "onnx", "no such folder"),
        (tmp_path, "onnx", "no config.json"),
    ]:
        with pytest.raises(UserError, match=message):
            export(student, formats=formats)
    (saved / "model.safetensors").unlink()
    with pytest.raises(UserError, match="no weights"):
        export(saved)
