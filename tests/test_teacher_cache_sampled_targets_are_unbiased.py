"""Drawn ids stand for the whole distribution: weights, loss and gradient have its expected values, and a file keeps them."""

import numpy as np
import pytest
import torch
from cache_case import extract, live_teacher, make_place, plan_of, run_flags, stored_reader

from dataset.errors import UserError
from pretraining.assemble_models import objective_contexts
from pretraining.batches.loader import collate
from pretraining.batches.order import Segment
from pretraining.objectives.base import ObjectiveContext, Shape
from pretraining.objectives.catalog import objective_class
from pretraining.signals import ModelNeeds, Signals, SparseTargets
from pretraining.teacher_cache.drawing import draw
from pretraining.teacher_cache.format import cache_path
from pretraining.teacher_cache.teacher import StoredTeacher

VOCABULARY, DRAWN, TRIALS = 30, 4, 4000


def many(temperature: float, logits: torch.Tensor) -> torch.Tensor:
    """Weights (TRIALS, V) of independent draws from one row of logits."""
    uniform = torch.from_numpy(np.random.default_rng(0).random((TRIALS, DRAWN)))
    ids, weights = draw(logits.expand(TRIALS, VOCABULARY), uniform, temperature)
    assert ids.dtype == torch.int64 and weights.dtype == torch.float32
    for row, weight in zip(ids[:50], weights[:50], strict=True):
        used = row[weight > 0]
        assert len(set(used.tolist())) == len(used)
    return torch.zeros(TRIALS, VOCABULARY).scatter_add_(1, ids, weights)


@pytest.mark.parametrize("temperature", [0.7, 1.0, 3.0])
def test_weights_have_the_probabilities_as_their_mean(temperature):
    logits = 2.0 * torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(3))
    p, weights = torch.softmax(logits, -1), many(temperature, logits)
    # Of independent draws; those of one row are stratified, and so nearer to one another.
    error = (p.square() / (torch.softmax(logits / temperature, -1) * DRAWN * TRIALS)).sqrt()
    assert ((weights.mean(0) - p).abs() < 4.5 * error).all()
    # The sum over all ids is 1 in the mean; at temperature 1 always.
    assert weights.sum(1).mean().item() == pytest.approx(1.0, abs=0.02)
    if temperature == 1.0:
        torch.testing.assert_close(weights.sum(1), torch.ones(TRIALS))


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_mean_gradient_is_the_whole_distributions(temperature):
    generator = torch.Generator().manual_seed(3)
    logits, student = (2.0 * torch.randn(VOCABULARY, generator=generator) for _ in range(2))
    q, p, weights = torch.softmax(student, -1), torch.softmax(logits, -1), many(temperature, logits)
    gradients = weights.sum(1, keepdim=True) * q - weights
    assert (gradients.mean(0) - (q - p)).norm() < 0.04 * (q - p).norm()
    # So many of the largest instead would never come as near.
    top = torch.topk(p, DRAWN)
    biased = top.values.sum() * q - torch.zeros(VOCABULARY).scatter(0, top.indices, top.values)
    assert (biased - (q - p)).norm() > 0.08 * (q - p).norm()


def test_an_id_without_probability_is_never_drawn():
    logits = torch.full((200, VOCABULARY), -torch.inf)
    logits[:, 7], logits[:, 20] = 0.0, 1.0
    uniform = torch.from_numpy(np.random.default_rng(0).random((200, DRAWN)))
    uniform[0], uniform[1] = 0.0, 1 - 2.0**-53
    ids, weights = draw(logits, uniform, 2.0)
    assert set(ids[weights > 0].tolist()) == {7, 20}
    assert torch.isfinite(weights).all()
    ids, weights = draw(logits[:0], uniform[:0], 1.0)
    assert ids.shape == weights.shape == (0, DRAWN)


