"""A student starts as what the plan says: the teacher's layers in order, a folder, or a seed; and only what learns is trainable."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from tiny import VOCABULARY, make_batch, make_model, make_teacher

from dataset.errors import UserError
from pretraining.args.optimization import OptimizationFlags
from pretraining.models.catalog import ARCHITECTURES
from pretraining.models.encoder import Encoder
from pretraining.models.loading import load_model
from pretraining.models.student import BuiltModel, build_student
from pretraining.objectives.base import ObjectiveContext
from pretraining.objectives.weighted import WeightedObjectives
from pretraining.optimizers import build_optimizer
from pretraining.signals import Signals
from pretraining.student_plan import StudentPlan
from pretraining.trained_module import TrainedModule, freeze_unreached

FAMILIES = {"bert": "bert-mlm", "roberta": "bert-mlm-roberta"}
HEADS = {"bert": "cls.predictions", "roberta": "lm_head"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict:
    """(family, has head) -> folder of a 4-layer model."""
    root = tmp_path_factory.mktemp("teachers")
    return {(family, head): make_teacher(root / f"{family}_{head}", family=family, head=head)
            for family in FAMILIES for head in (True, False)}


def load(folder: Path, family: str = "bert") -> BuiltModel:
    return BuiltModel(*load_model(folder, "--teacher_path", ARCHITECTURES[FAMILIES[family]]))


def plan_for(folder: Path, source: str, layers: list[int] | None = None, dropout: float = 0.1, attention: float = 0.1) -> StudentPlan:
    config = json.loads((folder / "config.json").read_text())
    config.update(hidden_dropout_prob=dropout, attention_probs_dropout_prob=attention)
    if layers:
        config["num_hidden_layers"] = len(layers)
    return StudentPlan(source=source, folder=folder if source == "folder" else None, layers=layers or [], config=config)


def build(folder: Path, source: str, family: str = "bert", layers=None, needs_logits=False, seed=1, **dropout) -> BuiltModel:
    teacher = load(folder, family) if source == "teacher" else None
    return build_student(plan_for(folder, source, layers, **dropout), ARCHITECTURES[FAMILIES[family]], teacher, needs_logits, seed)


def encoder_of(built: BuiltModel, family: str):
    return built.model.get_submodule(family) if built.has_head else built.model


def same_state(left, right) -> bool:
    left, right = left.state_dict(), right.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("layers", [[1, 3], [3, 0, 2]])
@pytest.mark.parametrize("head", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_layers_embeddings_and_head_are_copied_in_order(folders, family, head, layers):
    folder = folders[family, head]
    teacher, student = load(folder, family), build(folder, "teacher", family, layers)
    assert student.has_head == head and student.model.config.num_hidden_layers == len(layers)
    source, target = encoder_of(teacher, family), encoder_of(student, family)
    assert same_state(source.embeddings, target.embeddings)
    assert len(target.encoder.layer) == len(layers)
    for layer, index in zip(target.encoder.layer, layers, strict=True):
        assert same_state(layer, source.encoder.layer[index])
        assert not any(same_state(layer, other) for number, other in enumerate(source.encoder.layer) if number != index)
    if head:
        assert same_state(student.model.get_submodule(HEADS[family]), teacher.model.get_submodule(HEADS[family]))
        assert not student.pooler
    else:
        stored = make_model(family, head=False).pooler.dense
        assert torch.equal(student.pooler["pooler.dense.weight"], stored.weight)
        assert torch.equal(student.pooler["pooler.dense.bias"], stored.bias)
    # A copy and not a view: training the student must not change the teacher.
    with torch.no_grad():
        for parameter in student.model.parameters():
            parameter.add_(1)
    assert same_state(load(folder, family).model, teacher.model)


@pytest.mark.parametrize(("source", "layers"), [("teacher", [1, 3]), ("folder", None), ("scratch", None)])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_decoder_stays_tied_to_the_embeddings(folders, family, source, layers):
    student = build(folders[family, True], source, family, layers, needs_logits=True)
    decoder = student.model.get_submodule(f"{HEADS[family]}.decoder")
    assert decoder.weight is student.model.get_input_embeddings().weight
    names = [name for name, _ in student.model.named_parameters()]
    assert not [name for name in names if name.endswith("decoder.weight")]
    assert all(parameter.dtype == torch.float32 and not parameter.is_meta for parameter in student.model.parameters())


def test_random_weights_depend_on_the_seed_alone(folders):
    first = build(folders["bert", True], "scratch", needs_logits=True, seed=3)
    torch.manual_seed(99)
    torch.rand(17)
    again = build(folders["bert", True], "scratch", needs_logits=True, seed=3)
    other = build(folders["bert", True], "scratch", needs_logits=True, seed=4)
    assert same_state(first.model, again.model) and not same_state(first.model, other.model)
    for source, layers in (("teacher", [0, 2]), ("folder", None)):  # a new head on a bare encoder
        heads = [build(folders["bert", False], source, layers=layers, needs_logits=True, seed=seed).model.cls.predictions.transform
                 for seed in (3, 3, 4)]
        assert same_state(heads[0], heads[1]) and not same_state(heads[0], heads[2])


@pytest.mark.parametrize("needs_logits", [True, False])
@pytest.mark.parametrize("head", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_is_taken_whole_and_given_a_head_only_where_one_is_needed(folders, family, head, needs_logits):
    folder = folders[family, head]
    student, stored = build(folder, "folder", family, needs_logits=needs_logits), load(folder, family)
    assert student.has_head == (head or needs_logits)
    assert same_state(encoder_of(student, family), encoder_of(stored, family))
    if head:
        assert same_state(student.model, stored.model)
    if not student.has_head:
        assert torch.equal(student.pooler["pooler.dense.weight"], make_model(family, head=False).pooler.dense.weight)


def dropout_matters(model) -> bool:
    """Whether two passes in training mode differ."""
    batch = make_batch((8, 8))
    model.train()
    with torch.no_grad():
        return not torch.equal(model(batch.input_ids)[0], model(batch.input_ids)[0])


@pytest.mark.parametrize(
    ("source", "layers", "head"), [("teacher", [1, 3], True), ("folder", None, True), ("folder", None, False), ("scratch", None, True)])
@pytest.mark.parametrize("family", FAMILIES)
def test_dropout_flags_reach_every_dropout_module(folders, family, head, source, layers):
    student = build(folders[family, head], source, family, layers, needs_logits=head, dropout=0.3, attention=0.2).model
    found = {name: module.p for name, module in student.named_modules() if isinstance(module, torch.nn.Dropout)}
    attention = {name: share for name, share in found.items() if name.endswith("attention.self.dropout")}
    assert len(attention) == student.config.num_hidden_layers and set(attention.values()) == {0.2}
    assert {share for name, share in found.items() if name not in attention} == {0.3}
    assert (student.config.hidden_dropout_prob, student.config.attention_probs_dropout_prob) == (0.3, 0.2)
    assert student.config._attn_implementation == "sdpa"

    # What the flags really switch, seen from outside.
    assert dropout_matters(student)
    for hidden, probability in ((0.0, 0.0), (0.0, 0.3)):
        model = build(folders[family, head], source, family, layers, needs_logits=head, dropout=hidden, attention=probability).model
        assert dropout_matters(model) == (hidden + probability > 0), (hidden, probability)


def make_module(folder: Path, methods, pairs=(), family="bert", layers=(0, 1, 2, 3)) -> TrainedModule:
    objective = WeightedObjectives(methods, ObjectiveContext(pairs))
    built = build(folder, "teacher", family, list(layers), objective.needs.student.logits, dropout=0.0, attention=0.0)
    return TrainedModule(Encoder(built.model, ARCHITECTURES[FAMILIES[family]], built.has_head, objective.needs.student), objective)


@pytest.mark.parametrize(("layer", "head"), [(1, True), (3, True), (0, False), (3, False)])
@pytest.mark.parametrize("family", FAMILIES)
def test_exactly_what_no_loss_reaches_is_frozen(folders, family, layer, head):
    module = make_module(folders[family, head], [("hidden_mse", 1.0)], ((layer, 2),), family)
    frozen = freeze_unreached(module, 32, VOCABULARY)
    expected = set()
    for name, _ in module.named_parameters():
        inner = name.removeprefix("student.model.").removeprefix(f"{family}.")
        is_later = inner.startswith("encoder.layer.") and int(inner.split(".")[2]) > layer
        if is_later or inner.startswith(HEADS[family]):
            expected.add(name)
    assert set(frozen) == expected and len(frozen) == len(expected)
    assert {name for name, parameter in module.named_parameters() if not parameter.requires_grad} == expected
    assert all(parameter.grad is None for parameter in module.parameters())
    assert module.training and all(child.training for child in module.modules())
    assert module.student.model.get_input_embeddings().weight.requires_grad
    if head:
        assert any(".dense." in name or "transform" in name for name in frozen)
        assert any(name.endswith("bias") and name.count(".") <= 4 for name in frozen)


@pytest.mark.parametrize("methods", [[("logit", 1.0)], [("mlm", 1.0)], [("hidden_mse", 1.0), ("mlm", 0.1)]])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_loss_on_logits_freezes_nothing(folders, family, methods):
    module = make_module(folders[family, True], methods, ((1, 1),), family)
    assert freeze_unreached(module, 32, VOCABULARY) == []
    assert all(parameter.requires_grad for parameter in module.parameters())


def test_several_pairs_are_reached_together_and_the_random_numbers_are_left_alone(folders):
    module = make_module(folders["bert", False], [("hidden_mse", 1.0)], ((0, 1), (2, 3)))
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    frozen = freeze_unreached(module, 32, VOCABULARY)
    assert torch.equal(before, torch.random.get_rng_state())
    assert frozen and all("layer.3." in name for name in frozen)


def test_a_step_with_weight_decay_leaves_frozen_weights_and_changes_all_others(folders):
    module = make_module(folders["bert", True], [("hidden_mse", 1.0)], ((1, 3),))
    frozen = set(freeze_unreached(module, 32, VOCABULARY))
    before = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    optimizer = build_optimizer(module, OptimizationFlags(lr=0.01, weight_decay=0.5))
    batch = make_batch()
    teacher = Signals({3: torch.randn(*batch.mask.shape, 32, generator=torch.Generator().manual_seed(0))})
    for _ in range(2):
        loss, shares = module(batch, teacher, {unit: float(count) for unit, count in batch.counts.items()})
        assert list(shares) == ["hidden_mse"] and not shares["hidden_mse"].requires_grad
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert frozen
    for name, parameter in module.named_parameters():
        assert torch.equal(parameter, before[name]) == (name in frozen), name
    assert module.student.model.cls.predictions.decoder.weight is module.student.model.bert.embeddings.word_embeddings.weight


def test_folders_of_other_shapes_load_and_broken_ones_are_refused(folders, tmp_path):
    architecture = ARCHITECTURES["bert-mlm"]
    # A whole pre-training model: its sentence head is left, its pooler kept.
    config = make_model().config
    whole = transformers.BertForPreTraining(config)
    whole.save_pretrained(tmp_path / "whole")
    model, has_head, pooler = load_model(tmp_path / "whole", "--teacher_path", architecture)
    assert has_head and torch.equal(pooler["pooler.dense.weight"], whole.bert.pooler.dense.weight)
    assert torch.equal(model.cls.predictions.transform.dense.weight, whole.cls.predictions.transform.dense.weight)
    # Half precision on the disk is fp32 in memory.
    make_model().half().save_pretrained(tmp_path / "half")
    model, _, _ = load_model(tmp_path / "half", "--teacher_path", architecture)
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    # Weights of a layer are missing.
    from safetensors.torch import load_file, save_file

    weights = load_file(folders["bert", True] / "model.safetensors")
    (tmp_path / "lost").mkdir()
    (tmp_path / "lost" / "config.json").write_text((folders["bert", True] / "config.json").read_text())
    save_file({name: tensor for name, tensor in weights.items() if "layer.2." not in name}, tmp_path / "lost" / "model.safetensors",
              metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"weights are missing, such as bert\.encoder\.layer\.2"):
        load_model(tmp_path / "lost", "--teacher_path", architecture)
    # A file that was cut short, and one that is something else.
    for content in ((folders["bert", True] / "model.safetensors").read_bytes()[:-100], b"not safetensors at all"):
        (tmp_path / "lost" / "model.safetensors").write_bytes(content)
        with pytest.raises(UserError, match="cannot be loaded"):
            load_model(tmp_path / "lost", "--teacher_path", architecture)
