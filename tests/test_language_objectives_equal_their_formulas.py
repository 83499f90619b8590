"""Losses on the text's own tokens equal their formulas, computed position by position in float64: values, gradients, edge cases."""

import math

import numpy as np
import pytest
import torch
from tiny import VOCABULARY, make_batch

from dataset.errors import UserError
from pretraining.objectives import row_losses
from pretraining.objectives.base import ObjectiveContext, Shape
from pretraining.objectives.catalog import objective_class
from pretraining.signals import Batch, ModelNeeds, Needs, Signals, Unit

LENGTHS = (9, 1, 12, 7)
# Relative error by norm: of fp32 arithmetic, and of a gradient that is rounded to the 8 bits of bf16 or the 11 of fp16.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2**-8, torch.float16: 2**-11}
FIELD = {"mlm": "logits", "clm": "token_logits", "nsp": "next_sentence"}
UNIT = {"mlm": Unit.MASKED, "clm": Unit.NEXT, "nsp": Unit.SEQUENCES}


def objective(name: str):
    return objective_class(name)(name, ObjectiveContext(Shape(2, 8, 2)))


def draw(name: str, batch: Batch, dtype=torch.float32, scale: float = 3.0, seed: int = 0) -> torch.Tensor:
    """What the model gives for the objective, at random."""
    shape = {"mlm": (batch.counts[Unit.MASKED], VOCABULARY), "clm": (batch.counts[Unit.TOKENS], VOCABULARY),
             "nsp": (batch.counts[Unit.SEQUENCES], 2)}[name]
    return (scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))).to(dtype).requires_grad_()


def term_of(name: str, logits: torch.Tensor, batch: Batch):
    terms = objective(name)(Signals(**{FIELD[name]: logits}), None, batch)
    assert list(terms) == [name]
    return terms[name]


def rows_and_labels(name: str, batch: Batch) -> list[tuple[int, int]]:
    """(row of the logits, its label), from the batch's (B, L) tensors and loops."""
    if name == "mlm":
        return list(enumerate(batch.labels.tolist()))
    if name == "nsp":
        return list(enumerate(batch.next_sentence_labels.tolist()))
    found, row = [], 0
    for ids, real in zip(batch.input_ids.tolist(), batch.mask.tolist(), strict=True):
        for column in range(len(ids)):
            if column + 1 < len(ids) and real[column] and real[column + 1]:
                found.append((row, ids[column + 1]))
            row += real[column]
    return found


def reference(name: str, logits: torch.Tensor, batch: Batch) -> tuple[float, torch.Tensor]:
    """The sum over positions and its gradient, with plain loops in float64."""
    rows, total, gradient = logits.detach().double().tolist(), [], np.zeros(logits.shape)
    for row, label in rows_and_labels(name, batch):
        top = max(rows[row])
        exponentials = [math.exp(z - top) for z in rows[row]]
        q = [value / math.fsum(exponentials) for value in exponentials]
        total.append(math.log(math.fsum(exponentials)) + top - rows[row][label])
        gradient[row] = q
        gradient[row, label] -= 1
    return math.fsum(total), torch.from_numpy(gradient)


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.double() - expected).norm() / expected.norm())


@pytest.fixture(params=[1, 5, 10**6], ids=lambda rows: f"{rows}_rows_at_a_time")
def piece(request, monkeypatch):
    """Few rows at a time, so that tiny matrices are cut as large ones are."""
    monkeypatch.setattr(row_losses, "_CPU_PIECE", request.param * VOCABULARY)


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize("width", [12, 30])
@pytest.mark.parametrize("name", list(FIELD))
def test_values_gradients_and_counts(name, width, dtype, piece):
    batch = make_batch(LENGTHS, width)
    logits = draw(name, batch, dtype)
    term = term_of(name, logits, batch)
    expected, gradient = reference(name, logits, batch)
    assert term.sum.dtype == torch.float32 and term.sum.item() == pytest.approx(expected, rel=1e-5)
    assert (term.unit, term.count(batch.counts)) == (UNIT[name], len(rows_and_labels(name, batch)))
    (0.25 * term.sum).backward()
    assert logits.grad.dtype == dtype
    assert distance(logits.grad, 0.25 * gradient) < TOLERANCE[dtype]


def test_needs_are_one_head_and_no_teacher():
    assert objective("mlm").needs == Needs(ModelNeeds(logits=True))
    assert objective("clm").needs == Needs(ModelNeeds(token_logits=True))
    assert objective("nsp").needs == Needs(ModelNeeds(next_sentence=True))


