"""Single runs of the real trainer: trackers, --dry_run, divergence, pre-training without a teacher, a bare encoder, the run folder."""

import fcntl
import json
import os

import launching
import pytest
import torch
import yaml
from launching import events, losses, summary, torchrun
from quick import train
from safetensors.torch import load_file
from tiny import make_shards, make_teacher


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    make_teacher(folder / "teacher")
    make_teacher(folder / "headless", head=False)
    make_shards(folder / "shards")
    return folder


def flags(place, run, *more, teacher="teacher", method="hidden_mse"):
    return ["--dataset_path", str(place / "shards"), "--teacher_path", str(place / teacher), "--distillation", "--method", method,
            "--student_initialize", "--num_hidden_layers", "2", "--layer_selection", "3", "--train_batch_size", "8",
            "--train_micro_batch_size_per_gpu", "4", "--lr", "1e-3", "--output_dir", str(place / "out"), "--job_name", run,
            "--lr_schedule", "constant_step", "--num_warmup_steps", "0", "--max_steps", "4", "--print_steps", "2", "--precision", "fp32",
            "--layer_norm_type", "pytorch", *more]


def test_tensorboard_gets_what_metrics_jsonl_gets(place):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(flags(place, "tb", "--report_to", "tensorboard", "--do_validation"))
    run = place / "out" / "tb"
    board = EventAccumulator(str(run / "tensorboard"))
    board.Reload()
    assert [scalar.step for scalar in board.Scalars("train/loss")] == [2, 4]
    assert [scalar.value for scalar in board.Scalars("train/loss")] == pytest.approx(losses(run))
    assert [scalar.value for scalar in board.Scalars("validation/loss")] == pytest.approx(
        [event["loss"] for event in events(run, "validation")])


def test_wandb_works_offline(place):
    pytest.importorskip("wandb")
    done = launching.train(flags(place, "wb", "--report_to", "wandb", "--current_run_id", "1"), WANDB_MODE="offline")
    run = place / "out" / "wb" / "1"
    assert list(run.glob("wandb/offline-run-*/run-*.wandb")), done.stderr
    assert len(losses(run)) == 2
    name = json.loads((run / "checkpoints" / "step_4" / "state.json").read_text())["wandb_id"]
    launching.train(flags(place, "wb", "--report_to", "wandb", "--current_run_id", "1", "--resume", "--allow_changes", "--max_steps", "6"),
                    WANDB_MODE="offline")
    assert len(losses(run)) == 3 and {path.stem for path in run.glob("wandb/offline-run-*/run-*.wandb")} == {f"run-{name}"}


def test_dry_run_does_one_step_of_everything_and_leaves_nothing(place):
    done = train(flags(place, "dry", "--dry_run", "--do_validation"))
    assert done.stdout.startswith("dry run: one step, held-out loss") and done.stdout.count("\n") == 1
    assert not (place / "out" / "dry").exists()
    two = launching.train(flags(place, "dry", "--dry_run", "--zero_stage", "1"), launcher=torchrun(2))
    assert "dry run: one step" in two.stdout
    assert not (place / "out" / "dry").exists() and not list(place.glob("**/.dry_run_*"))


def test_what_deepspeed_refuses_in_a_users_file_is_one_line(place):
    (place / "ds.json").write_text('{"zero_optimization": {"overlap_comm": "maybe"}}')
    done = train(flags(place, "refused", "--deepspeed_config", str(place / "ds.json")), status=2)
    lines = [line for line in done.stderr.splitlines() if not line.startswith("note:")]
    assert len(lines) == 1 and "DeepSpeed refuses an option" in lines[0] and "overlap_comm" in lines[0]
    assert not (place / "out" / "refused").exists()


def test_a_diverged_run_says_so_and_keeps_no_broken_state(place):
    done = train(flags(place, "nan", "--lr", "1e30", "--max_steps", "50", "--gradient_clipping", "0"))
    run = place / "out" / "nan"
    assert summary(run)["exit_reason"] == "diverged" and "loss is nan" in summary(run)["why"]
    assert summary(run)["steps"] < 50 and "diverged" in done.stderr
    assert not list(run.glob("finetune/progress_*")) and not list(run.glob("checkpoints/step_*"))


def test_nothing_that_diverged_is_saved_even_where_nothing_was_printed(place):
    """Markers, a checkpoint and the end come before the first report."""
    train(flags(place, "nan2", "--lr", "1e30", "--max_steps", "12", "--gradient_clipping", "0", "--print_steps", "100",
                "--finetune_time_markers", "0.1,0.15", "--total_training_time", "1", "--clock", "simulated:60"))
    run = place / "out" / "nan2"
    assert summary(run)["exit_reason"] == "diverged" and summary(run)["markers"] == []
    assert not list(run.glob("checkpoints/step_*")) and "NaN" not in (run / "metrics.jsonl").read_text()


