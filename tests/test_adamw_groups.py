"""Weight decay reaches matrices and embeddings only, AdamW is as published, and Muon gets the hidden matrices and nothing else."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from tiny import make_batch, make_model
from torch import nn

from pretraining.args.optimization import OptimizationFlags
from pretraining.optimizers import build_optimizer, parameter_groups

FLAGS = OptimizationFlags(lr=0.003, weight_decay=0.2, adam_beta1=0.9, adam_beta2=0.98, adam_eps=1e-6)


@pytest.mark.parametrize("family", ["bert", "roberta"])
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
    model = make_model(dropout=0.0)
    optimizer = build_optimizer(model, FLAGS)
    batch = make_batch()
    model(input_ids=batch.input_ids).logits.square().mean().backward()
    tied = model.cls.predictions.decoder.weight
    before, gradient = tied.detach().double().numpy().copy(), tied.grad.double().numpy()
    optimizer.step()
    assert tied is model.bert.embeddings.word_embeddings.weight
    assert np.abs(tied.detach().numpy() - naive_adamw(before, [gradient], FLAGS.weight_decay)).max() < 1e-6


class Trained(nn.Module):
    """A student and an objective with a projection, a free matrix, a bias and a table of embeddings."""

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.student = student
        self.objective = nn.Module()
        self.objective.projection = nn.Linear(4, 3)
        self.objective.free = nn.Parameter(torch.ones(3, 4))
        self.objective.table = nn.Embedding(5, 4)


def make_student(name: str) -> nn.Module:
    sizes = {"vocab_size": 13, "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 8, "intermediate_size": 16}
    if name == "gpt2":
        return transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=13, n_positions=16, n_embd=8, n_layer=2, n_head=2))
    if name == "roberta":
        return transformers.RobertaForMaskedLM(transformers.RobertaConfig(**sizes))
    tie = name != "untied bert"
    model = {"bert with next-sentence head": "BertForPreTraining", "bare bert": "BertModel"}.get(name, "BertForMaskedLM")
    return getattr(transformers, model)(transformers.BertConfig(**sizes, tie_word_embeddings=tie))


HIDDEN = {
    "bert": "query|key|value|dense", "untied bert": "query|key|value|dense", "bare bert": "query|key|value|dense",
    "bert with next-sentence head": "query|key|value|dense", "roberta": "query|key|value|dense", "gpt2": "c_attn|c_proj|c_fc",
}


@pytest.mark.parametrize("student", HIDDEN)
def test_muon_takes_the_hidden_matrices_and_adamw_everything_else(student):
    module = Trained(make_student(student))
    frozen = next(parameter for name, parameter in module.named_parameters() if re.search(rf"({HIDDEN[student]})\.weight$", name))
    frozen.requires_grad_(False)
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    optimizer = build_optimizer(module, replace(FLAGS, optimizer_type="muon"))
    muon, embeddings, plain = ({names[id(parameter)] for parameter in group["params"]} for group in optimizer.param_groups)
    trained = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    expected = {name for name in trained if re.search(rf"({HIDDEN[student]})\.weight$", name)}
    assert muon == expected | {"objective.projection.weight", "objective.free"}
    assert muon | embeddings | plain == trained and sum(map(len, (muon, embeddings, plain))) == len(trained)
    assert plain == {name for name in trained if name.endswith("bias") or re.search(r"(LayerNorm|layer_norm|ln_\w+)\.weight$", name)}
    decoder = {name for name in embeddings if "decoder" in name}
    assert decoder == ({"student.cls.predictions.decoder.weight"} if student == "untied bert" else set())
    assert [group["weight_decay"] for group in optimizer.param_groups] == [FLAGS.weight_decay, FLAGS.weight_decay, 0.0]
