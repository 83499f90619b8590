"""Signals are what the plain transformers model computes, whatever is cut away; padding changes nothing; the teacher stays as it is."""

import copy

import pytest
import torch
import transformers
from tiny import FAMILIES, MODEL_TYPES, VOCABULARY, make_batch, make_model

from dataset.errors import UserError
from pretraining.models.catalog import ARCHITECTURES, find_architecture
from pretraining.models.encoder import Encoder, near
from pretraining.models.student import BuiltModel
from pretraining.models.teacher import Teacher
from pretraining.precision import Precision
from pretraining.signals import ModelNeeds

CPU = torch.device("cpu")
KINDS = [(family, head) for family in FAMILIES for head in (True, False)]
BATCHES = {"padded": (9, 4, 12), "full": (10, 10)}
# What attention's result goes into.
OUTPUTS = {"bert": "attention.output.dense", "roberta": "attention.output.dense", "roberta-prelayernorm": "attention.output.dense",
           "electra": "attention.output.dense", "distilbert": "attention.out_lin", "modernbert": "attn.Wo", "gpt2": "attn.c_proj"}


def architecture_of(family: str):
    return find_architecture(MODEL_TYPES[family])


def layers_of(model, family: str, head: bool):
    row = architecture_of(family)
    return (model.get_submodule(row.base) if head else model).get_submodule(row.layers)


def reference(model, batch, attentions: bool = False):
    """What transformers gives with a 0/1 mask of two dimensions, all hidden states kept."""
    has_segments = getattr(model.config, "type_vocab_size", 1) > 1
    with torch.no_grad():
        return model(input_ids=batch.input_ids, attention_mask=batch.mask.long(), output_hidden_states=True, output_attentions=attentions,
                     **({"token_type_ids": batch.token_type_ids} if has_segments else {}))


def signals_of(model, family, head, batch, needs, asked=None):
    with torch.no_grad():
        return Encoder(model, architecture_of(family), head, needs).eval()(batch, asked)


