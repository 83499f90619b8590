"""pear_col equals its formula, computed in float64 a vector at a time over real tokens only: values, gradients, and what must not
matter."""

import math

import pytest
import torch
from tiny import make_batch

from pretraining.objectives.base import ObjectiveContext, Shape
from pretraining.objectives.pearson import PearCol, _Decorrelation
from pretraining.signals import Attention, Batch, ModelNeeds, Signals, Unit

LENGTHS = (9, 4, 12)
PARTS = ("query", "key", "value")
SIZES = (8, 12)  # of student's and teacher's heads
FP32 = 1e-5
ROUNDING = {torch.float32: FP32, torch.bfloat16: 2**-8, torch.float16: 2**-11}


def objective(pairs=((0, 0),), heads=3):
    return PearCol("pear_col", ObjectiveContext(Shape(2, heads * SIZES[0], heads), Shape(3, heads * SIZES[1], heads), pairs=pairs))


def make_signals(batch, dtype=torch.float32, heads=3, scale=1.0, seed=0, sight=({}, {}), sizes=SIZES):
    """Student (layers 0 and 1, with gradients) and teacher (layers 0 to 2), drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    rows, length = batch.mask.shape
    signals = []
    for layers, size, seen in zip((2, 3), sizes, sight, strict=True):
        drawn = [[(scale * torch.randn(rows, heads, length, size, generator=generator)).to(dtype) for _ in PARTS] for _ in range(layers)]
        signals.append(Signals(attention={layer: Attention(*qkv, scaling=size**-0.5, **seen) for layer, qkv in enumerate(drawn)}))
    for states in leaves(signals[0]):
        states.requires_grad_()
    return signals


def leaves(signals):
    return [getattr(attention, part) for attention in signals.attention.values() for part in PARTS[:2]]


def in_double(signals):
    return Signals(attention={layer: Attention(
        *(getattr(one, part).detach().double().requires_grad_() for part in PARTS), one.scaling, one.causal, one.window)
        for layer, one in signals.attention.items()})


def sees(attention, i, j):
    return not (attention.causal and j > i) and (attention.window is None or abs(i - j) <= attention.window)


def entries(student, teacher, batch):
    """{(b, h, i, j): (student's, teacher's probability)} of what counts."""
    found = {}
    for b, mask in enumerate(batch.mask.tolist()):
        real = [i for i, is_real in enumerate(mask) if is_real]
        for h in range(student.query.shape[1]):
            for i in real:
                js = [j for j in real if sees(student, i, j) and sees(teacher, i, j)]
                maps = [torch.softmax(model.key[b, h, js] @ model.query[b, h, i] * model.scaling, 0) for model in (student, teacher)]
                found |= {(b, h, i, j): pair for j, *pair in zip(js, *maps, strict=True)}
    return found


def naive(student, teacher, batch):
    of = entries(student, teacher, batch)
    total = torch.zeros((), dtype=torch.float64)
    for axis in range(4):
        vectors = {}
        for place, pair in of.items():
            vectors.setdefault(place[:axis] + place[axis + 1 :], []).append(torch.stack(pair))
        correlations = []
        for vector in vectors.values():
            if len(vector) >= 2:
                x, y = torch.stack(vector, dim=1)
                flat = min(one.std() / one.mean() for one in (x, y)) < 1e-12
                x, y = x - x.mean(), y - y.mean()
                correlation = (x * y).sum() / (x.square().sum().sqrt() * y.square().sum().sqrt())
                correlations.append(torch.zeros_like(correlation) if flat else correlation)
        if correlations:
            total = total + 1 - torch.stack(correlations).mean()
    return total


def distance(found, expected):
    return float((found.detach().double() - expected).norm() / expected.norm())


def check(batch, dtype=torch.float32, pairs=((0, 0),), tolerance=None, **drawing):
    student, teacher = make_signals(batch, dtype, **drawing)
    exact_student, exact_teacher = in_double(student), in_double(teacher)
    terms = objective(pairs, drawing.get("heads", 3))(student, teacher, batch)
    expected = {"pear_col" if len(pairs) == 1 else f"pear_col/{s}-{t}": naive(exact_student.attention[s], exact_teacher.attention[t], batch)
                for s, t in pairs}
    assert list(terms) == list(expected)
    for name, term in terms.items():
        assert term.unit is Unit.SEQUENCES and term.count(batch.counts) == len(batch.mask)
        assert term.sum.dtype == torch.float32
        assert term.sum.item() / len(batch.mask) == pytest.approx(expected[name].item(), rel=FP32, abs=1e-6)
    total, exact_total = sum(term.sum for term in terms.values()) / len(batch.mask), sum(expected.values())
    total.backward()
    if exact_total.requires_grad:
        exact_total.backward()
    for found, exact in zip(leaves(student), leaves(exact_student), strict=True):
        if exact.grad is None or exact.grad.norm() < 1e-12:
            assert found.grad is None or not found.grad.any()
            continue
        assert not found.grad.masked_fill(batch.mask[:, None, :, None], 0).any()
        assert distance(found.grad, exact.grad) < (tolerance or ROUNDING[dtype])
    return total.item()


@pytest.mark.parametrize("dtype", list(ROUNDING))
def test_value_and_gradients(dtype):
    check(make_batch(LENGTHS, width=14), dtype, pairs=((0, 1), (1, 2)))


@pytest.mark.parametrize(("scale", "tolerance"), [(0.05, 1e-3), (0.5, FP32), (3.0, FP32), (4.0, FP32)])
def test_attention_almost_uniform_and_almost_hard(scale, tolerance):
    """Where probabilities differ by some thousandths of themselves, so much of what fp32 knows of their differences is lost."""
    check(make_batch(LENGTHS), scale=scale, tolerance=tolerance)


@pytest.mark.parametrize("sight", [({"causal": True}, {"causal": True}), ({}, {"causal": True}), ({"window": 2}, {}), ({"window": 0}, {})])
def test_only_what_both_models_see_is_correlated(sight):
    check(make_batch(LENGTHS), sight=sight)


def test_padding_may_stand_on_the_left():
    batch, nothing = make_batch(LENGTHS, width=14), torch.zeros(0, dtype=torch.int64)
    check(Batch.make(batch.input_ids.flip(1), batch.token_type_ids.flip(1), batch.mask.flip(1), nothing, nothing))


@pytest.mark.parametrize(("lengths", "heads"), [((8,), 3), ((6, 6), 1), ((8,), 1), ((1, 6), 2), ((2,), 3)])
def test_an_axis_without_a_countable_vector_adds_nothing(lengths, heads):
    check(make_batch(lengths), heads=heads)


def test_sequences_of_one_token_have_no_spread_and_give_no_gradient():
    """Every probability is 1: heads and sentences count as uncorrelated, rows and columns have no vector."""
    batch = make_batch((1, 1, 1))
    student, teacher = make_signals(batch)
    term = objective()(student, teacher, batch)["pear_col"]
    term.sum.backward()
    assert term.sum.item() == 3 * 2
    assert not any(states.grad.any() for states in leaves(student) if states.grad is not None)


@pytest.mark.parametrize("flat", [0, 1])
def test_attention_without_spread_counts_as_uncorrelated_and_gives_no_gradient(flat):
    """A model whose queries are zero attends evenly; the lengths are ones whose reciprocal fp32 must round."""
    batch = make_batch((7, 11, 12))
    signals = make_signals(batch)
    with torch.no_grad():
        signals[flat].attention[0].query.zero_()
    term = objective()(*signals, batch)["pear_col"]
    term.sum.backward()
    student = signals[0].attention[0]
    assert torch.isfinite(term.sum) and all(torch.isfinite(states.grad).all() for states in (student.query, student.key))
    # Rows and heads have no spread; columns and sentences have only where lengths differ, which is between sentences.
    assert 3 - 1e-6 < term.sum.item() / 3 < 5
    assert max(states.grad.norm().item() for states in (student.query, student.key)) < 100


@pytest.mark.parametrize("garbage", [0.0, 1e30, math.inf, math.nan])
def test_what_stands_at_padding_changes_neither_value_nor_gradients(garbage):
    batch, wide = make_batch(LENGTHS), make_batch(LENGTHS, width=21)
    signals, wide_signals = make_signals(batch), make_signals(wide)
    with torch.no_grad():
        for source, target in zip(signals, wide_signals, strict=True):
            for states, grown in zip(leaves(source), leaves(target), strict=True):
                grown[:, :, :12] = states
                grown.masked_fill_(~wide.mask[:, None, :, None], garbage)
    (term,), (wide_term,) = (objective()(*pair, one).values() for pair, one in ((signals, batch), (wide_signals, wide)))
    assert wide_term.sum.item() == pytest.approx(term.sum.item(), rel=1e-6)
    term.sum.backward()
    wide_term.sum.backward()
    for part in ("query", "key"):
        narrow, grown = (getattr(student.attention[0], part).grad for student in (signals[0], wide_signals[0]))
        assert distance(grown[:, :, :12].masked_fill(~batch.mask[:, None, :, None], 0), narrow.double()) < FP32
        assert torch.equal(grown.masked_fill(wide.mask[:, None, :, None], 0), torch.zeros_like(grown))


def test_a_student_that_equals_its_teacher_has_no_loss_and_next_to_no_gradient():
    batch = make_batch(LENGTHS)
    student, teacher = make_signals(batch, sizes=(8, 8))
    different = objective()(student, teacher, batch)["pear_col"]
    different.sum.backward()
    usual = [states.grad.norm() for states in leaves(student)[:2]]
    for states in leaves(student):
        states.grad = None
    term = objective()(student, in_double(student), batch)["pear_col"]
    assert abs(term.sum.item()) < 1e-5
    term.sum.backward()
    assert all(states.grad.norm() < 1e-5 * before for states, before in zip(leaves(student)[:2], usual, strict=True))


def test_probabilities_below_the_range_of_fp16():
    """Products of deviations of fp16 probabilities are 0 in fp16, and so are their correlations."""
    batch = make_batch((64,) * 3)
    student, teacher = make_signals(batch, torch.float16, scale=0.3)
    p, q = (torch.softmax(one.query @ one.key.mT * one.scaling, -1) for one in (student.attention[0], teacher.attention[0]))
    products = (p - p.mean(-1, keepdim=True)).square().sum(-1) * (q - q.mean(-1, keepdim=True)).square().sum(-1)
    assert p.dtype == torch.float16 and (products == 0).any()
    (term,) = objective()(student, teacher, batch).values()
    p, q = (torch.softmax(one.query @ one.key.mT * one.scaling, -1).detach()
            for one in (in_double(student).attention[0], in_double(teacher).attention[0]))
    expected = 0.0
    for axis in range(4):
        x, y = (each - each.mean(axis, keepdim=True) for each in (p, q))
        expected += 1 - ((x * y).sum(axis) / (x.square().sum(axis) * y.square().sum(axis)).sqrt()).mean().item()
    assert term.sum.item() / 3 == pytest.approx(expected, rel=FP32)


def test_the_gradient_made_on_the_way_forward_is_the_derivative():
    generator = torch.Generator().manual_seed(1)
    student, teacher = (torch.rand(2, 2, 3, 3, dtype=torch.float64, generator=generator) for _ in range(2))
    for counted in (torch.ones(2, 1, 3, 3), torch.ones(3, 3).tril().expand(2, 1, 3, 3)):
        assert torch.autograd.gradcheck(lambda p, counted=counted: _Decorrelation.apply(p, teacher, counted.bool()),
                                        (student.clone().requires_grad_(),))


def test_counts_and_needs():
    loss = objective(((0, 1), (1, 2)))
    assert loss.needs.student == ModelNeeds(attention=frozenset({0, 1}))
    assert loss.needs.teacher == ModelNeeds(attention=frozenset({1, 2}))
    assert not list(loss.parameters())