def test_the_objective_learns_from_weights_as_from_probabilities():
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(6, VOCABULARY, generator=generator).requires_grad_()
    ids = torch.stack([torch.randperm(VOCABULARY, generator=generator)[:DRAWN] for _ in range(6)])
    weights = torch.rand(6, DRAWN, generator=generator)
    weights[:, -1] = 0.0
    shape = Shape(1, 8, 2)
    objective = objective_class("soft_ce")("soft_ce", ObjectiveContext(shape, shape, truncated_target="unnormalised"))
    total = objective(Signals(logits=student), Signals(targets=SparseTargets(ids, weights.log(), None)), None)["soft_ce"].sum
    expected = -(weights * torch.log_softmax(student, -1).gather(1, ids)).sum()
    assert total.item() == pytest.approx(expected.item(), rel=1e-6)
    first, second = (torch.autograd.grad(value, student)[0] for value in (total, expected))
    torch.testing.assert_close(first, second)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = make_place(tmp_path_factory.mktemp("sampled"))
    extract(place, "cache", "--sampled", "64", "--sampling_temperature", "1.5", "--seed", "5")
    return place


def test_a_file_holds_what_was_drawn_and_a_run_learns_from_it(place):
    plan = plan_of(run_flags(place, "1", "--teacher_cache", str(place / "cache"), "--method", "soft_ce"))
    assert plan.resolved.args.distillation.truncated_target == "unnormalised"
    batch = collate(stored_reader(plan).read([Segment(0, 0, np.arange(24))]), 0)
    targets = StoredTeacher()(batch, ModelNeeds(logits=True)).targets
    p = torch.softmax(live_teacher(place, ModelNeeds(logits=True))(batch).logits, -1)
    weights = torch.zeros_like(p).scatter_add_(1, targets.ids, targets.logprobs.exp())
    # 64 draws a position, over all positions.
    assert (weights.mean(0) - p.mean(0)).norm() < 0.15 * p.mean(0).norm()
    assert (weights - p).norm() < p.norm()
    objective = objective_class("soft_ce")("soft_ce", objective_contexts(plan)["soft_ce"])
    logits = torch.randn(p.shape, generator=torch.Generator().manual_seed(0))
    value = objective(Signals(logits=logits), StoredTeacher()(batch, ModelNeeds(logits=True)), batch)["soft_ce"].sum.item()
    whole = -(p * torch.log_softmax(logits, -1)).sum().item()
    assert value == pytest.approx(whole, rel=0.05)


def test_draws_depend_on_seed_shard_and_row_alone(place):
    def files(cache: str) -> list[bytes]:
        return [cache_path(place / cache, path).read_bytes() for path in sorted((place / "shards").iterdir())]

    extract(place, "again", "--sampled", "64", "--sampling_temperature", "1.5", "--seed", "5", "--batch_size", "3")
    extract(place, "other", "--sampled", "64", "--sampling_temperature", "1.5", "--seed", "6")
    first = files("cache")
    assert len(set(first)) == 3
    assert all(a != b for a, b in zip(first, files("other"), strict=True))
    plans = [plan_of(run_flags(place, "1", "--teacher_cache", str(place / cache), "--method", "soft_ce")) for cache in ("cache", "again")]
    ids = [stored_reader(plan).read([Segment(0, 0, np.arange(24))]).stored.ids for plan in plans]
    assert (ids[0] == ids[1]).mean() > 0.999  # the logits of other batches may differ in their last bits


@pytest.mark.parametrize(("more", "found"), [
    (["--method", "logit"], "soft_ce works"), (["--method", "soft_ce", "--truncated_target", "rest"], "unbiased as they are"),
    (["--method", "soft_ce", "--truncation_factor", "3"], "none of which may be left out"),
])
def test_what_weights_cannot_do_is_refused(place, more, found):
    with pytest.raises(UserError, match=found):
        plan_of(run_flags(place, "1", "--teacher_cache", str(place / "cache"), *more))
