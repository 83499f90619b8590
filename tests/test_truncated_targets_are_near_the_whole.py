"""Truncated targets follow their formulas, and the one that is taken where nothing is said is nearest to the whole distribution."""

import math

import pytest
import torch
from tiny import make_batch, make_model

from pretraining.models.catalog import ARCHITECTURES
from pretraining.models.encoder import Encoder
from pretraining.objectives import row_losses
from pretraining.objectives.base import ObjectiveContext, Shape
from pretraining.objectives.catalog import DEFAULT_TRUNCATED_TARGET, OBJECTIVES, TRUNCATED_TARGETS, objective_class
from pretraining.objectives.truncated import keep_fewer, keep_largest
from pretraining.signals import ModelNeeds, Signals

VOCABULARY, ROWS = 40, 17
CASES = [(name, target, kept, temperature) for name, entry in OBJECTIVES.items() for target in entry.truncated
         for kept in (1, 6, VOCABULARY - 1) for temperature in (1.0, 2.0)
         if (name, target) != ("logit", "unnormalised") or temperature == 1.0]


def term(name: str, student: torch.Tensor, teacher: Signals, **options) -> torch.Tensor:
    shape = Shape(2, 8, 2)
    (found,) = objective_class(name)(name, ObjectiveContext(shape, shape, **options))(Signals(logits=student), teacher, None).values()
    return found.sum


def draw(scale: float = 3.0, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    student, teacher = ((scale * torch.randn(ROWS, VOCABULARY, generator=generator, dtype=torch.float64)).to(dtype) for _ in range(2))
    return student.requires_grad_(), teacher


def reference(name: str, target: str, kept: int, temperature: float, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Position by position in float64, from the probabilities themselves."""
    total = torch.zeros((), dtype=torch.float64)
    softening = 1.0 if name == "soft_ce" else temperature
    for s, t in zip(student.double(), teacher.double(), strict=True):
        p, q = torch.softmax(t, -1), torch.softmax(s, -1)
        top = sorted(range(VOCABULARY), key=lambda v: -t[v].item())[:kept]
        others = [v for v in range(VOCABULARY) if v not in top]
        if target == "rest":
            def classes(x: torch.Tensor, top: list = top, others: list = others) -> torch.Tensor:
                merged = torch.stack([*x[top], x[others].sum()]) ** (1 / softening)
                return merged / merged.sum()

            p, q = classes(p), classes(q)
        else:
            p, q = p[top] ** (1 / softening), torch.softmax(s / softening, -1)[top]
            if target == "renormalised":
                p = p / p.sum()
        if name == "soft_ce":
            total = total - (p * q.log()).sum()
            continue
        forward, reverse = (p * (p.log() - q.log())).sum(), (q * (q.log() - p.log())).sum()
        total = total + temperature**2 * {"logit": forward, "reverse_kl": reverse, "symmetric_kl": (forward + reverse) / 2}[name]
    return total


@pytest.mark.parametrize(("name", "target", "kept", "temperature"), CASES)
def test_values_and_gradients_are_those_of_the_formula(name, target, kept, temperature, monkeypatch):
    monkeypatch.setattr(row_losses, "_CPU_PIECE", 5 * VOCABULARY)  # a few rows at a time
    student, teacher = draw()
    found = term(name, student, Signals(logits=teacher), temperature=temperature, truncation_factor=kept, truncated_target=target)
    found.backward()
    exact = student.detach().double().requires_grad_()
    expected = reference(name, target, kept, temperature, exact, teacher)
    expected.backward()
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    assert (student.grad - exact.grad).norm() < 1e-5 * exact.grad.norm()


def gradient(student: torch.Tensor, teacher: torch.Tensor, **options) -> torch.Tensor:
    logits = student.detach().clone().requires_grad_()
    term("soft_ce", logits, Signals(logits=teacher), **options).backward()
    return logits.grad


def shallow_student() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits at masked positions of a tiny model without its last layer, and of the model; sharpened, as those of trained ones are."""
    batch, found = make_batch((40, 50, 60, 30), predictions=12), []
    for layers in (3, 4):
        model = make_model()
        model.bert.encoder.layer = torch.nn.ModuleList(list(model.bert.encoder.layer)[:layers])
        with torch.no_grad():
            found.append(4.0 * Encoder(model, ARCHITECTURES["bert-mlm"], True, ModelNeeds(logits=True)).eval()(batch).logits)
    return found[0], found[1]


def noisy_student(distance: float) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    teacher = 2.0 * torch.randn(200, 100, generator=generator)
    return teacher + distance * torch.randn(200, 100, generator=generator), teacher


@pytest.mark.parametrize("kept", [2, 8, 20])
@pytest.mark.parametrize("models", [shallow_student, lambda: noisy_student(0.3), lambda: noisy_student(1.0)],
                         ids=["a_layer_less", "near", "further"])
def test_the_default_is_nearest_to_the_whole_distributions_gradient(models, kept):
    student, teacher = models()
    whole = gradient(student, teacher)
    errors = {target: float((gradient(student, teacher, truncation_factor=kept, truncated_target=target) - whole).norm() / whole.norm())
              for target in TRUNCATED_TARGETS}
    ranking = sorted(errors, key=errors.get)
    assert ranking[0] == DEFAULT_TRUNCATED_TARGET == "rest", errors
    assert errors["rest"] < 0.8 * errors[ranking[1]], errors


def test_the_rest_is_exact_for_the_entries_that_are_kept():
    student, teacher = draw()
    whole, found = gradient(student, teacher), gradient(student, teacher, truncation_factor=6, truncated_target="rest")
    ids = keep_largest(teacher, 6).ids
    torch.testing.assert_close(found.gather(1, ids), whole.gather(1, ids), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.sum(1), whole.sum(1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", [name for name, entry in OBJECTIVES.items() if entry.truncated])
def test_all_entries_kept_are_the_whole_distribution(name):
    student, teacher = draw()
    whole = term(name, student, Signals(logits=teacher), temperature=2.0)
    # As a file gives it: a teacher that runs is not truncated at all then.
    kept = term(name, student, Signals(targets=keep_largest(teacher, VOCABULARY)), temperature=2.0, truncation_factor=VOCABULARY)
    assert kept.item() == pytest.approx(whole.item(), rel=1e-5)
    first, second = (torch.autograd.grad(value, student)[0] for value in (whole, kept))
    torch.testing.assert_close(second, first, rtol=1e-4, atol=1e-5)


def test_fewer_of_many_are_as_many_kept_at_once():
    _, teacher = draw()
    fewer, few = keep_fewer(keep_largest(teacher, 12), 5), keep_largest(teacher, 5)
    assert torch.equal(fewer.ids, few.ids)
    torch.testing.assert_close(fewer.logprobs, few.logprobs)
    torch.testing.assert_close(fewer.rest, few.rest)
    torch.testing.assert_close(few.logprobs.exp().sum(1) + few.rest.exp(), torch.ones(ROWS))


def test_no_position_and_entries_ruled_out_give_no_nan():
    student, teacher = draw()
    teacher[:, 3:] = -math.inf  # fewer entries than are kept
    for name in ("soft_ce", "logit", "reverse_kl", "symmetric_kl"):
        total = term(name, student, Signals(logits=teacher), truncation_factor=6)
        (found,) = torch.autograd.grad(total, student)
        assert torch.isfinite(total) and torch.isfinite(found).all(), name
        empty = term(name, student[:0], Signals(logits=teacher[:0]), truncation_factor=6)
        assert empty.item() == 0.0
