"""Random hidden states and a float64 reference to hold an objective against; shared by the tests of objectives on hidden states."""

from collections.abc import Callable

import torch
from tiny import make_batch

from pretraining.objectives.base import Objective, ObjectiveContext, Shape
from pretraining.objectives.catalog import objective_class
from pretraining.signals import Batch, Signals, Term, Unit

PAIRS = ((0, 1), (1, 3), (2, 0))
LENGTHS = (9, 4, 12, 7)
# Padded, without padding, single sequences, sequences of one token.
ALL_LENGTHS = [LENGTHS, (6, 6, 6), (5,), (1, 1, 3), (1, 1)]
WIDTHS = [(24, 24), (16, 24), (24, 16)]
# Relative error by norm: of fp32 arithmetic, and of a gradient rounded to the format of its input.
ROUNDING = {torch.float32: 1e-5, torch.bfloat16: 2**-8, torch.float16: 2**-11}

# (student, teacher, parameters, batch) -> the mean of every term, in float64
Reference = Callable[[Signals, Signals, dict[str, torch.Tensor], Batch], dict[str, torch.Tensor]]


def context(widths: tuple[int, int] = (24, 24), pairs: tuple[tuple[int, int], ...] = PAIRS, **settings) -> ObjectiveContext:
    layers = {"student_layers": tuple(s for s, _ in pairs), "teacher_layers": tuple(t for _, t in pairs)}
    return ObjectiveContext(student=Shape(3, widths[0], 4), teacher=Shape(4, widths[1], 2), pairs=pairs, **(layers | settings))


def build(name: str, settings: ObjectiveContext, seed: int = 0) -> Objective:
    torch.manual_seed(seed)
    return objective_class(name)(name, settings)


def make_states(
    batch: Batch, widths: tuple[int, int] = (24, 24), dtype: torch.dtype = torch.float32, scale: float = 1.0, seed: int = 1,
) -> tuple[Signals, Signals]:
    """Student (layers 0 to 2 and embeddings, with gradients) and teacher (layers 0 to 3 and embeddings)."""
    generator = torch.Generator().manual_seed(seed)

    def draw(width: int) -> torch.Tensor:
        # A common part, as real states have it: unequal means of the features.
        return (scale * (torch.randn((*batch.mask.shape, width), generator=generator) + torch.randn(width, generator=generator))).to(dtype)

    student = Signals({layer: draw(widths[0]).requires_grad_() for layer in range(3)}, embeddings=draw(widths[0]).requires_grad_())
    return student, Signals({layer: draw(widths[1]) for layer in range(4)}, embeddings=draw(widths[1]))


def leaves(signals: Signals) -> dict[str, torch.Tensor]:
    return {**{f"hidden.{layer}": states for layer, states in signals.hidden.items()}, "embeddings": signals.embeddings}


def doubled(signals: Signals) -> Signals:
    def double(states: torch.Tensor) -> torch.Tensor:
        return states.detach().double().requires_grad_(states.requires_grad)

    return Signals({layer: double(states) for layer, states in signals.hidden.items()}, embeddings=double(signals.embeddings))


def tokens(batch: Batch) -> list[tuple[int, int]]:
    """(sequence, place) of every real token."""
    return [(b, i) for b, row in enumerate(batch.mask.tolist()) for i, real in enumerate(row) if real]


def means(terms: dict[str, Term], batch: Batch) -> dict[str, torch.Tensor]:
    return {name: term.sum / term.count(batch.counts) for name, term in terms.items()}


def distance(found: torch.Tensor | None, expected: torch.Tensor | None) -> float:
    """Relative error by norm; absent gradients are 0."""
    if found is None or expected is None or not expected.any():
        return float(sum(0.0 if one is None else one.detach().double().norm() for one in (found, expected)))
    return float((found.detach().double() - expected.detach().double()).norm() / expected.detach().double().norm())


