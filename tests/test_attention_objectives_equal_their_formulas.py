"""att_mse, att_kl, val_kl and minilm_v2 equal their formulas, computed in float64 a token at a time over real tokens only: values,
gradients, and what must not matter."""

import math

import pytest
import torch
from tiny import make_batch
from torch._subclasses.fake_tensor import FakeTensorMode

from pretraining.objectives import attention as module
from pretraining.objectives.base import ObjectiveContext, Shape
from pretraining.objectives.catalog import objective_class
from pretraining.signals import Attention, Batch, ModelNeeds, Signals, Unit

LENGTHS = (9, 4, 12, 7)
PAIRS = ((0, 1), (1, 3), (2, 0))
PARTS = ("query", "key", "value")
RELATION_HEADS = 6
# Relative error by norm: of fp32 arithmetic on fp32 inputs; of a gradient that is rounded to 8 bits or 11.
FP32 = 1e-5
ROUNDING = {torch.float32: FP32, torch.bfloat16: 2**-8, torch.float16: 2**-11}
# Heads and their size of student and teacher. Equal head counts where heads are compared; widths differ everywhere.
HEADS = {"att_mse": ((3, 8), (3, 12)), "att_kl": ((3, 8), (3, 12)), "val_kl": ((3, 8), (3, 12)), "minilm_v2": ((4, 6), (2, 24))}
NAMES = tuple(HEADS)


def objective(name, pairs=((0, 0),), heads=None):
    (student_heads, student_size), (teacher_heads, teacher_size) = heads or HEADS[name]
    return objective_class(name)(name, ObjectiveContext(
        student=Shape(3, student_heads * student_size, student_heads), teacher=Shape(4, teacher_heads * teacher_size, teacher_heads),
        pairs=pairs, relation_heads=RELATION_HEADS))


def make_signals(name, batch, dtype=torch.float32, scale=1.0, seed=0, sight=({}, {}), heads=None):
    """Student (layers 0 to 2, with gradients) and teacher (layers 0 to 3), drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    rows, length = batch.mask.shape
    signals = []
    for layers, (number, size), seen in zip((3, 4), heads or HEADS[name], sight, strict=True):
        drawn = [[(scale * torch.randn(rows, number, length, size, generator=generator)).to(dtype) for _ in PARTS] for _ in range(layers)]
        signals.append(Signals(attention={layer: Attention(*qkv, scaling=size**-0.5, **seen) for layer, qkv in enumerate(drawn)}))
    for states in leaves(signals[0]):
        states.requires_grad_()
    return signals


def leaves(signals):
    return [getattr(attention, part) for attention in signals.attention.values() for part in PARTS]


def in_double(signals):
    return Signals(attention={layer: Attention(
        *(getattr(one, part).detach().double().requires_grad_() for part in PARTS), one.scaling, one.causal, one.window)
        for layer, one in signals.attention.items()})


def sees(attention, i, j):
    return not (attention.causal and j > i) and (attention.window is None or abs(i - j) <= attention.window)


def rows(student, teacher, batch):
    """(b, i, [j]) of every real token i and the real tokens both models see from it."""
    for b, mask in enumerate(batch.mask.tolist()):
        real = [i for i, is_real in enumerate(mask) if is_real]
        for i in real:
            yield b, i, [j for j in real if sees(student, i, j) and sees(teacher, i, j)]


def scores(query, key, b, i, js):
    return torch.einsum("hd,hjd->hj", query[b, :, i], key[b, :, js])


def kl(a_teacher, a_student):
    p, q = a_teacher.exp() / a_teacher.exp().sum(-1, keepdim=True), a_student.exp() / a_student.exp().sum(-1, keepdim=True)
    return (p * (p.log() - q.log())).sum()


def relation(states, heads):
    """A token's heads side by side, cut into `heads`."""
    count, _, length, _ = states.shape
    cut = torch.stack([torch.stack([states[b, :, i].reshape(heads, -1) for i in range(length)]) for b in range(count)])
    return cut.permute(0, 2, 1, 3)


