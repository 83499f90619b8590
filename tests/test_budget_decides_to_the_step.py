"""Stop, markers, validation and early stop follow from the clock's number to the step."""

import math

import pytest

from pretraining import budget as budget_module
from pretraining.args.parser import parse
from pretraining.args.resolve import resolve
from pretraining.budget import (
    Budget,
    CheckpointPlan,
    Deadline,
    MonotonicClock,
    Place,
    SimulatedClock,
    ValidationPlan,
    crossed_multiple,
)
from pretraining.launch import Launch
from pretraining.stopping import EarlyStop
from pretraining.trainer import dropout_seed

UNLIMITED = 2**63 - 1


def run(seconds_per_step, total, exit_hours=None, markers=(), max_steps=UNLIMITED, passed=()):
    """(stop reason, steps, {step: markers taken}) of a run under a simulated clock."""
    clock = SimulatedClock(seconds_per_step)
    budget = Budget(total, exit_hours or total, max_steps, UNLIMITED, tuple(markers), list(passed))
    taken, step = {}, 0
    while True:
        hours = clock.hours()
        reason = budget.stop_reason(hours, step)
        if reached := budget.take_markers(hours):
            taken[step] = reached
        if reason is not None:
            return reason, step, taken
        clock.step_done()
        step += 1


def test_it_stops_at_the_first_step_that_would_begin_after_the_budget():
    assert run(36, 1.0)[:2] == ("time_budget", 100)
    assert run(37, 1.0)[:2] == ("time_budget", 98)  # 97 steps take 0.997 h


def test_an_early_exit_stops_but_is_no_denominator():
    reason, steps, taken = run(36, 1.0, exit_hours=0.5, markers=(0.25, 0.5, 0.75))
    assert (reason, steps) == ("early_exit_marker", 50) and taken == {25: [0.25], 50: [0.5]}


def test_max_steps_stop_exactly():
    assert run(36, 1.0, max_steps=7)[:2] == ("max_steps", 7)


def test_markers_are_taken_at_the_first_step_at_or_after_their_fraction():
    assert run(36, 1.0, markers=(0.005, 0.1, 0.333, 1.0))[2] == {1: [0.005], 10: [0.1], 34: [0.333], 100: [1.0]}


