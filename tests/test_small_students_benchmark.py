"""The benchmark of small students: recipes that can be compared, the same training for the row of labels, and gains over that row."""

import json

import numpy as np
import pytest
import torch
from launching import ROOT
from tiny_glue import make_model, write_sst2

from benchmarks import small_students
from dataset.errors import UserError
from evaluation.fine_tuning.settings import FineTuningSettings
from evaluation.fine_tuning.training import fine_tune
from evaluation.tasks.table import load_task, select_tasks
from pretraining.args.flag_set import parse_flags
from task_distillation.distilling.flags import TaskArgs
from task_distillation.recipe import summary
from task_distillation.recipe.command import main as recipe
from task_distillation.students.build import build_student, encode, make_tokenizer
from task_distillation.students.flags import StudentFlags
from task_distillation.students.folder import save_student
from task_distillation.students.part import collate_parts
from task_distillation.students.plan import plan_student

RECIPES = ROOT / "benchmarks" / "task_recipes"
SCORES = {"labels": (0.8, 0.82, 0.84), "lite": (0.86, 0.86, 0.86), "heavy": (0.79, 0.80, 0.81)}


@pytest.mark.parametrize("task", ["sst2", "rte"])
def test_the_recipes_are_understood_and_train_alike(task, tmp_path, capsys):
    names = ["lite", "heavy"]
    assert list(small_students.read_recipes([RECIPES / task / f"{name}.yaml" for name in names])) == names
    for name in names:
        recipe([str(RECIPES / task / f"{name}.yaml"), "--teacher_path", "teacher", "--glue_dir", "glue", "--print_commands",
                "--output_dir", str(tmp_path / name)])
    assert capsys.readouterr().out.count(" distil ") == 6


@pytest.mark.parametrize(("old", "new", "said"), [
    ("hidden_size: 150", "hidden_size: 300", "distil is not that of"),
    ("num_train_epochs: 1", "num_train_epochs: 2", "teach is not that of"),
    ("SST-2", "RTE", "another task_name"), ("[1, 2, 3]", "[1, 2]", "another seeds")])
def test_what_cannot_be_compared_is_refused(tmp_path, old, new, said):
    text = (RECIPES / "sst2" / "heavy.yaml").read_text()
    assert old in text
    (tmp_path / "heavy.yaml").write_text(text.replace(old, new))
    with pytest.raises(UserError, match=said):
        small_students.read_recipes([RECIPES / "sst2" / "lite.yaml", tmp_path / "heavy.yaml"])


def test_every_row_is_trained_and_its_gain_told(tmp_path, monkeypatch, capsys):
    steps = []

    def run_step(*words):
        steps.append([*map(str, words)])
        if words[0] == "teach":
            (tmp_path / "teacher").mkdir()
            (tmp_path / "teacher" / "teach.json").write_text(json.dumps({"metrics": {"accuracy": 0.9}}))

    def student_score(run, task):
        name, seed = run.relative_to(tmp_path).parts[0], int(run.name[-1])
        return {"metrics": {task.headline: SCORES[name][seed - 1]}}

    write_sst2(tmp_path / "g")
    answers = np.ones(dev_rows := len(load_task(select_tasks(["sst2"])[0], tmp_path / "g").dev["dev"]), np.int64)
    monkeypatch.setattr(small_students, "teacher_answers", lambda *_: answers)
    monkeypatch.setattr(small_students, "student_answers", lambda *_: np.arange(dev_rows) % 4 > 0)
    monkeypatch.setattr(summary, "last_marker", lambda run: run)
    monkeypatch.setattr(small_students, "run_step", run_step)
    monkeypatch.setattr(summary, "student_score", student_score)
    paths = [str(RECIPES / "sst2" / f"{name}.yaml") for name in ("lite", "heavy")]
    small_students.main([*paths, "--model", "m", "--glue_dir", str(tmp_path / "g"), "--output_dir", str(tmp_path)])
    assert [words[0] for words in steps] == ["teach", "distil", "distil", "distil", "recipe", "recipe"]
    plain = [parse_flags(TaskArgs, words[1:]) for words in steps[1:4]]
    assert [args.run.seed for args in plain] == [1, 2, 3]
    assert {args.objective.method for args in plain} == {"labels"}
    assert not any(args.data.transfer_set or args.data.logits for args in plain)
    assert {(args.student.hidden_size, args.budget.max_steps) for args in plain} == {(150, 6000)}
    assert [words[words.index("--teacher_path") + 1] for words in steps[4:]] == [str(tmp_path / "teacher")] * 2
    assert capsys.readouterr().out.splitlines()[1:] == [
        "SST-2, accuracy, teacher 90.0", "", "| student of | mean | deviation | gain | seeds | agrees with teacher |",
        "|:--|--:|--:|--:|:--|--:|",
        "| labels | 82.0 | 2.0 |  | 80.0, 82.0, 84.0 | 75.0 |", "| lite | 86.0 | 0.0 | +4.0 | 86.0, 86.0, 86.0 | 75.0 |",
        "| heavy | 80.0 | 1.0 | -2.0 | 79.0, 80.0, 81.0 | 75.0 |"]


def test_answers_are_those_that_the_scores_count(tmp_path):
    write_sst2(tmp_path / "glue")
    data = load_task(select_tasks(["sst2"])[0], tmp_path / "glue")
    labels = np.array(data.dev["dev"].labels)
    settings = FineTuningSettings(max_steps=20, learning_rate=1e-3, max_seq_length=32, precision="fp32")
    outcome = fine_tune(make_model(tmp_path / "encoder"), data, settings, save_to=tmp_path / "teacher", say=lambda line: None)
    found = small_students.teacher_answers(tmp_path / "teacher", data, settings)
    assert (found == labels).mean() == outcome.metrics["accuracy"]
    plan = plan_student(StudentFlags(hidden_size=8, fc_size=8, embedding_size=16), data.task)
    tokenizer = make_tokenizer(plan, (text for text in data.train.texts[0]))
    student = build_student(plan, tokenizer, data.task, 0).eval()
    (tmp_path / "student").mkdir()
    save_student(tmp_path / "student", student, tokenizer)
    parts = encode(plan.config, tokenizer, data.dev["dev"].texts)
    with torch.no_grad():
        alone = [int(student(collate_parts(parts, np.array([row]), student.pad_token_id)).argmax()) for row in range(len(labels))]
    assert small_students.student_answers(tmp_path / "student", data).tolist() == alone
