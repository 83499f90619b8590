"""Fine-tuning learns, gives the same from one seed, and scores the weights that were saved and no others."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_glue import make_model, write_rte, write_sst2

from dataset.errors import UserError
from evaluation.fine_tuning.batching import count_steps, training_steps
from evaluation.fine_tuning.heads import load_with_new_head
from evaluation.fine_tuning.loop import parameter_groups
from evaluation.fine_tuning.settings import FineTuningSettings
from evaluation.fine_tuning.tokens import Tokenizer
from evaluation.fine_tuning.training import fine_tune
from evaluation.tasks.table import load_task, select_tasks
from evaluation.tasks.task import Examples

QUICK = FineTuningSettings(learning_rate=5e-3, num_train_epochs=6, max_seq_length=32, precision="fp32", seed=7)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("glue")


@pytest.fixture(scope="module")
def model(place):
    return make_model(place / "student")


@pytest.fixture(scope="module")
def sst2(place):
    return load_task(select_tasks(["sst2"])[0], write_sst2(place / "data"))


@pytest.fixture(scope="module")
def learned(model, sst2, place):
    return fine_tune(model, sst2, QUICK, save_to=place / "saved")


def test_a_task_is_learned(learned):
    assert learned.metrics["accuracy"] > 0.9
    assert learned.losses[-1] < 0.3 < 0.6 < learned.losses[0]


def test_a_pair_task_is_learned(model, tmp_path):
    rte = load_task(select_tasks(["rte"])[0], write_rte(tmp_path, train=256, dev=64))
    assert fine_tune(model, rte, QUICK).metrics["accuracy"] > 0.85


def test_labels_that_mean_nothing_are_not_predicted(model, sst2):
    shuffled = np.random.default_rng(0).permutation(sst2.train.labels).tolist()
    noise = replace(sst2, train=Examples(sst2.train.texts, shuffled))
    assert fine_tune(model, noise, QUICK).metrics["accuracy"] < 0.75


def test_same_seed_same_predictions(model, sst2, learned):
    torch.manual_seed(123)
    before = torch.random.get_rng_state()
    again = fine_tune(model, sst2, QUICK)
    assert again.losses == learned.losses
    assert again.metrics == learned.metrics
    assert (again.outputs["dev"] == learned.outputs["dev"]).all()
    assert torch.equal(torch.random.get_rng_state(), before)


def test_another_seed_is_another_training(model, sst2, learned):
    assert fine_tune(model, sst2, replace(QUICK, seed=8)).losses != learned.losses


def test_accumulation_changes_no_update(place, sst2, tmp_path):
    still = make_model(tmp_path / "still", dropout=0.0)
    part = replace(QUICK, max_train_samples=72, num_train_epochs=2, learning_rate=1e-3)
    halves = replace(part, per_device_train_batch_size=16, gradient_accumulation_steps=2)
    one = fine_tune(still, sst2, part, save_to=tmp_path / "one")
    two = fine_tune(still, sst2, halves, save_to=tmp_path / "two")
    assert len(one.losses) == 6  # 72 examples: two whole steps of 32 and one of 8, twice
    assert two.losses == pytest.approx(one.losses, abs=1e-5)
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    start = load_file(still / "model.safetensors")
    moved = (first["bert.embeddings.word_embeddings.weight"] - start["bert.embeddings.word_embeddings.weight"]).abs().max()
    assert moved > 1e-3
    for name, weight in first.items():
        assert torch.allclose(weight, second[name], atol=5e-5), name


def test_updates_equal_a_naive_loop(sst2, tmp_path):
    """One example at a time, unpadded, with torch's plain AdamW: the same losses and the same weights."""
    still = make_model(tmp_path / "still", dropout=0.0)
    settings = replace(QUICK, max_train_samples=40, num_train_epochs=2, learning_rate=1e-3, weight_decay=0.1, max_grad_norm=0.5)
    ours = fine_tune(still, sst2, settings, save_to=tmp_path / "ours")
    net, tokenizer, _ = load_with_new_head(still, sst2.task, settings.seed)
    net.train()
    named = list(net.named_parameters())
    plain = [weight for name, weight in named if name.endswith("bias") or "LayerNorm" in name]
    decayed = [weight for name, weight in named if not (name.endswith("bias") or "LayerNorm" in name)]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}], lr=1e-3, foreach=False
    )
    texts, labels = sst2.train.texts[0][:40], sst2.train.labels[:40]
    lengths = np.array([len(text.split()) + 2 for text in texts])
    losses = []
    for step, chosen in enumerate(training_steps(lengths, 32, 4, settings.seed)):
        each = [
            torch.nn.functional.cross_entropy(net(**tokenizer(texts[row], return_tensors="pt")).logits, torch.tensor([labels[row]]))
            for row in chosen
        ]
        optimizer.zero_grad()
        sum(each).div(len(each)).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 0.5)
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * [1.0, 0.75, 0.5, 0.25][step]
        optimizer.step()
        losses.append(sum(each).item() / len(each))
    assert ours.losses == pytest.approx(losses, abs=1e-5)
    saved = load_file(tmp_path / "ours" / "model.safetensors")
    for name, weight in named:
        assert torch.allclose(weight, saved[name], atol=5e-5), name


