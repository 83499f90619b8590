"""A recipe knows which work is done and of what it was made, and leaves a step time to save itself.

The steps here only leave the files that tell.
"""

import json
import os
import signal
import sys
import threading
import time
from types import SimpleNamespace

import pytest
from tiny_glue import write_sst2

from dataset.errors import UserError
from evaluation.tasks.table import load_task, select_tasks
from task_distillation.recipe import child
from task_distillation.recipe import run as recipe_run
from task_distillation.recipe.outside import Outside
from task_distillation.recipe.steps import Step

NOTHING_OUTSIDE = SimpleNamespace(of=lambda step: {})


@pytest.fixture
def lives(monkeypatch):
    """What each start of a step does (a function of no argument, for its status), and the lines that were started."""
    planned, lines = [], []

    def start(line):
        lines.append(line[2:])
        return planned.pop(0)(), False

    monkeypatch.setattr(recipe_run, "start", start)
    return planned, lines


def distil(place, **more):
    run = place / "students" / "seed_1"
    return Step("distil seed 1", "distil", ["--lr", "1"], run / "summary.json", ("label",), ("--resume",), ("--overwrite",),
                life=run / "args.yaml", **more)


def life(step, reason, status):
    """A run that begins and leaves a summary with the `reason` of its end."""
    def act():
        step.life.parent.mkdir(parents=True, exist_ok=True)
        step.life.unlink(missing_ok=True)
        step.life.write_text(f"now: {time.monotonic()}\n")
        os.utime(step.life, ns=(time.monotonic_ns(),) * 2)
        step.output.write_text(json.dumps({"exit_reason": reason}))
        return status

    return act


def label(place):
    """The step that writes logits.parquet, and a start of it."""
    step = Step("label", "label", [], place / "logits.parquet")
    return step, lambda: step.output.write_text(f"logits {time.monotonic_ns()}") * 0


@pytest.mark.parametrize("reason", ["deadline", "signal", "rank_failure"])
def test_a_run_that_was_stopped_is_not_done_though_torchrun_says_0(tmp_path, lives, reason, capsys):
    planned, lines = lives
    step, runner = distil(tmp_path), recipe_run.Runner(tmp_path, [], NOTHING_OUTSIDE)
    for _ in range(2):
        planned.append(life(step, reason, 0))
        with pytest.raises(SystemExit) as ended:
            runner.run(step)
        assert ended.value.code == 75 and not runner._path(step.name).exists()
    planned.append(life(step, "time_budget", 0))
    runner.run(step)
    runner.run(step)
    assert len(lines) == 3 and all("--resume" in line for line in lines) and "done before" in capsys.readouterr().out
    life(step, reason, 0)()  # somebody went on with it under --allow_changes, and was stopped
    planned.append(life(step, "time_budget", 0))
    runner.run(step)
    assert len(lines) == 4


def test_a_student_of_new_logits_starts_over_once_and_then_goes_on(tmp_path, lives):
    planned, lines = lives
    step, runner = distil(tmp_path), recipe_run.Runner(tmp_path, [], NOTHING_OUTSIDE)
    logits, writes = label(tmp_path)
    planned += [writes, life(step, "time_budget", 0)]
    runner.run(logits)
    runner.run(step)
    logits.output.unlink()
    planned += [writes, lambda: -9, life(step, "signal", 75), life(step, "signal", 75), life(step, "time_budget", 0)]
    runner.run(logits)
    for error in (UserError, SystemExit, SystemExit):  # the first is killed before it has taken the folder over
        with pytest.raises(error):
            runner.run(step)
    runner.run(step)
    assert [line[-1] for line in lines if line[0] == "distil"] == ["--resume", "--overwrite", "--overwrite", "--resume", "--resume"]
    assert sorted(path.name for path in runner.folder.iterdir()) == ["distil_seed_1.json", "label.json"]


def test_the_same_bytes_made_again_cost_no_student(tmp_path, lives, capsys):
    planned, lines = lives
    step, runner = distil(tmp_path), recipe_run.Runner(tmp_path, [], NOTHING_OUTSIDE)
    logits, _ = label(tmp_path)
    writes = lambda: logits.output.write_text("logits") * 0  # noqa: E731
    planned += [writes, life(step, "time_budget", 0), writes]
    runner.run(logits)
    runner.run(step)
    logits.output.unlink()
    runner.run(logits)
    runner.run(step)
    assert [line[0] for line in lines] == ["label", "distil", "label"] and "distil seed 1: done before" in capsys.readouterr().out


