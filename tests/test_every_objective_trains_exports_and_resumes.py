"""Every name of --method, and every architecture, trains 20 steps on two ranks, exports what loads, and resumes bit for bit."""

import json
import math

import pytest
from launching import ROOT, launch, torchrun
from tiny import MODEL_TYPES, make_shards, make_teacher

from pretraining.objectives.catalog import COMPOSITES, OBJECTIVES

# Objectives whose first weights are shared with the teacher have little to learn at once; these show that training goes the right way.
LEARN_AT_ONCE = ("hidden_mse", "hidden_mse_combine", "cosine", "logit", "mlm", "minilm_v2", "att_kl", "cka", "gram", "tinybert",
                 "distilbert", "narrow", "family-roberta", "family-modernbert")
SHAPE = ["--hidden_size", "16", "--num_hidden_layers", "2", "--num_attention_heads", "4", "--intermediate_size", "32",
         "--max_position_embeddings", "64"]
SCRATCH = ["--encoder_ln_mode", "post-ln", "--layernorm_embedding", *SHAPE]


def cases(place):
    """(name, flags) of every run."""
    common = ["--dataset_path", str(place / "shards"), "--output_dir", str(place / "out"), "--train_batch_size", "8",
              "--train_micro_batch_size_per_gpu", "2", "--lr", "2e-3", "--lr_schedule", "constant_step", "--num_warmup_steps", "0",
              "--max_steps", "20", "--print_steps", "5", "--precision", "fp32", "--clock", "simulated:60", "--total_training_time", "0.34",
              "--layer_norm_type", "pytorch", "--tokenizer_name", str(place / "bert" / "vocab.txt")]

    def taught(family, method, *more):
        return [*common, "--distillation", "--teacher_path", str(place / family), "--method", method, *more]

    copied = ["--student_initialize", "--num_hidden_layers", "2"]
    for name in (*OBJECTIVES, *COMPOSITES):
        if name == "clm":
            yield name, [*common, "--model_type", "gpt2-clm", "--method", name, *SHAPE]
        elif name == "nsp":
            yield name, [*common, "--model_type", "bert-mlm-nsp", "--method", "mlm,nsp", *SCRATCH]
        elif name == "mlm":
            yield name, [*common, "--method", name, *SCRATCH]
        else:
            yield name, taught("bert", name, *copied)
    yield "narrow", taught("bert", "hidden_mse,embedding_mse,minilm_v2:2,gram,crd", *SCRATCH)
    yield "augmented", taught("bert", "hidden_mse", "--aug", *copied)
    for family in MODEL_TYPES:
        language = "clm" if family == "gpt2" else "mlm"
        yield f"family-{family}", taught(family, f"hidden_mse,minilm_v2,logit,{language}:0.5", *copied)
    yield "crossing", taught("bert", "distilbert", "--model_type", "distilbert-mlm", *copied)
    yield "pre-ln", taught("bert", "minilm_v2", "--encoder_ln_mode", "pre-ln", *SHAPE)


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    place = tmp_path_factory.mktemp("every")
    make_shards(place / "shards", next_sentence=True)
    for family in MODEL_TYPES:
        make_teacher(place / family, family=family)
    todo = [{"name": name, "flags": flags} for name, flags in cases(place)]
    (place / "cases.json").write_text(json.dumps(todo))
    drive = [*torchrun(2), str(ROOT / "tests" / "drive_runs.py"), str(place / "cases.json")]
    launch([*drive, "first"], PYTHONPATH=f"{ROOT}:{ROOT / 'tests'}", timeout=600)
    launch([*drive, str(place / "report.json")], PYTHONPATH=f"{ROOT}:{ROOT / 'tests'}", timeout=600)
    found = {report["name"]: report for report in json.loads((place / "report.json").read_text())}
    assert list(found) == [case["name"] for case in todo]
    return found


def test_every_run_ends_and_its_losses_are_numbers(reports):
    for name, report in reports.items():
        assert report["reason"] == "max_steps", report
        assert len(report["losses"]) == 4 and all(map(math.isfinite, report["losses"])), (name, report["losses"])


def test_every_resumed_run_ends_with_the_bits_of_the_uninterrupted_one(reports):
    assert {name: report["differ"] for name, report in reports.items() if report["differ"]} == {}


def test_every_export_loads_without_a_missing_or_unexpected_weight(reports):
    assert {name: report["wrong"] for name, report in reports.items() if report["wrong"]} == {}
    assert reports["crossing"]["model"] == "DistilBertForMaskedLM" and reports["clm"]["model"] == "GPT2LMHeadModel"
    assert reports["nsp"]["model"] == "BertForPreTraining" and reports["pre-ln"]["model"] == "RobertaPreLayerNormForMaskedLM"
    assert reports["family-modernbert"]["model"] == "ModernBertForMaskedLM"


def test_projections_are_exported_never(reports):
    assert not [weight for report in reports.values() for weight in report["weights"] if "objective" in weight or "projection" in weight]


def test_every_term_is_logged_under_its_name(reports):
    for name in OBJECTIVES:
        terms = {term.removeprefix("loss/").split("/")[0] for term in reports[name]["terms"]}
        assert terms == ({"mlm", "nsp"} if name == "nsp" else {name}), (name, terms)
    assert set(reports["att_val_two_stage"]["terms"]) == {"loss/mlm", "loss/att_kl", "loss/val_kl"}


@pytest.mark.parametrize("name", LEARN_AT_ONCE)
def test_losses_fall(reports, name):
    assert reports[name]["losses"][-1] < reports[name]["losses"][0]
