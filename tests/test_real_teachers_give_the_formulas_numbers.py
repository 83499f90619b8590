"""With real weights on real sentences, what the trainer computes is what the formulas give from plain `transformers` outputs in float64.

Uses the demo's teacher where `make demo` has fetched it, and every folder named in REAL_TEACHERS (separated by colons).
"""

import os
from pathlib import Path

import pytest
import torch
from launching import ROOT

from dataset.tokenizer import load_tokenizer
from pretraining.models.catalog import read_model_folder
from pretraining.models.encoder import Encoder
from pretraining.models.loading import BuiltModel, load_model
from pretraining.models.teacher import Teacher
from pretraining.objectives.base import ObjectiveContext, Shape
from pretraining.objectives.catalog import objective_class
from pretraining.precision import Precision
from pretraining.signals import Batch

pytestmark = pytest.mark.slow
FOLDERS = [path for path in [ROOT / ".demo" / "teacher", *map(Path, filter(None, os.environ.get("REAL_TEACHERS", "").split(":")))]
           if path.is_dir()]
TEXT = ["The committee, which had met twice before, postponed its decision until the report was published in the spring.",
        "Paris is the capital of France.", "It rained.",
        "Water boils at a lower temperature in the mountains because the pressure of the air is lower there than at the sea."]
CPU, FP32, TOLERANCE = torch.device("cpu"), Precision("fp32"), 2e-5


def make_real_batch(folder: Path) -> Batch:
    tokenizer = load_tokenizer(folder)
    rows = [tokenizer.encode(text).ids for text in TEXT]
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], dtype=torch.bool)
    masked = torch.tensor([row * width + place for row in range(len(rows)) for place in (1, 3)])
    return Batch.make(ids, torch.zeros_like(ids), mask, masked, ids.flatten()[masked])


class Plain:
    """Everything of a model in float64 by eager attention."""

    def __init__(self, model, head: bool, batch: Batch) -> None:
        model.double().set_attn_implementation("eager")
        base, self.qkv, self.mask = (model.bert if head else model), [], batch.mask
        for layer in base.encoder.layer:
            kept = {}
            self.qkv.append(kept)
            for name in ("query", "key", "value"):
                getattr(layer.attention.self, name).register_forward_hook(
                    lambda module, inputs, output, kept=kept, name=name: kept.__setitem__(name, output))
        with torch.no_grad():
            output = model(batch.input_ids, attention_mask=batch.mask.long(), output_hidden_states=True, output_attentions=True)
        self.hidden, self.attentions = output.hidden_states, output.attentions
        self.logits = output.logits.flatten(0, 1)[batch.masked_index] if head else None

    def sequences(self, states):
        return [row[real] for row, real in zip(states, self.mask, strict=True)]

    def relation(self, layer: int, name: str, heads: int):
        for states in self.sequences(self.qkv[layer][name]):
            split = states.view(len(states), heads, -1).transpose(0, 1)
            yield split @ split.transpose(1, 2) / split.shape[-1] ** 0.5


def kl(student, teacher):
    return (teacher.softmax(-1) * (teacher.log_softmax(-1) - student.log_softmax(-1))).sum(-1)


def expected(name: str, s: Plain, t: Plain, pair, heads: int) -> float:
    mine, other = pair
    hs, ht = (torch.cat(plain.sequences(plain.hidden[layer + 1])) for plain, layer in ((s, mine), (t, other)))
    if name == "hidden_mse":
        return (hs - ht).square().mean()
    if name == "hidden_cls":
        return (s.hidden[mine + 1][:, 0] - t.hidden[other + 1][:, 0]).square().mean()
    if name == "cosine":
        return (1 - torch.nn.functional.cosine_similarity(hs, ht)).mean()
    if name == "att_kl":
        rows = [(b * (b.log() - a.log())).sum(-1).flatten() for a, b in (
            (one[:, real][:, :, real], two[:, real][:, :, real])
            for one, two, real in zip(s.attentions[mine], t.attentions[other], s.mask, strict=True))]
        return torch.cat(rows).mean()
    if name == "minilm_v2":
        return sum(torch.cat([kl(a, b).flatten() for a, b in zip(
            s.relation(mine, part, heads), t.relation(other, part, heads), strict=True)]).mean() for part in ("query", "key", "value"))
    if name == "cka":
        hs, ht = hs - hs.mean(0), ht - ht.mean(0)
        return 1 - (ht.T @ hs).norm() ** 2 / ((hs.T @ hs).norm() * (ht.T @ ht).norm())
    return kl(s.logits, t.logits).mean()


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
@pytest.mark.parametrize("name", ["hidden_mse", "hidden_cls", "cosine", "att_kl", "minilm_v2", "cka", "logit"])
def test_values_are_those_of_the_formula(folder, name):
    read = read_model_folder(str(folder), "--teacher_path")
    config, batch = read.config, make_real_batch(folder)
    if name == "logit" and not read.has_head:
        pytest.skip("this teacher has no language-model head")

    def fresh() -> BuiltModel:
        return BuiltModel(*load_model(folder, "--teacher_path", read.architecture))

    depth, heads = config["num_hidden_layers"], config["num_attention_heads"]
    pair = (depth - 2, depth - 1)  # the student is the teacher itself, one layer back: nothing is zero
    if name == "logit":  # and with another head
        pair = (depth - 1, depth - 1)
    shape = Shape(depth, config["hidden_size"], heads)
    objective = objective_class(name)(name, ObjectiveContext(
        shape, shape, pairs=(pair,), student_layers=pair[:1], teacher_layers=pair[1:], relation_heads=heads * 2))
    student, teacher, plain = fresh(), fresh(), [fresh(), fresh()]
    if name == "logit":
        for model in (student.model, plain[0].model):
            with torch.no_grad():
                model.cls.predictions.transform.dense.weight.neg_()
    encoder = Encoder(student.model, read.architecture, student.has_head, objective.needs.student).eval()
    listener = Teacher(teacher, read.architecture, objective.needs.teacher, FP32, CPU)
    with torch.no_grad():
        terms = objective(encoder(batch), listener(batch), batch)
    found = sum(term.sum.item() / term.count(batch.counts) for term in terms.values())
    s, t = (Plain(built.model, built.has_head, batch) for built in plain)
    value = float(expected(name, s, t, pair, heads * 2))
    assert value > 1e-4 and found == pytest.approx(value, rel=TOLERANCE)
