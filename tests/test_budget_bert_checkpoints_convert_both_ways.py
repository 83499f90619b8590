"""Checkpoints of academic-budget-bert become folders of transformers that compute the same, and come back bit for bit; what no class
computes exactly is refused."""

import argparse
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from launching import ROOT, clean_environment
from safetensors.torch import load_file
from tiny import VOCABULARY, make_batch, make_model, make_teacher, make_tokenizer

from dataset.errors import UserError
from pretraining.convert_budget_bert import convert
from pretraining.models.catalog import read_model_folder

SHAPE = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64,
         "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1, "max_position_embeddings": 64,
         "type_vocab_size": 2, "initializer_range": 0.02, "model_type": "bert", "pad_token_id": 0}


def run(source: Path, target: Path, to: str | None = None, linear: str | None = None) -> Path:
    return convert(argparse.Namespace(input_dir=source, output_dir=target, to=to, linear=linear))


def their_weights(is_fused: bool, has_sentences: bool = False, is_sparse: bool = True, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights under the names that their modules have."""
    generator, weights = torch.Generator().manual_seed(seed), {}

    def add(name: str, *shape: int, centre: float = 0.0) -> None:
        weights[name] = torch.randn(*shape, generator=generator) * 0.1 + centre

    def linear(name: str, out: int, inner: int) -> None:
        add(f"{name}.weight", out, inner)
        add(f"{name}.bias", out)

    def norm(name: str) -> None:
        add(f"{name}.weight", 32, centre=1.0)
        add(f"{name}.bias", 32)

    dense_act = "dense_act" if is_fused else "dense_act.dense"
    for name, rows in (("word", VOCABULARY), ("position", 64), ("token_type", 2)):
        add(f"bert.embeddings.{name}_embeddings.weight", rows, 32)
    norm("bert.embeddings.LayerNorm")
    norm("bert.encoder.FinalLayerNorm")
    for layer in range(3):
        prefix = f"bert.encoder.layer.{layer}"
        for name in ("self.query", "self.key", "self.value", "output.dense"):
            linear(f"{prefix}.attention.{name}", 32, 32)
        norm(f"{prefix}.PreAttentionLayerNorm")
        norm(f"{prefix}.PostAttentionLayerNorm")
        linear(f"{prefix}.intermediate.{dense_act}", 64, 32)
        linear(f"{prefix}.output.dense", 32, 64)
    linear(f"bert.pooler.{dense_act}", 32, 32)
    linear(f"cls.predictions.transform.{dense_act}", 32, 32)
    norm("cls.predictions.transform.LayerNorm")
    add("cls.predictions.bias", VOCABULARY)
    weights["cls.predictions.decoder.weight"] = weights["bert.embeddings.word_embeddings.weight"]
    if not is_sparse:
        weights["cls.predictions.decoder.bias"] = weights["cls.predictions.bias"]
    if has_sentences:
        linear("cls.seq_relationship", 2, 32)
    return weights


def save(folder: Path, weights: dict[str, torch.Tensor], is_fused: bool, mode: str, is_sparse: bool = True, **more) -> Path:
    make_tokenizer(folder)
    config = {**SHAPE, "encoder_ln_mode": mode, "fused_linear_layer": is_fused, "layernorm_embedding": True, "layer_norm_type": "apex",
              "useLN": True, "sparse_mask_prediction": is_sparse, "hugging_face": False, **more}
    (folder / "config.json").write_text(json.dumps({name: value for name, value in config.items() if value is not None}))
    torch.save(weights, folder / "pytorch_model.bin")
    return folder


def untrained_final_norm(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As a post-LN model of theirs has it: never run, so never trained."""
    return {**weights, "bert.encoder.FinalLayerNorm.weight": torch.ones(32), "bert.encoder.FinalLayerNorm.bias": torch.zeros(32)}


def their_forward(weights: dict[str, torch.Tensor], mode: str, batch) -> tuple[list[torch.Tensor], torch.Tensor]:
    """(states after every layer, logits with the head's bias) of their model, in float64 and from its definition."""
    w = {name.replace("dense_act.dense.", "dense_act."): tensor.double() for name, tensor in weights.items()}

    def linear(name: str, x: torch.Tensor) -> torch.Tensor:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(name: str, x: torch.Tensor) -> torch.Tensor:
        centred = x - x.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + 1e-12).sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]

    def gelu(x: torch.Tensor) -> torch.Tensor:
        return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))

    rows, length = batch.input_ids.shape
    embeddings = "bert.embeddings."
    state = (w[f"{embeddings}word_embeddings.weight"][batch.input_ids] + w[f"{embeddings}position_embeddings.weight"][:length]
             + w[f"{embeddings}token_type_embeddings.weight"][batch.token_type_ids])
    state, states = norm(f"{embeddings}LayerNorm", state), []
    for layer in range(3):
        prefix = f"bert.encoder.layer.{layer}."
        before, after = f"{prefix}PreAttentionLayerNorm", f"{prefix}PostAttentionLayerNorm"
        x = norm(before, state) if mode == "pre-ln" else state
        query, key, value = (linear(f"{prefix}attention.self.{name}", x).view(rows, length, 4, 8).transpose(1, 2)
                             for name in ("query", "key", "value"))
        scores = (query @ key.transpose(2, 3) / math.sqrt(8)).masked_fill(~batch.mask[:, None, None, :], -torch.inf)
        context = (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)
        middle = state + linear(f"{prefix}attention.output.dense", context)
        middle = middle if mode == "pre-ln" else norm(before, middle)
        x = norm(after, middle) if mode == "pre-ln" else middle
        state = middle + linear(f"{prefix}output.dense", gelu(linear(f"{prefix}intermediate.dense_act", x)))
        state = state if mode == "pre-ln" else norm(after, state)
        states.append(state)
    if mode == "pre-ln":
        state = states[-1] = norm("bert.encoder.FinalLayerNorm", state)
    hidden = norm("cls.predictions.transform.LayerNorm", gelu(linear("cls.predictions.transform.dense_act", state)))
    return states, hidden @ w["cls.predictions.decoder.weight"].T + w["cls.predictions.bias"]


