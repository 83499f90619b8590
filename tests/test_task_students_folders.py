"""A student's folder gives back what was saved; one that is not whole, and flags that make no student, are one line."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_glue
import torch
from task_students_case import MNLI, SST2, STSB, columns_of, make_student

from dataset.errors import UserError
from dataset.files import whole_folder
from evaluation.tasks.squad import SQUAD_1
from task_distillation.students.build import build_student, encode, make_tokenizer
from task_distillation.students.flags import StudentFlags
from task_distillation.students.folder import load_student, save_student
from task_distillation.students.part import collate_parts
from task_distillation.students.plan import plan_student

STUDENTS = [("bilstm", SST2, {"cell": "gru"}), ("siamese_bilstm", MNLI, {}), ("kim_cnn", STSB, {"filter_widths": (2, 6)}),
            ("encoder", SST2, {}), ("encoder", MNLI, {})]


def answers(student, tokenizer, task):
    rows = encode(student.config, tokenizer, columns_of(task))
    with torch.no_grad():
        return student(collate_parts(rows, np.arange(len(rows[0].lengths)), student.pad_token_id))


@pytest.mark.parametrize(("name", "task", "flags"), STUDENTS)
def test_a_saved_student_comes_back_to_the_bit(tmp_path, name, task, flags):
    student, tokenizer = make_student(tmp_path, task, student=name, **flags)
    with whole_folder(tmp_path / "saved") as partial:
        save_student(partial, student, tokenizer)
    assert not list((tmp_path / "saved").glob("*.bin"))
    loaded = load_student(tmp_path / "saved")
    assert torch.equal(answers(loaded.module, loaded.tokenizer, task), answers(student, tokenizer, task))
    assert not loaded.module.training
    assert loaded.config.to_json() == student.config.to_json() == loaded.module.config.to_json()
    assert loaded.config.task.label_names == task.label_names and loaded.config.task.outputs == task.outputs


@pytest.mark.parametrize("name", ["bilstm", "encoder"])
def test_given_weights_are_saved_in_fp32_in_the_place_of_the_modules(tmp_path, name):
    student, tokenizer = make_student(tmp_path, student=name)
    weights = {key: weight + 1 for key, weight in student.state_dict().items()}
    student.to(torch.bfloat16)
    folder = tmp_path / "saved"
    folder.mkdir()
    save_student(folder, student, tokenizer, weights)
    found = load_student(folder).module.state_dict()
    assert found.keys() == weights.keys() and all(torch.equal(found[key], weights[key]) for key in weights)
    assert next(student.parameters()).dtype == torch.bfloat16
    for wrong in ({**weights, "other": weights[next(iter(weights))]}, dict(list(weights.items())[1:])):
        with pytest.raises(ValueError, match="lack or have too many: "):
            save_student(folder, student, tokenizer, wrong)


def test_an_encoder_is_a_folder_of_transformers_with_the_tasks_classes_in_order(tmp_path):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    student, tokenizer = make_student(tmp_path, MNLI, student="encoder")
    with whole_folder(tmp_path / "saved") as partial:
        save_student(partial, student, tokenizer)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved").eval()
    assert [model.config.id2label[number] for number in range(3)] == list(MNLI.label_names)
    encoded = AutoTokenizer.from_pretrained(tmp_path / "saved")(*columns_of(MNLI), padding=True, return_tensors="pt")
    with torch.no_grad():
        assert torch.allclose(model(**encoded).logits, answers(student, tokenizer, MNLI), rtol=0, atol=1e-6)


def test_first_weights_come_from_the_seed_alone(tmp_path):
    states = []
    for seed, disturbance in ((3, 0), (3, 1), (4, 0)):
        torch.manual_seed(disturbance)
        before = torch.get_rng_state()
        states.append(make_student(tmp_path, seed=seed)[0].state_dict())
        assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not any(torch.equal(states[0][key], states[2][key]) for key in states[0])


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("students")
    for name, task in (("bilstm", SST2), ("encoder", SST2)):
        student, tokenizer = make_student(folder, task, student=name)
        (folder / f"saved_{name}").mkdir()
        save_student(folder / f"saved_{name}", student, tokenizer)
    return folder


def remove(name):
    return lambda folder: (folder / name).unlink()


def cut(name):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-9])


def change(**keys):
    def edit(folder):
        content = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(content | keys))
    return edit


def size(hidden):
    def edit(folder):
        content = json.loads((folder / "config.json").read_text())
        change(sizes=content["sizes"] | {"hidden_size": hidden})(folder)
    return edit


def infinite(folder):
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    weights["head.fc2.bias"][0] = torch.inf
    save_file(weights, folder / "model.safetensors")


def other_words(folder):
    plan = plan_student(StudentFlags(max_length=32), SST2)
    make_tokenizer(plan, ["other words"]).save(str(folder / "tokenizer.json"))


DAMAGE = [
    ("bilstm", remove("config.json"), "no config.json"),
    ("bilstm", remove("tokenizer.json"), "no tokenizer.json"),
    ("bilstm", remove("model.safetensors"), "no model.safetensors"),
    ("bilstm", cut("model.safetensors"), "model.safetensors: cannot be read"),
    ("bilstm", cut("config.json"), "config.json: not JSON"),
    ("bilstm", cut("tokenizer.json"), "tokenizer.json: not a tokenizer"),
    ("bilstm", infinite, "not finite"),
    ("bilstm", other_words, "embedding.trained.weight is"),
    ("bilstm", change(format_version=9), "format_version 9, this version reads 1"),
    ("bilstm", change(architecture="bilstn"), "did you mean bilstm?"),
    ("bilstm", change(sizes={}), "no 'embedding'"),
    ("bilstm", change(task={"name": "x", "kind": "classification", "label_names": ["one"]}), "1 label_names of a classification"),
    ("bilstm", change(columns=3), "columns 3"),
    ("bilstm", change(max_length=10**11), "max_length 100000000000, tokenizer.json cuts elsewhere"),
    ("bilstm", size(-9), "config.json: its sizes make no student"),
    ("bilstm", size(10**12), "config.json: its sizes make no student"),
    ("bilstm", size(10**7), "config.json and tokenizer.json make it (7, 20000000)"),
    ("encoder", change(num_attention_heads=0), "transformers cannot load it (ZeroDivisionError"),
    ("encoder", change(hidden_size="x"), "transformers cannot load it (Strict"),
    ("encoder", remove("tokenizer.json"), "no tokenizer"),
    ("encoder", remove("model.safetensors"), "no weights"),
    ("encoder", cut("model.safetensors"), "model.safetensors: cannot be read"),
    ("encoder", change(task_distillation=None), "a Hugging Face model that distil did not write"),
]


@pytest.mark.parametrize(("name", "damage", "message"), DAMAGE)
def test_a_folder_that_is_not_whole_is_one_line(saved, tmp_path, name, damage, message):
    folder = shutil.copytree(saved / f"saved_{name}", tmp_path / "copy")
    load_student(folder)
    damage(folder)
    with pytest.raises(UserError) as caught:
        load_student(folder)
    assert message in str(caught.value) and str(folder) in str(caught.value) and "\n" not in str(caught.value)


def test_no_folder_is_one_line(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        load_student(tmp_path / "nothing")


def make_encoders(folder):
    """Folders that are no encoder with its tokenizer."""
    gpt = folder / "gpt"
    gpt.mkdir()
    (gpt / "config.json").write_text(json.dumps({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}))
    bare = tiny_glue.make_model(folder / "bare")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (bare / name).unlink()
    short = tiny_glue.make_model(folder / "short")
    return {"gpt": gpt, "bare": bare, "short": short, "none": folder / "none"}


def test_flags_that_make_no_student_are_one_line(tmp_path):
    encoders = make_encoders(tmp_path)
    for task, flags, message in [
        (SST2, {"student": "siamese_bilstm"}, "SST-2 has one; --student bilstm would work"),
        (SST2, {"student": "encoder"}, "needs --student_path FOLDER"),
        (SST2, {"student": "encoder", "student_path": str(encoders["none"])}, "--student_path: .*no such folder"),
        (SST2, {"student": "encoder", "student_path": str(encoders["gpt"])}, "not an encoder"),
        (SST2, {"student": "encoder", "student_path": str(encoders["bare"])}, "no tokenizer"),
        (SST2, {"student": "encoder", "student_path": str(encoders["short"])}, "--max_length 128: the model .* has 64 positions"),
        (SQUAD_1, {}, "for classifications and regressions"),
        (SST2, {"hidden_size": 0}, "--hidden_size 0"),
        (SST2, {"dropout": 1.0}, "--dropout 1.0"),
        (SST2, {"vocab_size": 4}, "--vocab_size 4: 5 or more"),
        (MNLI, {"max_length": 2}, "--max_length 2: bilstm needs 3 or more"),
        (SST2, {"student": "kim_cnn", "filter_widths": (3, 3)}, "--filter_widths 3,3"),
        (SST2, {"student": "kim_cnn", "filter_widths": ()}, "--filter_widths"),
    ]:
        with pytest.raises(UserError, match=message):
            plan_student(StudentFlags(**flags), task)


def test_a_flag_that_the_student_has_no_use_for_is_told(tmp_path):
    notes = plan_student(StudentFlags(feature_maps=3, cell="gru", student_path="x"), SST2).notes
    assert notes == tuple(f"--{flag}: no effect: --student bilstm has no such thing" for flag in ("student_path x", "feature_maps 3"))


def test_the_encoders_tokenizer_must_fit_its_embeddings(tmp_path):
    folder = tiny_glue.make_model(tmp_path / "encoder")
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["vocab"]["beyond"] = 400
    (folder / "tokenizer.json").write_text(json.dumps(content))
    plan = plan_student(StudentFlags(student="encoder", student_path=str(folder), max_length=32), SST2)
    with pytest.raises(UserError, match="its tokenizer gives id 400, its model has 19 embeddings"):
        build_student(plan, make_tokenizer(plan, []), SST2, 0)


def test_plans_and_mistakes_need_no_torch(tmp_path):
    program = """
import sys
from evaluation.tasks.table import select_tasks
from task_distillation.students.flags import StudentFlags
from task_distillation.students.plan import plan_student
plan_student(StudentFlags(), select_tasks(["sst2"])[0])
import task_distillation.serving.command
print(sorted({"torch", "transformers"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
