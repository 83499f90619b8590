"""Losses between similarities of hidden states equal their formulas, computed in float64: values, gradients, bounds, degenerate batches."""

import itertools
import math

import pytest
import torch
from states_case import (
    ALL_LENGTHS,
    LENGTHS,
    PAIRS,
    WIDTHS,
    assert_equals_reference,
    assert_padding_does_not_matter,
    assert_runs_without_values,
    build,
    context,
    leaves,
    make_states,
    means,
    tokens,
)
from tiny import make_batch

from pretraining.signals import Signals, Unit

NAMES = ["cka", "gram", "crd"]
ONE_PAIR = ((0, 0),)
# Where the loss is a constant and its gradient exactly 0, each with a test of its own below: two tokens lie on one line whatever they
# are, sequences of one token have equal Gram matrices, a single sequence has no negatives.
DEGENERATE = [("cka", (1, 1)), ("gram", (1, 1)), ("crd", (5,))]


def hsic(k_NN, l_NN):
    """Hilbert-Schmidt independence criterion of two kernels, up to a factor (Kornblith et al. 2019, eq. 3)."""
    n = len(k_NN)
    centre = torch.eye(n, dtype=torch.float64) - torch.full((n, n), 1 / n, dtype=torch.float64)
    return torch.trace(k_NN @ centre @ l_NN @ centre)


def cka_reference(student, teacher, parameters, batch):
    """In the form with kernels between tokens, N × N."""
    values = {}
    for s, t in PAIRS:
        x, y = (torch.stack([states[b, i] for b, i in tokens(batch)]) for states in (student.hidden[s], teacher.hidden[t]))
        k, m = x @ x.T, y @ y.T
        values[f"cka/{s}-{t}"] = 1 - hsic(k, m) / (hsic(k, k) * hsic(m, m)).sqrt()
    return values


def gram_reference(student, teacher, parameters, batch):
    values = {}
    for s, t in PAIRS:
        total = torch.zeros((), dtype=torch.float64)
        for b, length in enumerate(batch.mask.sum(dim=1).tolist()):
            grams = []
            for states in (student.hidden[s], teacher.hidden[t]):
                gram = torch.stack([states[b, i] @ states[b, j] for i in range(length) for j in range(length)])
                grams.append(gram / gram.norm())
            total = total + (grams[0] - grams[1]).square().sum()
        values[f"gram/{s}-{t}"] = total / len(batch.mask)
    return values


def crd_reference(student, teacher, parameters, batch, student_layers=(0, 1, 2), teacher_layers=(1, 3, 0), temperature=0.07):
    anchors, keys = [], []
    for b in range(len(batch.mask)):
        for vectors, states, layers, side in ((anchors, student, student_layers, "student"), (keys, teacher, teacher_layers, "teacher")):
            z = parameters[f"{side}_projection.weight"] @ torch.cat([states.hidden[layer][b, 0] for layer in layers])
            vectors.append(z / z.norm())
    total = torch.zeros((), dtype=torch.float64)
    for b, anchor in enumerate(anchors):
        scores = torch.stack([anchor @ key / temperature for key in keys])
        total = total + torch.logsumexp(scores, 0) - scores[b]
    return {"crd": total / len(anchors)}


REFERENCES = {"cka": cka_reference, "gram": gram_reference, "crd": crd_reference}


@pytest.mark.parametrize("widths", WIDTHS)
@pytest.mark.parametrize(("name", "lengths"), [case for case in itertools.product(NAMES, ALL_LENGTHS) if case not in DEGENERATE])
def test_values_and_gradients(name, lengths, widths):
    batch = make_batch(lengths)
    assert_equals_reference(build(name, context(widths)), *make_states(batch, widths), batch, REFERENCES[name])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", NAMES)
def test_inputs_of_16_bits(name, dtype):
    batch, widths = make_batch(LENGTHS), (16, 24)
    assert_equals_reference(build(name, context(widths)), *make_states(batch, widths, dtype), batch, REFERENCES[name])