def test_a_student_that_diverged_is_none(tmp_path, lives):
    planned, lines = lives
    step, runner = distil(tmp_path), recipe_run.Runner(tmp_path, [], NOTHING_OUTSIDE)
    planned += [life(step, "diverged", 0), lambda: 2]  # the second finds the run ended
    for _ in range(2):
        with pytest.raises(UserError, match=r"distil seed 1: its loss was no number; remove .*seed_1, and a lower --set distil.lr"):
            runner.run(step)
    assert len(lines) == 2 and not runner._path(step.name).exists()


SAVES = """
import pathlib, signal, sys, time
def save(number, frame):
    time.sleep(0.3)
    pathlib.Path(sys.argv[1], "saved").write_text(str(number))
    sys.exit(75)
signal.signal(signal.SIGTERM, save)
signal.signal(signal.SIGINT, signal.SIG_IGN)
pathlib.Path(sys.argv[1], "began").touch()
time.sleep(30)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_the_wish_to_stop_is_passed_on_and_the_step_saves_itself(tmp_path, monkeypatch, number):
    monkeypatch.setattr(child, "TERMINAL_S", 0.1)
    runner, step = recipe_run.Runner(tmp_path, [], NOTHING_OUTSIDE), Step("label", "label", [], tmp_path / "logits.parquet")
    monkeypatch.setattr(recipe_run, "start", lambda line: child.start([sys.executable, "-c", SAVES, str(tmp_path)]))

    def ask():
        while not (tmp_path / "began").exists():
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    asking = threading.Thread(target=ask)
    asking.start()
    with pytest.raises(SystemExit) as ended:
        runner.run(step)
    asking.join()
    assert ended.value.code == 75 and (tmp_path / "saved").read_text() == str(int(signal.SIGTERM))


def test_a_step_that_ended_well_while_it_was_asked_to_stop_is_done(tmp_path, monkeypatch, capsys):
    step, writes = label(tmp_path)
    monkeypatch.setattr(recipe_run, "start", lambda line: (writes(), True))
    runner = recipe_run.Runner(tmp_path, [], NOTHING_OUTSIDE)
    with pytest.raises(SystemExit):
        runner.run(step)
    runner.run(step)
    assert "label: done before" in capsys.readouterr().out


def test_a_launcher_that_is_not_there_is_one_line():
    with pytest.raises(UserError, match=r"^no_such_launcher: cannot be started"):
        child.start(["no_such_launcher", "script.py"])


def test_other_content_behind_the_same_path_is_noticed(tmp_path, lives):
    planned, lines = lives
    write_sst2(tmp_path / "glue")
    teacher, vectors, train = tmp_path / "teacher", tmp_path / "vectors.txt", tmp_path / "glue" / "SST-2" / "train.tsv"
    teacher.mkdir()
    (teacher / "config.json").write_text("{}")
    (teacher / "model.safetensors").write_bytes(b"weights")
    vectors.write_text("the 0.5\n")
    _, writes = label(tmp_path)
    step = Step("label", "label", [], tmp_path / "logits.parquet", reads={"--teacher_path": teacher, "--word_vectors": vectors})

    def runner():
        return recipe_run.Runner(tmp_path, [], Outside(load_task(select_tasks(["sst2"])[0], tmp_path / "glue")))

    planned.append(writes)
    runner().run(step)
    (teacher / "README.md").write_text("a card is no part of the teacher")
    runner().check([step])
    for file, said in ((teacher / "model.safetensors", "--teacher_path .*teacher"), (vectors, "--word_vectors .*vectors.txt"),
                       (train, "the task's data")):
        before = file.read_bytes()
        file.write_bytes(before.replace(b"film", b"fame") if file == train else b"other")
        with pytest.raises(UserError, match=f"logits.parquet: made when {said} had other content; another --output_dir would work"):
            runner().check([step])
        file.write_bytes(before)
    vectors.unlink()  # what is done does not need it any more
    runner().check([step])
    runner().run(step)
    assert len(lines) == 1
