"""What the tests of the command line share: file 004's command as data, a teacher written without torch, and a way to run many wrong
command lines in one process that reports what each of them did.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from safetensors.numpy import save_file
from tiny import VOCABULARY, make_tokenizer

PROJECT = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "deepspeed", "transformers")

# The command of reference file 004 in the order it is written. None: the flag has no value.
LITERAL_FLAGS: dict[str, str | None] = {
    "model_type": "bert-mlm", "deepspeed": None, "tokenizer_name": "bert-base-uncased", "hidden_act": "gelu",
    "hidden_dropout_prob": "0.1", "attention_probs_dropout_prob": "0.1", "encoder_ln_mode": "post-ln", "lr": "5e-4",
    "lr_schedule": "step", "max_steps": "100000", "curve": "linear", "warmup_proportion": "0.06", "gradient_clipping": "0.0",
    "optimizer_type": "adamw", "weight_decay": "0.01", "adam_beta1": "0.9", "adam_beta2": "0.98", "adam_eps": "1e-6",
    "dataset_path": "~/data/budget/masked", "output_dir": "~/code/academic-budget-bert/training-out", "print_steps": "100",
    "num_epochs_between_checkpoints": "100", "project_name": "budget-bert-pretraining-post", "validation_epochs": "5",
    "validation_epochs_begin": "5", "validation_epochs_end": "5", "validation_begin_proportion": "0.01",
    "validation_end_proportion": "0.01", "validation_micro_batch": "64", "data_loader_type": "dist", "do_validation": None,
    "use_early_stopping": None, "early_stop_time": "180", "early_stop_eval_loss": "6", "seed": "43", "layernorm_embedding": None,
    "hidden_size": "768", "num_hidden_layers": "6", "num_attention_heads": "12", "intermediate_size": "3072", "layer_selection": "11",
    "distillation": None, "teacher_path": "models/teachers/bert-base-uncased", "total_training_time": "90.0",
    "early_exit_time_marker": "90.0", "train_batch_size": "1024", "train_micro_batch_size_per_gpu": "256",
    "job_name": "hidden_mse_init", "current_run_id": "1", "method": "hidden_mse",
}
# What a shell takes for further commands, because the line of --method does not end in a backslash.
LOST_FLAGS: dict[str, str | None] = {
    "finetune_time_markers": "0.05,0.1,0.15,0.2,0.25,0.3,0.35,0.4,0.45,0.5,0.55,0.6,0.65,0.7,0.75,0.8,0.85,0.9,0.95",
    "fused_linear_layer": "false", "layer_norm_type": "pytorch", "fp16": None, "fp16_backend": "ds", "student_initialize": None,
}
REPAIRED_FLAGS = LITERAL_FLAGS | LOST_FLAGS


def command_line(flags: dict[str, Any]) -> list[str]:
    """`--name value` words; None stands for a bare flag, False for one that is left out."""
    words: list[str] = []
    for name, value in flags.items():
        if value is not False:
            words += [f"--{name}"] if value is None else [f"--{name}", str(value)]
    return words


def print_config(*words: str, **environment: str) -> dict[str, Any]:
    """What `run_pretraining.py WORDS --print_config` prints, read as YAML; the process must succeed."""
    finished = run_script(*words, "--print_config", **environment)
    assert finished.returncode == 0, finished.stderr
    return yaml.safe_load(finished.stdout)


def run_script(*words: str, **environment: str) -> subprocess.CompletedProcess:
    """`run_pretraining.py WORDS` under plain python in the project's folder, with `environment` added to a clean one."""
    return subprocess.run([sys.executable, str(PROJECT / "run_pretraining.py"), *words], capture_output=True, text=True, timeout=120,
                          cwd=PROJECT, env=clean_environment() | environment)


def clean_environment() -> dict[str, str]:
    """The environment without what a launcher may have left in it, and without GPUs."""
    launcher = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    return {name: value for name, value in os.environ.items() if name not in launcher and not name.startswith("OMPI_")} | {
        "CUDA_VISIBLE_DEVICES": ""}


def write_teacher(folder: Path, head: bool = True, tokenizer: bool = True, **config: Any) -> Path:
    """A BERT folder of 4 layers and width 32 as far as checks before torch look into it: config.json, a few weights, a tokenizer.

    `config` overrides entries of config.json; a value of ... takes the entry out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if tokenizer:
        make_tokenizer(folder)
    values = {
        "model_type": "bert", "vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4,
        "intermediate_size": 64, "max_position_embeddings": 64, "type_vocab_size": 2, "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1, "initializer_range": 0.02,
    } | config
    content = {name: value for name, value in values.items() if value is not ...}
    (folder / "config.json").write_text(json.dumps(content), encoding="utf-8")
    names = ["bert.embeddings.word_embeddings.weight"] + ["cls.predictions.bias"] * head
    save_file({name: np.zeros((4, 4), np.float32) for name in names}, folder / "model.safetensors")
    return folder


# Runs command lines from a JSON list on stdin one after the other; prints one JSON object for each.
_DRIVER = """
import contextlib, io, json, os, sys, time
from pathlib import Path
place, project, heavy, prelude, cases = json.load(sys.stdin)
sys.path.insert(0, project)
os.chdir(place)
exec(prelude)

def tree():
    found = {}
    for root, folders, files in os.walk(place):
        for path in [Path(root) / name for name in folders + files]:
            status = path.lstat()
            found[str(path)] = (status.st_ino, status.st_size, status.st_mtime_ns if path.is_file() else 0)
    return found

import run_pretraining
clean = dict(os.environ)
before = tree()
for words, environment in cases:
    os.environ.clear()
    os.environ.update(clean | environment)
    sys.argv = ["run_pretraining.py", *words]
    out, err = io.StringIO(), io.StringIO()
    started = time.process_time()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            run_pretraining.run_command(run_pretraining.main)
        except SystemExit as exit:
            status = exit.code
        except BaseException as error:
            status = repr(error)
    seconds = time.process_time() - started
    after = tree()
    changed = sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
    before = after
    print(json.dumps({"status": status, "out": out.getvalue(), "err": err.getvalue(), "seconds": seconds, "changed": changed,
                      "heavy": [name for name in heavy if name in sys.modules]}), flush=True)
"""


def run_cases(place: Path, cases: list[list[str]], environments: list[dict[str, str]] | None = None, prelude: str = "") -> list[dict]:
    """Run each command line of `cases` in one process with `place` as working folder; what each did, in order.

    Keys: `status`, `out`, `err`, `seconds` of processor time, `changed` paths below `place`, `heavy` modules imported so far.
    `prelude` is Python that the process runs first.
    """
    pairs = list(zip(cases, environments or [{}] * len(cases), strict=True))
    finished = subprocess.run(
        [sys.executable, "-c", _DRIVER], input=json.dumps([str(place), str(PROJECT), HEAVY, prelude, pairs]), capture_output=True,
        text=True, timeout=300, env=clean_environment(), cwd=place)
    assert finished.returncode == 0, finished.stderr[-2000:]
    return [json.loads(line) for line in finished.stdout.splitlines()]