def test_crd_with_projections_held_in_16_bits_multiplies_in_fp32():
    batch = make_batch(LENGTHS)
    assert_equals_reference(build("crd", context()).bfloat16(), *make_states(batch, dtype=torch.bfloat16), batch, crd_reference)


@pytest.mark.parametrize("name", NAMES)
def test_fp16_inputs_are_reduced_in_fp32(name):
    batch = make_batch((12,) * 6, predictions=2)
    student, teacher = make_states(batch, dtype=torch.float16, scale=300.0)
    assert torch.isinf(student.hidden[0].flatten(0, 1).T @ student.hidden[0].flatten(0, 1)).any()
    assert torch.isinf(student.hidden[0] @ student.hidden[0].mT).any() and torch.isinf(student.hidden[0][:, 0].square().sum(-1)).any()
    assert_equals_reference(build(name, context()), student, teacher, batch, REFERENCES[name])


@pytest.mark.parametrize("garbage", [0.0, 1e30, math.inf, math.nan])
@pytest.mark.parametrize("widths", WIDTHS[:2])
@pytest.mark.parametrize("name", NAMES)
def test_what_stands_at_padding_changes_neither_values_nor_gradients(name, widths, garbage):
    assert_padding_does_not_matter(build(name, context(widths)), garbage, widths)


def transformed(states, scale=1.0, shift=0.0):
    """The states rotated in feature space, scaled and shifted."""
    generator = torch.Generator().manual_seed(7)
    rotation, _ = torch.linalg.qr(torch.randn(states.shape[-1], states.shape[-1], generator=generator))
    return (scale * (states.detach() @ rotation) + shift * torch.randn(states.shape[-1], generator=generator)).detach()


@pytest.mark.parametrize(("name", "shift"), [("cka", 0.0), ("cka", 5.0), ("gram", 0.0)])
def test_a_rotated_scaled_copy_of_the_teacher_has_no_loss_and_no_gradient(name, shift):
    batch = make_batch(LENGTHS)
    for other in (lambda states: states.detach().clone(), lambda states: transformed(states, 3.0, shift)):
        student, _ = make_states(batch)
        teacher = Signals({0: other(student.hidden[0])})
        (mean,) = means(build(name, context(pairs=ONE_PAIR))(student, teacher, batch), batch).values()
        mean.backward()
        assert abs(mean.item()) < 1e-6
        away, _ = make_states(batch)
        stranger = Signals({0: make_states(batch, seed=5)[1].hidden[0]})
        (far,) = means(build(name, context(pairs=ONE_PAIR))(away, stranger, batch), batch).values()
        far.backward()
        assert far.item() > 0.1 and student.hidden[0].grad.norm() < 1e-5 * away.hidden[0].grad.norm()


def test_gram_of_equal_states_is_exactly_zero():
    batch = make_batch(LENGTHS)
    student, _ = make_states(batch, scale=4.0)
    teacher = Signals({0: student.hidden[0].detach().clone()})
    (term,) = build("gram", context(pairs=ONE_PAIR))(student, teacher, batch).values()
    term.sum.backward()
    assert term.sum.item() == 0.0 and not student.hidden[0].grad.any()


def test_gram_close_to_its_minimum_keeps_its_digits():
    batch = make_batch(LENGTHS)
    student, _ = make_states(batch)
    teacher = Signals({layer: student.hidden[0].detach() + 1e-3 * torch.randn(student.hidden[0].shape) for layer in range(4)})
    (mean,) = means(build("gram", context(pairs=((0, 1),)))(student, teacher, batch), batch).values()
    exact = gram_reference(Signals({layer: student.hidden[0].detach().double() for layer in range(3)}),
                           Signals({layer: states.double() for layer, states in teacher.hidden.items()}), {}, batch)["gram/0-1"].item()
    assert exact < 1e-5 and mean.item() == pytest.approx(exact, rel=1e-3)


