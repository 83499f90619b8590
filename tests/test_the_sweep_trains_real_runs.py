"""The real trainer under the sweep (slow; with a stand-in for it: test_the_sweep_goes_on_where_it_was.py): killed with its sweep in the
middle of the first run, it goes on from the checkpoint that is there (to the same bits: test_killed_runs_end_with_the_same_weights.py);
and real scoring with its table.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from launching import ROOT, clean_environment, events, summary
from tiny import make_shards, make_teacher
from tiny_glue import make_model, write_sst2

from evaluation.sweep.__main__ import main
from evaluation.sweep.recipe import read_recipe
from evaluation.sweep.runs import make_runs

FLAGS = """
name: real
output_dir: {place}/{out}
flags:
  dataset_path: {place}/shards
  teacher_path: {place}/teacher
  distillation: true
  student_initialize: true
  num_hidden_layers: 2
  train_batch_size: 8
  train_micro_batch_size_per_gpu: 8
  total_training_time: {hours}
  clock: simulated:36
  precision: fp32
  layer_norm_type: pytorch
  print_steps: 5
  steps_between_checkpoints: {every}
  keep_checkpoints: 1
grid:
  method: [{methods}]
seeds: [1]
"""


def make_recipe(place: Path, out: str, hours: float, every: int = 100, methods: str = "hidden_mse", more: str = "") -> Path:
    path = place / f"{out}.yaml"
    path.write_text(FLAGS.format(place=place, out=out, hours=hours, every=every, methods=methods) + more, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("real")
    make_teacher(place / "teacher")
    make_shards(place / "shards", rows=40, masking="none")
    return place


@pytest.mark.slow
def test_a_killed_sweep_goes_on_from_the_checkpoint_of_its_run(place, capsys):
    path = make_recipe(place, "out", hours=1, every=20)
    (first,) = make_runs(read_recipe(path))
    process = subprocess.Popen([sys.executable, "-m", "evaluation.sweep", str(path), "--run"], cwd=ROOT, env=clean_environment(),
                               stdout=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 120
    while not any((first.folder / "checkpoints").glob("step_*")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)  # the sweep and its trainer
    process.wait()
    assert not first.folder.joinpath("summary.json").exists()

    assert main([str(path), "--run"]) == 0
    said = capsys.readouterr().out
    assert f"{first.id}: goes on" in said and "all 1 runs are finished, 1 h" in said
    assert len(events(first.folder, "resume")) == 1
    assert summary(first.folder)["exit_reason"] == "time_budget" and summary(first.folder)["steps"] == 100


@pytest.mark.slow
def test_real_runs_are_scored_into_one_table(place, capsys):
    write_sst2(place / "glue", train=64, dev=32)
    make_model(place / "cut")
    more = f"""
score: {{task_name: sst2, glue_dir: {place}/glue, num_train_epochs: 1, max_seq_length: 16, seeds: [1, 2], devices: cpu}}
baselines: {{teacher: {place}/teacher, cut: {place}/cut}}
"""
    path = make_recipe(place, "scored", hours=0.1, methods="hidden_mse, cosine", more=more)
    assert main([str(path), "--run"]) == 0
    found = json.loads((place / "scored" / "real" / "table.json").read_text(encoding="utf-8"))
    assert [line["name"] for line in found["rows"]] == ["teacher", "cut", "method=hidden_mse", "method=cosine"] and not found["missing"]
    assert all(line["tasks"]["SST-2"] is not None for line in found["rows"])
    logs = [(place / "scored" / "real" / f"method={name}" / "seed_1_scores.log").read_text() for name in ("hidden_mse", "cosine")]
    assert "already scored" not in logs[0] and logs[1].count("already scored") >= 2
    print(capsys.readouterr().out)
