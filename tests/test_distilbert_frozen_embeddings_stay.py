"""--freeze_pos_embs and --freeze_token_type_embds keep every bit of what they name, in every family that has it, and say what they did;
--sinusoidal_pos_embds gives a DistilBERT from scratch the positions of its formula, for good."""

import math

import pytest
import torch
from tiny import FAMILIES, MODEL_TYPES, make_batch, make_model, make_teacher

from dataset.errors import UserError
from pretraining.args.distillation import DistillationFlags
from pretraining.args.parser import Args
from pretraining.models.catalog import ARCHITECTURES, find_architecture, read_model_folder
from pretraining.models.encoder import Encoder
from pretraining.models.freezing import freeze_embeddings
from pretraining.models.student import build_student
from pretraining.optimizers import parameter_groups
from pretraining.signals import ModelNeeds
from pretraining.student_plan import StudentPlan, plan_student

WITHOUT_POSITIONS, WITHOUT_SEGMENTS = ("modernbert",), ("distilbert", "modernbert", "gpt2")


def trained(student: Encoder) -> list[str]:
    """Names of the parameters that two steps with much weight decay change."""
    before = {name: parameter.detach().clone() for name, parameter in student.model.named_parameters()}
    optimizer = torch.optim.AdamW(parameter_groups(student, 0.5), lr=0.1)
    for _ in range(2):
        student(make_batch()).token_logits.square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return [name for name, parameter in student.model.named_parameters() if not torch.equal(before[name], parameter)]


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_frozen_keeps_every_bit_and_all_else_learns(family):
    row = ARCHITECTURES[MODEL_TYPES[family]]
    student = Encoder(make_model(family, layers=2), row, True, ModelNeeds(token_logits=True))
    flags = DistillationFlags(freeze_pos_embs=True, freeze_token_type_embds=True)
    frozen, lines = freeze_embeddings(flags, StudentPlan("scratch", None, row, config={}), student)
    assert sum("position" in name or "wpe" in name for name in frozen) == (family not in WITHOUT_POSITIONS)
    assert sum("token_type" in name for name in frozen) == (family not in WITHOUT_SEGMENTS) and len(lines) == len(frozen)
    for name, line in zip(frozen, lines, strict=True):
        assert line.endswith(f": {name} ({student.model.get_parameter(name).numel()} numbers) keeps its first values")
    assert set(trained(student)) == {name for name, _ in student.model.named_parameters()} - set(frozen)


def test_without_the_flags_nothing_is_frozen():
    student = Encoder(make_model(layers=2), ARCHITECTURES["bert-mlm"], True, ModelNeeds(token_logits=True))
    plan = StudentPlan("scratch", None, ARCHITECTURES["bert-mlm"], config={})
    assert freeze_embeddings(DistillationFlags(), plan, student) == ([], [])
    assert len(trained(student)) == len(list(student.model.parameters()))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("teachers")
    return {family: make_teacher(root / family, family=family) for family in ("bert", "modernbert")}


def planned(folders, teacher: str, **flags) -> StudentPlan:
    args, folder = Args(), read_model_folder(str(folders[teacher]), "--teacher_path")
    for name, value in {"student_initialize": True, "num_hidden_layers": 2, **flags}.items():
        args.set(name, value)
    return plan_student(args, folder, find_architecture(flags["model_type"]) if "model_type" in flags else folder.architecture)


def test_a_family_without_such_weights_says_so(folders):
    both = {"freeze_pos_embs": True, "freeze_token_type_embds": True}
    assert planned(folders, "bert", **both).notes == []
    assert planned(folders, "bert", model_type="distilbert-mlm", **both).notes == [
        "--freeze_token_type_embds: no effect: distilbert has no token-type embeddings"]
    assert planned(folders, "modernbert", **both).notes == [
        "--freeze_pos_embs: no effect: positions are no weights of modernbert",
        "--freeze_token_type_embds: no effect: modernbert has no token-type embeddings"]


SCRATCH = {"student_initialize": False, "model_type": "distilbert-mlm", "hidden_size": 32, "num_attention_heads": 4,
           "intermediate_size": 64, "max_position_embeddings": 40, "sinusoidal_pos_embds": True}


def test_sine_and_cosine_positions_equal_their_formula_and_stay(folders):
    plan = planned(folders, "bert", **SCRATCH)
    built = build_student(plan, plan.architecture, None, None, True, False, seed=3)
    student = Encoder(built.model, plan.architecture, True, ModelNeeds(token_logits=True))
    frozen, lines = freeze_embeddings(DistillationFlags(), plan, student)
    name = "distilbert.embeddings.position_embeddings.weight"
    assert frozen == [name] and lines == [f"sine and cosine positions: {name} (1280 numbers) keeps its first values"]
    weight = student.model.get_parameter(name)
    for position in (0, 1, 39):
        for column in range(32):
            angle = position / 10000 ** (2 * (column // 2) / 32)
            assert weight[position, column].item() == pytest.approx((math.cos if column % 2 else math.sin)(angle), abs=1e-6)
    assert name not in trained(student) and built.model.config.sinusoidal_pos_embds


@pytest.mark.parametrize("flags", [{"student_initialize": True}, {"model_type": "bert-mlm", "encoder_ln_mode": "post-ln",
                                                                  "layernorm_embedding": True}], ids=["copied", "bert"])
def test_other_students_cannot_have_them(folders, flags):
    keep = {name: value for name, value in SCRATCH.items() if name not in ("hidden_size", "num_attention_heads", "intermediate_size",
                                                                           "max_position_embeddings")}
    given = (keep if flags.get("student_initialize") else SCRATCH) | flags
    with pytest.raises(UserError, match=r"--sinusoidal_pos_embds: only a --model_type distilbert-mlm from scratch") as caught:
        planned(folders, "bert", **given)
    assert "\n" not in str(caught.value)