def close(found, wanted):
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("lengths", BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize(("family", "head"), KINDS)
def test_hidden_states_embeddings_and_logits_are_the_models(family, head, lengths):
    batch = make_batch(lengths)
    assert batch.has_padding == (len(set(lengths)) > 1)
    expected = reference(make_model(family, head=head), batch)
    needs = ModelNeeds(frozenset({0, 1, 3}), embeddings=True, logits=head, token_logits=head)
    signals = signals_of(make_model(family, head=head), family, head, batch, needs)
    assert sorted(signals.hidden) == [0, 1, 3] and not signals.attention
    for layer, states in signals.hidden.items():
        close(states[batch.mask], expected.hidden_states[layer + 1][batch.mask])
    # What transformers calls the last state is normed where there is a final norm, and so is ours.
    last = expected.logits if head else expected.last_hidden_state
    if not head:
        close(signals.hidden[3][batch.mask], last[batch.mask])
    close(signals.embeddings[batch.mask], expected.hidden_states[0][batch.mask])
    if head:
        close(signals.token_logits, last[batch.mask])
        close(signals.logits, last.flatten(0, 1)[batch.masked_index])
        only = signals_of(make_model(family), family, True, batch, needs, ModelNeeds(logits=True))
        close(only.logits, signals.logits)
        assert not only.hidden and only.token_logits is None and only.embeddings is None


@pytest.mark.parametrize("lengths", BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize("family", FAMILIES)
def test_queries_keys_and_values_give_the_models_attention(family, lengths):
    batch, plain = make_batch(lengths), make_model(family)
    plain.set_attn_implementation("eager")
    contexts = {}
    for index, layer in enumerate(layers_of(plain, family, True)):
        layer.get_submodule(OUTPUTS[family]).register_forward_pre_hook(lambda _, inputs, index=index: contexts.update({index: inputs[0]}))
    expected = reference(plain, batch, attentions=True).attentions
    signals = signals_of(make_model(family), family, True, batch, ModelNeeds(attention=frozenset({0, 2, 3}), logits=True))
    assert sorted(signals.attention) == [0, 2, 3]
    columns = batch.mask.shape[1]
    for layer, attention in signals.attention.items():
        assert attention.query.shape == attention.key.shape == attention.value.shape == (len(lengths), 4, columns, 8)
        seen = batch.mask[:, None, None, :]
        if attention.causal:
            seen = seen & torch.ones(columns, columns, dtype=torch.bool).tril()
        if attention.window is not None:
            seen = seen & near(columns, attention.window, CPU)
        scores = (attention.query @ attention.key.transpose(2, 3) * attention.scaling).masked_fill(~seen, -torch.inf)
        weights = scores.softmax(dim=-1)
        rows = batch.mask[:, None, :, None]
        close(weights.where(rows, 0), expected[layer].where(rows, 0))
        context = (weights @ attention.value).transpose(1, 2).flatten(2)
        close(context[batch.mask], contexts[layer][batch.mask])
        assert attention.causal == (family == "gpt2")
        assert attention.window == (3 if family == "modernbert" and layer == 2 else None)


def test_windows_matter_in_the_batches_above():
    batch = make_batch((10, 10))
    narrow, wide = make_model("modernbert"), make_model("modernbert")
    wide.config.local_attention = 64
    needs = ModelNeeds(frozenset({0, 1}))
    found, other = (signals_of(model, "modernbert", True, batch, needs) for model in (narrow, wide))
    close(found.hidden[0], other.hidden[0])
    assert not torch.allclose(found.hidden[1], other.hidden[1], atol=1e-3)


@pytest.mark.parametrize(("family", "head"), KINDS)
def test_padding_changes_nothing_at_real_positions(family, head):
    needs = ModelNeeds(frozenset({0, 3}), attention=frozenset({1}), logits=head, token_logits=head)
    batch, garbled, wide = make_batch(), make_batch(), make_batch(width=24)
    garbled.input_ids[~batch.mask] = torch.randint(1, VOCABULARY, (int((~batch.mask).sum()),), generator=torch.Generator().manual_seed(0))
    garbled.token_type_ids[~batch.mask] = 1
    plain = signals_of(make_model(family, head=head), family, head, batch, needs)
    for other, columns in ((garbled, 12), (wide, 12)):
        found = signals_of(make_model(family, head=head), family, head, other, needs)
        for layer, states in plain.hidden.items():
            close(found.hidden[layer][:, :columns][batch.mask], states[batch.mask])
        for name in ("query", "key", "value"):
            mine, theirs = (getattr(one.attention[1], name).transpose(1, 2)[:, :columns][batch.mask] for one in (plain, found))
            close(theirs, mine)
        if head:
            close(found.logits, plain.logits)
            close(found.token_logits, plain.token_logits)
    # And real tokens do matter: the comparison above can fail.
    batch.input_ids[0, 0] = 7
    changed = signals_of(make_model(family, head=head), family, head, batch, needs)
    assert not torch.allclose(changed.hidden[3][0, 1:9], plain.hidden[3][0, 1:9], atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_config_that_asks_for_eager_attention_makes_no_difference(family):
    batch, needs = make_batch(), ModelNeeds(frozenset({3}), logits=True)
    eager = make_model(family)
    eager.set_attn_implementation("eager")
    expected, found = (signals_of(model, family, True, batch, needs) for model in (make_model(family), eager))
    assert torch.equal(found.logits, expected.logits) and torch.equal(found.hidden[3], expected.hidden[3])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_without_padding_needs_no_mask(family):
    model, batch, needs = make_model(family), make_batch((8, 8)), ModelNeeds(frozenset({3}), logits=True)
    assert not batch.has_padding
    without = signals_of(model, family, True, batch, needs)
    batch.has_padding = True
    masked = signals_of(make_model(family), family, True, batch, needs)
    close(without.hidden[3], masked.hidden[3])
    close(without.logits, masked.logits)


@pytest.mark.parametrize(("needs", "last_layer", "reached"), [
    (ModelNeeds(frozenset({1})), 1, True), (ModelNeeds(attention=frozenset({2})), 2, False), (ModelNeeds(embeddings=True), 0, False),
    (ModelNeeds(frozenset({0}), attention=frozenset({1}), embeddings=True), 1, False), (ModelNeeds(frozenset({3})), 3, True)],
    ids=["hidden", "attention", "embeddings", "mixed", "all"])
@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_runs_after_the_deepest_signal_that_is_asked_for(family, needs, last_layer, reached):
    model, ran = make_model(family), []
    layers = layers_of(model, family, True)
    for name, module in model.named_modules():
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
    paths = {id(module): name for name, module in model.named_modules()}
    signals = signals_of(model, family, True, make_batch(), needs)
    assert signals.hidden.keys() == needs.hidden and signals.attention.keys() == needs.attention
    assert (signals.embeddings is not None) == needs.embeddings and signals.logits is None and signals.token_logits is None
    finished = [index for index, layer in enumerate(layers) if paths[id(layer)] in ran]
    assert finished == list(range(last_layer + reached))
    output = f"{paths[id(layers[last_layer])]}.{OUTPUTS[family]}"
    assert (output in ran) == reached
    assert not any(name.startswith(architecture_of(family).head) for name in ran)


@pytest.mark.parametrize("needs", [ModelNeeds(next_sentence=True), ModelNeeds(frozenset({1}), logits=True, next_sentence=True)])
def test_next_sentence_logits_are_the_models(needs):
    def fresh():
        torch.manual_seed(0)
        return transformers.BertForPreTraining(make_model().config).eval()

    batch = make_batch()
    expected = reference(fresh(), batch)
    with torch.no_grad():
        signals = Encoder(fresh(), ARCHITECTURES["bert-mlm-nsp"], True, needs).eval()(batch)
    close(signals.next_sentence, expected.seq_relationship_logits)
    if needs.logits:
        close(signals.logits, expected.prediction_logits.flatten(0, 1)[batch.masked_index])


MIDDLE_LAYERS = ModelNeeds(frozenset({1, 2}))


def make_teacher(family="bert", head=True, needs=MIDDLE_LAYERS, precision="fp32"):
    built = BuiltModel(make_model(family, head=head), head, {})
    return Teacher(built, architecture_of(family), needs, Precision(precision), CPU)


@pytest.mark.parametrize(("family", "head"), KINDS)
def test_a_teacher_stops_at_the_deepest_layer_it_is_asked_for(family, head):
    batch = make_batch()
    teacher = make_teacher(family, head)
    assert len(teacher._encoder.layers) == 3
    expected = reference(make_model(family, head=head), batch)
    for layer, states in teacher(batch).hidden.items():
        close(states[batch.mask], expected.hidden_states[layer + 1][batch.mask])
    last = make_teacher(family, head, ModelNeeds(frozenset({3})))(batch).hidden[3]
    close(last[batch.mask], expected.hidden_states[4][batch.mask])
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


@pytest.mark.parametrize("family", FAMILIES)
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
    assert teacher._encoder.model.get_input_embeddings().weight.dtype == torch.float32
    exact = reference(make_model(family), batch).hidden_states[4]
    assert 0 < (found.hidden[3].float() - exact)[batch.mask].norm() / exact[batch.mask].norm() < 0.05


def test_logits_of_a_teacher_without_a_head_are_refused_at_construction():
    with pytest.raises(UserError, match="no language-model head"):
        make_teacher(head=False, needs=ModelNeeds(logits=True))