def test_the_last_good_state_of_a_diverged_run_can_be_trained_on(place):
    """The first step has a learning rate of 0, the second one past the largest fp32 number."""
    warmed = [*flags(place, "nan3", "--num_warmup_steps", "1000", "--steps_between_checkpoints", "1", "--gradient_clipping", "0"),
              "--max_steps", "40"]
    done = train([*warmed, "--lr", "1e42"])
    run = place / "out" / "nan3"
    assert summary(run)["exit_reason"] == "diverged" and summary(run)["checkpoint"] == "checkpoints/step_1"
    assert "the last good state is checkpoints/step_1" in done.stderr
    assert "holds a finished run (diverged)" in train([*warmed, "--lr", "1e42", "--resume"]).stderr
    train([*warmed, "--lr", "1e-3", "--resume", "--allow_changes"])
    assert summary(run)["exit_reason"] == "max_steps" and summary(run)["steps"] == 40


def test_early_stop_looks_at_the_held_out_loss(place):
    train(flags(place, "early", "--do_validation", "--use_early_stopping", "--early_stop_time", "1", "--early_stop_eval_loss", "1e-6",
                "--max_steps", "40", "--clock", "simulated:30", "--validation_epochs", "1"))
    done = summary(place / "out" / "early")
    # Shards of 40 samples in steps of 8: the first held-out loss after more than one minute is that of step 5.
    assert (done["exit_reason"], done["steps"]) == ("early_stop", 5)


def test_pretraining_needs_no_teacher(place):
    scratch = ["--dataset_path", str(place / "shards"), "--output_dir", str(place / "out"), "--job_name", "mlm", "--encoder_ln_mode",
               "post-ln", "--layernorm_embedding", "--hidden_size", "32", "--num_hidden_layers", "1", "--num_attention_heads", "4",
               "--intermediate_size", "64", "--max_position_embeddings", "64", "--tokenizer_name", str(place / "teacher" / "vocab.txt"),
               "--train_batch_size", "8", "--train_micro_batch_size_per_gpu", "8", "--lr", "3e-3", "--lr_schedule", "step", "--max_steps",
               "60", "--print_steps", "20", "--precision", "fp32"]
    train(scratch)
    run = place / "out" / "mlm"
    assert losses(run)[-1] < losses(run)[0]
    config = json.loads((run / "finetune" / summary(run)["markers"][-1] / "config.json").read_text())
    assert config["architectures"] == ["BertForMaskedLM"] and config["vocab_size"] == 125


def test_a_student_without_a_head_is_a_bare_encoder_and_says_so(place):
    from transformers import AutoModel

    train(flags(place, "bare", teacher="headless"))
    marker = place / "out" / "bare" / "finetune" / summary(place / "out" / "bare")["markers"][-1]
    model, info = AutoModel.from_pretrained(marker, output_loading_info=True)
    assert type(model).__name__ == "BertModel" and not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert "bare encoder" in (marker / "README.md").read_text()
    pooler = load_file(place / "headless" / "model.safetensors")["pooler.dense.weight"]
    assert torch.equal(model.pooler.dense.weight, pooler)


def test_the_run_folder_holds_what_it_should(place):
    train(flags(place, "folder", "--do_validation"))
    run = place / "out" / "folder"
    assert {path.name for path in run.iterdir()} == {
        "args.yaml", "deepspeed_config.json", "environment.json", "metrics.jsonl", "checkpoints", "finetune", "summary.json"}
    assert not [path for path in run.rglob("*") if path.name.startswith(".partial")]
    first = json.loads((run / "metrics.jsonl").read_text().splitlines()[0])
    assert first["event"] == "start"
    for event in events(run):
        assert {"step", "samples", "tokens", "hours", "progress", "loss", "loss/hidden_mse", "lr", "grad_norm", "samples_per_s",
                "tokens_per_s", "step_s"} <= set(event)
    state = json.loads((run / "finetune" / summary(run)["markers"][-1] / "run_state.json").read_text())
    assert state["step"] == 4 and state["validation_loss"] == events(run, "validation")[-1]["loss"]
    recipe = yaml.safe_load((run / "args.yaml").read_text())
    assert recipe["layer_selection"] == "3" and recipe["student_layers"] == "1,3" and recipe["hidden_size"] == 32


def test_args_yaml_repeats_the_run_and_overwrite_keeps_the_old_one(place):
    train(flags(place, "again"))
    run = place / "out" / "again"
    before = losses(run)
    recipe = place / "recipe.yaml"
    recipe.write_text((run / "args.yaml").read_text())
    refused = train(["--config", str(recipe)], status=2)
    assert "holds a finished run (max_steps)" in refused.stderr
    train(["--config", str(recipe), "--overwrite"])
    assert losses(run) == before == losses(place / "out" / "again.old_1")


def test_other_runs_are_never_moved_or_joined(place):
    inner = place / "out" / "group" / "one"
    train(flags(place, "group", "--current_run_id", "one"))
    refused = train(flags(place, "group", "--overwrite"), status=2)
    assert "holds other runs (one)" in refused.stderr
    train(flags(place, "group"))
    assert summary(inner)["steps"] == summary(inner.parent)["steps"] == 4
    with_lock = os.open(inner, os.O_RDONLY)
    fcntl.flock(with_lock, fcntl.LOCK_EX)
    refused = train(flags(place, "group", "--current_run_id", "one", "--overwrite"), status=2)
    os.close(with_lock)
    assert "another process is running in this folder" in refused.stderr and inner.exists()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("stage", ["0", "1", "2"])
