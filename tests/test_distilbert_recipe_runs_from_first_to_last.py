"""DistilBERT from its README in our spelling, tiny: a line of text a sequence, samples, token counts, a student of teacher layers, and the
published recipe under two processes; the result is a DistilBertForMaskedLM whose positions are the teacher's to the bit."""

from pathlib import Path

import pytest
import torch
import transformers
from launching import ROOT, events, losses, summary
from recipes_case import text_to_samples, write_text
from tiny import VOCABULARY, make_teacher

from dataset import count_tokens
from pretraining.extract_student import extract, parse_flags

POSITIONS = "distilbert.embeddings.position_embeddings.weight"
STEPS = 12


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("distilbert")
    make_teacher(folder / "teacher", layers=12)
    text_to_samples(folder, write_text(folder / "dump.txt"), folder / "teacher", "--masking", "none")
    count_tokens.main(["--dir", str(folder / "samples"), "--output_file", str(folder / "token_counts.json")])
    return folder


def flags(place: Path, run: str, *more: str) -> list[str]:
    """The recipe, with what makes it small."""
    return ["--config", str(ROOT / "configs" / "distilbert_6layer.yaml"), "--teacher_path", str(place / "teacher"), "--student_initialize",
            str(place / "students" / "distilbert"), "--dataset_path", str(place / "samples"), "--token_counts",
            str(place / "token_counts.json"), "--output_dir", str(place / "runs"), "--current_run_id", run, "--train_batch_size", "16",
            "--train_micro_batch_size_per_gpu", "4", "--max_steps", str(STEPS), "--clock", "simulated:60", "--total_training_time", "0.2",
            "--lr", "2e-3", "--weight_decay", "0.1", "--print_steps", "1", "--precision", "fp32", *more]


@pytest.fixture(scope="module")
def run(place, zygote) -> tuple[Path, str]:
    """(the run's folder, what rank 0 said)."""
    extract(parse_flags(["--teacher_path", str(place / "teacher"), "--model_type", "distilbert-mlm", "--student_layers", "distilbert",
                         "--num_hidden_layers", "6", "--output_dir", str(place / "students" / "distilbert")]))
    life = zygote.run(flags(place, "two"), ranks=2)
    return place / "runs" / "distilbert_6layer" / "two", (life.logs / "0.err").read_text(encoding="utf-8")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return transformers.AutoModelForMaskedLM.from_pretrained(folder).state_dict()


def test_the_student_has_the_layers_of_the_paper(place, run):
    teacher, student = weights(place / "teacher"), weights(place / "students" / "distilbert")
    for mine, other in enumerate((0, 2, 4, 7, 9, 11)):
        assert torch.equal(student[f"distilbert.transformer.layer.{mine}.ffn.lin1.weight"],
                           teacher[f"bert.encoder.layer.{other}.intermediate.dense.weight"])
    assert torch.equal(student["vocab_projector.weight"], teacher["cls.predictions.decoder.weight"])


def test_the_recipe_trains_on_two_processes(run):
    folder, said = run
    done, terms = summary(folder), {name for event in events(folder) for name in event if name.startswith("loss/")}
    assert done["exit_reason"] == "time_budget" and done["steps"] == STEPS and done["samples"] == 16 * STEPS
    assert {name.split("/")[1] for name in terms} == {"logit", "mlm", "cosine"} and losses(folder)[-1] < losses(folder)[0]
    assert "training masks fall on rare tokens more often, by --mlm_smoothing 0.7" in said
    assert "the samples of a step are cut into micro-batches by their length" in said
    # The recipe's three weights: the reported sum is 5 KL + 2 MLM + 1 cosine.
    event = events(folder)[0]
    cosine = next(value for name, value in event.items() if name.startswith("loss/cosine"))
    assert event["loss"] == pytest.approx(5 * event["loss/logit"] + 2 * event["loss/mlm"] + cosine, rel=1e-6)


def test_held_out_accuracy_is_in_every_place(run):
    folder, said = run
    validation = events(folder, "validation")
    assert all(0 <= event["accuracy/mlm"] <= 1 and 0 <= event["accuracy/teacher_mlm"] <= 1 for event in validation)
    assert len({event["accuracy/teacher_mlm"] for event in validation}) == 1
    quality = summary(folder)["quality"]
    assert quality == {name: validation[-1][name] for name in ("accuracy/mlm", "accuracy/teacher_mlm")}
    assert f"accuracy/mlm {quality['accuracy/mlm']:.6g}" in said and not any("accuracy" in name for name in summary(folder)["losses"])
    card = (folder / "finetune" / summary(folder)["markers"][-1] / "README.md").read_text()
    assert f"| accuracy/mlm | {quality['accuracy/mlm']:.6g} |" in card


def test_the_result_is_a_distilbert_with_the_teachers_positions(place, run):
    folder, said = run
    marker = folder / "finetune" / summary(folder)["markers"][-1]
    model, info = transformers.AutoModelForMaskedLM.from_pretrained(marker, output_loading_info=True)
    assert type(model) is transformers.DistilBertForMaskedLM and not any(info[kind] for kind in ("missing_keys", "unexpected_keys"))
    assert model.config.n_layers == 6 and model.config.vocab_size == VOCABULARY
    first, last = weights(place / "students" / "distilbert"), model.state_dict()
    moved = {name for name in last if not torch.equal(first[name], last[name])}
    assert POSITIONS not in moved and moved == last.keys() - {POSITIONS}
    assert f"--freeze_pos_embs: {POSITIONS} (2048 numbers) keeps its first values" in said
    assert f"Frozen as asked, with their first values: `{POSITIONS}`." in (marker / "README.md").read_text()


def test_a_bare_start_from_the_teacher_is_the_extracted_one(place, run, zygote):
    """And one process begins as two do."""
    zygote.run(flags(place, "one", "--student_initialize", "true", "--student_layers", "distilbert"))
    alone = place / "runs" / "distilbert_6layer" / "one"
    assert losses(alone)[:1] == pytest.approx(losses(run[0])[:1], rel=1e-5)
    validations = [[event["loss"] for event in events(folder, "validation")] for folder in (alone, run[0])]
    assert validations[0][0] == pytest.approx(validations[1][0], rel=1e-5)
