"""A student starts as what the plan says: the teacher's layers in order, a folder, or a seed; and only what learns is trainable."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from tiny import FAMILIES, MODEL_TYPES, VOCABULARY, make_batch, make_model, make_teacher

from dataset.errors import UserError
from pretraining.args.optimization import OptimizationFlags
from pretraining.models.catalog import ARCHITECTURES, Architecture, find_architecture
from pretraining.models.encoder import Encoder, base_of, layers_of
from pretraining.models.loading import load_model
from pretraining.models.student import BuiltModel, build_student, whole_model
from pretraining.models.weights import layer_of
from pretraining.objectives.base import ObjectiveContext, Shape
from pretraining.objectives.catalog import Part
from pretraining.objectives.weighted import WeightedObjectives
from pretraining.optimizers import build_optimizer
from pretraining.signals import Signals
from pretraining.student_plan import StudentPlan
from pretraining.trained_module import TrainedModule

POOLED = ("bert", "roberta", "roberta-prelayernorm")
TIED = {"bert": "cls.predictions.decoder", "roberta": "lm_head.decoder", "roberta-prelayernorm": "lm_head.decoder",
        "distilbert": "vocab_projector", "electra": "generator_lm_head", "modernbert": "decoder", "gpt2": "lm_head"}


def row_of(family: str) -> Architecture:
    return find_architecture(MODEL_TYPES[family])


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict:
    """(family, has head) -> folder of a 4-layer model."""
    root = tmp_path_factory.mktemp("teachers")
    return {(family, head): make_teacher(root / f"{family}_{head}", family=family, head=head)
            for family in FAMILIES for head in (True, False)}


def load(folder: Path, family: str = "bert") -> BuiltModel:
    return BuiltModel(*load_model(folder, "--teacher_path", row_of(family)))


def plan_for(row: Architecture, folder: Path, source: str, layers: list[int] | None, dropout: float, attention: float) -> StudentPlan:
    config = row.canonical(json.loads((folder / "config.json").read_text()))
    config.update(hidden_dropout_prob=dropout, attention_probs_dropout_prob=attention)
    if layers:
        config["num_hidden_layers"] = len(layers)
        if "layer_types" in config:
            config["layer_types"] = [config["layer_types"][layer] for layer in layers]
    return StudentPlan(source, folder if source == "folder" else None, row, layers or [], config)


def build(folder: Path, source: str, family: str = "bert", layers=None, needs_head=False, seed=1, dropout=0.1, attention=0.1) -> BuiltModel:
    row, teacher = row_of(family), load(folder, family) if source == "teacher" else None
    return build_student(plan_for(row, folder, source, layers, dropout, attention), row, teacher, row, needs_head, False, seed)


def without_layers(built: BuiltModel, family: str) -> dict:
    """The weights of the base model outside its layers and its pooler."""
    state = base_of(built.model, row_of(family), built.has_head).state_dict()
    return {name: tensor for name, tensor in state.items() if not name.startswith((f"{row_of(family).layers}.", "pooler."))}


def head_of(built: BuiltModel, family: str) -> dict:
    return {name: tensor for name, tensor in built.model.state_dict().items() if row_of(family).in_head(name)}


def same(left, right) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def same_state(left, right) -> bool:
    return same(left.state_dict(), right.state_dict())


@pytest.mark.parametrize("layers", [[1, 3], [3, 1, 2, 1]])
@pytest.mark.parametrize("head", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_layers_embeddings_and_head_are_copied_in_order(folders, family, head, layers):
    folder, row = folders[family, head], row_of(family)
    teacher, student = load(folder, family), build(folder, "teacher", family, layers)
    assert student.has_head == teacher.has_head == (head or family == "gpt2") and student.model.config.num_hidden_layers == len(layers)
    assert same(without_layers(teacher, family), without_layers(student, family))
    source, target = (layers_of(built.model, row, built.has_head) for built in (teacher, student))
    assert len(target) == len(layers)
    for place, (layer, index) in enumerate(zip(target, layers, strict=True)):
        state = {name: tensor for name, tensor in source[index].state_dict().items() if place > 0 or not name.startswith("attn_norm.")}
        assert same(layer.state_dict(), state)
        assert not any(torch.equal(tensor, other.state_dict().get(name, tensor + 1)) for number, other in enumerate(source)
                       if number != index for name, tensor in state.items())
    assert same(head_of(student, family), head_of(teacher, family)) and bool(head_of(student, family)) == student.has_head
    if head or family not in POOLED:
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
    student = build(folders[family, True], source, family, layers, needs_head=True)
    decoder = student.model.get_submodule(TIED[family])
    assert decoder.weight is student.model.get_input_embeddings().weight
    assert f"{TIED[family]}.weight" not in [name for name, _ in student.model.named_parameters()]
    assert all(parameter.dtype == torch.float32 and not parameter.is_meta for parameter in student.model.parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_random_weights_depend_on_the_seed_alone(folders, family):
    first = build(folders[family, True], "scratch", family, needs_head=True, seed=3)
    torch.manual_seed(99)
    torch.rand(17)
    again = build(folders[family, True], "scratch", family, needs_head=True, seed=3)
    other = build(folders[family, True], "scratch", family, needs_head=True, seed=4)
    assert same_state(first.model, again.model) and not same_state(first.model, other.model)
    if family == "gpt2":
        return
    for source, layers in (("teacher", [0, 2]), ("folder", None)):  # a new head on a bare encoder
        heads = [head_of(build(folders[family, False], source, family, layers, True, seed), family) for seed in (3, 3, 4)]
        assert same(heads[0], heads[1]) and not same(heads[0], heads[2])


@pytest.mark.parametrize("needs_head", [True, False])
@pytest.mark.parametrize("head", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_is_taken_whole_and_given_a_head_only_where_one_is_needed(folders, family, head, needs_head):
    folder, row = folders[family, head], row_of(family)
    student, stored = build(folder, "folder", family, needs_head=needs_head), load(folder, family)
    assert student.has_head == (stored.has_head or needs_head)
    assert same_state(*(base_of(built.model, row, built.has_head) for built in (student, stored)))
    if head:
        assert same_state(student.model, stored.model)
    if not student.has_head and family in POOLED:
        assert torch.equal(student.pooler["pooler.dense.weight"], make_model(family, head=False).pooler.dense.weight)


@pytest.mark.parametrize("head", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_student_is_saved_as_its_class_expects(folders, family, head, tmp_path):
    built = build(folders[family, head], "teacher", family, [0, 2])
    whole_model(built, row_of(family)).save_pretrained(tmp_path)
    auto = getattr(transformers, row_of(family).auto_class if built.has_head else "AutoModel")
    model, info = auto.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    state = model.state_dict()
    assert state.keys() == {*built.model.state_dict(), *built.pooler}
    assert all(torch.equal(tensor, state[name]) for name, tensor in (*built.model.state_dict().items(), *built.pooler.items()))


def outputs_differ(model) -> bool:
    """Whether two passes in training mode differ."""
    batch = make_batch((8, 8))
    model.train()
    with torch.no_grad():
        return not torch.equal(model(batch.input_ids)[0], model(batch.input_ids)[0])


@pytest.mark.parametrize(
    ("source", "layers", "head"), [("teacher", [1, 3], True), ("folder", None, True), ("folder", None, False), ("scratch", None, True)])
@pytest.mark.parametrize("family", FAMILIES)
def test_dropout_flags_reach_the_model(folders, family, head, source, layers):
    row = row_of(family)
    model = build(folders[family, head], source, family, layers, needs_head=head, dropout=0.3, attention=0.2).model
    config = row.canonical(model.config.to_dict())
    assert (config["hidden_dropout_prob"], config["attention_probs_dropout_prob"]) == (0.3, 0.2)
    found = {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)}
    assert found == {0.3, 0.2}
    # What the flags really switch, seen from outside.
    assert outputs_differ(model)
    for hidden, probability in ((0.0, 0.0), (0.0, 0.3), (0.3, 0.0)):
        model = build(folders[family, head], source, family, layers, needs_head=head, dropout=hidden, attention=probability).model
        assert outputs_differ(model) == (hidden + probability > 0), (hidden, probability)


def make_module(folder: Path, methods, pairs=(), family="bert", layers=(0, 1, 2, 3)) -> TrainedModule:
    context = ObjectiveContext(student=Shape(4, 32, 4), teacher=Shape(4, 32, 4), pairs=tuple(pairs))
    objective = WeightedObjectives([Part(name, weight) for name, weight in methods], dict.fromkeys(dict(methods), context))
    built = build(folder, "teacher", family, list(layers), objective.needs.student.head, dropout=0.0, attention=0.0)
    return TrainedModule(Encoder(built.model, row_of(family), built.has_head, objective.needs.student), objective)


@pytest.mark.parametrize(("layer", "head"), [(1, True), (3, True), (0, False), (3, False)])
@pytest.mark.parametrize("family", FAMILIES)
def test_exactly_what_no_loss_reaches_is_frozen(folders, family, layer, head):
    module, row = make_module(folders[family, head], [("hidden_mse", 1.0)], ((layer, 2),), family), row_of(family)
    frozen = module.freeze_unreached(Shape(4, 32, 4), VOCABULARY)
    expected = set()
    for name, _ in module.named_parameters():
        inner = name.removeprefix("student.model.")
        inner = inner if module.student.has_head else f"{row.base}.{inner}"
        place = layer_of(row, inner)
        is_final_norm = row.final_norm is not None and inner.startswith(f"{row.base}.{row.final_norm}.")
        if (place is not None and place[0] > layer) or row.in_head(inner) or (is_final_norm and layer < 3):
            expected.add(name)
    assert set(frozen) == expected and len(frozen) == len(expected)
    assert {name for name, parameter in module.named_parameters() if not parameter.requires_grad} == expected
    assert all(parameter.grad is None for parameter in module.parameters())
    assert module.training and all(child.training for child in module.modules())
    assert module.student.model.get_input_embeddings().weight.requires_grad


@pytest.mark.parametrize("methods", [[("logit", 1.0)], [("mlm", 1.0)], [("hidden_mse", 1.0), ("mlm", 0.1)]])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_loss_on_logits_freezes_nothing(folders, family, methods):
    module = make_module(folders[family, True], methods, ((1, 1),), family)
    assert module.freeze_unreached(Shape(4, 32, 4), VOCABULARY) == []
    assert all(parameter.requires_grad for parameter in module.parameters())


def test_several_pairs_are_reached_together_and_the_random_numbers_are_left_alone(folders):
    module = make_module(folders["bert", False], [("hidden_mse", 1.0)], ((0, 1), (2, 3)))
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    frozen = module.freeze_unreached(Shape(4, 32, 4), VOCABULARY)
    assert torch.equal(before, torch.random.get_rng_state())
    assert frozen and all("layer.3." in name for name in frozen)


def test_a_step_with_weight_decay_leaves_frozen_weights_and_changes_all_others(folders):
    module = make_module(folders["bert", True], [("hidden_mse", 1.0)], ((1, 3),))
    frozen = set(module.freeze_unreached(Shape(4, 32, 4), VOCABULARY))
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


def save_whole_bert(folder: Path) -> transformers.BertForPreTraining:
    """A BERT with both heads and every parameter random, saved in `folder`."""
    torch.manual_seed(0)
    whole = transformers.BertForPreTraining(make_model().config)
    with torch.no_grad():
        for parameter in whole.parameters():
            parameter.normal_(std=0.1)
    whole.save_pretrained(folder)
    return whole


@pytest.mark.parametrize(("source", "layers"), [("teacher", [1, 3]), ("folder", None)])
def test_a_next_sentence_student_has_pooler_and_both_heads(folders, tmp_path, source, layers):
    row, plain = ARCHITECTURES["bert-mlm-nsp"], ARCHITECTURES["bert-mlm"]
    whole = save_whole_bert(tmp_path / "whole")

    def student(folder: Path, seed: int) -> BuiltModel:
        teacher = BuiltModel(*load_model(folder, "--teacher_path", plain)) if source == "teacher" else None
        return build_student(plan_for(row, folder, source, layers, 0.1, 0.1), row, teacher, plain, False, True, seed)

    built = student(tmp_path / "whole", 1)
    assert isinstance(built.model, transformers.BertForPreTraining) and built.has_head and not built.pooler
    for part in ("bert.pooler", "bert.embeddings", "cls"):
        assert same_state(built.model.get_submodule(part), whole.get_submodule(part))
    # Where there are none they are random, from the seed alone.
    random = [student(folders["bert", True], seed).model for seed in (1, 1, 2)]
    for part in ("bert.pooler", "cls.seq_relationship"):
        first, again, other = (model.get_submodule(part) for model in random)
        assert same_state(first, again) and not same_state(first, other)
    assert same_state(random[0].cls.predictions, load(folders["bert", True]).model.cls.predictions)


def test_folders_of_other_shapes_load_and_broken_ones_are_refused(folders, tmp_path):
    architecture = ARCHITECTURES["bert-mlm"]
    # A whole pre-training model: what is for the sentence head comes beside it.
    whole = save_whole_bert(tmp_path / "whole")
    model, has_head, pooler, sentence = load_model(tmp_path / "whole", "--teacher_path", architecture)
    assert has_head and isinstance(model, transformers.BertForMaskedLM)
    assert torch.equal(pooler["pooler.dense.weight"], whole.bert.pooler.dense.weight)
    assert torch.equal(sentence["cls.seq_relationship.bias"], whole.cls.seq_relationship.bias)
    assert torch.equal(model.cls.predictions.transform.dense.weight, whole.cls.predictions.transform.dense.weight)
    # An ELECTRA discriminator has no language-model head.
    transformers.ElectraForPreTraining(make_model("electra").config).save_pretrained(tmp_path / "discriminator")
    model, has_head, _, _ = load_model(tmp_path / "discriminator", "--teacher_path", row_of("electra"))
    assert not has_head and isinstance(model, transformers.ElectraModel)
    # Half precision on the disk is fp32 in memory.
    make_model().half().save_pretrained(tmp_path / "half")
    model = load_model(tmp_path / "half", "--teacher_path", architecture)[0]
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
