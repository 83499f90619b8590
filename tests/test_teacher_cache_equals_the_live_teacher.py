"""A stored teacher teaches what the same teacher does that runs, to the precision of the halves it is stored in."""

import h5py
import numpy as np
import pytest
import torch
from cache_case import extract, live_teacher, make_place, plan_of, run_flags, stored_reader
from launching import events, losses
from quick import train
from safetensors.torch import load_file
from tiny import VOCABULARY, make_shards

from dataset.shard_format import find_shards
from pretraining.assemble_models import objective_contexts
from pretraining.batches.loader import collate
from pretraining.batches.order import Segment
from pretraining.objectives.catalog import objective_class
from pretraining.objectives.truncated import keep_largest
from pretraining.signals import ModelNeeds, Signals
from pretraining.teacher_cache.format import cache_path
from pretraining.teacher_cache.teacher import StoredTeacher

KEPT, LAYERS = 7, (1, 3)
HALF = 2.0**-10  # relative, of a half


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = make_place(tmp_path_factory.mktemp("stored"))
    extract(place, "cache", "--truncation_factor", str(KEPT), "--hidden_layers", "3,1")
    extract(place, "whole", "--truncation_factor", str(VOCABULARY))
    return place


def stored_batch(place, cache: str, method: str, *more: str):
    """(plan, a batch of rows of both shards in an odd order)."""
    plan = plan_of(run_flags(place, "1", "--teacher_cache", str(place / cache), "--method", method, *more))
    reader = stored_reader(plan)
    rows = reader.read([Segment(0, 1, np.array([20, 3, 24])), Segment(0, 0, np.array([5, 0]))])
    return plan, collate(rows.take(np.array([3, 0, 2, 4])), 0)


def test_what_a_batch_carries_is_what_the_teacher_says(place):
    _, batch = stored_batch(place, "cache", "soft_ce,hidden_mse", "--layer_selection", "1,3")
    needs = ModelNeeds(hidden=frozenset(LAYERS), logits=True)
    live, stored = live_teacher(place, needs)(batch), StoredTeacher()(batch, needs)
    expected = keep_largest(live.logits, KEPT)
    assert torch.equal(stored.targets.ids, expected.ids)
    torch.testing.assert_close(stored.targets.logprobs, expected.logprobs, rtol=HALF, atol=1e-6)
    torch.testing.assert_close(stored.targets.rest, expected.rest, rtol=HALF, atol=1e-6)
    for layer in LAYERS:
        assert not stored.hidden[layer][~batch.mask].any()
        torch.testing.assert_close(stored.hidden[layer][batch.mask], live.hidden[layer][batch.mask], rtol=HALF, atol=1e-5)


CASES = [(method, target, temperature) for method in ("soft_ce", "logit") for target in ("rest", "renormalised", "unnormalised")
         for temperature in ("1",)] + [("logit", "rest", "2"), ("reverse_kl", "rest", "2"), ("symmetric_kl", "rest", "1")]