def test_gram_lies_between_0_and_2_and_sequences_of_one_token_are_alike():
    batch = make_batch(LENGTHS)
    for seed in range(5):
        for mean in means(build("gram", context())(*make_states(batch, seed=seed), batch), batch).values():
            assert 0.0 <= mean.item() <= 2.0
    batch = make_batch((1, 1, 1))
    student, teacher = make_states(batch)
    terms = build("gram", context())(student, teacher, batch)
    sum(term.sum for term in terms.values()).backward()
    assert all(abs(term.sum.item()) < 1e-12 for term in terms.values())
    assert all(student.hidden[layer].grad.norm() < 1e-6 for layer in range(3))


def test_gram_of_a_sequence_of_zeros_has_a_loss_of_one_and_no_gradient():
    batch = make_batch((3, 5))
    student, teacher = make_states(batch)
    with torch.no_grad():
        student.hidden[0][1], teacher.hidden[1][0] = 0.0, 0.0
    (term,) = build("gram", context(pairs=((0, 1),)))(student, teacher, batch).values()
    assert term.sum.item() == pytest.approx(2.0, rel=1e-5)
    term.sum.backward()
    # The first sequence's teacher is 0 whatever the student says, as is the second one's student.
    assert student.hidden[0].grad.abs().max() < 1e-6 and not student.hidden[0].grad[1].any()


@pytest.mark.parametrize("case", ["one token", "student constant", "teacher constant", "both constant"])
def test_cka_without_anything_to_align_is_one_and_gives_no_gradient(case):
    batch = make_batch((1,) if case == "one token" else LENGTHS)
    student, teacher = make_states(batch, scale=100.0)
    with torch.no_grad():
        for signals, side in ((student, "student"), (teacher, "teacher")):
            if case in (f"{side} constant", "both constant"):
                for states in signals.hidden.values():
                    states.copy_(states[0, 0].expand_as(states))
    terms = build("cka", context())(student, teacher, batch)
    assert all(term.sum.item() == len(batch.mask) and term.unit is Unit.SEQUENCES for term in terms.values())
    sum(term.sum for term in terms.values()).backward()
    assert all(not student.hidden[layer].grad.any() for layer in range(3))  # nan is true


def test_cka_of_two_tokens_is_one_direction_on_both_sides():
    batch = make_batch((1, 1))
    student, teacher = make_states(batch)
    terms = build("cka", context())(student, teacher, batch)
    sum(term.sum for term in terms.values()).backward()
    assert all(abs(term.sum.item()) < 1e-6 for term in terms.values())
    assert all(student.hidden[layer].grad.norm() < 1e-5 for layer in range(3))


def test_cka_of_states_with_a_large_common_part_keeps_its_digits():
    batch = make_batch(LENGTHS)
    student, teacher = make_states(batch)
    with torch.no_grad():
        for states in (*student.hidden.values(), *teacher.hidden.values()):
            states.add_(1000.0)
    assert_equals_reference(build("cka", context()), student, teacher, batch, cka_reference)


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_crd_stays_within_its_bounds(temperature):
    batch = make_batch((5,) * 6)
    low, high = (math.log1p(5 * math.exp(sign * 2 / temperature)) for sign in (-1, 1))
    settings = context(contrastive_temperature=temperature, contrastive_width=8)
    for seed in range(5):
        (mean,) = means(build("crd", settings, seed)(*make_states(batch, seed=seed), batch), batch).values()
        assert low <= mean.item() <= high