def same(left: dict, right: dict) -> bool:
    return left.keys() == right.keys() and all(left[name].dtype == right[name].dtype and torch.equal(left[name], right[name])
                                               for name in left)


@pytest.mark.parametrize("is_fused", [True, False], ids=["fused", "separate"])
@pytest.mark.parametrize(("mode", "name"), [("post-ln", "BertForMaskedLM"), ("pre-ln", "RobertaPreLayerNormForMaskedLM")])
def test_a_converted_model_computes_what_theirs_does(tmp_path, mode, name, is_fused):
    weights = their_weights(is_fused)
    folder = run(save(tmp_path / "theirs", weights, is_fused, mode), tmp_path / "ours")
    model, info = transformers.AutoModelForMaskedLM.from_pretrained(folder, output_loading_info=True)
    assert type(model).__name__ == name and not info["missing_keys"]
    assert all("pooler" in key for key in info["unexpected_keys"])
    batch = make_batch()
    states, logits = their_forward(weights, mode, batch)
    with torch.no_grad():
        found = model.eval().double()(input_ids=batch.input_ids, attention_mask=batch.mask.long(), token_type_ids=batch.token_type_ids,
                                      output_hidden_states=True)
    for mine, theirs in zip(found.hidden_states[1:], states, strict=True):
        torch.testing.assert_close(mine[batch.mask], theirs[batch.mask], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.logits[batch.mask], logits[batch.mask], rtol=1e-9, atol=1e-9)
    pooler = transformers.AutoModel.from_pretrained(folder).pooler.dense
    assert torch.equal(pooler.weight, weights[f"bert.pooler.dense_act{'' if is_fused else '.dense'}.weight"])
    assert read_model_folder(str(folder), "--student_initialize").has_head
    assert transformers.AutoTokenizer.from_pretrained(folder).vocab_size == VOCABULARY


