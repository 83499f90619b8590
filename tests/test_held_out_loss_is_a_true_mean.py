"""The held-out loss is the mean over all tokens of a fixed set, however it is cut into micro-batches and shared by ranks."""

import math

import numpy as np
import pytest
import torch
from tiny import VOCABULARY, make_model, make_shards

from dataset.shard_format import find_shards, read_info
from pretraining.batches.order import Segment
from pretraining.batches.samples import ShardReader
from pretraining.control import Control
from pretraining.models.catalog import ARCHITECTURES
from pretraining.models.encoder import Encoder
from pretraining.models.student import BuiltModel
from pretraining.models.teacher import Teacher
from pretraining.objectives.base import ObjectiveContext, Shape
from pretraining.objectives.catalog import parse_method
from pretraining.objectives.weighted import WeightedObjectives
from pretraining.precision import Precision
from pretraining.trained_module import TrainedModule
from pretraining.validation import Validator

CPU, FP32 = torch.device("cpu"), Precision("fp32")
ARCHITECTURE = ARCHITECTURES["bert-mlm"]
ROWS = 17
PAIRS = ((0, 1), (1, 3))
METHODS = parse_method("hidden_mse:0.5,logit:2,mlm")
TEMPERATURE = 2.0


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> list:
    folder = make_shards(tmp_path_factory.mktemp("held_out"), train=1, test=2, rows=ROWS, uneven=True)
    return [read_info(path) for path in find_shards(folder)[1]]


@pytest.fixture(scope="module")
def models() -> tuple[TrainedModule, Teacher]:
    objective = WeightedObjectives(METHODS, {part.name: ObjectiveContext(Shape(2, 32, 4), Shape(4, 32, 4), PAIRS, temperature=TEMPERATURE)
                                             for part in METHODS})
    student = Encoder(make_model(layers=2, seed=1), ARCHITECTURE, True, objective.needs.student)
    teacher = Teacher(BuiltModel(make_model(seed=2), True, {}), ARCHITECTURE, objective.needs.teacher, FP32, CPU)
    return TrainedModule(student, objective).train(), teacher


def reader(shards: list) -> ShardReader:
    return ShardReader(shards, VOCABULARY, None, None)


def measure(shards, models, micro: int, samples: int | None = None, control: Control | None = None, **more) -> dict[str, float]:
    return Validator(reader(shards), samples, micro, control or Control(0, 1), FP32, CPU).measure(*models, **more)


def naive(shards: list, chosen: list[tuple[int, int]]) -> dict[str, float]:
    """Sample by sample through plain transformers models, sums in float64."""
    student, teacher = make_model(layers=2, seed=1), make_model(seed=2)
    sums, tokens, masked = dict.fromkeys(("hidden_mse/0-1", "hidden_mse/1-3", "logit", "mlm"), 0.0), 0, 0
    right = {"accuracy/mlm": 0, "accuracy/teacher_mlm": 0}
    for shard, row in chosen:
        rows = reader(shards).read([Segment(0, shard, np.array([row]))])
        real, used = int(rows.mask.sum()), int(rows.predictions[0])
        inputs = {"input_ids": torch.from_numpy(rows.input_ids[:, :real].astype(np.int64)),
                  "token_type_ids": torch.from_numpy(rows.segment_ids[:, :real].astype(np.int64))}
        with torch.no_grad():
            s, t = (model(**inputs, output_hidden_states=True) for model in (student, teacher))
        for student_layer, teacher_layer in PAIRS:
            difference = s.hidden_states[student_layer + 1].double() - t.hidden_states[teacher_layer + 1].double()
            sums[f"hidden_mse/{student_layer}-{teacher_layer}"] += difference.square().sum().item() / 32
        positions = rows.positions[0, :used]
        log_q, log_p = (torch.log_softmax(out.logits[0, positions].double() / TEMPERATURE, -1) for out in (s, t))
        sums["logit"] += TEMPERATURE**2 * (log_p.exp() * (log_p - log_q)).sum().item()
        scores = torch.log_softmax(s.logits[0, positions].double(), -1)
        sums["mlm"] -= sum(scores[i, label].item() for i, label in enumerate(rows.labels[0, :used]))
        for name, out in zip(right, (s, t), strict=True):
            right[name] += sum(int(out.logits[0, position].double().argmax()) == label
                               for position, label in zip(positions, rows.labels[0], strict=False))
        tokens, masked = tokens + real, masked + used
    means = {f"loss/{name}": total / (tokens if "hidden" in name else masked) for name, total in sums.items()}
    weights = {part.name: part.weight for part in METHODS}
    return {"loss": math.fsum(weights[name.split("/")[1]] * mean for name, mean in means.items()), **means,
            **{name: hits / masked for name, hits in right.items()}}


