"""Signals are what the plain transformers model computes, whatever is cut away; padding changes nothing; the teacher stays as it is."""

import copy

import pytest
import torch
from tiny import VOCABULARY, make_batch, make_model

from dataset.errors import UserError
from pretraining.models.catalog import ARCHITECTURES
from pretraining.models.encoder import Encoder
from pretraining.models.student import BuiltModel
from pretraining.models.teacher import Teacher
from pretraining.precision import Precision
from pretraining.signals import ModelNeeds

CPU = torch.device("cpu")
KINDS = [("bert", True), ("bert", False), ("roberta", True), ("roberta", False)]
FAMILIES = {"bert": "bert-mlm", "roberta": "bert-mlm-roberta"}


def architecture_of(family: str):
    return ARCHITECTURES[FAMILIES[family]]


def reference(model, batch, family: str):
    """What transformers gives with a 0/1 mask, all hidden states kept."""
    segments = {"token_type_ids": batch.token_type_ids} if family == "bert" else {}
    with torch.no_grad():
        return model(input_ids=batch.input_ids, attention_mask=batch.mask.long(), output_hidden_states=True, **segments)


def signals_of(model, family, head, batch, needs):
    with torch.no_grad():
        return Encoder(model, architecture_of(family), head, needs).eval()(batch)


@pytest.mark.parametrize("lengths", [(9, 4, 12), (8, 8, 8)], ids=["padded", "full"])
@pytest.mark.parametrize(("family", "head"), KINDS)
def test_hidden_states_and_logits_are_the_models(family, head, lengths):
    model, batch = make_model(family, head=head), make_batch(lengths)
    assert batch.has_padding == (len(set(lengths)) > 1)
    expected = reference(model, batch, family)
    signals = signals_of(model, family, head, batch, ModelNeeds(frozenset({0, 1, 3}), logits=head))
    assert sorted(signals.hidden) == [0, 1, 3]
    for layer, states in signals.hidden.items():
        torch.testing.assert_close(states[batch.mask], expected.hidden_states[layer + 1][batch.mask], rtol=1e-5, atol=1e-6)
    if head:
        wanted = expected.logits.flatten(0, 1)[batch.masked_index]
        torch.testing.assert_close(signals.logits, wanted, rtol=1e-5, atol=1e-5)
    else:
        assert signals.logits is None


