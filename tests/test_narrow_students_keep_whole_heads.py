"""A narrower student is a selection from its teacher: one choice of residual dimensions for the whole model, whole heads and neurons layer
by layer, the most important of each."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import FAMILIES, MODEL_TYPES, make_batch, make_model, make_teacher

from dataset.errors import UserError
from pretraining.args.parser import Args
from pretraining.models.catalog import find_architecture, read_model_folder
from pretraining.models.loading import BuiltModel, load_model
from pretraining.models.student import build_student
from pretraining.models.weights import NARROWABLE, axes_of, layer_of
from pretraining.student_plan import plan_student

HEAD = 8
TARGET = {"hidden_size": 24, "intermediate_size": 40}


def row_of(family: str):
    return find_architecture(MODEL_TYPES[family])


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict:
    root = tmp_path_factory.mktemp("teachers")
    return {family: make_teacher(root / family, family=family) for family in FAMILIES}


def plan(folder: Path, model_type: str | None = None, **flags):
    args, teacher = Args(), read_model_folder(str(folder), "--teacher_path")
    args.distillation.student_initialize = True
    for name, value in {"num_hidden_layers": 3, **flags}.items():
        args.set(name, value)
    return plan_student(args, teacher, find_architecture(model_type) if model_type else teacher.architecture)


def build(folder: Path, **flags) -> BuiltModel:
    found = plan(folder, **flags)
    teacher = read_model_folder(str(folder), "--teacher_path").architecture
    return build_student(found, found.architecture, BuiltModel(*load_model(folder, "--teacher_path", teacher)), teacher, False, False, 0)


def logits(model) -> torch.Tensor:
    batch = make_batch()
    with torch.no_grad():
        return model.eval()(input_ids=batch.input_ids, attention_mask=batch.mask.long()).logits[batch.mask]


# The tables say what every axis is.

@pytest.mark.parametrize("family", FAMILIES)
def test_shuffling_along_the_named_axes_leaves_the_function_as_it_is(family):
    """Nothing a model computes depends on the order of residual dimensions, heads and neurons; any wrong axis would show."""
    model, row, rng = make_model(family), row_of(family), np.random.default_rng(0)
    wanted, orders = logits(model), {}

    def order(kind: str, layer: int | None, size: int) -> np.ndarray:
        if (kind, layer) not in orders:
            if kind == "heads":
                orders[kind, layer] = (rng.permutation(size // HEAD)[:, None] * HEAD + np.arange(HEAD)).ravel()
            else:
                orders[kind, layer] = rng.permutation(size)
        return orders[kind, layer]

    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for name, tensor in state.items():
        place = layer_of(row, name)
        for number, axis in enumerate(axes_of(family, name)):
            if axis.kind != "fixed":
                each = tensor.shape[number] // axis.parts
                shared = axis.kind in ("width", "embedding")
                one = order(axis.kind, None if shared else place[0], each)
                index = np.concatenate([one + part * each for part in range(axis.parts)])
                tensor = tensor.index_select(number, torch.from_numpy(index))
        state[name] = tensor
    model.load_state_dict(state)
    torch.testing.assert_close(logits(model), wanted, rtol=1e-4, atol=1e-5)
    kinds = {kind for kind, _ in orders}
    assert kinds == {"width", "heads", "neurons"} | ({"embedding"} if family == "electra" else set())
    # And the comparison can fail: the same shuffle along one axis less.
    broken = next(name for name in state if axes_of(family, name) in [pair for pair in NARROWABLE[family].values() if len(pair) == 2]
                  and layer_of(row, name) is not None)
    model.load_state_dict({**state, broken: make_model(family).state_dict()[broken]})
    assert not torch.allclose(logits(model), wanted, atol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_tables_name_every_weight_and_its_size(family):
    sizes = {"width": 32, "heads": 32, "neurons": 64, "embedding": 16}
    for head in (True, False):
        model, row = make_model(family, head=head), row_of(family)
        for name, tensor in model.state_dict().items():
            axes = axes_of(family, name if head else f"{row.base}.{name}")
            assert len(axes) == tensor.dim(), name
            for axis, size in zip(axes, tensor.shape, strict=True):
                assert axis.kind == "fixed" or size == axis.parts * sizes[axis.kind], name


# What is selected.

def selection(wide: np.ndarray, narrow: np.ndarray) -> list[int]:
    """Which columns of `wide` the columns of `narrow` are."""
    return [int(np.flatnonzero((wide == column[:, None]).all(axis=0))[0]) for column in narrow.T]


@pytest.mark.parametrize("layers", ["0,1,3", "3,1,1"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_narrow_students_weights_are_the_teachers_at_one_choice_of_indices(folders, family, layers):
    row, copied = row_of(family), [int(layer) for layer in layers.split(",")]
    student = build(folders[family], student_layers=layers, num_hidden_layers=None, **TARGET)
    teacher = {name: tensor.numpy() for name, tensor in make_model(family).state_dict().items()}
    config = row.canonical(student.model.config.to_dict())
    assert (config["hidden_size"], config["num_attention_heads"], config["intermediate_size"]) == (24, 3, 40)
    assert student.model.eval()(make_batch().input_ids).logits.isfinite().all()
    chosen: dict = {}
    for name, tensor in student.model.state_dict().items():
        place, source = layer_of(row, name), name
        if place is not None:
            source = name.replace(f".{place[0]}.", f".{copied[place[0]]}.", 1)
        wide, axes = teacher[source], axes_of(family, name)
        groups = [(axis.kind, None if axis.kind in ("width", "embedding") else place[0]) if axis.kind != "fixed" else None for axis in axes]
        # An axis whose choice is known is cut by it; the choice on the other follows from the values, and must then hold everywhere.
        index = [np.arange(size) if group is None or group[0] == "embedding" else chosen.get(group)
                 for group, size in zip(groups, wide.shape, strict=True)]
        for number, group in enumerate(groups):
            if index[number] is None:
                other = wide if len(axes) == 1 else wide[index[0]] if number else wide[:, index[1]].T
                each = tensor.shape[number] // axes[number].parts
                found = selection(other.reshape(-1, wide.shape[number]), (tensor.numpy().T if number == 0 and len(axes) == 2
                                                                         else tensor.numpy()).reshape(-1, tensor.shape[number]))
                index[number] = chosen[group] = np.array(found[:each])
        index = [np.concatenate([one + part * (size // axis.parts) for part in range(axis.parts)]) if group is not None else one
                 for one, group, axis, size in zip(index, groups, axes, wide.shape, strict=True)]
        assert np.array_equal(tensor.numpy(), wide[np.ix_(*index)]), name
    assert len(chosen["width", None]) == 24
    for layer in range(3):
        heads, neurons = chosen["heads", layer].reshape(-1, HEAD), chosen["neurons", layer]
        assert np.array_equal(heads, heads[:, :1] + np.arange(HEAD)) and not (heads[:, 0] % HEAD).any()
        assert len(heads) == 3 and len(set(neurons.tolist())) == 40
        for kept in (heads[:, 0], neurons, chosen["width", None]):
            assert (np.diff(kept) > 0).all()


def relative(squares: np.ndarray) -> np.ndarray:
    return squares / squares.mean()


def test_the_most_important_are_kept_as_the_formula_says(folders):
    """A naive reference for BERT: squared norms in float64, each matrix divided by its mean."""
    student = build(folders["bert"], student_layers="2,0", num_hidden_layers=None, **TARGET).model
    state = {name: tensor.double().numpy() for name, tensor in make_model("bert").state_dict().items()}
    width = np.zeros(32)
    for name in ("word", "position", "token_type"):
        width += relative((state[f"bert.embeddings.{name}_embeddings.weight"] ** 2).sum(0))
    transform = state["cls.predictions.transform.dense.weight"] ** 2
    width += relative(transform.sum(0)) + relative(transform.sum(1))
    kept = {}
    for layer in (2, 0):
        prefix = f"bert.encoder.layer.{layer}."
        heads, neurons = np.zeros(4), np.zeros(64)
        for name in ("attention.self.query", "attention.self.key", "attention.self.value"):
            squares = state[f"{prefix}{name}.weight"] ** 2
            width += relative(squares.sum(0))
            heads += relative(squares.sum(1).reshape(4, HEAD).sum(1))
        squares = state[f"{prefix}attention.output.dense.weight"] ** 2
        width += relative(squares.sum(1))
        heads += relative(squares.sum(0).reshape(4, HEAD).sum(1))
        inner, outer = state[f"{prefix}intermediate.dense.weight"] ** 2, state[f"{prefix}output.dense.weight"] ** 2
        width += relative(inner.sum(0)) + relative(outer.sum(1))
        neurons += relative(inner.sum(1)) + relative(outer.sum(0))
        kept[layer] = np.sort(np.argsort(-heads)[:3]), np.sort(np.argsort(-neurons)[:40])
    columns = np.sort(np.argsort(-width)[:24])
    for place, layer in enumerate((2, 0)):
        heads, neurons = kept[layer]
        rows = (heads[:, None] * HEAD + np.arange(HEAD)).ravel()
        mine, prefix = student.bert.encoder.layer[place], f"bert.encoder.layer.{layer}."
        for found, wanted in ((mine.attention.self.query.weight, state[f"{prefix}attention.self.query.weight"][np.ix_(rows, columns)]),
                              (mine.output.dense.weight, state[f"{prefix}output.dense.weight"][np.ix_(columns, neurons)]),
                              (mine.output.LayerNorm.bias, state[f"{prefix}output.LayerNorm.bias"][columns])):
            assert np.array_equal(found.detach().double().numpy(), wanted)


@pytest.mark.parametrize("family", FAMILIES)
def test_neurons_that_do_nothing_go_first(family, tmp_path):
    """Of 64 neurons a layer 24 are cut out of the teacher: a student of 40 is the same function."""
    folder = make_teacher(tmp_path, family=family)
    model, rng = make_model(family), np.random.default_rng(1)
    modules = {name: module for name, module in model.named_modules() if re.search(r"\.\d+\.", name) and hasattr(module, "weight")}
    with torch.no_grad():
        for layer in range(4):
            idle = torch.from_numpy(rng.permutation(64)[:24])
            for name, module in modules.items():
                if f".{layer}." not in name:
                    continue
                for number, size in enumerate(module.weight.shape):
                    for start in {64: (0,), 128: (0, 64)}.get(size, ()):  # 128 where the neurons are gated
                        module.weight.index_fill_(number, idle + start, 0.0)
                if getattr(module, "bias", None) is not None and len(module.bias) == 64:
                    module.bias.index_fill_(0, idle, 0.0)
    wanted = logits(model)
    model.save_pretrained(folder)
    student = build(folder, num_hidden_layers=4, intermediate_size=40)
    assert sum(parameter.numel() for parameter in student.model.parameters()) < sum(parameter.numel() for parameter in model.parameters())
    torch.testing.assert_close(logits(student.model), wanted, rtol=1e-5, atol=1e-5)


def test_a_narrow_distilbert_is_cut_as_the_narrow_bert_is(folders):
    bert, distil = build(folders["bert"], **TARGET).model, build(folders["bert"], model_type="distilbert-mlm", **TARGET).model
    torch.testing.assert_close(logits(distil), logits(bert), rtol=1e-5, atol=1e-5)
    assert bert.config.num_attention_heads == distil.config.n_heads == 3


def test_the_pooler_is_cut_along(tmp_path):
    student = build(make_teacher(tmp_path, head=False), **TARGET)
    assert student.pooler["pooler.dense.weight"].shape == (24, 24) and student.pooler["pooler.dense.bias"].shape == (24,)
    columns = selection(make_model(head=False).embeddings.word_embeddings.weight.detach().numpy(),
                        student.model.embeddings.word_embeddings.weight.detach().numpy())
    stored = make_model(head=False).pooler.dense.weight.detach().numpy()
    assert np.array_equal(student.pooler["pooler.dense.weight"].numpy(), stored[np.ix_(columns, columns)])


# What cannot be.

@pytest.mark.parametrize(("flags", "message"), [
    ({"hidden_size": 20}, "heads of 8 are kept whole; 16 or 24 works"), ({"hidden_size": 4}, "kept whole; 8 works"),
    ({"num_attention_heads": 2}, "a hidden_size of 32 has 4 of them; --num_attention_heads 4 works"),
    ({"hidden_size": 16, "num_attention_heads": 4}, "--num_attention_heads 2 works"),
    ({"hidden_size": 64}, "whose hidden_size is 32; at most that works"), ({"intermediate_size": 65}, "at most that works"),
    ({"num_attention_heads": 8}, "at most that works"), ({"hidden_size": 16, "vocab_size": 99}, "leave the flag out"),
    ({"hidden_size": 16, "hidden_act": "relu"}, "leave the flag out")])
def test_what_would_split_heads_or_need_new_weights_is_refused(folders, flags, message):
    with pytest.raises(UserError, match=message) as refusal:
        plan(folders["bert"], **flags)
    assert "\n" not in str(refusal.value)


def test_electras_embeddings_keep_their_own_width(folders, tmp_path):
    config = plan(folders["electra"], hidden_size=24).config
    assert (config["embedding_size"], config["hidden_size"], config["num_attention_heads"]) == (16, 24, 3)
    with pytest.raises(UserError, match="embedding_size too"):
        plan(folders["electra"], hidden_size=16)
    # Where they are as wide as the layers, nothing maps one to the other, and both are cut alike.
    import transformers

    config = make_model("electra").config
    config.embedding_size = 32
    transformers.ElectraForMaskedLM(config).save_pretrained(make_teacher(tmp_path, family="electra"))
    student = build(tmp_path, hidden_size=16)
    assert student.model.config.embedding_size == 16 and not hasattr(student.model.electra, "embeddings_project")
    assert logits(student.model).isfinite().all()
