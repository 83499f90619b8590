"""Losses between hidden states equal their formulas, computed in float64 token by token: values, gradients, and what must not matter."""

import math

import pytest
import torch
from states_case import (
    ALL_LENGTHS,
    LENGTHS,
    PAIRS,
    UNIT_COUNTS,
    WIDTHS,
    assert_equals_reference,
    assert_padding_does_not_matter,
    assert_runs_without_values,
    build,
    context,
    distance,
    leaves,
    make_states,
    means,
    tokens,
)
from tiny import make_batch

from pretraining.objectives.hidden import COSINE_EPS
from pretraining.signals import Signals

NAMES = ["hidden_mse", "hidden_cls", "hidden_mse_combine", "embedding_mse", "cosine"]
PAIRED = ["hidden_mse", "hidden_cls", "cosine"]


def paired(name: str, element, places, per_place):
    """A reference: for each pair the mean of element(x W, y) over `places`, divided by `per_place` of the teacher's width."""

    def reference(student, teacher, parameters, batch):
        values = {}
        for s, t in PAIRS:
            weight = parameters.get(f"projections.{s}-{t}.weight")
            total = torch.zeros((), dtype=torch.float64)
            for b, i in places(batch):
                x, y = student.hidden[s][b, i], teacher.hidden[t][b, i]
                total = total + element(x if weight is None else weight @ x, y)
            values[f"{name}/{s}-{t}"] = total / (len(places(batch)) * per_place(teacher.hidden[t].shape[-1]))
        return values

    return reference


def squares(x, y):
    return sum((a - b) ** 2 for a, b in zip(x, y, strict=True))


def one_minus_cosine(x, y):
    return 1 - x @ y / (x.norm() * y.norm())


def embedding_reference(student, teacher, parameters, batch):
    weight, total = parameters.get("projections.embeddings.weight"), torch.zeros((), dtype=torch.float64)
    for b, i in tokens(batch):
        x = student.embeddings[b, i]
        total = total + squares(x if weight is None else weight @ x, teacher.embeddings[b, i])
    return {"embedding_mse": total / (len(tokens(batch)) * teacher.embeddings.shape[-1])}


def combine_reference(student, teacher, parameters, batch, student_layers=(0, 1, 2), teacher_layers=(1, 3, 0)):
    total = torch.zeros((), dtype=torch.float64)
    for b, i in tokens(batch):
        target = parameters["projection.weight"] @ torch.cat([teacher.hidden[layer][b, i] for layer in teacher_layers])
        total = total + squares(torch.cat([student.hidden[layer][b, i] for layer in student_layers]), target)
    width = sum(student.hidden[layer].shape[-1] for layer in student_layers)
    return {"hidden_mse_combine": total / (len(tokens(batch)) * width)}


REFERENCES = {
    "hidden_mse": paired("hidden_mse", squares, tokens, lambda width: width),
    "hidden_cls": paired("hidden_cls", squares, lambda batch: [(b, 0) for b in range(len(batch.mask))], lambda width: width),
    "hidden_mse_combine": combine_reference,
    "embedding_mse": embedding_reference,
    "cosine": paired("cosine", one_minus_cosine, tokens, lambda width: 1),
}


@pytest.mark.parametrize("widths", WIDTHS)
@pytest.mark.parametrize("lengths", ALL_LENGTHS)
@pytest.mark.parametrize("name", NAMES)
def test_values_and_gradients(name, lengths, widths):
    batch = make_batch(lengths)
    assert_equals_reference(build(name, context(widths)), *make_states(batch, widths), batch, REFERENCES[name])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("widths", WIDTHS[:2])
@pytest.mark.parametrize("name", NAMES)
def test_inputs_of_16_bits(name, widths, dtype):
    batch = make_batch(LENGTHS)
    assert_equals_reference(build(name, context(widths)), *make_states(batch, widths, dtype), batch, REFERENCES[name])


@pytest.mark.parametrize("name", NAMES)
def test_projections_held_in_16_bits_are_multiplied_in_fp32(name):
    batch, widths = make_batch(LENGTHS), (16, 24)
    objective = build(name, context(widths)).bfloat16()
    assert_equals_reference(objective, *make_states(batch, widths, torch.bfloat16), batch, REFERENCES[name])