@pytest.mark.parametrize(("family", "head"), KINDS)
def test_padding_changes_nothing_at_real_positions(family, head):
    model, needs = make_model(family, head=head), ModelNeeds(frozenset({0, 3}), logits=head)
    batch, garbled, wide = make_batch(), make_batch(), make_batch(width=24)
    garbled.input_ids[~batch.mask] = torch.randint(1, VOCABULARY, (int((~batch.mask).sum()),))
    garbled.token_type_ids[~batch.mask] = 1
    plain = signals_of(model, family, head, batch, needs)
    for other, columns in ((garbled, 12), (wide, 12)):
        found = signals_of(model, family, head, other, needs)
        for layer, states in plain.hidden.items():
            torch.testing.assert_close(found.hidden[layer][:, :columns][batch.mask], states[batch.mask], rtol=1e-5, atol=1e-6)
        if head:
            torch.testing.assert_close(found.logits, plain.logits, rtol=1e-5, atol=1e-5)
    # And real tokens do matter: the comparison above can fail.
    batch.input_ids[0, 0] = 7
    changed = signals_of(model, family, head, batch, needs)
    assert not torch.allclose(changed.hidden[3][0, 1:9], plain.hidden[3][0, 1:9], atol=1e-4)


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_a_config_that_asks_for_eager_attention_makes_no_difference(family):
    batch, needs = make_batch(), ModelNeeds(frozenset({3}), logits=True)
    eager = make_model(family)
    eager.set_attn_implementation("eager")
    expected, found = (signals_of(model, family, True, batch, needs) for model in (make_model(family), eager))
    assert torch.equal(found.logits, expected.logits) and torch.equal(found.hidden[3], expected.hidden[3])


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_a_batch_without_padding_needs_no_mask(family):
    model, batch, needs = make_model(family), make_batch((8, 8)), ModelNeeds(frozenset({3}), logits=True)
    assert not batch.has_padding
    without = signals_of(model, family, True, batch, needs)
    batch.has_padding = True
    masked = signals_of(model, family, True, batch, needs)
    torch.testing.assert_close(without.hidden[3], masked.hidden[3], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(without.logits, masked.logits, rtol=1e-5, atol=1e-5)


def test_nothing_is_kept_that_nobody_asked_for():
    model, batch = make_model(), make_batch()
    ran = []
    model.cls.register_forward_hook(lambda *_: ran.append("head"))
    model.cls.predictions.register_forward_hook(lambda *_: ran.append("head"))
    encoder = Encoder(model, architecture_of("bert"), True, ModelNeeds(frozenset({1})))
    signals = encoder(batch)
    assert list(signals.hidden) == [1] and signals.logits is None and not ran
    assert encoder._hidden == {}


MIDDLE_LAYERS = ModelNeeds(frozenset({1, 2}))


def make_teacher(family="bert", head=True, needs=MIDDLE_LAYERS, precision="fp32"):
    built = BuiltModel(make_model(family, head=head), head, {})
    return Teacher(built, architecture_of(family), needs, Precision(precision), CPU)


@pytest.mark.parametrize(("family", "head"), KINDS)
def test_a_teacher_stops_at_the_deepest_layer_it_is_asked_for(family, head):
    batch = make_batch()
    teacher = make_teacher(family, head)
    assert len(teacher._encoder.layers) == 3
    expected = reference(make_model(family, head=head), batch, family)
    for layer, states in teacher(batch).hidden.items():
        torch.testing.assert_close(states[batch.mask], expected.hidden_states[layer + 1][batch.mask], rtol=1e-5, atol=1e-6)
    whole = make_teacher(family, True, ModelNeeds(frozenset({1}), logits=True))
    assert len(whole._encoder.layers) == 4


def test_a_teacher_has_no_dropout_and_is_no_part_of_what_is_trained():
    batch, teacher = make_batch(), make_teacher(needs=ModelNeeds(frozenset({3}), logits=True))
    assert any(module.p > 0 for module in teacher._encoder.modules() if isinstance(module, torch.nn.Dropout))
    assert not any(module.training for module in teacher._encoder.modules())
    assert not any(parameter.requires_grad for parameter in teacher._encoder.parameters())
    before = copy.deepcopy(teacher._encoder.state_dict())
    first = teacher(batch)
    assert not first.hidden[3].requires_grad and not first.logits.requires_grad

    # Training a student from the same weights, with the teacher in the loop.
    student = Encoder(make_model(), architecture_of("bert"), True, ModelNeeds(frozenset({3}), logits=True)).train()
    optimizer = torch.optim.AdamW(student.parameters(), lr=0.1)
    for _ in range(3):
        target = teacher(batch)
        (student(batch).hidden[3] - target.hidden[3] + 1).square().mean().backward()
        optimizer.step()
    second = teacher(batch)
    assert torch.equal(first.hidden[3], second.hidden[3]) and torch.equal(first.logits, second.logits)
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher._encoder.state_dict().items())


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_matrices_stored_in_bf16_give_what_autocast_of_fp32_gives(family):
    batch, needs = make_batch(), ModelNeeds(frozenset({0, 3}), logits=True)
    teacher = make_teacher(family, needs=needs, precision="bf16")
    plain = Encoder(make_model(family), architecture_of(family), True, needs).eval()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        expected = plain(batch)
    found = teacher(batch)
    assert all(torch.equal(found.hidden[layer], expected.hidden[layer]) for layer in (0, 3))
    assert torch.equal(found.logits, expected.logits)
    linear = [module for module in teacher._encoder.modules() if isinstance(module, torch.nn.Linear)]
    assert linear and all(module.weight.dtype == torch.bfloat16 for module in linear)
    embeddings = teacher._encoder.base.embeddings.word_embeddings.weight
    assert embeddings.dtype == torch.float32
    exact = reference(make_model(family), batch, family).hidden_states[4]
    assert 0 < (found.hidden[3].float() - exact)[batch.mask].norm() / exact[batch.mask].norm() < 0.05


def test_logits_of_a_teacher_without_a_head_are_refused_at_construction():
    with pytest.raises(UserError, match="no MLM head"):
        make_teacher(head=False, needs=ModelNeeds(logits=True))
