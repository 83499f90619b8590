"""The published command, shrunk, trains under every launcher, and who shares the work does not change the result."""

import json
import sys
from pathlib import Path

import pytest
import torch
from launching import events, launch, losses, summary, torchrun, train
from safetensors.torch import load_file
from tiny import make_shards, make_teacher

# The command of the task-agnostic original as it is written, but for its paths and what makes it large.
PUBLISHED = """
--model_type bert-mlm --deepspeed --hidden_act gelu --encoder_ln_mode post-ln --lr 5e-4 --lr_schedule step --curve linear
--warmup_proportion 0.06 --gradient_clipping 0.0 --optimizer_type adamw --weight_decay 0.01 --adam_beta1 0.9 --adam_beta2 0.98
--adam_eps 1e-6 --num_epochs_between_checkpoints 100 --project_name budget-bert-pretraining-post --validation_epochs 5
--validation_epochs_begin 5 --validation_epochs_end 5 --validation_begin_proportion 0.01 --validation_end_proportion 0.01
--validation_micro_batch 64 --data_loader_type dist --do_validation --use_early_stopping --early_stop_time 180
--early_stop_eval_loss 6 --seed 43 --layernorm_embedding --layer_selection 3 --distillation --job_name hidden_mse_init
--method hidden_mse --finetune_time_markers 0.25,0.5,0.95 --fused_linear_layer false --layer_norm_type pytorch --fp16 --fp16_backend ds
--student_initialize --precision fp32 --hidden_size 32 --num_hidden_layers 2 --num_attention_heads 4 --intermediate_size 64
--max_steps 6 --print_steps 1 --total_training_time 0.001 --early_exit_time_marker 90.0 --clock simulated:0.61 --train_batch_size 16
""".split()
NO_DROPOUT = ["--hidden_dropout_prob", "0", "--attention_probs_dropout_prob", "0"]
DROPOUT = ["--hidden_dropout_prob", "0.1", "--attention_probs_dropout_prob", "0.1"]

# name: (launcher, micro-batch). 16 samples a step: 1 x 16, 4 x 4, and 2 ranks with accumulation 1, 2 and 4.
LAUNCHES = {
    "python": ((), 16),
    "torchrun": (torchrun(2), 4),
    "torch.distributed.launch": ((sys.executable, "-m", "torch.distributed.launch", "--nproc_per_node", "2", "--master_port", "29611"), 8),
    "deepspeed": (("deepspeed", "--num_accelerators", "2", "--master_port", "29612"), 2),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("launchers")
    make_teacher(folder / "teacher")
    make_shards(folder / "shards", rows=30, uneven=True)
    return folder


def command(place: Path, run: str, micro_batch: int) -> list[str]:
    return [*PUBLISHED, "--tokenizer_name", str(place / "teacher"), "--teacher_path", str(place / "teacher"), "--dataset_path",
            str(place / "shards"), "--output_dir", str(place / "out"), "--current_run_id", run,
            "--train_micro_batch_size_per_gpu", str(micro_batch)]


@pytest.fixture(scope="module")
def runs(place, zygote):
    """All launches with dropout off, and one more as `python` starts it; run name -> run folder."""
    for name, (launcher, micro_batch) in LAUNCHES.items():
        train([*command(place, name, micro_batch), *NO_DROPOUT], launcher=launcher)
    zygote.run([*command(place, "python_4_micro_batches", 4), *NO_DROPOUT])
    return {name: place / "out" / "hidden_mse_init" / name for name in (*LAUNCHES, "python_4_micro_batches")}


def test_every_launcher_finishes_the_published_command(runs):
    for name, run in runs.items():
        done = summary(run)
        assert (done["exit_reason"], done["steps"], done["samples"]) == ("time_budget", 6, 96), name
        assert done["markers"] == ["progress_0.25_step_2", "progress_0.5_step_3", "progress_0.95_step_6"], name


def test_ranks_and_micro_batches_do_not_change_the_losses(runs):
    expected = losses(runs["python"])
    assert len(expected) == 6 and expected[0] > expected[-1] > 0
    for name, run in runs.items():
        assert losses(run) == pytest.approx(expected, rel=1e-5), name
        held_out = [event["loss"] for event in events(run, "validation")]
        assert held_out == pytest.approx([event["loss"] for event in events(runs["python"], "validation")], rel=1e-5), name
        norms = [event["grad_norm"] for event in events(run)]
        assert norms == pytest.approx([event["grad_norm"] for event in events(runs["python"])], rel=1e-4), name


def test_every_launcher_counts_the_same_tokens(runs):
    tokens = {name: [event["tokens"] for event in events(run)] for name, run in runs.items()}
    assert len({tuple(counts) for counts in tokens.values()}) == 1, tokens


def test_one_seed_gives_one_run(place, zygote):
    """Dropout on: everything but wall times is equal, to the last bit."""
    for run in ("first", "second"):
        zygote.run([*command(place, run, 4), *DROPOUT])
    first, second = (place / "out" / "hidden_mse_init" / run for run in ("first", "second"))
    assert losses(first) == losses(second)
    for marker in summary(first)["markers"]:
        weights = [load_file(run / "finetune" / marker / "model.safetensors") for run in (first, second)]
        assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


# Runs in a process that imports nothing of ours: what any user of transformers would do.
LOAD = """
import json, sys, torch
from transformers import AutoModelForMaskedLM
model, info = AutoModelForMaskedLM.from_pretrained(sys.argv[1], output_loading_info=True)
ids = torch.arange(5, 25).view(2, 10)
with torch.no_grad():
    out = model(ids, output_hidden_states=True)
assert not any(name.split(".")[0] in ("deepspeed", "pretraining", "dataset") for name in sys.modules)
print(json.dumps({"keys": [len(info[kind]) for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")],
                  "hidden": out.hidden_states[-1].tolist(), "logits": out.logits.sum().item()}))
"""


def test_exports_are_the_runs_student_for_anyone_with_transformers(runs, place):
    import transformers

    from pretraining.checkpoint import complete_checkpoints

    run = runs["python_4_micro_batches"]
    newest = complete_checkpoints(run / "checkpoints")[0]
    states = torch.load(newest / "deepspeed" / "mp_rank_00_model_states.pt", weights_only=False)["module"]
    marker = run / "finetune" / f"progress_0.95_{newest.name}"
    student = transformers.BertForMaskedLM(transformers.BertConfig.from_pretrained(marker)).eval()
    own = {name.removeprefix("student.model."): value for name, value in states.items() if name.startswith("student.model.")}
    assert not student.load_state_dict(own, strict=False).unexpected_keys
    student.tie_weights()
    with torch.no_grad():
        expected = student(torch.arange(5, 25).view(2, 10), output_hidden_states=True)
    for name in summary(run)["markers"]:
        output = launch([sys.executable, "-c", LOAD, str(run / "finetune" / name)]).stdout
        loaded = json.loads(output.strip().splitlines()[-1])
        assert loaded["keys"] == [0, 0, 0], name
    assert torch.equal(torch.tensor(loaded["hidden"]), expected.hidden_states[-1])
