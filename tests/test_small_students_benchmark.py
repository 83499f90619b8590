"""The benchmark of small students: recipes that can be compared, the same training for the row of labels, and gains over that row."""

import json

import pytest
from launching import ROOT

from benchmarks import small_students
from dataset.errors import UserError
from pretraining.args.flag_set import parse_flags
from task_distillation.distilling.flags import TaskArgs
from task_distillation.recipe import summary
from task_distillation.recipe.command import main as recipe

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

    monkeypatch.setattr(small_students, "run_step", run_step)
    monkeypatch.setattr(summary, "student_score", student_score)
    paths = [str(RECIPES / "sst2" / f"{name}.yaml") for name in ("lite", "heavy")]
    small_students.main([*paths, "--model", "m", "--glue_dir", "g", "--output_dir", str(tmp_path)])
    assert [words[0] for words in steps] == ["teach", "distil", "distil", "distil", "recipe", "recipe"]
    plain = [parse_flags(TaskArgs, words[1:]) for words in steps[1:4]]
    assert [args.run.seed for args in plain] == [1, 2, 3]
    assert {args.objective.method for args in plain} == {"labels"}
    assert not any(args.data.transfer_set or args.data.logits for args in plain)
    assert {(args.student.hidden_size, args.budget.max_steps) for args in plain} == {(150, 6000)}
    assert [words[words.index("--teacher_path") + 1] for words in steps[4:]] == [str(tmp_path / "teacher")] * 2
    assert capsys.readouterr().out.splitlines()[1:] == [
        "SST-2, accuracy, teacher 90.0", "", "| student of | mean | deviation | gain | seeds |", "|:--|--:|--:|--:|:--|",
        "| labels | 82.0 | 2.0 |  | 80.0, 82.0, 84.0 |", "| lite | 86.0 | 0.0 | +4.0 | 86.0, 86.0, 86.0 |",
        "| heavy | 80.0 | 1.0 | -2.0 | 79.0, 80.0, 81.0 |"]
