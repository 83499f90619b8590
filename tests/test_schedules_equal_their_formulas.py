"""Learning rate at 0, at the end of warm-up, between and at the end; for hours and for steps."""

import pytest

from pretraining.schedules import Schedule

KEYS = {"peak": 2e-4, "total_hours": 24.0, "max_steps": 1000, "warmup_proportion": 0.06, "num_warmup_steps": 100, "decay_rate": 0.9,
        "decay_step": 50.0}


def rate(kind, curve, hours=0.0, step=0, **more):
    return Schedule(kind=kind, curve=curve, **{**KEYS, **more}).learning_rate(hours, step) / KEYS["peak"]


@pytest.mark.parametrize("total", [24.0, 0.05, 1e-3])
def test_time_follows_hours_for_budgets_of_any_size(total):
    """The originals' formula jumped down after the warm-up of a budget under an hour."""
    at = {share: rate("time", "linear", hours=share * total, step=7, total_hours=total) for share in (0, 0.03, 0.06, 0.53, 1)}
    assert at == pytest.approx({0: 0.0, 0.03: 0.5, 0.06: 1.0, 0.53: 0.5, 1: 0.0})
    assert rate("time", "linear", hours=1.1 * total, total_hours=total) == 0.0


def test_steps():
    assert [rate("step", "linear", step=step, hours=9.0) for step in (0, 30, 60, 530, 1000)] == pytest.approx([0, 0.5, 1, 0.5, 0])
    assert [rate("step", "exp", step=step) for step in (0, 30, 60, 110, 160)] == pytest.approx([0, 0.25, 1, 0.9, 0.81])


def test_constant_steps_warm_up_by_number():
    assert [rate("constant_step", "linear", step=step) for step in (0, 50, 100, 550, 1000)] == pytest.approx([0, 0.5, 1, 0.5, 0])
    assert rate("constant_step", "linear", step=10**6, max_steps=2**63 - 1) == pytest.approx(1.0)


def test_no_warm_up_begins_at_the_peak():
    assert rate("step", "linear", step=0, warmup_proportion=0.0) == 1.0
    assert rate("constant_step", "exp", step=0, num_warmup_steps=0) == 1.0