@pytest.mark.parametrize("is_sparse", [True, False])
@pytest.mark.parametrize("is_fused", [True, False], ids=["fused", "separate"])
@pytest.mark.parametrize("mode", ["post-ln", "pre-ln"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_there_and_back_is_bit_for_bit(tmp_path, dtype, mode, is_fused, is_sparse):
    weights = {name: tensor.to(dtype) for name, tensor in their_weights(is_fused, is_sparse=is_sparse).items()}
    weights = weights if mode == "pre-ln" else {name: tensor.to(dtype) for name, tensor in untrained_final_norm(weights).items()}
    first = save(tmp_path / "first", weights, is_fused, mode, is_sparse)
    back = run(run(first, tmp_path / "ours"), tmp_path / "back")
    assert same(torch.load(back / "pytorch_model.bin", weights_only=True), weights)
    before, after = (json.loads((folder / "config.json").read_text()) for folder in (first, back))
    assert {name: after[name] for name in before} == before
    assert (back / "vocab.txt").read_bytes() == (first / "vocab.txt").read_bytes()
    # And ours is the same after one more turn.
    again = run(back, tmp_path / "again")
    assert same(load_file(again / "model.safetensors"), load_file(tmp_path / "ours" / "model.safetensors"))
    assert (again / "config.json").read_text() == (tmp_path / "ours" / "config.json").read_text()


@pytest.mark.parametrize("linear", ["fused", "separate", None])
@pytest.mark.parametrize("family", ["bert", "roberta-prelayernorm"])
def test_a_model_of_ours_becomes_theirs_and_comes_back(tmp_path, family, linear):
    source = make_teacher(tmp_path / "ours", family=family)
    theirs = run(source, tmp_path / "theirs", linear=linear)
    stored, config = torch.load(theirs / "pytorch_model.bin", weights_only=True), json.loads((theirs / "config.json").read_text())
    mode, is_fused = "post-ln" if family == "bert" else "pre-ln", linear != "separate"
    assert (config["encoder_ln_mode"], config["fused_linear_layer"], config["model_type"]) == (mode, is_fused, "bert")
    pooler = [name for name in their_weights(is_fused) if "pooler" in name]
    wanted = {name.replace("layer.2.", f"layer.{layer}.") for name in their_weights(is_fused) for layer in range(2, 4)} - {*pooler}
    assert stored.keys() == wanted
    assert len(stored["bert.embeddings.position_embeddings.weight"]) == config["max_position_embeddings"] == 64 + (family != "bert")
    back, original = (load_file(folder / "model.safetensors") for folder in (run(theirs, tmp_path / "back"), source))
    if family != "bert":  # no real token reads the rows up to the padding's
        for state in (back, original):
            state["roberta_prelayernorm.embeddings.position_embeddings.weight"][:1] = 0
    assert same(back, original)
    batch = make_batch()
    models = [transformers.AutoModelForMaskedLM.from_pretrained(folder).eval() for folder in (source, tmp_path / "back")]
    with torch.no_grad():
        first, second = (model(input_ids=batch.input_ids, attention_mask=batch.mask.long()).logits[batch.mask] for model in models)
    assert torch.equal(first, second)


def test_a_bert_with_a_sentence_head_and_an_untied_decoder_convert(tmp_path):
    weights = untrained_final_norm(their_weights(True, has_sentences=True))
    model = transformers.AutoModelForPreTraining.from_pretrained(run(save(tmp_path / "a", weights, True, "post-ln"), tmp_path / "b"))
    assert torch.equal(model.cls.seq_relationship.weight, weights["cls.seq_relationship.weight"])
    assert same(torch.load(run(tmp_path / "b", tmp_path / "c") / "pytorch_model.bin", weights_only=True), weights)
    weights["cls.predictions.decoder.weight"] = weights["cls.predictions.decoder.weight"] + 1
    del weights["cls.seq_relationship.weight"], weights["cls.seq_relationship.bias"]
    model = transformers.AutoModelForMaskedLM.from_pretrained(run(save(tmp_path / "d", weights, True, "post-ln"), tmp_path / "e"))
    assert torch.equal(model.cls.predictions.decoder.weight, weights["cls.predictions.decoder.weight"])
    assert same(torch.load(run(tmp_path / "e", tmp_path / "f") / "pytorch_model.bin", weights_only=True), weights)


def test_a_teacher_folder_in_hugging_faces_names_converts_too(tmp_path):
    """Their loader renames where config.json says hugging_face."""
    source = make_teacher(tmp_path / "teacher")
    config = json.loads((source / "config.json").read_text())
    extra = {"hugging_face": True, "encoder_ln_mode": "post-ln", "layernorm_embedding": True, "layer_norm_type": "pytorch",
             "fused_linear_layer": False, "useLN": True, "sparse_mask_prediction": True}
    (source / "config.json").write_text(json.dumps({**config, **extra}))
    assert read_model_folder(str(source), "--teacher_path").has_head
    assert same(load_file(run(source, tmp_path / "ours") / "model.safetensors"), load_file(source / "model.safetensors"))
    back = run(tmp_path / "ours", tmp_path / "back")
    assert json.loads((back / "config.json").read_text())["hugging_face"] is False
    assert "bert.encoder.layer.0.intermediate.dense_act.dense.weight" in torch.load(back / "pytorch_model.bin", weights_only=True)


def test_a_bias_that_their_head_never_added_is_told(tmp_path, capsys):
    weights = their_weights(True)
    run(save(tmp_path / "a", weights, True, "post-ln"), tmp_path / "b")
    assert "cls.predictions.bias is not zero" in capsys.readouterr().out
    run(save(tmp_path / "c", {**weights, "cls.predictions.bias": torch.zeros(VOCABULARY)}, True, "post-ln"), tmp_path / "d")
    run(save(tmp_path / "e", their_weights(True, is_sparse=False), True, "post-ln", is_sparse=False), tmp_path / "f")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("mode", "config", "message"), [
    ("post-ln", {"useLN": False}, "useLN is false"), ("post-ln", {"layer_norm_type": "rms_norm"}, "pytorch and apex convert"),
    ("post-ln", {"layernorm_embedding": False}, "layernorm_embedding is false"),
    ("pre-ln", {"layernorm_embedding": False}, "layernorm_embedding is false"), ("pre-ln", {"hidden_act": "relu"}, "has gelu"),
    ("post-ln", {"num_hidden_layers": 4}, "10|16 weights are missing"), ("post-ln", {"hidden_size": 48}, "another shape"),
    ("post-ln", {"hidden_size": "wide"}, "describes no BERT")])
def test_what_would_not_be_exact_is_refused_in_one_line(tmp_path, mode, config, message):
    source = save(tmp_path / "theirs", their_weights(True), True, mode, **config)
    with pytest.raises(UserError, match=message) as refusal:
        run(source, tmp_path / "ours")
    assert "\n" not in str(refusal.value) and not (tmp_path / "ours").exists()


def test_other_mistakes_are_named(tmp_path):
    weights = their_weights(True)
    theirs, ours = save(tmp_path / "theirs", weights, True, "post-ln"), make_teacher(tmp_path / "ours")
    sentences = save(tmp_path / "sentences", their_weights(True, has_sentences=True), True, "pre-ln")
    headless = save(tmp_path / "headless", {name: tensor for name, tensor in weights.items() if "position" not in name}, True, "post-ln")
    strange = save(tmp_path / "strange", {**weights, "classifier.weight": torch.zeros(2)}, True, "post-ln")
    state = save(tmp_path / "state", {"module": weights}, True, "post-ln")
    cut = save(tmp_path / "cut", weights, True, "post-ln")
    (cut / "pytorch_model.bin").write_bytes((cut / "pytorch_model.bin").read_bytes()[:999])
    wide = make_teacher(tmp_path / "wide", family="electra")
    epsilon = make_model()
    epsilon.config.layer_norm_eps = 1e-5
    epsilon.save_pretrained(tmp_path / "epsilon")
    for source, flags, message in (
            (theirs, {"to": "budget-bert"}, "of that layout already"), (ours, {"to": "hugging-face"}, "of that layout already"),
            (theirs, {"linear": "fused"}, "leave it out"), (sentences, {}, "pre-ln with a next-sentence head"),
            (headless, {}, "lack bert.embeddings.position_embeddings"), (strange, {}, "classifier.weight belongs to no BERT"),
            (state, {}, "no dictionary of weights"), (cut, {}, "cannot be read as weights"), (wide, {}, "has bert and roberta"),
            (tmp_path / "epsilon", {}, "layer_norm_eps is 1e-05"), (tmp_path, {}, "no config.json in it"),
            (tmp_path / "no", {}, "no config.json in it")):
        with pytest.raises(UserError, match=message) as refusal:
            run(source, tmp_path / "new", **flags)
        assert "\n" not in str(refusal.value) and not (tmp_path / "new").exists()
    with pytest.raises(UserError, match="it exists"):
        run(theirs, ours)


class Trap:
    """Runs code when it is unpickled the careless way."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_weight_file_is_never_run(tmp_path):
    folder = save(tmp_path / "theirs", their_weights(True), True, "post-ln")
    torch.save({"weights": Trap(tmp_path / "sprung")}, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="cannot be read as weights"):
        run(folder, tmp_path / "ours")
    assert not (tmp_path / "sprung").exists()
    torch.load(folder / "pytorch_model.bin", weights_only=False)
    assert (tmp_path / "sprung").exists()


def test_the_command_converts_and_says_mistakes_in_one_line(tmp_path):
    source = save(tmp_path / "theirs", {**their_weights(False), "cls.predictions.bias": torch.zeros(VOCABULARY)}, False, "post-ln")
    command = [sys.executable, "-m", "pretraining.convert_budget_bert", "--input_dir", str(source), "--output_dir", str(tmp_path / "ours")]
    outcomes = [subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=clean_environment()) for _ in range(2)]
    assert [done.returncode for done in outcomes] == [0, 2]
    assert outcomes[0].stdout == f"wrote {tmp_path / 'ours'}\n"
    assert outcomes[1].stderr == f"error: --output_dir {tmp_path / 'ours'}: it exists; choose a new folder\n"
