"""Every family's config.json is read under one set of names, the student's architecture is what flags and folders say, and a BERT teacher's
weights are the same function inside a DistilBERT."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from tiny import FAMILIES, MODEL_TYPES, VOCABULARY, make_batch, make_model, make_teacher

from dataset.errors import UserError
from pretraining.args.parser import Args
from pretraining.models.catalog import ARCHITECTURES, find_architecture, model_type_of, read_model_folder
from pretraining.models.loading import BuiltModel, load_model, make_config
from pretraining.models.student import build_student
from pretraining.student_plan import StudentPlan, plan_student


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict:
    root = tmp_path_factory.mktemp("teachers")
    made = {family: make_teacher(root / family, family=family) for family in FAMILIES}
    return {**made, "headless": make_teacher(root / "headless", head=False)}


def arguments(**flags) -> Args:
    args = Args()
    for name, value in flags.items():
        args.set(name, value)
        args.given.add(name)
    return args


def plan(folder: Path | None, row: str | None = None, **flags) -> StudentPlan:
    """What plan_student answers for a teacher in `folder`; --model_type is `row`, or what follows from the folder."""
    teacher = read_model_folder(str(folder), "--teacher_path") if folder else None
    architecture = find_architecture(row) if row else teacher.architecture if teacher else ARCHITECTURES["bert-mlm"]
    return plan_student(arguments(model_type=row, **flags), teacher, architecture)


# One set of names.

SETTINGS = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 64, "vocab_size": VOCABULARY,
            "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1, "initializer_range": 0.02}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_is_read_under_one_set_of_names_and_written_back_under_its_own(folders, family):
    folder = read_model_folder(str(folders[family]), "--teacher_path")
    assert folder.family == family and folder.architecture is find_architecture(MODEL_TYPES[family]) and folder.has_head
    assert {name: folder.config[name] for name in SETTINGS} == SETTINGS
    stored = json.loads((folders[family] / "config.json").read_text())
    again = folder.architecture.native(folder.config)
    assert {name: again[name] for name in stored} == stored
    assert make_config(folder.config, folder.architecture).to_diff_dict() == transformers.AutoConfig.for_model(
        family, **{name: value for name, value in stored.items() if name not in ("model_type", "architectures", "dtype")}).to_diff_dict()


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_config_does_not_say_is_what_transformers_takes(family):
    row = find_architecture(MODEL_TYPES[family])
    silent, full = row.canonical({}), row.canonical(transformers.AutoConfig.for_model(family).to_dict())
    assert silent.keys() >= {"hidden_act", "hidden_dropout_prob", "attention_probs_dropout_prob", "max_position_embeddings"}
    assert silent == {name: full[name] for name in silent}
    for name in ("type_vocab_size", "layer_norm_eps"):
        assert (name in silent) == (name in full)
    assert model_type_of(family) == MODEL_TYPES[family]


def test_dropouts_that_differ_stay_apart_until_a_flag_joins_them(folders, tmp_path):
    make_model("gpt2").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "resid_pdrop": 0.2, "embd_pdrop": 0.3}))
    row = ARCHITECTURES["gpt2-clm"]
    kept = row.native(plan(tmp_path, student_initialize=True, num_hidden_layers=2).config)
    assert (kept["resid_pdrop"], kept["embd_pdrop"], kept["attn_pdrop"]) == (0.2, 0.3, 0.1)
    same = row.native(plan(tmp_path, student_initialize=True, num_hidden_layers=2, hidden_dropout_prob=0.2).config)
    assert (same["resid_pdrop"], same["embd_pdrop"]) == (0.2, 0.3)
    joined = row.native(plan(tmp_path, student_initialize=True, num_hidden_layers=2, hidden_dropout_prob=0.4).config)
    assert (joined["resid_pdrop"], joined["embd_pdrop"], joined["attn_pdrop"]) == (0.4, 0.4, 0.1)


def test_settings_that_old_folders_leave_out_are_filled_in(folders, tmp_path):
    config = json.loads((folders["gpt2"] / "config.json").read_text())
    for silent in ({**config, "n_inner": None}, {name: value for name, value in config.items() if name != "n_inner"}):
        folder = make_teacher(tmp_path / str(len(silent)), family="gpt2")
        (folder / "config.json").write_text(json.dumps(silent))
        assert read_model_folder(str(folder), "--teacher_path").config["intermediate_size"] == 128
    # ModernBERT's first folders name no layer types.
    folder = make_teacher(tmp_path / "modernbert", family="modernbert")
    old = json.loads((folder / "config.json").read_text())
    types = old.pop("layer_types")
    for more, wanted in (({}, [types[index] for index in (0, 1, 3)]), ({"global_attn_every_n_layers": 2}, ["full_attention"] + [
            "sliding_attention"] * 2)):
        (folder / "config.json").write_text(json.dumps({**old, **more}))
        found = plan(folder, student_initialize=True, student_layers="0,1,3")
        assert found.config["layer_types"] == wanted
        assert make_config(found.config, found.architecture).layer_types == wanted
    assert types == ["full_attention", "sliding_attention", "sliding_attention", "full_attention"]


def test_layers_that_know_their_number_stay_where_they_are(tmp_path):
    folder = make_teacher(tmp_path, family="gpt2")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "scale_attn_by_inverse_layer_idx": True}))
    assert plan(folder, student_initialize=True, student_layers="first", num_hidden_layers=2).layers == [0, 1]
    with pytest.raises(UserError, match="--student_layers first works"):
        plan(folder, student_initialize=True, num_hidden_layers=2)


def test_folders_that_cannot_be_a_model_are_refused_in_their_own_words(folders, tmp_path):
    def refusal(family: str, architecture=None, **changed) -> str:
        folder = tmp_path / "folder"
        make_teacher(folder, family=family)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({name: value for name, value in {**config, **changed}.items() if value != "gone"}))
        with pytest.raises(UserError) as found:
            read_model_folder(str(folder), "--teacher_path", architecture)
        assert "\n" not in str(found.value)
        return str(found.value)

    assert "lacks n_layers" in refusal("distilbert", n_layers="gone")
    assert "n_head 0" in refusal("gpt2", n_head=0)
    assert "attn_pdrop 1.5" in refusal("gpt2", attn_pdrop=1.5)
    assert "n_embd 32, which does not divide by n_head 5" in refusal("gpt2", n_head=5)
    assert "model_type 't5', which is no architecture of ours; known: bert-mlm (bert)" in refusal("bert", model_type="t5")
    assert "--model_type needs 'roberta'" in refusal("bert", ARCHITECTURES["roberta-mlm"])
    assert "is_decoder" in refusal("electra", is_decoder=True)
    assert "academic-budget-bert; python -m pretraining.convert_budget_bert" in refusal("bert", encoder_ln_mode="post-ln")


# Which architecture the student has.

PRE = "roberta-prelayernorm"


@pytest.mark.parametrize(("row", "flags", "family"), [
    (None, {}, PRE), ("bert-mlm", {}, PRE), ("bert-mlm-roberta", {"encoder_ln_mode": "pre-ln"}, PRE), (f"{PRE}-mlm", {}, PRE),
    ("bert-mlm", {"encoder_ln_mode": "post-ln", "layernorm_embedding": True}, "bert"),
    ("bert-mlm-nsp", {"encoder_ln_mode": "post-ln", "layernorm_embedding": True}, "bert"),
    ("roberta-mlm", {"encoder_ln_mode": "post-ln", "layernorm_embedding": True}, "roberta"),
    ("distilbert-mlm", {}, "distilbert"), ("electra-mlm", {"encoder_ln_mode": "post-ln"}, "electra"), ("modernbert-mlm", {}, "modernbert"),
    ("gpt2-clm", {"layernorm_embedding": False}, "gpt2")])
def test_a_student_from_scratch_is_pre_ln_unless_told_otherwise(row, flags, family):
    found = plan(None, row, **flags)
    assert found.source == "scratch" and found.architecture.family == found.config["model_type"] == family
    assert (found.config["hidden_size"], found.config["num_hidden_layers"], found.config["intermediate_size"]) == (1024, 24, 4096)
    assert found.config["max_position_embeddings"] == 512
    is_implied = family == PRE and "encoder_ln_mode" not in flags and row != f"{PRE}-mlm"
    assert any("pre-LN unless" in note for note in found.notes) == is_implied
    if found.architecture.next_sentence:
        assert found.architecture is ARCHITECTURES["bert-mlm-nsp"]


@pytest.mark.parametrize(("row", "flags", "message"), [
    ("bert-mlm", {"encoder_ln_mode": "post-ln"}, "give --layernorm_embedding"),
    ("bert-mlm", {"encoder_ln_mode": "pre-ln", "layernorm_embedding": False}, "give --layernorm_embedding"),
    ("distilbert-mlm", {"layernorm_embedding": False}, "give --layernorm_embedding"),
    ("gpt2-clm", {"layernorm_embedding": True}, "gpt2 has no LayerNorm after its embeddings"),
    ("bert-mlm-nsp", {}, "give --encoder_ln_mode post-ln --layernorm_embedding"),
    ("electra-mlm", {"encoder_ln_mode": "pre-ln"}, "electra is post-ln"), ("modernbert-mlm", {"encoder_ln_mode": "post-ln"}, "is pre-ln"),
    ("distilbert-mlm", {"type_vocab_size": 2}, "distilbert has no such setting"),
    ("gpt2-clm", {"num_attention_heads": 7}, "does not divide")])
def test_normalisation_that_no_class_has_is_refused(row, flags, message):
    with pytest.raises(UserError, match=message):
        plan(None, row, **flags)


def test_folders_decide_about_normalisation(folders):
    assert plan(folders[PRE], student_initialize=True, num_hidden_layers=2).architecture.family == PRE
    assert plan(folders[PRE], "bert-mlm", student_initialize=True, num_hidden_layers=2, encoder_ln_mode="pre-ln").architecture.family == PRE
    assert plan(None, "bert-mlm", student_initialize=str(folders[PRE]), encoder_ln_mode="pre-ln").architecture.family == PRE
    assert plan(folders["bert"], student_initialize=True, num_hidden_layers=2, encoder_ln_mode="post-ln").architecture.family == "bert"
    for flags in ({"student_initialize": True, "num_hidden_layers": 2}, {"student_initialize": str(folders["bert"])}):
        with pytest.raises(UserError, match="bert is post-ln; leave the flag out"):
            plan(folders["bert"], encoder_ln_mode="pre-ln", **flags)
    with pytest.raises(UserError, match="--model_type needs 'electra'"):
        plan(None, "electra-mlm", student_initialize=str(folders["bert"]))
    scratch = plan(folders["roberta"], encoder_ln_mode="post-ln", layernorm_embedding=True)
    assert scratch.config["vocab_size"] == VOCABULARY and scratch.config["pad_token_id"] == 0 and scratch.config["layer_norm_eps"] == 1e-12


@pytest.mark.parametrize(("teacher", "student"), [
    ("roberta", "bert"), ("bert", "roberta"), ("bert", "electra"), ("distilbert", "bert"), ("roberta", "distilbert"), ("gpt2", "bert")])
def test_other_crossings_are_refused_in_one_line(folders, teacher, student):
    with pytest.raises(UserError, match=f"the teacher is {teacher}, the student {student}; --model_type {MODEL_TYPES[teacher]} works"):
        plan(folders[teacher], MODEL_TYPES[student], student_initialize=True, num_hidden_layers=2)


# From BERT to DistilBERT.

def distil(folder: Path, **flags) -> tuple[BuiltModel, BuiltModel]:
    """(BERT teacher, DistilBERT student made from it)."""
    found = plan(folder, "distilbert-mlm", student_initialize=True, **flags)
    row = ARCHITECTURES["bert-mlm"]
    teacher = BuiltModel(*load_model(folder, "--teacher_path", row))
    return teacher, build_student(found, found.architecture, teacher, row, False, False, seed=0)


def test_a_distilbert_with_all_layers_is_the_bert_it_was_made_from(folders):
    teacher, student = distil(folders["bert"], num_hidden_layers=4)
    assert isinstance(student.model, transformers.DistilBertForMaskedLM) and student.has_head and not student.pooler
    batch = make_batch()
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.mask.long(), "output_hidden_states": True}
    with torch.no_grad():
        wanted, found = teacher.model.eval()(**inputs), student.model.eval()(**inputs)
    for mine, theirs in zip(found.hidden_states, wanted.hidden_states, strict=True):
        torch.testing.assert_close(mine[batch.mask], theirs[batch.mask], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.logits[batch.mask], wanted.logits[batch.mask], rtol=1e-5, atol=1e-5)
    assert student.model.vocab_projector.weight is student.model.distilbert.embeddings.word_embeddings.weight


@pytest.mark.parametrize(("text", "count", "layers"), [("distilbert", 2, [0, 3]), ("last", 3, [1, 2, 3]), ("2,0", None, [2, 0])])
def test_a_distilbert_takes_the_layers_that_are_named(folders, text, count, layers):
    teacher, student = distil(folders["bert"], student_layers=text, num_hidden_layers=count)
    names = {"attention.q_lin": "attention.self.query", "attention.k_lin": "attention.self.key", "attention.v_lin": "attention.self.value",
             "attention.out_lin": "attention.output.dense", "sa_layer_norm": "attention.output.LayerNorm", "ffn.lin1": "intermediate.dense",
             "ffn.lin2": "output.dense", "output_layer_norm": "output.LayerNorm"}
    assert len(student.model.distilbert.transformer.layer) == len(layers) == student.model.config.n_layers
    for layer, index in zip(student.model.distilbert.transformer.layer, layers, strict=True):
        assert len(layer.state_dict()) == 2 * len(names)
        for mine, theirs in names.items():
            source = teacher.model.bert.encoder.layer[index].get_submodule(theirs)
            assert torch.equal(layer.get_submodule(mine).weight, source.weight) and torch.equal(layer.get_submodule(mine).bias, source.bias)


def test_a_bert_without_a_head_makes_a_distilbert_without_one(folders):
    _, student = distil(folders["headless"], num_hidden_layers=2)
    assert not student.has_head and isinstance(student.model, transformers.DistilBertModel) and not student.pooler
    with pytest.raises(UserError, match="have no such setting"):
        distil(folders["bert"], num_hidden_layers=2, type_vocab_size=2)