def test_every_example_once_in_each_pass_and_order_from_seed_alone():
    lengths = np.random.default_rng(0).integers(3, 60, size=1000)
    steps = count_steps(1000, 32, 2)
    order = list(training_steps(lengths, 32, steps, seed=5))
    assert len(order) == steps == 64
    assert sorted(np.concatenate(order[:32])) == sorted(np.concatenate(order[32:])) == list(range(1000))
    assert not all(np.array_equal(a, b) for a, b in zip(order[:32], order[32:], strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(order, training_steps(lengths, 32, steps, seed=5), strict=True))
    padded = sum(len(step) * lengths[step].max() for step in order)
    assert padded < 1.1 * 2 * lengths.sum()
    assert count_steps(1000, 32, 0.5) == 16


def test_no_decay_for_biases_and_norms(model, sst2):
    net, _, _ = load_with_new_head(model, sst2.task, 0)
    names = {parameter: name for name, parameter in net.named_parameters()}
    decayed, kept = ([names[weight] for weight in group["params"]] for group in parameter_groups(net, 0.01))
    assert all(name.endswith("weight") and "LayerNorm" not in name for name in decayed)
    assert all(name.endswith("bias") or "LayerNorm" in name for name in kept)
    assert len(decayed) + len(kept) == len(names)


def test_the_scored_encoder_is_the_saved_one_and_heads_are_alike(place, model, sst2):
    bare = make_model(place / "bare", "BertModel", seed=3)
    heads = []
    for folder, prefix in ((model, ""), (bare, "bert.")):
        net, _, new = load_with_new_head(folder, sst2.task, seed=7)
        saved, loaded = load_file(folder / "model.safetensors"), net.state_dict()
        shared = [name for name in saved if prefix + name in loaded]
        assert {prefix + name for name in shared} | set(new) == set(loaded)
        assert all(torch.equal(saved[name], loaded[prefix + name]) for name in shared)
        heads.append(net.classifier.weight)
    assert torch.equal(*heads)
    assert not torch.equal(heads[0], load_with_new_head(model, sst2.task, seed=8)[0].classifier.weight)
    assert heads[0].std().item() == pytest.approx(0.02, rel=0.5)


def test_the_saved_model_says_its_labels_and_predicts_the_same(place, learned, sst2):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = place / "saved"
    config = json.loads((folder / "config.json").read_text())
    assert config["id2label"] == {"0": "negative", "1": "positive"}
    assert config["label2id"] == {"negative": 0, "positive": 1}
    net, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(*sst2.dev["dev"].texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        assert (net.eval()(**batch).logits.argmax(-1).numpy() == learned.outputs["dev"].argmax(-1)).all()


def test_a_head_from_earlier_fine_tuning_is_not_used(place, learned, model, sst2):
    net, _, new = load_with_new_head(place / "saved", sst2.task, seed=7)
    assert new == ["classifier.bias", "classifier.weight"]
    assert torch.equal(net.classifier.weight, load_with_new_head(model, sst2.task, seed=7)[0].classifier.weight)
    three = replace(sst2.task, label_names=("a", "b", "c"))
    assert load_with_new_head(place / "saved", three, seed=7)[0].classifier.weight.shape == (3, 32)
    # Not either where config.json does not say that there is one.
    unsaid = shutil.copytree(place / "saved", place / "unsaid")
    config = json.loads((unsaid / "config.json").read_text())
    del config["architectures"]
    (unsaid / "config.json").write_text(json.dumps(config))
    again, _, new = load_with_new_head(unsaid, sst2.task, seed=7)
    assert new == ["classifier.bias", "classifier.weight"] and torch.equal(again.classifier.weight, net.classifier.weight)


def test_lost_encoder_weights_are_an_error(tmp_path, sst2):
    folder = make_model(tmp_path / "lost")
    weights = load_file(folder / "model.safetensors")
    renamed = {name.replace("encoder.layer.1", "encoder.block.1"): weight for name, weight in weights.items()}
    save_file(renamed, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"16 weights of the encoder are missing.*bert\.encoder\.layer\.1\."):
        load_with_new_head(folder, sst2.task, 0)


def test_a_weight_of_another_shape_is_an_error(tmp_path, sst2):
    folder = make_model(tmp_path / "shape")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 128}))
    with pytest.raises(UserError, match="weights of the encoder are missing or of another shape"):
        load_with_new_head(folder, sst2.task, 0)