@pytest.mark.parametrize("name", ["mlm", "clm"])
def test_gradients_written_by_hand_are_those_of_the_values(name, piece):
    batch = make_batch((4, 1, 3))
    logits = draw(name, batch, torch.float64, scale=1.0)
    assert torch.autograd.gradcheck(lambda logits: term_of(name, logits, batch).sum, logits)


def test_the_last_token_predicts_nothing_and_padding_is_no_next_token():
    """Whatever ids stand at padding; and a token before a hole in the mask has no next one."""
    batch, wide = make_batch(LENGTHS), make_batch(LENGTHS, 20)
    garbage = torch.where(wide.mask, wide.input_ids, torch.full_like(wide.input_ids, 10**9))
    wide = Batch.make(garbage, wide.token_type_ids, wide.mask, wide.masked_index, wide.labels)
    logits, other = draw("clm", batch), draw("clm", batch)
    first, second = term_of("clm", logits, batch), term_of("clm", other, wide)
    assert first.sum.item() == second.sum.item() and first.count(batch.counts) == second.count(wide.counts) == sum(LENGTHS) - len(LENGTHS)
    first.sum.backward()
    second.sum.backward()
    assert torch.equal(logits.grad, other.grad)
    last = torch.tensor(LENGTHS).cumsum(0) - 1
    assert not logits.grad[last].any() and logits.grad[[row for row in range(sum(LENGTHS)) if row not in last.tolist()]].any(dim=1).all()

    mask = wide.mask.clone()
    mask[2, 5] = False
    holed = Batch.make(garbage, wide.token_type_ids, mask, wide.masked_index[:0], wide.labels[:0])
    logits = draw("clm", holed)
    assert term_of("clm", logits, holed).sum.item() == pytest.approx(reference("clm", logits, holed)[0], rel=1e-5)


@pytest.mark.parametrize("name", list(FIELD))
def test_a_certain_and_right_model_has_no_loss(name):
    batch = make_batch(LENGTHS)
    logits = torch.zeros_like(draw(name, batch))
    for row, label in rows_and_labels(name, batch):
        logits[row, label] = 200.0
    logits.requires_grad_()
    term = term_of(name, logits, batch)
    term.sum.backward()
    assert term.sum.item() == 0.0 and not logits.grad.any()


@pytest.mark.parametrize("name", list(FIELD))
def test_halves_are_summed_in_fp32(name):
    batch = make_batch((60,) * (400 if name == "nsp" else 12), predictions=50)
    logits = draw(name, batch, torch.float16, scale=2000.0 if name == "nsp" else 300.0)
    rows, labels = (torch.tensor(side) for side in zip(*rows_and_labels(name, batch), strict=True))
    half = -torch.log_softmax(logits, -1)[rows, labels].sum()
    assert half.dtype == torch.float16 and not torch.isfinite(half)
    term = term_of(name, logits, batch)
    expected, gradient = reference(name, logits, batch)
    assert term.sum.item() == pytest.approx(expected, rel=1e-5) and expected > torch.finfo(torch.float16).max
    (term.sum / len(rows)).backward()
    assert distance(logits.grad, gradient / len(rows)) < TOLERANCE[torch.float16]


@pytest.mark.parametrize(("name", "batch"), [("mlm", make_batch(LENGTHS, predictions=0)), ("clm", make_batch((1, 1, 1), 4))])
def test_nothing_to_predict_is_no_loss(name, batch):
    logits = draw(name, batch)
    term = term_of(name, logits, batch)
    term.sum.backward()
    assert term.sum.item() == 0.0 and term.count(batch.counts) == 0
    assert logits.grad.shape == logits.shape and not logits.grad.any()


@pytest.mark.parametrize("name", list(FIELD))
def test_a_batch_of_one_sequence(name):
    batch = make_batch((6,))
    logits = draw(name, batch)
    assert term_of(name, logits, batch).sum.item() == pytest.approx(reference(name, logits, batch)[0], rel=1e-5)


def test_a_batch_without_next_sentence_labels_is_refused_in_one_line():
    batch = make_batch(LENGTHS)
    logits = draw("nsp", batch)
    batch.next_sentence_labels = None
    with pytest.raises(UserError, match=r"^nsp: .*next_sentence_labels; .* would work$"):
        term_of("nsp", logits, batch)