@pytest.mark.parametrize("seconds", [1.0, 0.1, 7.0, 36.0])
def test_rounding_makes_neither_a_marker_nor_the_end_late(seconds):
    """A fifth of five seconds is 0.19999999999999998 of them in float64."""
    for steps in range(1, 200):
        markers = {share: -(-share * steps // 100) for share in (1, 10, 20, 30, 35, 50, 60, 69, 70, 90, 100)}
        reason, last, taken = run(seconds, steps * seconds / 3600, markers=[share / 100 for share in markers])
        assert (reason, last) == ("time_budget", steps)
        assert {round(100 * marker): step for step, reached in taken.items() for marker in reached} == markers
    for share in range(1, 101):  # an early exit at a marker takes the marker along
        assert run(36, 0.1, exit_hours=share / 100 * 0.1, markers=[share / 100])[2]


def test_several_markers_at_once_come_together_and_passed_ones_never_again():
    assert run(1800, 1.0, markers=(0.1, 0.2, 0.3, 0.9))[2] == {1: [0.1, 0.2, 0.3], 2: [0.9]}
    assert run(1800, 1.0, markers=(0.1, 0.2, 0.3, 0.9), passed=(0.1, 0.2, 0.3))[2] == {2: [0.9]}


def test_a_simulated_clock_reads_the_same_after_a_resume():
    through = SimulatedClock(0.1)
    for _ in range(1000):
        through.step_done()
    assert through.hours() == SimulatedClock(0.1, steps_before=1000).hours()


def test_a_real_clock_starts_with_the_first_step_and_carries_earlier_hours():
    clock = MonotonicClock(hours_before=2.0)
    assert clock.hours() == clock.hours() == 2.0
    clock.start()
    assert 2.0 < clock.hours() < 2.001
    first = clock._started
    clock.start()
    assert clock._started == first


@pytest.mark.parametrize(("every", "before", "now", "due"), [
    (5, 4, 5, True), (5, 5, 6, False), (5, 3, 11, True), (1, 0, 1, True), (1, 1, 1, False), (-1, 0, 9, False), (100, 99, 100, True),
    (3, -1, 0, False)])
def test_multiples_of_shards(every, before, now, due):
    assert crossed_multiple(every, before, now) is due


def places(steps, seconds_per_step, steps_per_shard):
    return [Place(step, step * seconds_per_step / 3600, step // steps_per_shard) for step in range(steps + 1)]


@pytest.mark.parametrize(("plan", "expected"), [
    (CheckpointPlan(7, -1, -1), [7, 14, 21, 28]), (CheckpointPlan(-1, 2.5, -1), [5, 10, 15, 20, 25, 30]),
    (CheckpointPlan(-1, 0.5, -1), list(range(1, 31))), (CheckpointPlan(-1, -1, 2), [8, 16, 24]), (CheckpointPlan(-1, -1, -1), []),
    (CheckpointPlan(10, 12.0, 3), [10, 12, 20, 24, 30])])
def test_checkpoints_are_due_at_multiples_of_steps_minutes_and_shards(plan, expected):
    """30 steps of half a minute, 4 of them to a shard."""
    decided, due = Place(), []
    for now in places(30, 30.0, 4):
        if plan.is_due(decided, now):
            due.append(now.step)
        decided = now
    assert due == expected


def test_a_long_step_makes_one_checkpoint_of_several_that_were_due():
    plan = CheckpointPlan(-1, 1.0, -1)
    assert plan.is_due(Place(4, 0.05, 0), Place(5, 0.5, 0)) and not plan.is_due(Place(5, 0.5, 0), Place(5, 0.5, 0))


def test_the_deadline_leaves_time_for_the_longest_step_and_checkpoint(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(budget_module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(budget_module.time, "time", lambda: 5000.0 + now[0])
    deadline = Deadline(6400.0, checkpoint_bytes=2_000_000_000)  # 400 s from now, 20 s for the first checkpoint
    assert not deadline.is_near() and deadline.reserve_s == pytest.approx(Deadline.MARGIN_S + 30)
    now[0] += 40.0
    assert not deadline.is_near() and deadline.reserve_s == pytest.approx(Deadline.MARGIN_S + 90)
    now[0] += 10.0
    assert not deadline.is_near() and deadline.reserve_s == pytest.approx(Deadline.MARGIN_S + 90)
    deadline.saved_in(60.0)
    assert deadline.reserve_s == pytest.approx(Deadline.MARGIN_S + 150)
    stopped = next(step for step in range(100) if now.__setitem__(0, now[0] + 10.0) or deadline.is_near())
    left = 6400.0 - (5000.0 + now[0])
    assert Deadline.MARGIN_S + 140 <= left <= Deadline.MARGIN_S + 150, (stopped, left)
    assert not Deadline(None, 0).is_near()


def resolved_deadline(monkeypatch, *words, **environment):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    resolved = resolve(parse(["--output_dir", "out", "--train_batch_size", "32", *words]), Launch(0, 1, 0, False))
    return resolved.deadline, [note for note in resolved.notes if "SLURM" in note or "Slurm" in note]


def test_the_deadline_is_a_flag_or_the_end_of_the_slurm_job(monkeypatch):
    end = int(budget_module.time.time()) + 7200
    assert resolved_deadline(monkeypatch) == (None, [])
    assert resolved_deadline(monkeypatch, "--deadline", "2999-01-01T00:00+00:00") == (32472144000.0, [])
    found, notes = resolved_deadline(monkeypatch, SLURM_JOB_END_TIME=str(end))
    assert found == end and "before the Slurm job ends" in notes[0]
    assert resolved_deadline(monkeypatch, "--deadline", "2999-01-01T00:00+00:00", SLURM_JOB_END_TIME=str(end)) == (32472144000.0, [])
    assert resolved_deadline(monkeypatch, "--deadline", "none", SLURM_JOB_END_TIME=str(end)) == (None, [])
    for wrong in ("soon", "12", "", "99999999999999999999"):
        found, notes = resolved_deadline(monkeypatch, SLURM_JOB_END_TIME=wrong)
        assert found is None and "not a time to come" in notes[0], wrong


def test_validation_follows_the_stage_of_the_budget():
    plan = ValidationPlan(begin_every=1, middle_every=4, end_every=2, begin_proportion=0.1, end_proportion=0.2)
    due = [shard for shard in range(1, 41) if plan.is_due(shard / 40, shard - 1, shard)]
    assert due == [1, 2, 3, 4, 8, 12, 16, 20, 24, 28, 32, 34, 36, 38, 40]


def test_early_stop_needs_time_and_loss():
    stop = EarlyStop(True, after_minutes=60, above_loss=2.0, scale_limit=3)
    stop.look_at_loss(9.0, hours=1.0)
    stop.look_at_loss(2.0, hours=1.5)
    assert stop.reason is None
    stop.look_at_loss(2.1, hours=1.5)
    assert stop.reason == "early_stop" and "2.1" in stop.why
    quiet = EarlyStop(False, 0, 0.0, 1)
    quiet.look_at_loss(9.0, hours=9.0)
    quiet.look_at_scale(50)
    assert quiet.reason is None
    quiet.look_at_loss(math.nan, hours=0.0)
    assert quiet.reason == "diverged"


def test_a_loss_scale_that_stays_at_one_is_divergence():
    stop = EarlyStop(True, 60, 2.0, scale_limit=3)
    stop.look_at_scale(2)
    assert stop.reason is None
    stop.look_at_scale(3)
    assert stop.reason == "diverged"


def test_dropout_seeds_do_not_collide():
    seeds = {dropout_seed(seed, step, micro) for seed in (0, 1, 42) for step in range(200) for micro in range(32)}
    assert len(seeds) == 3 * 200 * 32 and all(0 <= seed < 2**64 for seed in seeds)
