"""Losses between logits equal their formulas, computed position by position in float64: values, gradients, and what must not matter."""

import math

import pytest
import torch
from tiny import make_batch

from pretraining.objectives import row_losses
from pretraining.objectives.base import ObjectiveContext, Shape
from pretraining.objectives.catalog import objective_class
from pretraining.signals import Batch, ModelNeeds, Signals, Unit

VOCABULARY = 50
LENGTHS = (9, 4, 12, 7)
NAMES = ("logit", "reverse_kl", "symmetric_kl", "logit_mse", "soft_ce")
DIVERGENCES = NAMES[:3]
# Relative error by norm: of fp32 arithmetic, and of a gradient that is rounded to the 8 bits of bf16 or the 11 of fp16.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2**-8, torch.float16: 2**-11}


def objective(name: str, temperature: float = 1.0, all_positions: bool = False, truncation_factor: int | None = None):
    shape = Shape(2, 8, 2)
    return objective_class(name)(name, ObjectiveContext(
        shape, shape, temperature=temperature, all_positions=all_positions, truncated_target="unnormalised",
        truncation_factor=truncation_factor if name == "soft_ce" else None))


def draw(rows: int, dtype=torch.float32, scale: float = 3.0, seed: int = 0, vocabulary: int = VOCABULARY) -> tuple:
    """Logits of the student, with gradient, and of the teacher."""
    generator = torch.Generator().manual_seed(seed)
    student, teacher = ((scale * torch.randn(rows, vocabulary, generator=generator)).to(dtype) for _ in range(2))
    return student.requires_grad_(), teacher


def term_of(name: str, student: torch.Tensor, teacher: torch.Tensor, batch: Batch | None = None, **options):
    terms = objective(name, **options)(Signals(logits=student), Signals(logits=teacher), batch)
    assert list(terms) == [name]
    return terms[name]


def log_probabilities(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    logits = logits / temperature
    return logits - logits.max() - torch.log(torch.exp(logits - logits.max()).sum())


def reference(name: str, student, teacher, temperature: float = 1.0, kept: int | None = None) -> tuple[float, torch.Tensor]:
    """The sum over positions and its gradient, in float64; entries of probability 0 add nothing to a divergence."""
    student, teacher = student.detach().double().requires_grad_(), teacher.double()
    parts = []
    for s, t in zip(student, teacher, strict=True):
        log_q, log_p = log_probabilities(s, temperature), log_probabilities(t, temperature)
        inside = t > -math.inf
        forward = (log_p[inside].exp() * (log_p[inside] - log_q[inside])).sum()
        log_q_inside = log_probabilities(s[inside], temperature)
        reverse = (log_q_inside.exp() * (log_q_inside - log_p[inside])).sum()
        if name == "logit":
            parts.append(temperature**2 * forward)
        elif name == "reverse_kl":
            parts.append(temperature**2 * reverse)
        elif name == "symmetric_kl":
            parts.append(temperature**2 * (forward + reverse) / 2)
        elif name == "logit_mse":
            parts.append(((s - t)[inside] ** 2).sum())
        else:
            largest = [v for _, v in sorted((-z, v) for v, z in enumerate(t.tolist()))[:kept] if inside[v]]
            log_q, p = log_probabilities(s, 1.0), log_probabilities(t, 1.0).exp()
            parts.append(-(p[largest] * log_q[largest]).sum())
    total = torch.stack(parts).sum()
    total.backward()
    return total.item(), student.grad


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.double() - expected).norm() / expected.norm())


@pytest.fixture(params=[1, 7, 10**6], ids=lambda rows: f"{rows}_rows_at_a_time")
def piece(request, monkeypatch):
    """Few rows at a time, so that tiny matrices are cut as large ones are."""
    monkeypatch.setattr(row_losses, "_CPU_PIECE", request.param * VOCABULARY)


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 8.0])
@pytest.mark.parametrize("name", NAMES)
def test_values_and_gradients(name, temperature, dtype, piece):
    student, teacher = draw(23, dtype)
    term = term_of(name, student, teacher, temperature=temperature)
    expected, gradient = reference(name, student, teacher, temperature)
    assert term.sum.dtype == torch.float32
    assert term.sum.item() == pytest.approx(expected, rel=1e-5)
    (0.25 * term.sum).backward()
    assert student.grad.dtype == dtype
    assert distance(student.grad, 0.25 * gradient) < TOLERANCE[dtype]