def naive(name, student, teacher, batch):
    """{part: sum} of one pair of layers in float64."""
    at = list(rows(student, teacher, batch))
    if name in ("att_mse", "att_kl"):
        maps = [[scores(model.query, model.key, *row) * model.scaling for model in (student, teacher)] for row in at]
        return {"": sum((a - b).square().sum() if name == "att_mse" else kl(b, a) for a, b in maps)}
    parts = {"": "value"} if name == "val_kl" else {f"/{part}": part for part in PARTS}
    sums = {}
    for suffix, part in parts.items():
        vectors = [getattr(model, part) for model in (student, teacher)]
        if name == "minilm_v2":
            vectors = [relation(states, RELATION_HEADS) for states in vectors]
        s, t = (states / states.shape[-1] ** 0.25 for states in vectors)
        sums[suffix] = sum(kl(scores(t, t, *row), scores(s, s, *row)) for row in at)
    return sums


def distance(found, expected):
    return float((found.detach().double() - expected).norm() / expected.norm())


def check(name, batch, dtype=torch.float32, pairs=((0, 0),), **drawing):
    student, teacher = make_signals(name, batch, dtype, **drawing)
    exact_student, exact_teacher = in_double(student), in_double(teacher)
    terms = objective(name, pairs)(student, teacher, batch)
    expected = {}
    for pair in pairs:
        middle = name if len(pairs) == 1 else f"{name}/{pair[0]}-{pair[1]}"
        sums = naive(name, exact_student.attention[pair[0]], exact_teacher.attention[pair[1]], batch)
        expected |= {middle + suffix: value for suffix, value in sums.items()}
    assert list(terms) == list(expected)
    for label, term in terms.items():
        assert term.sum.dtype == torch.float32
        assert term.sum.item() == pytest.approx(expected[label].item(), rel=FP32, abs=1e-6), label
    sum(term.sum for term in terms.values()).backward()
    sum(expected.values()).backward()
    for found, exact in zip(leaves(student), leaves(exact_student), strict=True):
        assert (found.grad is None) == (exact.grad is None)
        if found.grad is not None:
            assert not found.grad.masked_fill(batch.mask[:, None, :, None], 0).any()
            assert exact.grad.norm() == 0 == found.grad.norm() or distance(found.grad, exact.grad) < ROUNDING[dtype]
    return terms


def left_padded(batch):
    nothing = torch.zeros(0, dtype=torch.int64)
    return Batch.make(batch.input_ids.flip(1), batch.token_type_ids.flip(1), batch.mask.flip(1), nothing, nothing)


@pytest.mark.parametrize("dtype", list(ROUNDING))
@pytest.mark.parametrize("name", NAMES)
def test_values_and_gradients(name, dtype):
    check(name, make_batch(LENGTHS, width=16), dtype, PAIRS)


@pytest.mark.parametrize("pairs", [((2, 3),), ((1, 2), (2, 2))])
@pytest.mark.parametrize("name", NAMES)
def test_pairs_of_layers_in_any_number(name, pairs):
    check(name, make_batch(LENGTHS), pairs=pairs)


@pytest.mark.parametrize("sight", [
    ({"causal": True}, {"causal": True}), ({"causal": True}, {}), ({}, {"window": 2}), ({"window": 3}, {"window": 1, "causal": True}),
    ({"window": 0}, {}), ({"window": 99}, {})])
@pytest.mark.parametrize("lengths", [LENGTHS, (12, 12)])
@pytest.mark.parametrize("name", NAMES)
def test_pairs_of_tokens_that_either_model_hides_have_no_loss(name, lengths, sight):
    check(name, make_batch(lengths), sight=sight)


@pytest.mark.parametrize("sight", [({}, {}), ({"causal": True}, {"causal": True})])
@pytest.mark.parametrize("name", NAMES)
def test_padding_may_stand_on_the_left(name, sight):
    check(name, left_padded(make_batch(LENGTHS, width=14)), sight=sight)


@pytest.mark.parametrize("lengths", [(8,), (1,), (1, 1, 1), (1, 6)])
@pytest.mark.parametrize("name", NAMES)
def test_one_sequence_and_sequences_of_one_token(name, lengths):
    terms = check(name, make_batch(lengths))
    if set(lengths) == {1} and name != "att_mse":
        assert all(term.sum.item() == 0 for term in terms.values())