def test_crd_of_a_student_that_equals_its_teacher_is_at_most_log_b():
    batch, settings = make_batch((5,) * 6), context(pairs=((0, 0), (2, 2)), contrastive_width=48, contrastive_temperature=0.5)
    objective = build("crd", settings)
    with torch.no_grad():
        objective.teacher_projection.weight.copy_(objective.student_projection.weight)
    student, _ = make_states(batch)
    teacher = Signals({layer: states.detach().clone() for layer, states in student.hidden.items()})
    (mean,) = means(objective(student, teacher, batch), batch).values()
    assert math.log1p(5 * math.exp(-2 / 0.5)) <= mean.item() <= math.log(6)
    # Rows of all sequences alike are the worst such student.
    with torch.no_grad():
        for states in (*student.hidden.values(), *teacher.hidden.values()):
            states.copy_(states[:1].expand_as(states).clone())
    (mean,) = means(objective(student, teacher, batch), batch).values()
    assert mean.item() == pytest.approx(math.log(6), rel=1e-6)
    # Orthogonal directions, one for each sequence: B - 1 negatives of cosine 0.
    with torch.no_grad():
        for layer in (0, 2):
            teacher.hidden[layer][:, 0] = torch.eye(6, 24)
            student.hidden[layer][:, 0] = torch.eye(6, 24)
    (mean,) = means(objective(student, teacher, batch), batch).values()
    assert mean.item() == pytest.approx(math.log1p(5 * math.exp(-1 / 0.5)), rel=1e-5)


def test_crd_of_a_single_sequence_is_exactly_zero():
    batch = make_batch((5,))
    student, teacher = make_states(batch)
    objective = build("crd", context())
    (term,) = objective(student, teacher, batch).values()
    term.sum.backward()
    assert term.sum.item() == 0.0
    assert not any(one.grad.any() for one in [student.hidden[0], *objective.parameters()])


def test_crd_of_states_of_zero_is_log_b_and_its_gradient_is_finite():
    batch = make_batch((4, 4))
    student, teacher = make_states(batch)
    with torch.no_grad():
        for states in student.hidden.values():
            states.zero_()
    objective = build("crd", context())
    (mean,) = means(objective(student, teacher, batch), batch).values()
    mean.backward()
    assert mean.item() == pytest.approx(math.log(2))
    assert all(torch.isfinite(one.grad).all() for one in [student.hidden[0], *objective.parameters()])


@pytest.mark.parametrize("layers", [((2,), (3,)), ((0, 2), (1, 2, 3)), ((0, 1, 2), (0,))])
@pytest.mark.parametrize("widths", WIDTHS)
def test_crd_sets_unequally_many_layers_side_by_side(layers, widths):
    batch = make_batch(LENGTHS)
    objective = build("crd", context(widths, pairs=(), student_layers=layers[0], teacher_layers=layers[1], contrastive_width=10,
                                     contrastive_temperature=0.5))
    assert objective.student_projection.weight.shape == (10, len(layers[0]) * widths[0])
    assert objective.teacher_projection.weight.shape == (10, len(layers[1]) * widths[1])
    assert objective.needs.student.hidden == set(layers[0]) and objective.needs.teacher.hidden == set(layers[1])
    assert_equals_reference(objective, *make_states(batch, widths), batch, lambda *inputs: crd_reference(*inputs, *layers, 0.5))


@pytest.mark.parametrize("name", NAMES)
def test_terms_are_counted_in_sequences_and_reach_no_layer_but_theirs(name):
    batch = make_batch(LENGTHS)
    for pairs in (((2, 3),), ((1, 2), (2, 2))):
        student, teacher = make_states(batch)
        objective = build(name, context(pairs=pairs))
        terms = objective(student, teacher, batch)
        assert list(terms) == ([name] if len(pairs) == 1 or name == "crd" else [f"{name}/{s}-{t}" for s, t in pairs])
        assert all(term.unit is Unit.SEQUENCES and term.count(batch.counts) == len(LENGTHS) for term in terms.values())
        sum(term.sum for term in terms.values()).backward()
        assert {key for key, states in leaves(student).items() if states.grad is not None} == {f"hidden.{s}" for s, _ in pairs}
        assert bool(list(objective.parameters())) == (name == "crd")


@pytest.mark.parametrize("name", NAMES)
def test_no_value_is_asked_for(name):
    for lengths in (LENGTHS, (6, 6)):
        assert_runs_without_values(build(name, context((16, 24))), make_batch(lengths), (16, 24))