@pytest.mark.parametrize("kept", [1, 3, VOCABULARY - 1, VOCABULARY, 10**6])
@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
def test_the_largest_probabilities_are_taken_as_they_are(kept, dtype, piece):
    student, teacher = draw(23, torch.float32)
    # No ties at the K-th place, which the formula leaves open.
    teacher = torch.stack([0.1 * torch.randperm(VOCABULARY) for _ in range(23)]).to(dtype)
    student = student.detach().to(dtype).requires_grad_()
    term = term_of("soft_ce", student, teacher, truncation_factor=kept)
    expected, gradient = reference("soft_ce", student, teacher, kept=kept)
    assert term.sum.item() == pytest.approx(expected, rel=1e-5)
    term.sum.backward()
    assert distance(student.grad, gradient) < TOLERANCE[dtype]
    whole = term_of("soft_ce", student, teacher).sum.item()
    assert (term.sum.item() == whole) == (kept >= VOCABULARY)


@pytest.mark.parametrize("kept", [None, 4])
@pytest.mark.parametrize("name", NAMES)
def test_gradients_written_by_hand_are_those_of_the_values(name, kept, piece):
    generator = torch.Generator().manual_seed(1)
    student, teacher = (torch.randn(9, 11, dtype=torch.float64, generator=generator) for _ in range(2))
    assert torch.autograd.gradcheck(
        lambda logits: term_of(name, logits, teacher, temperature=1.7, truncation_factor=kept).sum, student.requires_grad_())


