"""Every objective equals its formula, computed in float64 with plain loops: values, gradients, and what must not matter."""

import math

import pytest
import torch
from tiny import make_batch

from pretraining.objectives.base import ObjectiveContext
from pretraining.objectives.catalog import OBJECTIVES, objective_class, parse_method
from pretraining.objectives.weighted import WeightedObjectives
from pretraining.signals import Batch, Signals, Unit

WIDTH, VOCABULARY = 24, 50
LENGTHS = (9, 4, 12, 7)
# Relative error by norm: of fp32 arithmetic on fp32 inputs; of a gradient that is rounded to bf16's 8 bits.
FP32, BF16 = 1e-5, 2**-7


def objective(name: str, pairs=((0, 1), (1, 3), (2, 0)), temperature: float = 1.0):
    return objective_class(name)(ObjectiveContext(pairs=pairs, temperature=temperature))


def make_signals(batch: Batch, dtype=torch.float32, scale: float = 1.0, seed: int = 0) -> tuple[Signals, Signals]:
    """Student (layers 0 to 2, with gradients) and teacher (layers 0 to 3), hidden states and logits drawn at random."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return (scale * torch.randn(shape, generator=generator)).to(dtype)

    rows, columns = batch.mask.shape
    student = Signals({layer: draw(rows, columns, WIDTH).requires_grad_() for layer in range(3)},
                      draw(len(batch.labels), VOCABULARY).requires_grad_())
    return student, Signals({layer: draw(rows, columns, WIDTH) for layer in range(4)}, draw(len(batch.labels), VOCABULARY))


def labelled(batch: Batch) -> Batch:
    batch.labels = batch.labels % VOCABULARY
    return batch


def naive_hidden_mse(student, teacher, batch: Batch, pair) -> tuple[float, list]:
    """Sum of squared differences over real tokens, and its gradient for the student's layer."""
    s, t = student.hidden[pair[0]].tolist(), teacher.hidden[pair[1]].tolist()
    total, gradient = [], []
    for row, real in enumerate(batch.mask.tolist()):
        for column, is_real in enumerate(real):
            for i in range(WIDTH):
                difference = s[row][column][i] - t[row][column][i] if is_real else 0.0
                total.append(difference * difference)
                gradient.append(2 * difference)
    return math.fsum(total), gradient


def softmax(row: list[float]) -> list[float]:
    top = max(row)
    exponentials = [math.exp(value - top) for value in row]
    return [value / math.fsum(exponentials) for value in exponentials]


def naive_logit(student, teacher, temperature: float) -> tuple[float, list]:
    total, gradient = [], []
    for s, t in zip(student.logits.tolist(), teacher.logits.tolist(), strict=True):
        q, p = softmax([z / temperature for z in s]), softmax([z / temperature for z in t])
        total += [temperature**2 * b * (math.log(b) - math.log(a)) for a, b in zip(q, p, strict=True)]
        gradient += [temperature * (a - b) for a, b in zip(q, p, strict=True)]
    return math.fsum(total), gradient


def naive_mlm(student, batch: Batch) -> tuple[float, list]:
    total, gradient = [], []
    for row, label in zip(student.logits.tolist(), batch.labels.tolist(), strict=True):
        q = softmax(row)
        total.append(-math.log(q[label]))
        gradient += [value - (index == label) for index, value in enumerate(q)]
    return math.fsum(total), gradient


def distance(found: torch.Tensor, expected: list) -> float:
    expected = torch.tensor(expected, dtype=torch.float64)
    return float((found.detach().double().flatten() - expected.flatten()).norm() / expected.norm())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("pairs", [((2, 3),), ((0, 1), (1, 3), (2, 0)), ((1, 2), (2, 2))])