@pytest.mark.parametrize("garbage", [0.0, 1e30, math.inf, math.nan])
@pytest.mark.parametrize("name", NAMES)
def test_what_stands_at_padding_changes_neither_values_nor_gradients(name, garbage):
    batch, wide = make_batch(LENGTHS), make_batch(LENGTHS, width=21)
    student, teacher = make_signals(name, batch)
    wide_student, wide_teacher = make_signals(name, wide)
    with torch.no_grad():
        for source, target in ((student, wide_student), (teacher, wide_teacher)):
            for states, grown in zip(leaves(source), leaves(target), strict=True):
                grown[:, :, :12] = states
                grown.masked_fill_(~wide.mask[:, None, :, None], garbage)
    loss = objective(name, PAIRS)
    narrow_terms, wide_terms = loss(student, teacher, batch), loss(wide_student, wide_teacher, wide)
    for label, term in narrow_terms.items():
        assert wide_terms[label].sum.item() == pytest.approx(term.sum.item(), rel=1e-6)
        assert wide_terms[label].count(wide.counts) == term.count(batch.counts)
    for terms in (narrow_terms, wide_terms):
        sum(term.sum for term in terms.values()).backward()
    real = batch.mask[:, None, :, None]
    for states, grown in zip(leaves(student), leaves(wide_student), strict=True):
        if states.grad is None:
            assert grown.grad is None
            continue
        assert distance(grown.grad[:, :, :12].masked_fill(~real, 0), states.grad.double()) < 1e-6
        assert torch.equal(grown.grad.masked_fill(wide.mask[:, None, :, None], 0), torch.zeros_like(grown.grad))


@pytest.mark.parametrize("name", NAMES)
def test_a_student_that_equals_its_teacher_has_no_loss_and_no_gradient(name):
    batch, heads = make_batch(LENGTHS), ((3, 8), (3, 8))
    student, _ = make_signals(name, batch, scale=4.0, heads=heads)
    terms = objective(name, ((0, 0), (2, 2)), heads)(student, in_double(student), batch)
    assert [term.sum.item() for term in terms.values()] == [0.0] * len(terms)
    sum(term.sum for term in terms.values()).backward()
    assert all(states.grad is None or not states.grad.any() for states in leaves(student))


@pytest.mark.parametrize("common", [0.0, 20.0])
def test_a_small_divergence_keeps_its_digits_whatever_the_scores_of_a_row_have_in_common(common):
    generator = torch.Generator().manual_seed(2)
    teacher = 3 * torch.randn(2, 12, 64, 64, generator=generator) + common * torch.randn(2, 12, 64, 1, generator=generator)
    student = teacher + 0.01 * torch.randn(2, 12, 64, 64, generator=generator)
    log_p, log_q = (each.double().log_softmax(-1) for each in (teacher, student))
    exact = (log_p.exp() * (log_p - log_q)).sum().item()
    assert 0 < exact / (2 * 12 * 64) < 1e-4
    assert module.divergence(student, teacher, None)[0].item() == pytest.approx(exact, rel=2e-4)


@pytest.mark.parametrize("name", NAMES)
def test_sums_beyond_the_range_of_fp16(name):
    batch, heads = make_batch((64,) * 8), ((12, 16), (12, 16))
    student, teacher = make_signals(name, batch, torch.float16, scale=3.0, heads=heads)
    with torch.no_grad():
        for states in leaves(student):
            states[:, :, 0] *= 16  # half of the student's tokens look there and nowhere else
    loss = objective_class(name)(name, ObjectiveContext(Shape(3, 192, 12), Shape(4, 192, 12), pairs=((0, 0),), relation_heads=12))
    terms = loss(student, teacher, batch)

    def whole(student, teacher, of):
        part = {"att_mse": ("query", "key"), "att_kl": ("query", "key"), "val_kl": ("value",) * 2}.get(name, (of,) * 2)
        a, b = (getattr(one, part[0]) @ getattr(one, part[1]).mT * one.scaling for one in (student, teacher))
        if name == "att_mse":
            return (a - b).square().sum()
        return torch.nn.functional.kl_div(a.log_softmax(-1), b.log_softmax(-1), reduction="sum", log_target=True)

    exact_student, exact_teacher = in_double(student), in_double(teacher)
    for label, term in terms.items():
        of = label.rpartition("/")[2]
        assert not torch.isfinite(whole(student.attention[0], teacher.attention[0], of))
        exact = whole(exact_student.attention[0], exact_teacher.attention[0], of)
        assert exact.item() > torch.finfo(torch.float16).max
        assert term.sum.item() == pytest.approx(exact.item(), rel=FP32)
        scale = 256 / term.count(batch.counts)  # of the mean, as in a run; loss scaling keeps it clear of what fp16 has no digits for
        (scale * term.sum).backward()
        (scale * exact).backward()
    for found, exact in zip(leaves(student), leaves(exact_student), strict=True):
        if exact.grad is not None:
            assert distance(found.grad, exact.grad) < ROUNDING[torch.float16]


