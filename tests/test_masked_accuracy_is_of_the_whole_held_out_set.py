"""Held-out accuracies are right answers over answers of the whole set, however it is cut and shared, and equal a count in float64."""

import math

import h5py
import numpy as np
import pytest
import torch
import transformers
from test_held_out_loss_is_a_true_mean import SharedControl
from tiny import VOCABULARY, make_batch, make_config, make_model, make_shards

from dataset.shard_format import find_shards, read_info
from pretraining.accuracy import right_answers
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
from pretraining.signals import Signals, SparseTargets, Unit
from pretraining.trained_module import TrainedModule
from pretraining.validation import Validator, perplexity

CPU, FP32 = torch.device("cpu"), Precision("fp32")
ROWS = 19


def sentence_model(seed: int):
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = transformers.BertForPreTraining(make_config("bert", 2, 32, 4, VOCABULARY, 0.1))
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model.eval()


def inputs_of(rows, row: int) -> dict[str, torch.Tensor]:
    real = int(rows.mask[row].sum())
    return {"input_ids": torch.from_numpy(rows.input_ids[[row], :real].astype(np.int64)),
            "token_type_ids": torch.from_numpy(rows.segment_ids[[row], :real].astype(np.int64))}


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> list:
    """Random models are never right, so the answers are put in: at every third masked position what the student says, at every fourth
    what the teacher does; the next sentence is what the student says in two of three rows."""
    folder = make_shards(tmp_path_factory.mktemp("answers"), train=1, test=2, rows=ROWS, uneven=True, next_sentence=True)
    student, teacher = sentence_model(1), make_model(seed=2)
    count = 0
    for path in find_shards(folder)[1]:
        info = read_info(path)
        rows = ShardReader([info], VOCABULARY, None, None).read([Segment(0, 0, np.arange(info.rows))])
        with h5py.File(path, "r+") as file:
            labels, sentences = file["masked_lm_ids"][:], file["next_sentence_labels"][:]
            for row in range(info.rows):
                with torch.no_grad():
                    said, taught = student(**inputs_of(rows, row)), teacher(**inputs_of(rows, row))
                for slot in range(rows.predictions[row]):
                    count += 1
                    for every, logits in ((4, taught.logits), (3, said.prediction_logits)):
                        if count % every == 0:
                            labels[row, slot] = int(logits[0, rows.positions[row, slot]].argmax())
                sentences[row] = int(said.seq_relationship_logits[0].argmax()) ^ (row % 3 == 0)
            file["masked_lm_ids"][:], file["next_sentence_labels"][:] = labels, sentences
    return [read_info(path) for path in find_shards(folder)[1]]


def module_of(method: str) -> TrainedModule:
    methods = parse_method(method)
    contexts = {part.name: ObjectiveContext(Shape(2, 32, 4), Shape(4, 32, 4), all_positions="logit_mse" in method) for part in methods}
    objective = WeightedObjectives(methods, contexts)
    return TrainedModule(Encoder(sentence_model(1), ARCHITECTURES["bert-mlm-nsp"], True, objective.needs.student), objective).train()


def measure(shards: list, method: str, micro: int, control: Control | None = None) -> dict[str, float]:
    module, teacher = module_of(method), None
    if module.teacher_needs is not None:
        teacher = Teacher(BuiltModel(make_model(seed=2), True, {}), ARCHITECTURES["bert-mlm"], module.teacher_needs, FP32, CPU)
    validator = Validator(ShardReader(shards, VOCABULARY, None, None), None, micro, control or Control(0, 1), FP32, CPU)
    found = validator.measure(module, teacher)
    return {name: value for name, value in found.items() if not name.startswith("loss")}


@pytest.fixture(scope="module")
def naive(shards) -> dict[str, float]:
    """Sample by sample and position by position, models in float64."""
    student, teacher = sentence_model(1).double(), make_model(seed=2).double()
    right, masked, sequences = dict.fromkeys(("accuracy/mlm", "accuracy/nsp", "accuracy/teacher_mlm"), 0), 0, 0
    for info in shards:
        rows = ShardReader([info], VOCABULARY, None, None).read([Segment(0, 0, np.arange(info.rows))])
        for row in range(info.rows):
            with torch.no_grad():
                said, taught = student(**inputs_of(rows, row)), teacher(**inputs_of(rows, row))
            for slot in range(rows.predictions[row]):
                position, label = rows.positions[row, slot], rows.labels[row, slot]
                right["accuracy/mlm"] += int(said.prediction_logits[0, position].argmax()) == label
                right["accuracy/teacher_mlm"] += int(taught.logits[0, position].argmax()) == label
                masked += 1
            right["accuracy/nsp"] += int(said.seq_relationship_logits[0].argmax()) == rows.next_sentence_labels[row]
            sequences += 1
    found = {name: hits / (sequences if name.endswith("nsp") else masked) for name, hits in right.items()}
    assert all(0.1 < value < 0.9 for value in found.values()) and len(set(found.values())) == 3, found
    return found


@pytest.mark.parametrize("micro", [1, 7, 1000])
def test_accuracies_equal_a_count_in_float64(shards, naive, micro):
    assert measure(shards, "soft_ce,nsp", micro) == pytest.approx(naive, rel=1e-12)


@pytest.mark.parametrize(("world", "micro"), [(2, 5), (3, 20)], ids=str)
def test_ranks_share_the_set_and_agree_with_one(shards, naive, world, micro):
    brought: list = []
    results = [measure(shards, "soft_ce,nsp", micro, SharedControl(rank, world, brought)) for rank in range(world)]
    assert results[-1] == pytest.approx(naive, rel=1e-12) and results[0] != results[-1]


def test_only_heads_that_run_are_measured(shards, naive):
    def some(*names: str) -> dict[str, float]:
        return {f"accuracy/{name}": naive[f"accuracy/{name}"] for name in names}

    assert measure(shards, "hidden_mse", 8) == {}
    assert measure(shards, "mlm", 8) == pytest.approx(some("mlm"))
    assert measure(shards, "hidden_mse,nsp", 8) == pytest.approx(some("nsp"))
    # Logits at all tokens: those at masked positions are among them.
    assert measure(shards, "logit_mse", 8) == pytest.approx(some("mlm", "teacher_mlm"))


def test_a_stored_teacher_is_measured_by_its_likeliest_token():
    batch = make_batch()
    ids = torch.stack([batch.labels, batch.labels + 1], dim=1)
    ids[0] = ids[0].flip(0)
    targets = SparseTargets(ids, torch.zeros(ids.shape), torch.zeros(len(ids)))
    found = right_answers(Signals(targets=targets), batch)
    assert found.keys() == {"mlm"} and found["mlm"].unit == Unit.MASKED and int(found["mlm"].sum) == len(batch.labels) - 1
    targets.rest = None  # drawn ids, in no order
    assert right_answers(Signals(targets=targets), batch) == {}


def test_a_batch_without_answers_is_not_measured():
    batch = make_batch(predictions=0)
    assert right_answers(Signals(token_logits=torch.zeros(len(batch.token_index), VOCABULARY)), batch) == {}


def test_perplexity_is_the_exponential_and_never_an_error():
    assert perplexity(math.log(31.5)) == pytest.approx(31.5, rel=1e-12) and perplexity(1e6) == math.inf and math.isnan(perplexity(math.nan))