@pytest.mark.parametrize("name", NAMES)
def test_fp16_inputs_are_reduced_in_fp32(name):
    batch = make_batch((24,) * 4, predictions=2)
    student, teacher = make_states(batch, dtype=torch.float16, scale=300.0)
    if name == "cosine":
        assert torch.isinf(student.hidden[0].square().sum(-1)).any()
    else:
        assert torch.isinf((student.hidden[0] - teacher.hidden[1])[:, 0].square().sum())
        assert torch.isinf((student.embeddings - teacher.embeddings).square().sum())
    objective = build(name, context())
    with torch.no_grad():
        found = means(objective(student, teacher, batch), batch)
    exact = REFERENCES[name](*(Signals({k: v.detach().double() for k, v in signals.hidden.items()},
                                       embeddings=signals.embeddings.detach().double()) for signals in (student, teacher)),
                             {k: v.detach().double() for k, v in objective.named_parameters()}, batch)
    for term, value in exact.items():
        assert found[term].item() == pytest.approx(value.item(), rel=1e-5)
        assert name == "cosine" or value > torch.finfo(torch.float16).max


@pytest.mark.parametrize("garbage", [0.0, 1e30, math.inf, math.nan])
@pytest.mark.parametrize("widths", WIDTHS[:2])
@pytest.mark.parametrize("name", NAMES)
def test_what_stands_at_padding_changes_neither_values_nor_gradients(name, widths, garbage):
    assert_padding_does_not_matter(build(name, context(widths)), garbage, widths)


@pytest.mark.parametrize("name", ["hidden_mse", "hidden_cls", "embedding_mse", "cosine"])
def test_a_student_that_equals_its_teacher_has_no_loss_and_no_gradient(name):
    batch = make_batch(LENGTHS)
    student, _ = make_states(batch, scale=4.0)
    same = Signals({layer: states.detach().clone() for layer, states in student.hidden.items()},
                   embeddings=student.embeddings.detach().clone())
    terms = build(name, context(pairs=((0, 0), (1, 1), (2, 2))))(student, same, batch)
    assert all(term.sum.item() == 0.0 for term in terms.values())
    sum(term.sum for term in terms.values()).backward()
    assert all(states.grad is None or not states.grad.any() for states in leaves(student).values())


@pytest.mark.parametrize("name", ["hidden_mse", "hidden_cls", "embedding_mse", "cosine"])
def test_a_teacher_that_is_the_projected_student_leaves_no_loss(name):
    batch, pairs = make_batch(LENGTHS), ((0, 0), (1, 1), (2, 2))
    objective = build(name, context((16, 24), pairs))
    student, _ = make_states(batch, (16, 24))
    maps = objective.projections
    teacher = Signals({layer: (states.detach() @ maps[f"{layer}-{layer}"].weight.T).detach() for layer, states in student.hidden.items()}
                      if name != "embedding_mse" else {})
    if name == "embedding_mse":
        teacher.embeddings = (student.embeddings.detach() @ maps["embeddings"].weight.T).detach()
    for mean in means(objective(student, teacher, batch), batch).values():
        assert 0.0 <= mean.item() < 1e-12


def test_combine_has_its_minimum_where_the_projection_reaches_the_student():
    batch = make_batch(LENGTHS)
    settings = context(student_layers=(0, 2), teacher_layers=(0, 1, 2))
    objective = build("hidden_mse_combine", settings)
    student, _ = make_states(batch)
    teacher = Signals({layer: states.detach().clone() for layer, states in student.hidden.items()})
    with torch.no_grad():
        objective.projection.weight.zero_()
        objective.projection.weight[:24, :24], objective.projection.weight[24:, 48:] = torch.eye(24), torch.eye(24)
    (term,) = objective(student, teacher, batch).values()
    term.sum.backward()
    assert term.sum.item() == 0.0
    assert not any(one.grad.any() for one in (student.hidden[0], student.hidden[2], objective.projection.weight))


@pytest.mark.parametrize("layers", [((0, 2), (0, 1, 2, 3)), ((1,), (3, 0)), ((0, 1, 2), (2,))])
@pytest.mark.parametrize("widths", WIDTHS)
def test_combine_sets_unequally_many_layers_side_by_side(layers, widths):
    batch = make_batch(LENGTHS)
    objective = build("hidden_mse_combine", context(widths, pairs=(), student_layers=layers[0], teacher_layers=layers[1]))
    assert objective.projection.weight.shape == (len(layers[0]) * widths[0], len(layers[1]) * widths[1])
    assert objective.needs.student.hidden == set(layers[0]) and objective.needs.teacher.hidden == set(layers[1])
    assert_equals_reference(objective, *make_states(batch, widths), batch, lambda *inputs: combine_reference(*inputs, *layers))