@pytest.mark.parametrize(("name", "unit", "count"), [
    ("att_mse", Unit.PAIRS, 3 * sum(n * n for n in LENGTHS)), ("att_kl", Unit.TOKENS, 3 * sum(LENGTHS)),
    ("val_kl", Unit.TOKENS, 3 * sum(LENGTHS)), ("minilm_v2", Unit.TOKENS, RELATION_HEADS * sum(LENGTHS))])
def test_counts_and_needs(name, unit, count):
    batch, loss = make_batch(LENGTHS, width=20), objective(name, PAIRS)
    assert loss.needs.student == ModelNeeds(attention=frozenset({0, 1, 2}))
    assert loss.needs.teacher == ModelNeeds(attention=frozenset({0, 1, 3}))
    assert not list(loss.parameters())
    terms = loss(*make_signals(name, batch), batch)
    assert {(term.unit, term.count(batch.counts)) for term in terms.values()} == {(unit, count)}


def test_relation_heads_do_not_depend_on_how_a_width_is_cut_into_heads():
    batch = make_batch(LENGTHS, width=16)
    student, teacher = make_signals("minilm_v2", batch)
    expected = objective("minilm_v2")(student, teacher, batch)
    cut = Attention(*(getattr(student.attention[0], part).transpose(1, 2).flatten(2).unflatten(2, (2, 12)).transpose(1, 2)
                      for part in PARTS), scaling=1.0)
    found = objective("minilm_v2", heads=((2, 12), (2, 24)))(Signals(attention={0: cut}), teacher, batch)
    assert {label: term.sum for label, term in found.items()} == {label: term.sum for label, term in expected.items()}


@pytest.mark.parametrize("block", [1, 3 * 12 * 12 * 3, 2**30])
def test_the_size_of_a_block_changes_nothing(block, monkeypatch):
    monkeypatch.setitem(module._BLOCK, "cpu", block)
    for sight in (({}, {}), ({"causal": True}, {})):
        check("att_kl", make_batch(LENGTHS), sight=sight)
        check("att_mse", make_batch((12, 12, 12)), sight=sight)


@pytest.mark.parametrize("hide", [False, True])
@pytest.mark.parametrize("measure", [module.divergence, module.squared_difference])
def test_the_gradient_made_on_the_way_forward_is_the_derivative(measure, hide, monkeypatch):
    monkeypatch.setitem(module._BLOCK, "cpu", 1)
    generator = torch.Generator().manual_seed(1)
    query, key, *teacher = (torch.randn(2, 2, 4, 3, dtype=torch.float64, generator=generator) for _ in range(4))
    hidden = torch.ones(4, 4).triu(1).bool().expand(2, 1, 4, 4) if hide else None

    def function(query, key):
        return module.compare_scores(measure, (query, key), tuple(teacher), hidden)

    assert torch.autograd.gradcheck(function, (query.requires_grad_(), key.requires_grad_()))
    assert torch.autograd.gradcheck(lambda states: function(states, states), (query,))


@pytest.mark.parametrize("name", [*NAMES, "pear_col"])
def test_nothing_on_the_way_forward_or_back_waits_for_a_tensors_value(name):
    """Tensors without values refuse every operation whose result's shape, or whose Python value, would depend on them."""
    batch, heads = make_batch(LENGTHS, width=16), ((3, 8), (3, 8))
    with FakeTensorMode(allow_non_fake_inputs=True):
        student, teacher = make_signals("att_kl", batch, heads=heads, sight=({"causal": True}, {"window": 3}))
        with pytest.raises(Exception, match="aten"):
            student.attention[0].query.sum().item()
        terms = objective(name, PAIRS, heads)(student, teacher, batch)
        sum(term.sum for term in terms.values()).backward()
