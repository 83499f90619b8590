"""24 steps straight equal 24 steps in pieces, cut at random by signals, to the last bit: for every name of --method, every architecture,
optimizer, schedule, ZeRO stage and precision. Every run also learns, exports what loads, and logs its terms.

All of them are cut among the slow proofs; in every test those are whose state is of a kind of its own."""

import json
import math
import random
import signal

import pytest
from drive_runs import LAST_STEP
from tiny import MODEL_TYPES, make_shards, make_teacher

from pretraining.objectives.catalog import COMPOSITES, OBJECTIVES

# Objectives whose first weights are shared with the teacher have little to learn at once; these show that training goes the right way.
LEARN_AT_ONCE = ("hidden_mse", "hidden_mse_combine", "cosine", "logit", "mlm", "minilm_v2", "att_kl", "cka", "gram", "tinybert",
                 "distilbert", "narrow", "family-roberta", "family-modernbert")
SHAPE = ["--hidden_size", "16", "--num_hidden_layers", "2", "--num_attention_heads", "4", "--intermediate_size", "32",
         "--max_position_embeddings", "64"]
SCRATCH = ["--encoder_ln_mode", "post-ln", "--layernorm_embedding", *SHAPE]
COPIED = ["--student_initialize", "--num_hidden_layers", "2"]
WATCHED = ["--do_validation", "--finetune_time_markers", "0.3,0.6", "--steps_between_checkpoints", "5"]
CUT_IN_EVERY_TEST = ("crd", "att_val_two_stage", "hidden_mse_combine", "nsp", "clm", "narrow", "augmented", "family-modernbert", "crossing",
                     "lamb-step-exp-fp32-0", "adafactor-time-linear-bf16-0", "muon-constant_step-exp-bf16-0", "adamw-time-linear-fp32-1",
                     "adamw-time-exp-bf16-2", "adamw-step-linear-fp32-2")
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


def mixtures(taught, unmasked):
    """(name, flags): every optimizer, schedule, curve, ZeRO stage and precision, with masks drawn on the fly and with markers."""
    def mixture(optimizer, schedule, curve, precision, stage, *more, method="hidden_mse,mlm:0.5"):
        shape = [] if "--hidden_size" in more else COPIED
        decay = ["--decay_rate", "0.8", "--decay_step", "0.1" if schedule == "time" else "6"] if curve == "exp" else []
        return "-".join((optimizer, schedule, curve, precision, stage)), taught(
            "bert", method, "--optimizer_type", optimizer, "--lr_schedule", schedule, "--curve", curve, *decay, "--precision", precision,
            "--zero_stage", stage, *shape, *more)

    yield mixture("adam", "step", "linear", "bf16", "0")
    yield mixture("lamb", "step", "exp", "fp32", "0", *WATCHED)
    yield mixture("adafactor", "time", "linear", "bf16", "0", *unmasked)
    yield mixture("muon", "time", "exp", "fp32", "0", *unmasked)
    yield mixture("muon", "constant_step", "exp", "bf16", "0")
    yield mixture("adamw", "time", "linear", "fp32", "1", *unmasked, *WATCHED)
    yield mixture("adamw", "constant_step", "exp", "bf16", "1")
    yield mixture("adam", "step", "exp", "fp32", "2", "--minutes_between_checkpoints", "7")
    yield mixture("adamw", "time", "exp", "bf16", "2", *unmasked, *WATCHED)
    yield mixture("adamw", "step", "linear", "fp32", "2", *SCRATCH, method="hidden_mse,embedding_mse,crd")