@pytest.mark.parametrize("name", PAIRED)
def test_each_pair_is_a_term_and_no_other_layer_is_touched(name):
    batch = make_batch(LENGTHS)
    for pairs in (((2, 3),), ((1, 2), (2, 2))):
        student, teacher = make_states(batch)
        objective = build(name, context(pairs=pairs))
        terms = objective(student, teacher, batch)
        assert list(terms) == ([name] if len(pairs) == 1 else [f"{name}/{s}-{t}" for s, t in pairs])
        sum(term.sum for term in terms.values()).backward()
        assert {layer for layer, states in student.hidden.items() if states.grad is not None} == {s for s, _ in pairs}
        assert objective.needs.student.hidden == {s for s, _ in pairs} and objective.needs.teacher.hidden == {t for _, t in pairs}
        assert not objective.needs.student.embeddings and not objective.needs.student.output


@pytest.mark.parametrize("name", NAMES)
def test_terms_are_counted_in_their_formulas_elements(name):
    batch, widths = make_batch(LENGTHS), (16, 24)
    counted = {"hidden_mse": 32 * 24, "hidden_cls": 4 * 24, "hidden_mse_combine": 32 * 3 * 16, "embedding_mse": 32 * 24, "cosine": 32}
    terms = build(name, context(widths))(*make_states(batch, widths), batch)
    for term in terms.values():
        assert term.count(batch.counts) == counted[name] == UNIT_COUNTS[term.unit] * term.per_unit
    assert sum(LENGTHS) == 32 and len(LENGTHS) == 4


def test_embedding_mse_asks_for_embeddings_alone():
    needs = build("embedding_mse", context()).needs
    for model in (needs.student, needs.teacher):
        assert model.embeddings and not model.hidden and not model.output


@pytest.mark.parametrize("name", ["hidden_mse", "hidden_cls", "embedding_mse", "cosine"])
def test_projections_exist_only_where_widths_differ_and_start_semi_orthogonal(name):
    assert not list(build(name, context()).parameters())
    for widths in ((16, 24), (24, 16)):
        projections = dict(build(name, context(widths)).named_parameters())
        assert len(projections) == (1 if name == "embedding_mse" else len(PAIRS))
        for weight in projections.values():
            assert weight.shape == (widths[1], widths[0])
            product = weight.T @ weight if widths[0] < widths[1] else weight @ weight.T
            assert torch.allclose(product, torch.eye(16), atol=1e-5)
    first, again, other = (dict(build(name, context((16, 24)), seed).named_parameters()) for seed in (0, 0, 1))
    assert all(torch.equal(first[key], again[key]) and not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("length", [0.0, 0.25, 0.75, 2.0])
def test_cosine_of_states_shorter_than_epsilon(length, dtype):
    batch, pairs = make_batch((2, 3)), ((0, 0),)
    student, teacher = make_states(batch, dtype=dtype)
    with torch.no_grad():
        for states in (student.hidden[0][0, 1], teacher.hidden[0][1, 0], student.hidden[0][1, 2], teacher.hidden[0][1, 2]):
            states.copy_(length * COSINE_EPS * states / states.float().norm())
    (mean,) = means(build("cosine", context(pairs=pairs))(student, teacher, batch), batch).values()
    x, y = student.hidden[0].detach().double().requires_grad_(), teacher.hidden[0].double()
    lengths = [one.square().sum(-1).clamp_min(COSINE_EPS**2).sqrt() for one in (x, y)]
    cosines = (x * y).sum(-1) / (lengths[0] * lengths[1])
    # PyTorch's own has this value; below epsilon its gradient is that of another function.
    assert torch.allclose(cosines, torch.nn.functional.cosine_similarity(x, y, dim=-1, eps=COSINE_EPS))
    exact = sum(1 - cosines[b, i] for b, i in tokens(batch)) / 5
    assert mean.item() == pytest.approx(exact.item(), rel=1e-5)
    mean.backward()
    exact.backward()
    assert torch.isfinite(student.hidden[0].grad).all()
    assert distance(student.hidden[0].grad, x.grad) < (1e-5 if dtype is torch.float32 else 2**-10)


def test_cosine_close_to_one_keeps_its_digits():
    batch, pairs = make_batch((16,) * 4), ((0, 0),)
    student, _ = make_states(batch)
    teacher = Signals({0: student.hidden[0].detach() + 1e-3 * torch.randn(student.hidden[0].shape)})
    (mean,) = means(build("cosine", context(pairs=pairs))(student, teacher, batch), batch).values()
    x, y = student.hidden[0].detach().double(), teacher.hidden[0].double()
    exact = (1 - torch.nn.functional.cosine_similarity(x, y, dim=-1)).mean().item()
    assert exact < 1e-6 and mean.item() == pytest.approx(exact, rel=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_no_value_is_asked_for(name):
    for lengths in (LENGTHS, (6, 6)):
        assert_runs_without_values(build(name, context((16, 24))), make_batch(lengths), (16, 24))