def test_padding_and_truncation_of_the_tokenizer_file_are_off(tmp_path, sst2):
    settings = {"padding": {"length": 24, "pad_id": 0, "pad_token": "[PAD]"}, "truncation": {"max_length": 8}}
    folder = make_model(tmp_path / "pads", **settings)
    stored = json.loads((folder / "tokenizer.json").read_text())
    assert stored["padding"] and stored["truncation"]
    net, tokenizer, _ = load_with_new_head(folder, sst2.task, 0)
    tokens = Tokenizer(tokenizer, net, "pads").encode(Examples((["the film " * 5, "good", "a " * 90],), [0, 1, 0]), 32)
    assert tokens.lengths.tolist() == [12, 3, 32]
    assert (tokens.ids != 0).all()


def test_padding_changes_no_prediction(model, sst2):
    single = fine_tune(model, sst2, replace(QUICK, num_train_epochs=1, per_device_eval_batch_size=1))
    many = fine_tune(model, sst2, replace(QUICK, num_train_epochs=1, per_device_eval_batch_size=64))
    assert (single.outputs["dev"].argmax(-1) == many.outputs["dev"].argmax(-1)).all()


def test_a_tokenizer_of_another_model_is_an_error(tmp_path, sst2):
    folder = make_model(tmp_path / "other")
    net, tokenizer, _ = load_with_new_head(folder, sst2.task, 0)
    net.resize_token_embeddings(6)
    with pytest.raises(UserError, match=r"gives id \d+, its model has 6 embeddings"):
        Tokenizer(tokenizer, net, "other").encode(sst2.dev["dev"], 32)


def test_loading_prints_nothing(model, sst2, capfd):
    load_with_new_head(model, sst2.task, 0)
    assert capfd.readouterr() == ("", "")


def test_precision_is_what_the_device_can_do(monkeypatch, model, sst2):
    monkeypatch.setattr("pretraining.precision.available", lambda device: {"fp32": True, "bf16": False, "fp16": False})
    with pytest.raises(UserError, match="no fp16"):
        fine_tune(model, sst2, replace(QUICK, precision="fp16"))
    said = []
    assert fine_tune(model, sst2, replace(QUICK, precision="auto", max_train_samples=8), say=said.append).precision == "fp32"
    assert len(said) == 1 and "fp32" in said[0]


def test_bf16_where_the_device_has_it(model, sst2, learned):
    from pretraining.precision import available

    if not available(torch.device("cuda" if torch.cuda.is_available() else "cpu"))["bf16"]:
        pytest.skip("no bf16 in this hardware")
    low = fine_tune(model, sst2, replace(QUICK, precision="bf16"))
    assert low.precision == "bf16"
    assert low.metrics["accuracy"] > 0.9
    assert low.losses != learned.losses
    assert low.losses[0] == pytest.approx(learned.losses[0], abs=0.01)


def test_fp16_scales_its_gradients(monkeypatch, model, sst2):
    # Emulated where the processor has no fp16: slow, but the same code.
    monkeypatch.setattr("pretraining.precision.available", lambda device: {"fp32": True, "bf16": False, "fp16": True})
    low = fine_tune(model, sst2, replace(QUICK, precision="fp16"))
    assert low.precision == "fp16" and not low.diverged
    assert low.metrics["accuracy"] > 0.9


def test_a_diverged_training_says_so(model, sst2):
    broken = fine_tune(model, sst2, replace(QUICK, learning_rate=1e30, num_train_epochs=1, max_grad_norm=0.0))
    assert broken.diverged
