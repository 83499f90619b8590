"""Weight decay reaches matrices and embeddings only, and the optimizer is AdamW as published."""

import numpy as np
import pytest
import torch
from tiny import make_batch, make_model
from torch import nn

from pretraining.args.optimization import OptimizationFlags
from pretraining.models.catalog import ARCHITECTURES
from pretraining.models.encoder import Encoder
from pretraining.objectives.base import ObjectiveContext
from pretraining.objectives.weighted import WeightedObjectives
from pretraining.optimizers import build_optimizer, parameter_groups
from pretraining.signals import ModelNeeds
from pretraining.trained_module import TrainedModule

FLAGS = OptimizationFlags(lr=0.003, weight_decay=0.1, adam_beta1=0.9, adam_beta2=0.98, adam_eps=1e-6)
FAMILIES = {"bert": "bert-mlm", "roberta": "bert-mlm-roberta"}


@pytest.mark.parametrize("family", FAMILIES)
def test_biases_and_norms_are_not_decayed_and_every_trained_parameter_is_in_one_group(family):
    model = make_model(family)
    frozen = model.get_submodule(family).encoder.layer[0].output.dense
    frozen.requires_grad_(False)
    decayed, plain = parameter_groups(model, 0.1)
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed_names = {names[id(parameter)] for parameter in decayed["params"]}
    plain_names = {names[id(parameter)] for parameter in plain["params"]}
    assert len(decayed["params"]) + len(plain["params"]) == len(decayed_names | plain_names)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert decayed_names | plain_names == trained and not decayed_names & plain_names
    assert plain_names == {name for name in trained if name.endswith("bias") or "LayerNorm" in name or "layer_norm" in name}
    assert any("word_embeddings" in name for name in decayed_names)


def test_a_group_without_parameters_is_left_out():
    assert [group["weight_decay"] for group in parameter_groups(nn.Linear(3, 2, bias=False), 0.1)] == [0.1]
    assert [group["weight_decay"] for group in parameter_groups(nn.LayerNorm(3), 0.1)] == [0.0]


def naive_adamw(weights: np.ndarray, gradients: list[np.ndarray], decay: float) -> np.ndarray:
    """Loshchilov and Hutter, algorithm 2, in float64."""
    first = second = np.zeros_like(weights)
    for step, gradient in enumerate(gradients, start=1):
        weights = weights - FLAGS.lr * decay * weights
        first = FLAGS.adam_beta1 * first + (1 - FLAGS.adam_beta1) * gradient
        second = FLAGS.adam_beta2 * second + (1 - FLAGS.adam_beta2) * gradient**2
        unbiased_first, unbiased_second = first / (1 - FLAGS.adam_beta1**step), second / (1 - FLAGS.adam_beta2**step)
        weights = weights - FLAGS.lr * unbiased_first / (np.sqrt(unbiased_second) + FLAGS.adam_eps)
    return weights


def test_three_steps_equal_adamw_in_float64():
    generator = torch.Generator().manual_seed(0)
    module = nn.Sequential(nn.Linear(7, 5), nn.LayerNorm(5))
    start = {name: parameter.detach().double().numpy().copy() for name, parameter in module.named_parameters()}
    gradients: dict[str, list] = {name: [] for name in start}
    optimizer = build_optimizer(module, FLAGS)
    for scale in (1.0, 1e-3, 1e3):
        for name, parameter in module.named_parameters():
            parameter.grad = scale * torch.randn(parameter.shape, generator=generator)
            gradients[name].append(parameter.grad.double().numpy())
        optimizer.step()
    for name, parameter in module.named_parameters():
        expected = naive_adamw(start[name], gradients[name], FLAGS.weight_decay if name == "0.weight" else 0.0)
        moved = np.linalg.norm(expected - start[name])
        assert np.linalg.norm(parameter.detach().numpy() - expected) < 1e-5 * moved, name


def test_a_tied_decoder_is_stepped_once():
    """Embeddings and decoder are one parameter: its update is AdamW's with the sum of both gradients."""
    objective = WeightedObjectives([("mlm", 1.0)], ObjectiveContext())
    module = TrainedModule(Encoder(make_model(dropout=0.0), ARCHITECTURES["bert-mlm"], True, ModelNeeds(logits=True)), objective)
    optimizer = build_optimizer(module, FLAGS)
    batch = make_batch()
    loss, _ = module(batch, None, {unit: float(count) for unit, count in batch.counts.items()})
    loss.backward()
    tied = module.student.model.cls.predictions.decoder.weight
    before, gradient = tied.detach().double().numpy().copy(), tied.grad.double().numpy()
    optimizer.step()
    assert tied is module.student.model.bert.embeddings.word_embeddings.weight
    assert np.abs(tied.detach().numpy() - naive_adamw(before, [gradient], FLAGS.weight_decay)).max() < 1e-6