def cases(place):
    """(name, flags) of every run."""
    common = ["--dataset_path", str(place / "shards"), "--output_dir", str(place / "out"), "--train_batch_size", "8",
              "--train_micro_batch_size_per_gpu", "2", "--lr", "2e-3", "--lr_schedule", "constant_step", "--num_warmup_steps", "0",
              "--max_steps", str(LAST_STEP), "--print_steps", "5", "--precision", "fp32", "--clock", "simulated:60",
              "--total_training_time", "0.41", "--layer_norm_type", "pytorch", "--tokenizer_name", str(place / "bert" / "vocab.txt")]

    def taught(family, method, *more):
        return [*common, "--distillation", "--teacher_path", str(place / family), "--method", method, *more]

    for name in (*OBJECTIVES, *COMPOSITES):
        if name == "clm":
            yield name, [*common, "--model_type", "gpt2-clm", "--method", name, *SHAPE]
        elif name == "nsp":
            yield name, [*common, "--model_type", "bert-mlm-nsp", "--method", "mlm,nsp", *SCRATCH]
        elif name == "mlm":
            yield name, [*common, "--method", name, *SCRATCH]
        else:
            yield name, taught("bert", name, *COPIED)
    yield "narrow", taught("bert", "hidden_mse,embedding_mse,minilm_v2:2,gram,crd", *SCRATCH)
    yield "augmented", taught("bert", "hidden_mse", "--aug", *COPIED)
    for family in MODEL_TYPES:
        language = "clm" if family == "gpt2" else "mlm"
        yield f"family-{family}", taught(family, f"hidden_mse,minilm_v2,logit,{language}:0.5", *COPIED)
    yield "crossing", taught("bert", "distilbert", "--model_type", "distilbert-mlm", *COPIED)
    yield "pre-ln", taught("bert", "minilm_v2", "--encoder_ln_mode", "pre-ln", *SHAPE)
    yield from mixtures(taught, ["--dataset_path", str(place / "unmasked")])


def draw_cuts(name):
    """Two cuts, or three for every third run or so: [step, signal, the rank that gets it or None for both]."""
    dice = random.Random(name)
    steps = sorted(dice.sample(range(1, LAST_STEP), dice.choice((2, 2, 3))))
    return [[step, int(dice.choice(SIGNALS)), dice.choice((None, 0, 1))] for step in steps]


@pytest.fixture(scope="module", params=[pytest.param(False, id="some"), pytest.param(True, id="all", marks=pytest.mark.slow)])
def reports(request, tmp_path_factory, zygote):
    place = tmp_path_factory.mktemp("every")
    make_shards(place / "shards", next_sentence=True)
    make_shards(place / "unmasked", masking="none")
    for family in MODEL_TYPES:
        make_teacher(place / family, family=family)
    todo = [{"name": name, "flags": flags, "cuts": draw_cuts(name) if request.param or name in CUT_IN_EVERY_TEST else []}
            for name, flags in cases(place)]
    assert {case["name"] for case in todo} >= set(CUT_IN_EVERY_TEST)
    (place / "cases.json").write_text(json.dumps(todo))
    for piece in range(1 + max(len(case["cuts"]) for case in todo)):
        zygote.run([str(place / "cases.json"), str(piece), str(place / "report")], ranks=2, call="drive_runs:main")
    found = {report["name"]: report for rank in (0, 1) for report in json.loads((place / f"report.{rank}").read_text())}
    assert found.keys() == {case["name"] for case in todo}
    for case in todo:
        assert found[case["name"]]["resumed"] == [step for step, _, _ in case["cuts"]]
    return found


@pytest.mark.parametrize("what", ["exports", "state", "metrics"])
def test_every_run_in_pieces_ends_with_the_bits_of_the_uninterrupted_one(reports, what):
    """`state` is every tensor and number of DeepSpeed's files and of state.json in the last checkpoint."""
    assert {name: report[what][:5] for name, report in reports.items() if report[what]} == {}


def test_every_run_logs_losses_that_are_numbers(reports):
    for name, report in reports.items():
        assert len(report["losses"]) == 5 and all(map(math.isfinite, report["losses"])), (name, report["losses"])
    watched = [report for report in reports.values() if report["validations"]]
    assert len(watched) == 3 and all(len(report["markers"]) == 3 for report in watched)


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
