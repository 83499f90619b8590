"""Every family of encoders is fine-tuned on every kind of task; what is no encoder is one line, before torch is imported."""

import argparse
import json
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from tiny import CLS, PAD, SEP, VOCABULARY, WORDS, make_tokenizer

from dataset.errors import UserError
from evaluation.fine_tuning.checks import check_fine_tuning
from evaluation.fine_tuning.model_folder import check_model_folder, read_head
from evaluation.fine_tuning.settings import FineTuningSettings, add_flags, without_effect
from evaluation.tasks.squad import SQUAD_1
from evaluation.tasks.task import Examples, Questions, Task, TaskData

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48, "max_position_embeddings": 64}
SPECIAL = {"pad_token_id": PAD, "bos_token_id": CLS, "eos_token_id": SEP}
FAMILIES = {
    "bert": SMALL,
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 48, "max_position_embeddings": 64},
    "roberta": SMALL | SPECIAL | {"type_vocab_size": 1},
    "roberta-prelayernorm": SMALL | SPECIAL,
    "electra": SMALL | {"embedding_size": 16},
    "albert": SMALL | {"embedding_size": 16, "num_hidden_groups": 1, "inner_group_num": 1},
    "deberta-v2": SMALL | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False,
                           "type_vocab_size": 0},
    "mpnet": SMALL | SPECIAL,
    "modernbert": SMALL | SPECIAL | {"cls_token_id": CLS, "sep_token_id": SEP, "local_attention": 6},
}
FIRST, SECOND = ([" ".join(WORDS[at : at + length]) for at, length in ((0, 5), (3, 2), (7, 9), (1, 3), (9, 4), (2, 8))] for _ in range(2))
TEXT = " ".join(WORDS[:40])
SPANS = Questions([str(at) for at in range(6)], FIRST, [TEXT] * 6, [[WORDS[at]] for at in range(6)],
                  [[len(" ".join(WORDS[:at])) + bool(at)] for at in range(6)])
KINDS = {
    "classification": TaskData(Task("RTE", "classification", ("accuracy",), "accuracy", ("a", "b", "c")),
                               Examples((FIRST, SECOND[::-1]), [0, 1, 2, 0, 1, 2]), {}, ""),
    "regression": TaskData(Task("STS-B", "regression", ("pearson",), "pearson"), Examples((FIRST,), [0.0, 1.5, 2, 3, 4, 5]), {}, ""),
    "span": TaskData(SQUAD_1, SPANS, {}, ""),
}
QUICK = FineTuningSettings(max_steps=2, max_seq_length=32, max_query_length=8, doc_stride=4, precision="fp32",
                           per_device_train_batch_size=4, per_device_eval_batch_size=6)