def test_hidden_mse_and_its_gradients(pairs, dtype):
    batch = make_batch(LENGTHS, width=16)
    student, teacher = make_signals(batch, dtype)
    terms = objective("hidden_mse", pairs)(student, teacher, batch)
    assert list(terms) == (["hidden_mse"] if len(pairs) == 1 else [f"hidden_mse/{s}-{t}" for s, t in pairs])
    for pair, term in zip(pairs, terms.values(), strict=True):
        expected, gradient = naive_hidden_mse(student, teacher, batch, pair)
        assert term.sum.dtype == torch.float32
        assert term.sum.item() == pytest.approx(expected, rel=FP32)
        assert term.count(batch.counts) == sum(LENGTHS) * WIDTH
        student.hidden[pair[0]].grad = None
        term.sum.backward()
        assert distance(student.hidden[pair[0]].grad, gradient) < (FP32 if dtype is torch.float32 else BF16)
    untouched = {0, 1, 2} - {layer for layer, _ in pairs}
    assert all(student.hidden[layer].grad is None for layer in untouched)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 8.0])
def test_logit_and_its_gradients(temperature, dtype):
    batch = make_batch(LENGTHS)
    student, teacher = make_signals(batch, dtype, scale=3.0)
    (term,) = objective("logit", temperature=temperature)(student, teacher, batch).values()
    expected, gradient = naive_logit(student, teacher, temperature)
    term.sum.backward()
    assert term.sum.dtype == torch.float32 and term.count(batch.counts) == len(batch.labels)
    assert term.sum.item() == pytest.approx(expected, rel=FP32)
    assert distance(student.logits.grad, gradient) < (FP32 if dtype is torch.float32 else BF16)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_mlm_and_its_gradients(dtype):
    batch = labelled(make_batch(LENGTHS))
    student, _ = make_signals(batch, dtype, scale=3.0)
    (term,) = objective("mlm")(student, None, batch).values()
    expected, gradient = naive_mlm(student, batch)
    term.sum.backward()
    assert term.sum.dtype == torch.float32 and term.count(batch.counts) == len(batch.labels)
    assert term.sum.item() == pytest.approx(expected, rel=FP32)
    assert distance(student.logits.grad, gradient) < (FP32 if dtype is torch.float32 else BF16)


@pytest.mark.parametrize("garbage", [0.0, 1e30, math.inf, math.nan])
def test_what_stands_at_padding_changes_neither_values_nor_gradients(garbage):
    batch, wide = make_batch(LENGTHS, width=12), make_batch(LENGTHS, width=32)
    student, teacher = make_signals(batch)
    wide_student, wide_teacher = Signals(), Signals()
    for source, target in ((student, wide_student), (teacher, wide_teacher)):
        for layer, states in source.hidden.items():
            grown = torch.full((len(LENGTHS), 32, WIDTH), garbage)
            grown[:, :12] = states.detach()
            target.hidden[layer] = grown.masked_fill(~wide.mask.unsqueeze(-1), garbage).requires_grad_(states.requires_grad)
    loss, count = objective("hidden_mse"), sum(LENGTHS) * WIDTH
    narrow_terms, wide_terms = loss(student, teacher, batch), loss(wide_student, wide_teacher, wide)
    for name, term in narrow_terms.items():
        assert wide_terms[name].sum.item() == pytest.approx(term.sum.item(), rel=1e-6)
        assert wide_terms[name].count(wide.counts) == term.count(batch.counts) == count
    sum(term.sum for term in narrow_terms.values()).backward()
    sum(term.sum for term in wide_terms.values()).backward()
    for layer, states in student.hidden.items():
        found = wide_student.hidden[layer].grad
        assert torch.equal(found[:, :12][batch.mask], states.grad[batch.mask])
        assert not found[~wide.mask].any()


def test_a_student_that_equals_its_teacher_has_no_loss_and_no_gradient():
    batch = make_batch(LENGTHS)
    student, _ = make_signals(batch, scale=4.0)
    same = Signals({layer: states.detach().clone() for layer, states in student.hidden.items()}, student.logits.detach().clone())
    methods = WeightedObjectives([("hidden_mse", 1.0), ("logit", 1.0)], ObjectiveContext(((0, 0), (1, 1), (2, 2)), 2.0))
    terms = methods(student, same, batch)
    assert [term.sum.item() for _, term in terms.values()] == [0.0] * 4
    sum(term.sum for _, term in terms.values()).backward()
    assert all(not states.grad.any() for states in student.hidden.values())
    assert student.logits.grad.abs().max() < 1e-6