def assert_equals_reference(
    objective: Objective, student: Signals, teacher: Signals, batch: Batch, reference: Reference, exact_zero: float = 1e-6,
) -> None:
    """The mean of every term, and the gradients of their sum for every student signal and parameter."""
    terms = objective(student, teacher, batch)
    assert all(term.sum.dtype == torch.float32 and term.sum.shape == () for term in terms.values())
    found, exact_student = means(terms, batch), doubled(student)
    parameters = {name: parameter.detach().double().requires_grad_() for name, parameter in objective.named_parameters()}
    expected = reference(exact_student, doubled(teacher), parameters, batch)
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert abs(found[name].item() - value.item()) <= max(1e-5 * abs(value.item()), exact_zero if value.item() < 1e-9 else 0.0), name
    # A factor as a loss scale sets it: without one the smallest gradients leave fp16's range.
    factor = 2.0**10
    (sum(found.values()) * factor).backward()
    total = sum(expected.values()) * factor
    if total.requires_grad:
        total.backward()
    for name, states in leaves(student).items():
        assert states.grad is None or states.grad.dtype == states.dtype
        assert distance(states.grad, leaves(exact_student)[name].grad) < ROUNDING[states.dtype], name
    for name, parameter in objective.named_parameters():
        assert distance(parameter.grad, parameters[name].grad) < ROUNDING[parameter.dtype], name


def assert_padding_does_not_matter(objective: Objective, garbage: float, widths: tuple[int, int]) -> None:
    """Values and gradients with no garbage at padding, and with `garbage` at padding that is appended as well."""
    narrow, wide = make_batch(LENGTHS, width=12), make_batch(LENGTHS, width=32)
    student, teacher = make_states(narrow, widths)
    grown = []
    for signals in (student, teacher):
        wide_leaves = {}
        for name, states in leaves(signals).items():
            padded = torch.full((len(LENGTHS), 32, states.shape[-1]), garbage)
            padded[:, :12] = states.detach()
            wide_leaves[name] = padded.masked_fill(~wide.mask.unsqueeze(-1), garbage).requires_grad_(states.requires_grad)
        embeddings = wide_leaves.pop("embeddings")
        grown.append(Signals({int(name.partition(".")[2]): states for name, states in wide_leaves.items()}, embeddings=embeddings))
    results = []
    for batch, (one, other) in ((narrow, (student, teacher)), (wide, grown)):
        objective.zero_grad()
        terms = objective(one, other, batch)
        sum(term.sum for term in terms.values()).backward()
        results.append((terms, {name: parameter.grad.clone() for name, parameter in objective.named_parameters()}))
    (narrow_terms, narrow_gradients), (wide_terms, wide_gradients) = results
    for name, term in narrow_terms.items():
        assert abs(wide_terms[name].sum.item() - term.sum.item()) <= 1e-6 * abs(term.sum.item())
        assert wide_terms[name].count(wide.counts) == term.count(narrow.counts)
    for name, gradient in narrow_gradients.items():
        assert distance(wide_gradients[name], gradient) < 1e-6
    reached = 0
    for name, states in leaves(student).items():
        found = leaves(grown[0])[name].grad
        assert (found is None) == (states.grad is None)
        if found is not None:
            reached += 1
            assert distance(found[wide.mask], states.grad[narrow.mask]) < 1e-5
            assert not found[~wide.mask].any() and not states.grad[~narrow.mask].any()
    assert reached


def assert_runs_without_values(objective: Objective, batch: Batch, widths: tuple[int, int]) -> None:
    """On the meta device, where whatever asks for a value (and would wait for an accelerator) is an error."""
    student, teacher = make_states(batch, widths)
    for signals in (student, teacher):
        signals.hidden = {layer: states.detach().to("meta").requires_grad_() for layer, states in signals.hidden.items()}
        signals.embeddings = signals.embeddings.detach().to("meta").requires_grad_()
    terms = objective.to("meta")(student, teacher, batch.to(torch.device("meta")))
    sum(term.sum for term in terms.values()).backward()


UNIT_COUNTS = {Unit.TOKENS: sum(LENGTHS), Unit.SEQUENCES: len(LENGTHS)}
