"""One seed gives one training: whatever else is computed beside it, in which process, and with how many threads."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_glue import make_model, sentences

from evaluation.fine_tuning import training
from evaluation.fine_tuning.settings import FineTuningSettings
from evaluation.fine_tuning.training import fine_tune
from evaluation.tasks.task import Examples, Task, TaskData

TASK = Task("SST-2", "classification", ("accuracy", "f1"), "accuracy", ("negative", "positive"))
SHORT = FineTuningSettings(learning_rate=2e-3, num_train_epochs=2, max_seq_length=32, precision="fp32", seed=3, warmup_ratio=0.0)


def examples(count, seed, labelled=True):
    rows = sentences(count, seed)
    return Examples(([text for text, _ in rows],), [label for _, label in rows] if labelled else None)


DATA = TaskData(TASK, examples(96, 1), {"matched": examples(32, 2), "mismatched": examples(24, 3)}, "sha")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("exact") / "student")


@pytest.fixture(scope="module")
def plain(model):
    return fine_tune(model, DATA, SHORT)


def same(one, other):
    return one.losses == other.losses and all((one.outputs[name] == other.outputs[name]).all() for name in DATA.dev)


def test_what_is_computed_beside_the_training_does_not_change_it(model, plain, tmp_path):
    said = []
    watched = fine_tune(model, DATA, replace(SHORT, eval_strategy="steps", eval_steps=2), say=said.append)
    assert [row["step"] for row in watched.history] == [2, 4, 6]
    assert said == [f"step {row['step']}: " + ", ".join(f"{name} {100 * value:.1f}" for name, value in row["metrics"].items())
                    for row in watched.history]
    assert said[0].startswith("step 2: accuracy ") and ", f1/mismatched " in said[0]
    assert same(watched, plain)
    assert same(fine_tune(model, DATA, replace(SHORT, eval_strategy="epoch"), save_to=tmp_path / "kept"), plain)
    tested = fine_tune(model, replace(DATA, test={"matched": examples(8, 4, labelled=False)}), SHORT)
    assert same(tested, plain)
    assert tested.test_outputs["matched"].shape == (8, 2) and plain.test_outputs == {}
    taught = fine_tune(model, DATA, replace(SHORT, alpha=0.0), teacher=tmp_path / "kept")
    assert same(taught, plain)


def train_on_two_threads(folder):
    """Accumulation, evaluations and dropout included; (losses, outputs) as text, which holds every digit."""
    settings = replace(SHORT, per_device_train_batch_size=8, gradient_accumulation_steps=2, eval_strategy="epoch", max_train_samples=32)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        done = fine_tune(folder, DATA, settings, say=lambda line: None)
    finally:
        torch.set_num_threads(threads)
    return json.dumps([done.losses, {name: rows.tolist() for name, rows in done.outputs.items()}])


def train_in_a_process_of_its_own():
    print(train_on_two_threads(Path(sys.argv[1])))


def test_another_process_gives_the_same_with_two_threads(model, zygote):
    done = zygote.run([str(model)], call=f"{__name__}:{train_in_a_process_of_its_own.__name__}").stdout()
    losses, outputs = json.loads(done)
    assert len(losses) == 4 and len(outputs["mismatched"]) == 24
    assert done.strip() == train_on_two_threads(model) == train_on_two_threads(model)


def test_what_loading_draws_does_not_change_dropout(model, plain, monkeypatch):
    """transformers draws for whatever a folder lacks, so one student's folder would train with another dropout than the next one's."""
    load = training.load_with_new_head
    monkeypatch.setattr(training, "load_with_new_head", lambda *arguments: (torch.rand(5), load(*arguments))[1])
    assert same(fine_tune(model, DATA, SHORT), plain)


def test_every_dev_set_is_scored(plain):
    assert list(plain.metrics) == ["accuracy", "f1", "accuracy/mismatched", "f1/mismatched"]
    for name, part in DATA.dev.items():
        right = np.mean(plain.outputs[name].argmax(1) == np.array(part.labels))
        assert plain.metrics["accuracy" if name == "matched" else "accuracy/mismatched"] == pytest.approx(right)
    assert plain.dev_size == 32 and plain.train_size == 96 and plain.best_step == len(plain.losses) == 6
    assert set(plain.constant_metrics) == set(plain.metrics)
    assert not plain.selected_on_dev and plain.history == []


def test_the_best_evaluation_is_reported_and_kept(model, monkeypatch, tmp_path):
    settings = replace(SHORT, learning_rate=2e-2, num_train_epochs=6, lr_scheduler_type="constant", eval_strategy="epoch",
                       load_best_model_at_end=True)
    ours = fine_tune(model, DATA, settings, save_to=tmp_path / "best")
    values = [row["metrics"]["accuracy"] for row in ours.history]
    assert len(values) == 6
    best = values.index(max(values))
    assert best < 5  # else the last step would do as well
    assert ours.best_step == ours.history[best]["step"] and ours.metrics == ours.history[best]["metrics"]
    assert ours.selected_on_dev
    # The kept weights are those of a training that is read at that step of the same plan.
    from evaluation.fine_tuning import scorer

    kept = {}
    look = scorer.Watch.look

    def keep(watch, step):
        kept[step] = {name: weight.clone() for name, weight in watch.model.state_dict().items()}
        return look(watch, step)

    monkeypatch.setattr(scorer.Watch, "look", keep)
    fine_tune(model, DATA, replace(settings, load_best_model_at_end=False))
    saved = load_file(tmp_path / "best" / "model.safetensors")
    for name, weight in saved.items():
        assert (weight == kept[ours.best_step][name]).all(), name


def test_training_stops_when_evaluations_get_no_better(model):
    still = replace(SHORT, learning_rate=1e-12, num_train_epochs=9, eval_strategy="epoch", early_stopping_patience=2)
    done = fine_tune(model, DATA, still)
    assert len(done.history) == 3 and len(done.losses) == 9  # the first evaluation and two that are no better
    assert done.selected_on_dev and done.best_step == 9


def test_steps_beat_epochs_and_warmup_steps_the_ratio(model):
    said = []
    done = fine_tune(model, DATA, replace(SHORT, max_steps=4, warmup_steps=4, num_train_epochs=9), say=said.append)
    assert len(done.losses) == 4
    assert any("--num_train_epochs 9: no effect" in line for line in said)
    assert any("never reaches its peak" in line for line in said)


def test_schedules_are_transformers_own(model, monkeypatch):
    """Learning rates of all updates, by the formulas of the schedules; a decay to 0 is reached after the last update."""
    rates = []
    step = torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self, *args, **kwargs: (
        rates.append(self.param_groups[0]["lr"] / 2e-3), step(self, *args, **kwargs))[1])
    rise = [0.0, 0.5]
    fall = [1 - at / 4 for at in range(4)]
    wanted = {
        "linear": rise + fall, "constant_with_warmup": [*rise, 1, 1, 1, 1], "constant": [1] * 6,
        "cosine": rise + [(1 + np.cos(np.pi * at / 4)) / 2 for at in range(4)],
        "polynomial": rise + [(1 - 5e-5) * (1 - at / 4) + 5e-5 for at in range(4)],
    }
    for name, factors in wanted.items():
        rates.clear()
        fine_tune(model, DATA, replace(SHORT, lr_scheduler_type=name, warmup_steps=2), say=lambda line: None)
        assert rates == pytest.approx(factors, abs=1e-9), name


def test_optimizer_settings_count(model, plain):
    for change in ({"adam_beta1": 0.5}, {"adam_beta2": 0.9}, {"adam_epsilon": 1e-2}, {"weight_decay": 5.0}, {"max_grad_norm": 1e-3}):
        other = fine_tune(model, DATA, replace(SHORT, **change))
        assert other.losses[0] == plain.losses[0] and other.losses[-1] != plain.losses[-1], change
    padded = fine_tune(model, DATA, replace(SHORT, pad_to_max_length=True, num_train_epochs=0.1))
    assert padded.losses == pytest.approx(plain.losses[:1], abs=0.02)


def test_a_regression_learns_numbers(model, tmp_path):
    def numbers(count, seed):
        rows = sentences(count, seed)
        return Examples(([text for text, _ in rows],), [2.0 * label + 0.1 * len(text.split()) for text, label in rows])

    task = Task("STS-B", "regression", ("pearson", "spearman"), "spearman")
    data = TaskData(task, numbers(256, 1), {"dev": numbers(64, 2)}, "sha")
    done = fine_tune(model, data, replace(SHORT, learning_rate=5e-3, num_train_epochs=8), save_to=tmp_path / "kept")
    assert done.metrics["pearson"] > 0.9 and done.outputs["dev"].shape == (64, 1)
    assert done.losses[0] > 2 and np.mean(done.losses[-8:]) < 0.6
    config = json.loads((tmp_path / "kept" / "config.json").read_text())
    assert config["problem_type"] == "regression" and len(config["id2label"]) == 1
