"""A weighted sum asks for what its parts need, keeps weights beside terms, and changes over at the stages of the budget."""

import math

import pytest
import torch
from tiny import VOCABULARY, make_batch, make_model

from pretraining.models.catalog import ARCHITECTURES
from pretraining.models.encoder import Encoder
from pretraining.objectives.base import ObjectiveContext, Shape
from pretraining.objectives.catalog import COMPOSITES, OBJECTIVES, Part, objective_class, parse_method
from pretraining.objectives.weighted import WeightedObjectives
from pretraining.signals import Needs, Signals
from pretraining.trained_module import TrainedModule

STUDENT, TEACHER = Shape(4, 32, 4), Shape(4, 32, 4)
PAIRS = ((0, 1), (3, 3))


def context(**settings) -> ObjectiveContext:
    layers = {"teacher": TEACHER, "pairs": PAIRS, "student_layers": (0, 3), "teacher_layers": (1, 3)}
    return ObjectiveContext(STUDENT, **(layers | settings))


def joined(method: str, second_stage: float = 0.5) -> WeightedObjectives:
    parts = parse_method(method, second_stage)
    return WeightedObjectives(parts, {part.name: context() for part in parts})


def trained(method: str) -> TrainedModule:
    objective = joined(method)
    return TrainedModule(Encoder(make_model(), ARCHITECTURES["bert-mlm"], True, objective.all_needs.student), objective)


def test_weights_stand_beside_their_terms():
    objective = joined("hidden_mse:0.5,hidden_cls:3")
    batch = make_batch()
    states = {layer: torch.randn(*batch.mask.shape, 32) for layer in (0, 1, 3)}
    terms = objective(Signals(states), Signals(states), batch)
    assert {name: weight for name, (weight, _) in terms.items()} == {
        "hidden_mse/0-1": 0.5, "hidden_mse/3-3": 0.5, "hidden_cls/0-1": 3.0, "hidden_cls/3-3": 3.0}


def test_needs_are_those_of_the_parts():
    objective = joined("hidden_mse,logit,mlm,att_kl")
    assert objective.needs.student.hidden == {0, 3} and objective.needs.teacher.hidden == {1, 3}
    assert objective.needs.student.attention == {0, 3} and objective.needs.teacher.attention == {1, 3}
    assert objective.needs.student.logits and objective.needs.teacher.logits
    alone = joined("mlm")
    assert alone.needs.teacher is None and alone.needs.student.logits and not alone.needs.student.hidden
    assert objective.needs == joined("att_kl,mlm,hidden_mse,logit").needs


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_row_of_the_table_is_an_objective_that_needs_what_the_row_says(name):
    entry = OBJECTIVES[name]
    needs: Needs = objective_class(name)(name, context()).needs
    wider = objective_class(name)(name, context(all_positions=True, teacher=Shape(4, 48, 4)))
    assert (needs.teacher is not None) == entry.teacher
    assert bool(needs.student.hidden | needs.student.attention) == (entry.layers is not None)
    assert needs.student.head == entry.student_logits
    assert (needs.teacher is not None and needs.teacher.head) == entry.teacher_logits
    assert wider.needs.student.token_logits == ("logit_positions" in entry.options or name == "clm")
    assert bool(list(wider.parameters())) == (entry.width == "projected" or name in ("hidden_mse_combine", "crd"))


def test_methods_are_parsed():
    assert parse_method("hidden_mse") == [Part("hidden_mse", 1.0)]
    assert parse_method("logit:0.5, mlm:2") == [Part("logit", 0.5), Part("mlm", 2.0)]
    assert [part.name for part in parse_method("att_mse_hidden_mse")] == ["att_mse", "hidden_mse"]
    assert [(part.name, part.weight) for part in parse_method("tinybert:0.5")] == [
        ("embedding_mse", 0.5), ("hidden_mse", 0.5), ("att_mse", 0.5)]
    assert [(part.name, part.weight) for part in parse_method("distilbert")] == [("logit", 5.0), ("mlm", 2.0), ("cosine", 1.0)]
    alphas = {"logit": 0.33, "mlm": 0.0, "clm": 0.33, "logit_mse": 0.1, "cosine": 0.33}
    assert [(part.name, part.weight) for part in parse_method("distilbert:2", alphas=alphas)] == [
        ("logit", 0.66), ("clm", 0.66), ("logit_mse", 0.2), ("cosine", 0.66)]
    staged = parse_method("att_val_two_stage", second_stage=0.3)
    assert [(part.name, part.since, part.until) for part in staged] == [
        ("mlm", 0.0, 0.3), ("att_kl", 0.3, math.inf), ("val_kl", 0.3, math.inf)]
    assert all(part.name in OBJECTIVES for composite in COMPOSITES.values() for part in composite.parts)


def test_two_stages_change_over_at_their_share_of_the_budget():
    objective = joined("att_val_two_stage", 0.3)
    assert objective.stages() == [0.0, 0.3]
    seen = {}
    for progress in (0.0, 0.2999, 0.3, 1.0):
        objective.progress = progress
        seen[progress] = objective.active
    assert seen == {0.0: ["mlm"], 0.2999: ["mlm"], 0.3: ["att_kl", "val_kl"], 1.0: ["att_kl", "val_kl"]}
    assert objective.all_needs.student.logits and objective.all_needs.teacher is not None
    objective.progress = 0.1
    assert objective.needs.teacher is None and not objective.needs.student.attention
    objective.progress = 0.9
    assert not objective.needs.student.head and objective.needs.teacher.attention == {1, 3}


def test_weights_that_no_stage_reaches_are_frozen_and_those_of_the_other_stage_rest():
    module = trained("att_val_two_stage")
    frozen = module.freeze_unreached(TEACHER, VOCABULARY)
    assert frozen == []  # the masked tokens reach all that is there; the pooler is no part of the class
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    module.begin_step(0.2)
    assert module.idle_parameters() == []
    module.begin_step(0.7)
    resting = {names[id(parameter)] for parameter in module.idle_parameters()}
    assert "student.model.cls.predictions.transform.dense.weight" in resting
    assert "student.model.bert.encoder.layer.3.output.dense.weight" in resting
    assert not any(name.endswith(("layer.3.attention.self.value.weight", "layer.0.output.dense.weight")) for name in resting)
    alone = trained("att_kl")
    frozen = alone.freeze_unreached(TEACHER, VOCABULARY)
    assert "student.model.bert.encoder.layer.3.attention.self.value.weight" in frozen and alone.idle_parameters() == []
    assert not any("attention.self.query.weight" in name for name in frozen)


def test_objectives_run_in_fp32_under_autocast():
    objective = joined("cka,gram")
    batch = make_batch()
    states = {layer: torch.randn(*batch.mask.shape, 32) for layer in (0, 1, 3)}
    others = {layer: torch.randn(*batch.mask.shape, 32) for layer in (0, 1, 3)}
    plain = objective(Signals(states), Signals(others), batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = objective(Signals(states), Signals(others), batch)
    assert all(torch.equal(plain[name][1].sum, cast[name][1].sum) for name in plain)
