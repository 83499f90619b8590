"""Runs one after another: finished ones are kept, others go on, failures are passed over, a wish to stop reaches the run, the budget holds.

The stand-in plays the trainer (real runs: test_the_sweep_trains_real_runs.py).
"""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from launching import ROOT, clean_environment
from sweep_case import ONE, TWO, events, make_place, recipe, start

from dataset.errors import UserError
from evaluation.sweep.__main__ import main


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return make_place(tmp_path)


def wait_for(path: Path, text: str = "train", seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not (path.exists() and text in path.read_text(encoding="utf-8")):
        assert time.monotonic() < deadline, f"{path} never said {text}"
        time.sleep(0.01)


def test_the_first_seed_of_every_point_comes_first_and_a_second_call_keeps_all(place, capsys):
    path = recipe(place)
    assert main([str(path), "--run"]) == 0
    said = capsys.readouterr().out
    order = [line.split("] ")[1].split(":")[0] for line in said.splitlines() if ": starts" in line]
    assert order == [f"{ONE}/seed_1", f"{TWO}/seed_1", f"{ONE}/seed_2", f"{TWO}/seed_2"]
    assert (place / "out" / "tiny" / f"{ONE}" / "seed_1.log").read_text(encoding="utf-8").startswith("$ ")
    assert main([str(path), "--run"]) == 0
    said = capsys.readouterr().out
    assert said.count("kept, finished (time_budget)") == 4 and "starts" not in said
    assert "all 4 runs are finished, 2 h" in said


def test_a_failed_run_is_told_and_passed_over_and_tried_again(place, monkeypatch, capsys):
    path = recipe(place, seeds=[1])
    monkeypatch.setenv("PLAY", json.dumps({f"{ONE}/seed_1": "fail"}))
    assert main([str(path), "--run"]) == 1
    said = capsys.readouterr().out
    assert f"{ONE}/seed_1: failed (status 2: error: the disk is full), 0 h" in said and f"failed: {ONE}/seed_1" in said
    assert f"{TWO}/seed_1: finished" in said
    assert main([str(path)]) == 0 and "failed (status 2: error: the disk is full)" in capsys.readouterr().out
    monkeypatch.setenv("PLAY", "{}")
    assert main([str(path), "--run"]) == 0
    said = capsys.readouterr().out
    assert f"{ONE}/seed_1: finished" in said and f"{TWO}/seed_1: kept" in said


def test_stop_at_failure_leaves_the_others(place, monkeypatch, capsys):
    monkeypatch.setenv("PLAY", json.dumps({f"{ONE}/seed_1": "fail"}))
    assert main([str(recipe(place)), "--run", "--stop_at_failure"]) == 1
    said = capsys.readouterr().out
    assert "stopped at the first failure" in said and not (place / "out" / "tiny" / TWO).exists()
    assert "left: 4 of 4 runs" in said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_the_run_which_saves_itself_first(place, number, capsys):
    path, run = recipe(place), place / "out" / "tiny" / TWO / "seed_1"
    process = start(path, "--run", play={f"{TWO}/seed_1": "wait"})
    wait_for(run / "metrics.jsonl")
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 75, (out, err)
    assert json.loads((run / "summary.json").read_text(encoding="utf-8")) == {"exit_reason": "signal", "hours": 0.25}
    assert "left: 3 of 4 runs, up to 1.25 h" in out and "--run goes on" in out and number.name in out
    assert not (place / "out" / "tiny" / ONE / "seed_2").exists()
    assert main([str(path), "--run"]) == 0
    out = capsys.readouterr().out
    assert f"{ONE}/seed_1: kept" in out and f"{TWO}/seed_1: goes on, 0.25 h" in out and "all 4 runs are finished, 2 h" in out
    assert events(run) == ["start", "train", "resume", "train"]


def test_a_run_that_somebody_else_stopped_stops_the_sweep(place, monkeypatch, capsys):
    path, run = recipe(place, seeds=[1]), place / "out" / "tiny" / ONE / "seed_1"
    process = start(path, "--run", play={f"{ONE}/seed_1": "wait"})
    wait_for(run / "metrics.jsonl")
    child = int((place / "out" / "tiny" / ".sweep.lock").read_text().split()[1])
    os.kill(child, signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 75 and "stopped (a run was asked to stop)" in out and not (place / "out" / "tiny" / TWO).exists()
    # A failure after that is a failure, although the summary of the stop is still there.
    monkeypatch.setenv("PLAY", json.dumps({f"{ONE}/seed_1": "fail"}))
    assert main([str(path), "--run"]) == 1
    said = capsys.readouterr().out
    assert f"{ONE}/seed_1: failed (status 2: error: the disk is full), 0.25 h" in said and f"{TWO}/seed_1: finished" in said


def test_two_sweeps_in_a_folder_are_refused_also_after_a_kill_until_the_run_has_ended(place, capsys):
    path, run = recipe(place), place / "out" / "tiny" / ONE / "seed_1"
    process = start(path, "--run", play={f"{ONE}/seed_1": "wait"})
    wait_for(run / "metrics.jsonl")
    mine, child = map(int, (place / "out" / "tiny" / ".sweep.lock").read_text().split())
    assert mine == process.pid
    with pytest.raises(UserError, match=f"another sweep works here, or a run that it started \\(process {mine} and {child}\\)"):
        main([str(path), "--run"])
    process.kill()
    process.communicate()
    with pytest.raises(UserError, match="another sweep works here"):
        main([str(path), "--run"])
    os.kill(child, signal.SIGKILL)
    assert main([str(path), "--run"]) == 0
    out = capsys.readouterr().out
    assert f"{ONE}/seed_1: goes on" in out and "all 4 runs are finished, 2 h" in out


def test_a_budget_stops_before_a_run_that_does_not_fit_and_says_what_is_left(place, capsys):
    path = recipe(place, budget_hours=1.2)
    assert main([str(path)]) == 0
    assert f"budget_hours 1.2, 0 h spent: 2 of them fit, it stops before {ONE}/seed_2" in capsys.readouterr().out
    assert main([str(path), "--run"]) == 0
    said = capsys.readouterr().out
    assert f"budget_hours 1.2: 1 h are spent, and {ONE}/seed_2 may need 0.5 h more: stopped before it" in said
    assert "left: 2 of 4 runs, up to 1 h" in said and not (place / "out" / "tiny" / ONE / "seed_2").exists()
    assert main([str(recipe(place, budget_hours=2)), "--run"]) == 0
    assert "all 4 runs are finished" in capsys.readouterr().out
    # Runs that are no longer in the recipe have spent their hours all the same.
    assert main([str(recipe(place, budget_hours=2.4, seeds=[1, 3]))]) == 0
    assert "2 h spent: 0 of them fit" in capsys.readouterr().out


def test_a_budget_that_no_run_fits_into_is_refused(place):
    with pytest.raises(UserError, match=f"budget_hours 0.4: 0 h are spent, and {ONE}/seed_1 may need 0.5 h more; raise budget_hours"):
        main([str(recipe(place, budget_hours=0.4)), "--run"])
    # A run that stops early needs no more than that, and hours written in decimals add up.
    flags = {"early_exit_time_marker": 0.13334, "method": "hidden_mse"}
    assert main([str(recipe(place, budget_hours=0.4, flags=flags, seeds=[1, 2, 3], grid=...))]) == 0


def test_printed_commands_can_be_pasted_and_their_runs_count(tmp_path, capsys):
    place = make_place(tmp_path / "it's a place")
    path = recipe(place, seeds=[1], flags={"project_name": "a 'b' $c"})
    assert main([str(path), "--print_commands"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("#")]
    assert len(lines) == 2 and not (place / "out").exists()
    for line in lines:
        subprocess.run(["/bin/sh", "-c", line], cwd=ROOT, env=clean_environment(PLAY="{}"), check=True, timeout=60)
    assert main([str(path)]) == 0
    assert "all 2 runs are finished, 1 h" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"lr: method=hidden_mse/seed_1 in .* began with 0.011, now it is 0.001"):
        main([str(recipe(place, seeds=[1], flags={"lr": "1e-3"}))])


def test_other_flags_are_refused_once_runs_exist_but_the_grid_may_grow(place, capsys):
    assert main([str(recipe(place, seeds=[1])), "--run"]) == 0
    found = (f"total_training_time: {ONE}/seed_1 in {place}/out/tiny began with 0.5, now it is 0.7; bring 0.5 back, or give another "
             "output_dir")
    for flags in ((), ("--run",), ("--print_commands",)):
        with pytest.raises(UserError) as error:
            main([str(recipe(place, flags={"total_training_time": 0.7})), *flags])
        assert found in str(error.value)
    with pytest.raises(UserError, match=r"launcher: the 2 runs in .* began with .*, now it is None"):
        main([str(recipe(place, launcher=...))])
    grown = recipe(place, grid={"method": ["att_kl", "att_mse", "hidden_mse"]}, flags={"print_steps": 7})
    assert main([str(grown), "--run"]) == 0
    said = capsys.readouterr().out
    assert f"{ONE}/seed_1: kept" in said and f"{TWO}/seed_1: kept" in said and said.count("starts") == 2 + 4
