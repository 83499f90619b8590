"""The offline pipeline in our commands, tiny: JSON lines, text shards, pairs with labels, a teacher run once, the recipe under two
processes of torchrun's and of Open MPI's kind, and held-out accuracies that anyone with transformers can count again."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import transformers
from launching import ROOT, events, losses, summary
from recipes_case import text_to_samples, write_text
from tiny import VOCABULARY, make_config, make_tokenizer

STEPS = 12


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("nsp")
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(5)
        teacher = transformers.BertForPreTraining(make_config("bert", 4, 32, 4, VOCABULARY, 0.1))
        for parameter in teacher.parameters():
            parameter.normal_(std=0.1)
    teacher.save_pretrained(make_tokenizer(folder / "teacher"))
    lines = write_text(folder / "dump.txt").read_text(encoding="utf-8").splitlines()
    articles = "".join(json.dumps({"id": str(number), "title": "Ba", "text": line}) + "\n" for number, line in enumerate(lines))
    (folder / "dump.jsonl").write_text(articles, encoding="utf-8")
    text_to_samples(folder, folder / "dump.jsonl", folder / "teacher", "--nsp", "--dup_factor", "2", kind="jsonl")
    return folder


@pytest.fixture(scope="module")
def cache(place, zygote) -> Path:
    """What two processes store of the teacher, a file a shard."""
    zygote.run(["--dataset_path", str(place / "samples"), "--teacher_path", str(place / "teacher"), "--output_dir", str(place / "cache"),
                "--truncation_factor", "10", "--precision", "fp32"], ranks=2, call="extract_teacher_outputs:main")
    return place / "cache"


def flags(place: Path, run: str, *more: str) -> list[str]:
    """The recipe, with what makes it small."""
    return ["--config", str(ROOT / "configs" / "offline_nsp_6layer.yaml"), "--teacher_path", str(place / "teacher"), "--num_hidden_layers",
            "2", "--dataset_path", str(place / "samples"), "--teacher_cache", str(place / "cache"), "--output_dir", str(place / "runs"),
            "--current_run_id", run, "--train_batch_size", "16", "--train_micro_batch_size_per_gpu", "4", "--lr", "2e-3",
            "--num_warmup_steps", "0", "--max_steps", str(STEPS), "--print_steps", "1", "--validation_micro_batch", "5", "--precision",
            "fp32", "--clock", "simulated:60", "--total_training_time", "0.2", *more]


def run_of(place: Path, name: str) -> Path:
    return place / "runs" / "offline_nsp_6layer" / name


@pytest.fixture(scope="module")
def run(place, cache, zygote) -> Path:
    zygote.run(flags(place, "torchrun"), ranks=2)
    return run_of(place, "torchrun")


def test_processes_of_open_mpi_train_the_same_run(place, zygote, run):
    zygote.run(flags(place, "mpi"), ranks=2, call="drive_mpi:main")
    mpi = run_of(place, "mpi")
    assert losses(mpi) == losses(run) and summary(mpi)["quality"] == summary(run)["quality"]
    assert summary(mpi)["samples"] == 16 * STEPS


def test_both_heads_are_trained_and_measured(run):
    terms = {name for event in events(run) for name in event if name.startswith("loss/")}
    assert terms == {"loss/soft_ce", "loss/nsp"} and losses(run)[-1] < losses(run)[0]
    quality = summary(run)["quality"]
    assert quality.keys() == {"accuracy/mlm", "accuracy/nsp", "accuracy/teacher_mlm"}
    assert quality == {name: events(run, "validation")[-1][name] for name in quality}
    card = (run / "finetune" / summary(run)["markers"][-1] / "README.md").read_text()
    assert f"| accuracy/nsp | {quality['accuracy/nsp']:.6g} |" in card and "AutoModelForPreTraining" in card


def test_the_export_has_both_heads_and_the_accuracies_that_were_told(run, place):
    model, info = transformers.AutoModelForPreTraining.from_pretrained(
        run / "finetune" / summary(run)["markers"][-1], output_loading_info=True)
    assert type(model) is transformers.BertForPreTraining and not any(info[kind] for kind in ("missing_keys", "unexpected_keys"))
    model, right, known, masked, sentences = model.eval(), 0, 0, 0, 0
    parts = [h5py.File(place / "samples" / f"test_shard_{number}.hdf5") for number in (0, 1)]
    rows = {key: torch.from_numpy(np.concatenate([part[key][:] for part in parts])).long() for key in parts[0]}
    teacher = transformers.AutoModelForPreTraining.from_pretrained(place / "teacher").eval()
    with torch.no_grad():
        said, taught = (one(rows["input_ids"], attention_mask=rows["input_mask"], token_type_ids=rows["segment_ids"])
                        for one in (model, teacher))
    for row, (positions, labels) in enumerate(zip(rows["masked_lm_positions"].tolist(), rows["masked_lm_ids"].tolist(), strict=True)):
        used = positions.index(0) if 0 in positions else len(positions)
        for position, label in zip(positions[:used], labels[:used], strict=True):
            right += int(said.prediction_logits[row, position].argmax()) == label
            known += int(taught.prediction_logits[row, position].argmax()) == label
        masked += used
        sentences += int(said.seq_relationship_logits[row].argmax()) == int(rows["next_sentence_labels"][row])
    quality = summary(run)["quality"]
    assert len(rows["input_ids"]) > 10 and masked > 30  # more than one micro-batch for each rank
    assert quality["accuracy/nsp"] == pytest.approx(sentences / len(rows["input_ids"]), abs=1e-9)
    assert quality["accuracy/mlm"] == pytest.approx(right / masked, abs=1e-9)
    assert quality["accuracy/teacher_mlm"] == pytest.approx(known / masked, abs=1e-9)


def test_the_student_starts_with_the_teachers_sentence_head(run, place):
    """Its held-out loss before the first step is the copied head's; after training the head has moved."""
    teacher, student = (transformers.AutoModelForPreTraining.from_pretrained(folder) for folder in (
        place / "teacher", run / "finetune" / summary(run)["markers"][-1]))
    first = teacher.cls.seq_relationship.weight
    moved = (student.cls.seq_relationship.weight - first).abs().max()
    assert 0 < moved < 0.1 < first.abs().max()