def test_every_precision_and_stage_trains_on_a_gpu(place, precision, stage):
    run = f"gpu_{precision}_{stage}"
    train(flags(place, run, "--precision", precision, "--zero_stage", stage, "--max_steps", "60", "--print_steps", "20", "--do_validation"))
    held_out = [event["loss"] for event in events(place / "out" / run, "validation")]
    assert held_out[-1] < held_out[0]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_weights_of_the_other_stage_rest(place, optimizer):
    """From the change-over on, neither weight decay nor momentum moves what only the masked tokens had trained."""
    run = f"stages_{optimizer}"
    train([word for word in flags(place, run, "--finetune_time_markers", "0.5,1.0", "--max_steps", "12", "--clock", "simulated:60",
                                  "--total_training_time", "0.2", "--weight_decay", "0.5", "--optimizer_type", optimizer,
                                  method="att_val_two_stage", teacher="teacher")
           if word not in ("--layer_selection", "3")])
    markers = [place / "out" / run / "finetune" / name for name in summary(place / "out" / run)["markers"]]
    half, whole = (load_file(marker / "model.safetensors") for marker in markers)
    assert [marker.name.split("_")[1] for marker in markers] == ["0.5", "1.0"]
    moved = {name for name in half if not torch.equal(half[name], whole[name])}
    assert not any(name.startswith("cls.predictions.transform") or "layer.1.output" in name for name in moved), moved
    assert "bert.encoder.layer.0.output.dense.weight" in moved and "bert.encoder.layer.1.attention.self.value.weight" in moved
    start = load_file(place / "teacher" / "model.safetensors")
    assert not torch.equal(start["cls.predictions.transform.dense.weight"], half["cls.predictions.transform.dense.weight"])
    terms = [{name for name in event if name.startswith("loss/")} for event in events(place / "out" / run)]
    assert terms[0] == {"loss/mlm"} and terms[-1] == {"loss/att_kl", "loss/val_kl"}
    assert "up to 50% of the budget" in (markers[-1] / "README.md").read_text()


def test_a_term_that_was_learnt_from_in_some_steps_is_a_mean_over_those(place):
    """The stages change over after step 3 of 10; the report of the first five steps holds both."""
    common = [word for word in flags(place, "x", "--max_steps", "10", "--clock", "simulated:60", "--total_training_time", "0.16667",
                                     "--second_stage", "0.29", "--lr", "1e-9", "--hidden_dropout_prob", "0",
                                     "--attention_probs_dropout_prob", "0", method="att_val_two_stage")
              if word not in ("--layer_selection", "3")]
    found = {}
    for interval in ("1", "5"):
        train([*common, "--job_name", f"interval_{interval}", "--print_steps", interval])
        found[interval] = events(place / "out" / f"interval_{interval}")
    singly, (first, _) = found["1"][:5], found["5"]
    for name in ("loss/mlm", "loss/att_kl", "loss/val_kl"):
        seen = [event[name] for event in singly if name in event]
        assert len(seen) == (3 if name == "loss/mlm" else 2) and first[name] == pytest.approx(sum(seen) / len(seen), rel=1e-5)
    assert first["loss"] == pytest.approx(sum(event["loss"] for event in singly) / 5, rel=1e-5)


def test_a_stage_that_never_began_is_said(place):
    done = train([word for word in flags(place, "never", "--clock", "simulated:1", "--total_training_time", "1",
                                         method="att_val_two_stage") if word not in ("--layer_selection", "3")])
    assert "att_kl, val_kl never began" in done.stderr + done.stdout
    marker = summary(place / "out" / "never")["markers"][-1]
    assert "not begun yet" in (place / "out" / "never" / "finetune" / marker / "README.md").read_text()


@pytest.mark.parametrize(("padding", "positions", "works"), [(0, 33, True), (1, 34, True), (3, 36, True), (3, 35, False)])
def test_positions_of_roberta_are_counted_from_its_padding_id(place, tmp_path, padding, positions, works):
    """Sequences of 32 tokens; a teacher whose padding id is `padding` needs padding + 33 rows."""
    import transformers
    from tiny import VOCABULARY, make_tokenizer

    config = transformers.RobertaConfig(
        vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, type_vocab_size=1,
        max_position_embeddings=positions, pad_token_id=padding, bos_token_id=2, eos_token_id=3)
    transformers.RobertaForMaskedLM(config).save_pretrained(tmp_path / "roberta")
    make_tokenizer(tmp_path / "roberta")
    run = flags(place, f"roberta_{padding}_{positions}", "--layer_selection", "1", "--optimizer_type", "muon", method="embedding_mse")
    run = [word for word in run if word not in ("--layer_selection", "3", "1")]
    run[run.index(str(place / "teacher"))] = str(tmp_path / "roberta")
    done = train(run, status=0 if works else 2)
    assert works or "the models have 31 positions" in done.stderr