def assert_equal_lessons(objective, live, stored, batch):
    """Loss and gradient of the same student under both teachers, to the precision of what is stored."""
    found = []
    for teacher in (live, stored):
        logits = torch.randn(live.logits.shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
        (term,) = objective(Signals(logits=logits), teacher, batch).values()
        term.sum.backward()
        found.append((term.sum.item(), logits.grad))
    assert found[1][0] == pytest.approx(found[0][0], rel=2e-3)
    assert (found[1][1] - found[0][1]).norm() < 2e-3 * found[0][1].norm()


@pytest.mark.parametrize(("method", "target", "temperature"), CASES)
def test_losses_and_gradients_are_those_of_the_live_teacher(place, method, target, temperature):
    more = [] if method == "soft_ce" else ["--temperature", temperature]
    plan, batch = stored_batch(place, "cache", method, "--truncated_target", target, *more)
    objective = objective_class(method)(method, objective_contexts(plan)[method])
    live, stored = live_teacher(place, objective.needs.teacher)(batch), StoredTeacher()(batch, objective.needs.teacher)
    assert_equal_lessons(objective, live, stored, batch)


@pytest.mark.parametrize(("method", "temperature"), [("soft_ce", None), ("logit", "1"), ("logit", "2"), ("reverse_kl", "2")])
def test_all_entries_stored_are_the_whole_distribution(place, method, temperature):
    plan, batch = stored_batch(place, "whole", method, *([] if temperature is None else ["--temperature", temperature]))
    context = objective_contexts(plan)[method]
    assert context.truncation_factor == VOCABULARY
    objective = objective_class(method)(method, context)
    live, stored = live_teacher(place, objective.needs.teacher)(batch), StoredTeacher()(batch, objective.needs.teacher)
    assert torch.isneginf(stored.targets.rest).all()
    assert_equal_lessons(objective, live, stored, batch)


def test_fewer_entries_than_are_stored_count_as_if_so_many_had_been(place):
    plan, batch = stored_batch(place, "cache", "soft_ce", "--truncation_factor", "3")
    objective = objective_class("soft_ce")("soft_ce", objective_contexts(plan)["soft_ce"])
    live, stored = live_teacher(place, ModelNeeds(logits=True))(batch), StoredTeacher()(batch, ModelNeeds(logits=True))
    logits = torch.randn(live.logits.shape)
    values = [objective(Signals(logits=logits), teacher, batch)["soft_ce"].sum.item() for teacher in (live, stored)]
    assert values[1] == pytest.approx(values[0], rel=2e-3)
    _, cut = stored_batch(place, "cache", "soft_ce", "--max_predictions_per_seq", "1")
    assert len(cut.labels) == len(cut.mask) == len(cut.stored.ids)
    assert torch.equal(cut.stored.ids[0], batch.stored.ids[0])


def train_once(place, run: str, *more: str, shards: str = "shards"):
    train(run_flags(place, run, "--clock", "simulated:60", "--total_training_time", "0.1", "--lr", "1e-3", *more, shards=shards))
    return place / "out" / "job" / run


METHOD = ["--method", "soft_ce,hidden_mse:0.5", "--layer_selection", "1,3"]


@pytest.fixture(scope="module")
def cached_run(place):
    return train_once(place, "cached", *METHOD, "--teacher_cache", str(place / "cache"))


def test_a_run_learns_what_it_does_from_the_live_teacher(place, cached_run):
    live = train_once(place, "live", *METHOD, "--teacher_path", str(place / "teacher"), "--truncation_factor", str(KEPT))
    assert len(losses(live)) == 6
    assert losses(cached_run) == pytest.approx(losses(live), rel=1e-3)
    ours, theirs = (events(run, "validation") for run in (cached_run, live))
    assert [event["loss"] for event in ours] == pytest.approx([event["loss"] for event in theirs], rel=1e-3)
    assert losses(cached_run)[-1] < losses(cached_run)[0]


def test_a_run_that_stopped_goes_on_to_the_same_bits(place, cached_run):
    pieces = train_once(place, "pieces", *METHOD, "--teacher_cache", str(place / "cache"), "--early_exit_time_marker", "0.05")
    assert len(losses(pieces)) == 3
    train_once(place, "pieces", *METHOD, "--teacher_cache", str(place / "cache"), "--resume", "--allow_changes")
    assert losses(pieces) == losses(cached_run)
    first, second = (load_file(next((run / "finetune").glob("*_step_6")) / "model.safetensors") for run in (cached_run, pieces))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_two_ranks_learn_what_one_does(place, cached_run, zygote):
    life = zygote.start(run_flags(place, "two", "--clock", "simulated:60", "--total_training_time", "0.1", "--lr", "1e-3", *METHOD,
                                  "--teacher_cache", str(place / "cache")), ranks=2)
    assert life.wait() == [0, 0], life.stderr()
    # Dropout is drawn for a micro-batch of the global batch, whoever computes it.
    assert losses(place / "out" / "job" / "two") == pytest.approx(losses(cached_run), rel=1e-5)


def test_layers_can_be_copied_from_a_teacher_that_is_not_run(place):
    run = train_once(place, "copied", "--method", "soft_ce", "--teacher_cache", str(place / "cache"), "--student_initialize",
                     "--teacher_path", str(place / "teacher"), "--max_steps", "1")
    assert len(losses(run)) == 1


def test_hidden_states_of_text_without_masks_teach_a_student_that_reads_masks(place):
    make_shards(place / "unmasked", rows=12, masking="none")
    extract(place, "plain", "--hidden_layers", "3", shards="unmasked")
    train_shards, _ = find_shards(place / "unmasked")
    with h5py.File(train_shards[0]) as shard, h5py.File(cache_path(place / "plain", train_shards[0])) as file:
        assert file.attrs["input"] == "unmasked"
        ids, mask, states = torch.from_numpy(shard["input_ids"][:]).long(), shard["input_mask"][:] != 0, file["hidden_3"][:]
        segments = torch.from_numpy(shard["segment_ids"][:]).long()
    encoder = live_teacher(place, ModelNeeds(hidden=frozenset({3})))._encoder
    with torch.no_grad():
        output = encoder.base(ids, attention_mask=torch.from_numpy(mask)[:, None, None, :], token_type_ids=segments)
    # The encoder ends its pass at the layer it listens to, unless nobody listens.
    np.testing.assert_allclose(states, output.last_hidden_state[torch.from_numpy(mask)].numpy(), rtol=2e-3, atol=1e-4)
    flags = run_flags(place, "1", "--teacher_cache", str(place / "plain"), "--method", "hidden_mse", "--layer_selection", "3",
                      shards="unmasked")
    assert any("without masks" in note for note in plan_of(flags).resolved.notes)
    run = train_once(place, "plain", "--teacher_cache", str(place / "plain"), "--method", "hidden_mse", "--layer_selection", "3",
                     "--max_steps", "2", shards="unmasked")
    assert len(losses(run)) == 2