def make_encoder(folder, family, kind="AutoModelForMaskedLM", **changes):
    """A tiny random model of `family` with the tokenizer of the tests."""
    import torch
    import transformers
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    make_tokenizer(folder)
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(family, vocab_size=VOCABULARY, **FAMILIES.get(family, {}) | changes)
    getattr(transformers, kind).from_config(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_takes_every_kind_of_task(family, tmp_path):
    """Trained, kept and scored again from what was kept; padding and the size of batches change no output of it."""
    from evaluation.fine_tuning.training import fine_tune, score_only

    folder = make_encoder(tmp_path / "model", family)
    for kind, data in KINDS.items():
        data = replace(data, dev={"dev": data.train})
        done = fine_tune(folder, data, QUICK, save_to=tmp_path / kind, say=lambda line: None)
        assert np.isfinite(done.losses).all() and not done.diverged and done.new_weights
        again = score_only(tmp_path / kind, data, QUICK, say=lambda line: None)
        assert again.metrics == done.metrics and again.new_weights == [] and again.parameters == done.parameters
        single = score_only(tmp_path / kind, data, replace(QUICK, per_device_eval_batch_size=1), say=lambda line: None)
        if kind == "span":
            assert again.outputs == done.outputs == single.outputs
        else:
            assert (again.outputs["dev"] == done.outputs["dev"]).all()
            assert single.outputs["dev"] == pytest.approx(done.outputs["dev"], abs=1e-5)


NO_ENCODERS = {
    "gpt2": ({"n_embd": 32, "n_layer": 1, "n_head": 2}, "AutoModelForCausalLM", "gpt2, GPT2LMHeadModel"),
    "llama": ({"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}, "AutoModel",
              "llama, LlamaModel"),
    "t5": ({"d_model": 32, "num_layers": 1, "num_heads": 2, "d_ff": 32, "d_kv": 16}, "AutoModelForSeq2SeqLM",
           "t5, T5ForConditionalGeneration"),
    "bert": (SMALL | {"is_decoder": True}, "AutoModelForCausalLM", "bert, BertLMHeadModel, is_decoder"),
}


@pytest.mark.parametrize("family", NO_ENCODERS)
def test_what_is_no_encoder_is_one_line(family, tmp_path):
    from evaluation.fine_tuning.training import fine_tune

    changes, kind, told = NO_ENCODERS[family]
    folder = make_encoder(tmp_path / "model", family, kind, **changes)
    with pytest.raises(UserError, match=rf"not an encoder \({told}.*; a BERT, .* would work"):
        fine_tune(folder, KINDS["regression"], QUICK)


def test_a_decoder_without_a_name_is_refused_once_transformers_is_there(tmp_path):
    """What config.json alone does not show, transformers' own tables do."""
    from evaluation.fine_tuning.heads import load_with_new_head

    folder = make_encoder(tmp_path / "model", "persimmon", "AutoModel", hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
                          intermediate_size=32)
    check_model_folder(folder, 32)
    with pytest.raises(UserError, match=r"not an encoder \(persimmon\)"):
        load_with_new_head(folder, KINDS["regression"].task, 0)


def test_checks_import_no_torch(tmp_path):
    make_encoder(tmp_path / "model", "bert")
    program = (
        "import sys; from pathlib import Path; from evaluation.fine_tuning.checks import check_fine_tuning, check_scoring;"
        "from evaluation.fine_tuning.settings import FineTuningSettings; from evaluation.tasks.squad import SQUAD_1;"
        "check_fine_tuning(Path(sys.argv[1]), SQUAD_1, FineTuningSettings(max_seq_length=64, max_query_length=8, doc_stride=8));"
        "print(sorted({'torch', 'transformers', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "model")], cwd=Path(__file__).parents[1], capture_output=True,
                          text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"


def test_a_folder_with_too_few_positions_or_without_tokenizer_is_one_line(tmp_path):
    folder = make_encoder(tmp_path / "model", "mpnet")
    with pytest.raises(UserError, match="has 63 positions; give 63 or less"):
        check_fine_tuning(folder, KINDS["regression"].task, replace(QUICK, max_seq_length=64))
    with pytest.raises(UserError, match=r"the teacher .* no such folder"):
        check_fine_tuning(folder, KINDS["regression"].task, QUICK, tmp_path / "nowhere")
    for name in ("tokenizer.json", "vocab.txt"):
        (folder / name).unlink()
    with pytest.raises(UserError, match="no tokenizer"):
        check_fine_tuning(folder, KINDS["regression"].task, QUICK)


def test_a_device_that_is_not_there_and_a_set_without_examples_are_one_line(tmp_path):
    from evaluation.fine_tuning.training import fine_tune, score_only

    folder = make_encoder(tmp_path / "model", "bert")
    data = replace(KINDS["regression"], dev={"dev": KINDS["regression"].train})
    for device, told in (("cuda:9", "this machine has"), ("quantum", "not a name that torch knows")):
        with pytest.raises(UserError, match=told):
            fine_tune(folder, data, QUICK, device=device)
    with pytest.raises(UserError, match="STS-B has no training examples; score a model that was fine-tuned before"):
        fine_tune(folder, replace(data, train=Examples(([],), [])), QUICK)
    with pytest.raises(UserError, match="so no head for STS-B"):
        score_only(folder, data, QUICK)


def test_a_full_disk_loses_no_score_and_full_memory_is_one_line(tmp_path, monkeypatch):
    import torch

    from evaluation.fine_tuning import training

    folder = make_encoder(tmp_path / "model", "bert")
    data = replace(KINDS["regression"], dev={"dev": KINDS["regression"].train})
    want, said = training.fine_tune(folder, data, QUICK), []

    # The second is what a library may make of the first.
    for error, why in ((OSError(28, "No space left on device"), "No space left on device"), (KeyError("header"), "KeyError: 'header'")):
        with monkeypatch.context() as patch:
            patch.setattr("transformers.PreTrainedModel.save_pretrained", Mock(side_effect=error))
            done = training.fine_tune(folder, data, QUICK, save_to=tmp_path / "kept" / "here", say=said.append)
        assert done.losses == want.losses and not list((tmp_path / "kept").iterdir())
        assert said[-1:] == [f"{tmp_path}/kept/here: the fine-tuned model could not be kept ({why})"]
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file: cannot be made \("):
        training.fine_tune(folder, data, QUICK, save_to=tmp_path / "file" / "here")

    def too_much(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(training, "train", too_much)
    with pytest.raises(UserError, match="cpu: out of memory; a smaller --per_device_train_batch_size"):
        training.fine_tune(folder, data, QUICK)


def test_a_task_of_test_sets_alone_is_predicted(tmp_path):
    """As GLUE's diagnostic set is without its labels."""
    from evaluation.fine_tuning.training import fine_tune, score_only

    folder = make_encoder(tmp_path / "model", "bert")
    whole = KINDS["classification"]
    texts = Examples(whole.train.texts, None)
    for kind, data in (("classification", replace(whole, test={"test": texts})), ("span", replace(KINDS["span"], test={"test": SPANS}))):
        done = fine_tune(folder, data, QUICK, save_to=tmp_path / kind)
        assert (done.metrics, done.constant_metrics, done.outputs, done.dev_size) == ({}, {}, {}, 0) and len(done.test_outputs["test"]) == 6
        again = score_only(tmp_path / kind, replace(data, train=data.train.first(0)), QUICK)
        assert (again.metrics, again.constant_metrics, again.outputs, again.dev_size) == ({}, {}, {}, 0) and not again.diverged
        assert str(again.test_outputs) == str(done.test_outputs)
    data = replace(whole, test={"test": texts})
    with pytest.raises(UserError, match="--eval_strategy epoch: RTE has no dev set here to score; no would work"):
        fine_tune(folder, data, replace(QUICK, eval_strategy="epoch"))
    assert fine_tune(folder, data, replace(QUICK, learning_rate=1e30, max_grad_norm=0.0)).diverged


def test_every_setting_has_a_range():
    """One value outside for each number, one line that names flag and value; every default is inside."""
    for item in fields(FineTuningSettings):
        meta = item.metadata
        if meta["type"] is bool:
            outside = ["yes"]
        elif meta["choices"]:
            outside = ["other"]
        else:
            outside = [float("nan"), float("inf")]
            outside += [] if meta["least"] is None else [meta["least"] - (1 if meta["off"] is None else 3)]
            outside += [] if meta["above"] is None else [meta["above"]]
            outside += [] if meta["most"] is None else [meta["most"] + 1]
            assert len(outside) > 2 or item.name == "null_score_diff_threshold", item.name
        for value in outside:
            with pytest.raises(UserError, match=f"--{item.name} {value}: give"):
                FineTuningSettings(**{item.name: value})
    for change, told in (({"early_stopping_patience": 2}, "add --eval_strategy epoch"),
                         ({"load_best_model_at_end": True}, "add --eval_strategy"),
                         ({"lr_scheduler_type": "polynomial", "learning_rate": 1e-7}, "the polynomial schedule ends at 1e-07")):
        with pytest.raises(UserError, match=told):
            FineTuningSettings(**change)


def test_every_setting_is_a_flag():
    parser = argparse.ArgumentParser()
    add_flags(parser)
    assert vars(parser.parse_args([])) == {}
    given = parser.parse_args(["--pad_to_max_length", "--load_best_model_at_end", "false", "--max_steps", "-1", "--learning_rate", "1e-4"])
    assert vars(given) == {"pad_to_max_length": True, "load_best_model_at_end": False, "max_steps": -1, "learning_rate": 1e-4}


def test_settings_that_cannot_matter_are_named():
    def names(settings, *arguments, **options):
        return [line.split()[0] for line in without_effect(settings, *arguments, **options)]

    odd = FineTuningSettings(temperature=3.0, alpha=0.2, doc_stride=9, max_query_length=9, n_best_size=9, max_answer_length=9, eval_steps=9,
                             null_score_diff_threshold=1.0, warmup_steps=3, warmup_ratio=0.2, max_steps=5, num_train_epochs=2.0)
    spans = ["--doc_stride", "--max_query_length", "--n_best_size", "--max_answer_length", "--null_score_diff_threshold"]
    common = ["--num_train_epochs", "--warmup_ratio", "--eval_steps"]
    assert sorted(names(odd, "classification")) == sorted([*common, "--temperature", "--alpha", *spans])
    assert sorted(names(odd, "span", teacher=True)) == sorted(common)
    assert sorted(names(odd, "regression", teacher=True)) == sorted([*common, "--temperature", *spans])
    assert sorted(names(replace(odd, lr_scheduler_type="constant", eval_strategy="steps"), "span", teacher=True)) == sorted(
        ["--num_train_epochs", "--warmup_ratio", "--warmup_steps"])
    assert names(FineTuningSettings(), "classification") == []
    lines = without_effect(odd, "span", training=False)
    assert len(lines) == 1 and lines[0].startswith("nothing is trained, so no effect: ") and "temperature" in lines[0]
    assert without_effect(FineTuningSettings(seed=3, max_seq_length=64), "span", training=False) == []


def test_label_names_are_paired_however_they_are_written(tmp_path):
    task = Task("RTE", "classification", ("accuracy",), "accuracy", ("entailment", "not_entailment"))
    config = {"model_type": "bert", "architectures": ["BertForSequenceClassification"]}
    for names, order in ((("NOT ENTAILMENT", "Entailment"), [1, 0]), (("entailment", "not-entailment"), [0, 1])):
        (tmp_path / "config.json").write_text(json.dumps(config | {"id2label": dict(enumerate(names))}))
        assert read_head(tmp_path, task) == (order, None)
        (tmp_path / "config.json").write_text(json.dumps(config | {"label2id": {name: at for at, name in enumerate(names)}}))
        assert read_head(tmp_path, task) == (order, None)
    (tmp_path / "config.json").write_text(json.dumps(config))  # two outputs are transformers' default, which it does not write
    order, note = read_head(tmp_path, task)
    assert order == [0, 1] and "does not name its labels" in note


def test_segments_go_only_to_models_that_have_them(tmp_path):
    from transformers import AutoModel, AutoTokenizer

    from evaluation.fine_tuning.tokens import Tokenizer

    data = KINDS["classification"].train
    for family, wanted in (("bert", True), ("distilbert", False), ("roberta", False), ("deberta-v2", False)):
        folder = make_encoder(tmp_path / family, family)
        tokens = Tokenizer(AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder), family).encode(data, 32)
        assert (tokens.segments is not None) == wanted
        assert not wanted or set(tokens.segments.tolist()) == {0, 1}
        assert tokens.lengths.tolist() == [len(one.split()) + len(two.split()) + 3 for one, two in zip(*data.texts, strict=True)]