@pytest.mark.parametrize("all_positions", [False, True])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [12, 40])
def test_positions_are_counted_where_their_logits_are_from(name, all_positions, width):
    batch = make_batch(LENGTHS, width)
    one = objective(name, all_positions=all_positions)
    asked = ModelNeeds(token_logits=True) if all_positions else ModelNeeds(logits=True)
    assert one.needs.student == one.needs.teacher == asked
    rows = sum(LENGTHS) if all_positions else 2 * len(LENGTHS)
    student, teacher = draw(rows)
    field = "token_logits" if all_positions else "logits"
    (term,) = one(Signals(**{field: student}), Signals(**{field: teacher}), batch).values()
    assert (term.unit, term.count(batch.counts)) == (Unit.TOKENS if all_positions else Unit.MASKED, rows)
    assert term.sum.item() == pytest.approx(reference(name, student, teacher)[0], rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_student_that_equals_its_teacher_is_at_the_minimum(name, piece):
    student, teacher = draw(23)
    teacher = student.detach().clone()
    term = term_of(name, student, teacher, temperature=2.0)
    entropy = sum(-(log_p.exp() * log_p).sum().item() for log_p in (log_probabilities(t, 1.0) for t in teacher.double()))
    assert term.sum.item() == pytest.approx(entropy if name == "soft_ce" else 0.0, rel=1e-6, abs=0.0)
    term.sum.backward()
    assert not student.grad.any()


@pytest.mark.parametrize("kept", [None, 5])
@pytest.mark.parametrize("ruled_out_by_both", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_entries_that_a_teacher_rules_out_add_nothing(name, ruled_out_by_both, kept):
    """Also where fewer entries are left than are to be kept, and where rows rule out different ones."""
    student, teacher = draw(23)
    teacher[:, -3:] = -math.inf
    teacher[4, 2:] = -math.inf
    if ruled_out_by_both:
        student = student.detach().masked_fill(teacher == -math.inf, -math.inf).requires_grad_()
    finite = student.detach().clamp(min=-1e4)  # probability 0, and no nan in the reference's own gradient
    expected, gradient = reference(name, finite, teacher, 2.0, kept)
    term = term_of(name, student, teacher, temperature=2.0, truncation_factor=kept)
    assert term.sum.item() == pytest.approx(expected, rel=1e-5)
    term.sum.backward()
    assert distance(student.grad, gradient) < 1e-5
    if name in ("reverse_kl", "logit_mse"):
        assert not student.grad[teacher == -math.inf].any()


@pytest.mark.parametrize("name", NAMES)
def test_halves_are_summed_in_fp32(name):
    """At a size and scale where halves overflow, and with a loss scale that must reach the gradient before it is rounded."""
    student, teacher = draw(300, torch.float16, scale=200.0, vocabulary=400)
    half = {
        "logit": lambda q, p: (p.exp() * (p - q)).sum(),
        "reverse_kl": lambda q, p: (q.exp() * (q - p)).sum(),
        "symmetric_kl": lambda q, p: ((p.exp() - q.exp()) * (p - q)).sum() / 2,
        "logit_mse": lambda q, p: (student - teacher).square().sum(),
        "soft_ce": lambda q, p: -(p.exp() * q).sum(),
    }[name](*(torch.log_softmax(logits, -1) for logits in (student, teacher)))
    assert half.dtype == torch.float16 and not torch.isfinite(half)
    term = term_of(name, student, teacher)
    expected, gradient = reference(name, student, teacher)
    assert expected > torch.finfo(torch.float16).max
    assert term.sum.item() == pytest.approx(expected, rel=1e-5)
    (term.sum / 300).backward()
    assert distance(student.grad, gradient / 300) < TOLERANCE[torch.float16]


@pytest.mark.parametrize("name", NAMES)
def test_a_loss_scale_keeps_small_gradients_of_halves(name):
    student, teacher = draw(40, torch.float16, scale=0.01, vocabulary=4000)
    _, gradient = reference(name, student, teacher)
    scale = 2.0**14 if name != "logit_mse" else 2.0**6
    if name != "logit_mse":
        assert distance(gradient.half(), gradient) > 1e-3  # rounded before it is scaled, it would lose this much
    (scale * term_of(name, student, teacher).sum).backward()
    assert distance(student.grad.double() / scale, gradient) < TOLERANCE[torch.float16]


@pytest.mark.parametrize("name", DIVERGENCES)
def test_divergences_stay_exact_at_a_large_common_offset(name):
    student, teacher = draw(23)
    expected, _ = reference(name, student, teacher)
    shifted = term_of(name, student.detach() + 1000, teacher - 512).sum.item()
    assert shifted == pytest.approx(expected, rel=1e-4)  # what 1000 leaves of fp32's 24 bits


@pytest.mark.parametrize("all_positions", [False, True])
@pytest.mark.parametrize("kept", [None, 5])
@pytest.mark.parametrize("name", NAMES)
def test_no_position_is_no_loss(name, kept, all_positions):
    batch = make_batch(LENGTHS, predictions=0)
    student, teacher = draw(0)
    term = term_of(name, student, teacher, batch, truncation_factor=kept)
    assert term.sum.item() == 0.0 and term.count(batch.counts) == 0
    term.sum.backward()
    assert student.grad.shape == (0, VOCABULARY)


@pytest.mark.parametrize("lengths", [(5,), (2, 1, 2)])
def test_one_sequence_and_sequences_of_one_token(lengths):
    batch = make_batch(lengths)
    for name in NAMES:
        student, teacher = draw(sum(lengths))
        one = objective(name, all_positions=True)
        (term,) = one(Signals(token_logits=student), Signals(token_logits=teacher), batch).values()
        assert term.count(batch.counts) == sum(lengths)
        assert term.sum.item() == pytest.approx(reference(name, student, teacher)[0], rel=1e-5)


def test_a_student_that_broke_is_told():
    """What is clamped and left out must not hide a nan or an inf of the student's own."""
    for name in NAMES:
        for broken in (math.nan, math.inf):
            student, teacher = draw(3)
            teacher[:, -1] = -math.inf
            student = student.detach()
            student[1, 7] = broken
            assert not math.isfinite(term_of(name, student, teacher).sum.item()), (name, broken)