def everything(shards: list) -> list[tuple[int, int]]:
    return [(shard, row) for shard, info in enumerate(shards) for row in range(info.rows)]


def test_it_is_the_mean_over_all_tokens_of_all_samples(shards, models):
    assert len(everything(shards)) == 35  # 35 = 8·4 + 3: the last micro-batch is uneven, and one crosses the shards
    assert measure(shards, models, 8) == pytest.approx(naive(shards, everything(shards)), rel=1e-5)


@pytest.mark.parametrize("micro", [1, 5, 16, 35, 1000])
def test_the_micro_batch_does_not_matter(shards, models, micro):
    assert measure(shards, models, micro) == pytest.approx(measure(shards, models, 8), rel=1e-5)


def test_a_subset_is_the_mean_over_its_samples(shards, models):
    chosen = [everything(shards)[index * 35 // 10] for index in range(10)]
    for micro in (3, 10):
        assert measure(shards, models, micro, samples=10) == pytest.approx(naive(shards, chosen), rel=1e-5)


class SharedControl(Control):
    """Ranks that run one after the other: the last one gets what all of them brought."""

    def __init__(self, rank: int, world_size: int, brought: list) -> None:
        self.rank, self.world_size, self.brought = rank, world_size, brought

    def gather(self, value):
        self.brought.append(value)
        return list(self.brought)


@pytest.mark.parametrize(("world", "micro"), [(2, 8), (2, 5), (3, 4), (3, 20)], ids=str)
def test_ranks_share_the_set_and_agree_with_one(shards, models, world, micro):
    """3 ranks with micro-batches of 20: two batches for three ranks, so one has nothing to bring."""
    brought = []
    results = [measure(shards, models, micro, control=SharedControl(rank, world, brought)) for rank in range(world)]
    assert sum(counts["sequences"] for _, counts in brought) == 35
    assert any(not own for own, _ in brought) == (world * micro >= 60)
    assert results[-1] == pytest.approx(measure(shards, models, 8), rel=1e-5)
    # In whatever order they bring it: a rank that met nothing may be the first.
    first_is_empty = SharedControl(world - 1, world, brought[::-1][:-1])
    first_is_empty.gather = lambda value: brought[::-1]
    assert measure(shards, models, micro, control=first_is_empty) == pytest.approx(results[-1], rel=1e-12)


def test_dropout_is_off_while_measuring_and_on_again_after_it(shards, models):
    module, teacher = models
    assert any(child.p > 0 for child in module.modules() if isinstance(child, torch.nn.Dropout))
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    assert measure(shards, models, 8) == measure(shards, models, 8)
    assert torch.equal(before, torch.random.get_rng_state())  # training's random numbers are left alone
    assert all(child.training for child in module.modules())
    assert not any(child.training for child in teacher._encoder.modules())
    assert all(parameter.grad is None for parameter in module.parameters())


def test_a_dry_runs_limit_bounds_the_micro_batches(shards, models):
    assert measure(shards, models, 8, limit=1) == pytest.approx(naive(shards, everything(shards)[:8]), rel=1e-5)
