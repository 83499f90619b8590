"""Mistakes in flags and files: one line, exit status 2, before torch is imported, in less than two seconds."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_glue import make_model, make_run, write_sst2

PROJECT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model, a run, data, broken variants of them, and a `torch` that cannot be imported."""
    place = tmp_path_factory.mktemp("glue")
    write_sst2(place / "glue", train=32, dev=16)
    make_model(place / "model")
    make_run(place / "run", [(0.5, 10, 0.01)])
    for name, lost in (("no_weights", "model.safetensors"), ("no_config", "config.json"), ("no_tokenizer", "tokenizer.json")):
        (make_model(place / name) / lost).unlink()
    (make_model(place / "gpt2") / "config.json").write_text('{"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}')
    cut = make_model(place / "cut") / "model.safetensors"
    cut.write_bytes(cut.read_bytes()[:-100])
    (place / "no_marker" / "finetune").mkdir(parents=True)
    (place / "lost_dev" / "SST-2").mkdir(parents=True)
    (place / "lost_dev" / "SST-2" / "train.tsv").write_text("sentence\tlabel\ngood\t1\n")
    (place / "broken" / "SST-2").mkdir(parents=True)
    for name in ("train", "dev"):
        (place / "broken" / "SST-2" / f"{name}.tsv").write_text("sentence\tlabel\ngood\t1\nbad\n")
    (place / "no_torch" / "torch").mkdir(parents=True)
    (place / "no_torch" / "torch" / "__init__.py").write_text("raise SystemExit('torch was imported')\n")
    return place


def run(place, *flags, torch=False):
    """Completed process and the seconds of processor time it took (wall time would depend on the machine's load)."""
    path = {} if torch else {"PYTHONPATH": str(place / "no_torch")}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, str(PROJECT / "run_glue.py"), *flags], cwd=place, env=os.environ | path, text=True,
        capture_output=True, timeout=120, check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


GOOD = {"--model_name_or_path": "model", "--task_name": "sst2", "--glue_dir": "glue", "--output_dir": "out",
        "--max_seq_length": "32"}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"--model_name_or_path": "nowhere"}, "nowhere: no such folder"),
        ({"--model_name_or_path": "no_weights"}, "no_weights: no weights; expected model.safetensors"),
        ({"--model_name_or_path": "no_config"}, "no_config: no config.json"),
        ({"--model_name_or_path": "no_tokenizer"}, "no_tokenizer: no tokenizer"),
        ({"--model_name_or_path": "cut"}, "cut/model.safetensors: cannot be read"),
        ({"--model_name_or_path": None, "--run_dir": "no_marker"}, "no finetune/progress_*_step_*/"),
        ({"--model_name_or_path": None, "--run_dir": "nowhere"}, "nowhere: no such folder"),
        ({"--run_dir": "run"}, "not allowed with argument"),
        ({"--model_name_or_path": None}, "one of the arguments --run_dir --model_name_or_path --models is required"),
        ({"--task_name": "sst3"}, "unknown task 'sst3'; did you mean sst2?; known tasks are"),
        ({"--task_name": ","}, "no task named"),
        ({"--glue_dir": "nowhere"}, "nowhere: no such folder"),
        ({"--task_name": "mrpc"}, "no folder MRPC"),
        ({"--glue_dir": "lost_dev"}, "no dev.tsv"),
        ({"--glue_dir": "broken"}, "train.tsv, line 3: found 1 columns, expected 2"),
        ({"--output_dir": None}, "--output_dir is missing"),
        ({"--output_dir": "model/config.json"}, "cannot be made"),
        ({"--max_seq_length": "128"}, "has 64 positions; give 64 or less"),
        ({"--max_seq_length": "1"}, "give 8 or more"),
        ({"--learning_rate": "0"}, "give more than 0"),
        ({"--learning_rate": "nan"}, "give a finite number"),
        ({"--warmup_ratio": "1.5"}, "give 1 or less"),
        ({"--max_train_samples": "0"}, "give 1 or more"),
        ({"--precision": "fp8"}, "invalid choice: 'fp8'"),
        ({"--baseline": "teacher"}, "give NAME=FOLDER"),
        ({"--baseline": "teacher=nowhere"}, "nowhere: no such folder"),
        ({"--baseline": "model=model"}, "two models are called 'model'"),
        ({"--baseline": "models/teacher=model"}, "holds a slash"),
        ({"--task": "sst2"}, "unknown flag --task; did you mean --task_name?"),
        ({"--protocl": "quick"}, "unknown flag --protocl; did you mean --protocol?"),
        ({"--protocol": "quik"}, "no such protocol; did you mean quick?"),
        ({"--protocol": "sane", "--max_seq_length": None}, "has 64 positions; give 64 or less"),
        ({"--model_name_or_path": "gpt2"}, "gpt2: not an encoder"),
        ({"--task_file": "nowhere.yaml"}, "nowhere.yaml: no such file"),
        ({"--task_name": "rte", "--glue_dir": None}, "no data named; --glue_dir FOLDER"),
        ({"--seeds": "1,1"}, "different whole numbers"),
    ],
)
def test_one_line_before_torch(place, change, told):
    flags = [part for flag, value in (GOOD | change).items() if value is not None for part in (flag, value)]
    done, seconds = run(place, *flags)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("error: "), done.stderr
    assert told in done.stderr
    assert seconds < 2


def test_the_stand_in_for_torch_is_found(place):
    done, _ = run(place, *[part for pair in GOOD.items() for part in pair])
    assert "torch was imported" in done.stderr


def test_a_run_from_the_command_line(place):
    flags = ["--run_dir", "run", "--task_name", "SST2", "--glue_dir", "glue", "--baseline", "teacher=model",
             "--max_seq_length", "32", "--num_train_epochs", "1"]
    done, _ = run(place, *flags, torch=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    rows = json.loads((place / "run" / "glue.json").read_text())
    assert [(row["model"], row["role"]) for row in rows] == [("progress_0.5_step_10", "marker"), ("teacher", "teacher")]
    assert (place / "run" / "glue.png").is_file()
    assert "SST-2 accuracy" in done.stdout and "progress_0.5_step_10" in done.stdout
    # All known: neither torch nor a second training is needed.
    again, _ = run(place, *flags)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("already scored, skipped") == 2
    assert json.loads((place / "run" / "glue.json").read_text()) == rows