def test_fp16_inputs_are_reduced_in_fp32():
    batch = make_batch((64,) * 8, predictions=20)
    student, teacher = make_signals(batch, torch.float16, scale=8.0)
    student.hidden = {0: student.hidden[0].detach().mul(32).requires_grad_()}
    half_sum = (student.hidden[0] - teacher.hidden[0]).square().sum()
    assert not torch.isfinite(half_sum)
    (term,) = objective("hidden_mse", ((0, 0),))(student, teacher, batch).values()
    expected = (student.hidden[0].double() - teacher.hidden[0].double()).square().sum().item()
    assert expected > torch.finfo(torch.float16).max
    assert term.sum.item() == pytest.approx(expected, rel=FP32)
    (term.sum / term.count(batch.counts)).backward()
    assert torch.isfinite(student.hidden[0].grad).all()

    batch = labelled(batch)
    student, teacher = make_signals(batch, torch.float16, scale=200.0)  # differences beyond what exp of a half can hold
    for name in ("logit", "mlm"):
        (term,) = objective(name)(student, teacher, batch).values()
        log_q = torch.log_softmax(student.logits.double(), -1)
        log_p = torch.log_softmax(teacher.logits.double(), -1)
        exact = {"logit": (log_p.exp() * (log_p - log_q)).sum(),
                 "mlm": -log_q.gather(1, batch.labels.unsqueeze(1)).sum()}[name]
        assert term.sum.item() == pytest.approx(exact.item(), rel=FP32)


def test_weights_stand_beside_their_terms_and_needs_are_joined():
    batch = labelled(make_batch(LENGTHS))
    student, teacher = make_signals(batch)
    context = ObjectiveContext(((0, 1), (2, 3)), 2.0)
    methods = WeightedObjectives([("hidden_mse", 0.5), ("logit", 3.0), ("mlm", 0.25)], context)
    terms = methods(student, teacher, batch)
    assert {name: weight for name, (weight, _) in terms.items()} == {
        "hidden_mse/0-1": 0.5, "hidden_mse/2-3": 0.5, "logit": 3.0, "mlm": 0.25}
    assert methods.needs.student.hidden == {0, 2} and methods.needs.student.logits
    assert methods.needs.teacher.hidden == {1, 3} and methods.needs.teacher.logits
    alone = WeightedObjectives([("mlm", 1.0)], ObjectiveContext())
    assert alone.needs.teacher is None and alone.needs.student.logits and not alone.needs.student.hidden
    assert not WeightedObjectives([("hidden_mse", 1.0)], context).needs.student.logits
    assert methods.needs == WeightedObjectives([("mlm", 1.0), ("hidden_mse", 1.0), ("logit", 1.0)], context).needs


@pytest.mark.parametrize("name", ["logit", "mlm"])
def test_a_batch_without_masked_positions_counts_nothing(name):
    batch = make_batch(LENGTHS, predictions=0)
    assert batch.counts[Unit.MASKED] == 0
    student, teacher = make_signals(batch)
    (term,) = objective(name)(student, teacher, batch).values()
    term.sum.backward()
    assert term.sum.item() == 0.0 and term.count(batch.counts) == 0
    assert student.logits.grad.shape == (0, VOCABULARY)


def test_every_row_of_the_table_is_an_objective_that_needs_what_the_row_says():
    for name, entry in OBJECTIVES.items():
        needs = objective(name).needs
        assert (needs.teacher is not None) == entry.teacher, name
        assert bool(needs.student.hidden) == entry.layers, name
        assert needs.student.logits == entry.student_logits, name
        assert (needs.teacher is not None and needs.teacher.logits) == entry.teacher_logits, name
    assert parse_method("hidden_mse") == [("hidden_mse", 1.0)]
    assert parse_method("logit:0.5, mlm:2") == [("logit", 0.5), ("mlm", 2.0)]
