"""Distillation during fine-tuning is its formula, whatever the padding, the label order and the tokenizer; own heads are scored."""

import json
import math
import shutil
from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from tiny import make_teacher
from tiny_glue import make_model, sentences
from tiny_squad import make_span_data

from dataset.errors import UserError
from evaluation.fine_tuning import teacher
from evaluation.fine_tuning.losses import MASKED, label_loss, teacher_loss
from evaluation.fine_tuning.settings import FineTuningSettings
from evaluation.fine_tuning.training import fine_tune, score_only
from evaluation.tasks.task import Examples, Task, TaskData

TASK = Task("MNLI", "classification", ("accuracy",), "accuracy", ("entailment", "neutral", "contradiction"))
SCORE = Task("STS-B", "regression", ("pearson",), "pearson")
SHORT = FineTuningSettings(learning_rate=3e-3, num_train_epochs=4, max_seq_length=32, precision="fp32", seed=3)
ONE_STEP = replace(SHORT, max_steps=1, warmup_ratio=0.0)


def examples(count, seed, kind=int):
    """Three classes: good and fine, poor, bad."""
    texts = [text for text, _ in sentences(count, seed)]
    labels = [0 if {"good", "fine"} & set(text.split()) else 1 if "poor" in text.split() else 2 for text in texts]
    return Examples((texts,), [kind(label) for label in labels])


DATA = TaskData(TASK, examples(256, 1), {"dev": examples(64, 2)}, "sha")
NUMBERS = TaskData(SCORE, examples(128, 1, float), {"dev": examples(64, 2, float)}, "sha")


def quiet(line):
    pass


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A student, and teachers of the same size that were fine-tuned on both tasks."""
    place = tmp_path_factory.mktemp("taught")
    make_model(place / "student", dropout=0.0)
    make_model(place / "large", seed=5, dropout=0.0)
    fine_tune(place / "large", DATA, replace(SHORT, num_train_epochs=12), save_to=place / "teacher")
    fine_tune(place / "large", NUMBERS, SHORT, save_to=place / "number_teacher")
    return place


def change_config(source, target, **changes):
    shutil.copytree(source, target)
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps({key: value for key, value in (config | changes).items() if value is not None}))
    return target


def reorder(source, target, order):
    """The same model with its classes in another order, as another library might have saved it."""
    from safetensors.torch import load_file, save_file

    names = [TASK.label_names[label].upper() for label in order]
    folder = change_config(source, target, id2label=dict(enumerate(names)), label2id={name: at for at, name in enumerate(names)})
    weights = load_file(folder / "model.safetensors")
    for name in ("classifier.weight", "classifier.bias"):
        weights[name] = weights[name][order].contiguous()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def softmax(values, temperature):
    powers = [math.exp((value - max(values)) / temperature) for value in values]
    return [power / sum(powers) for power in powers]


def naive_taught(student, teacher, temperature):
    """T² sum p log(p / q) of one choice, straight from the formula."""
    q, p = softmax(student, temperature), softmax(teacher, temperature)
    return temperature**2 * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def test_losses_equal_their_formulas_in_float64():
    random = np.random.default_rng(0)
    lengths, width, temperature = [7, 4, 9], 9, 3.0
    student, teacher = random.normal(size=(2, 3, 2, width)) * 3
    labels = np.stack([random.integers(0, length, 2) for length in lengths])
    padded = np.arange(width) >= np.array(lengths)[:, None, None]
    first, second = (torch.tensor(np.where(padded, MASKED, values), dtype=torch.float32).requires_grad_() for values in (student, teacher))
    taught = teacher_loss("span", first, second, temperature)
    right = label_loss("span", first, torch.tensor(labels))
    for row, length in enumerate(lengths):
        pairs = [(student[row, side, :length].tolist(), teacher[row, side, :length].tolist()) for side in (0, 1)]
        assert taught[row].item() == pytest.approx(np.mean([naive_taught(*pair, temperature) for pair in pairs]), rel=1e-5)
        naive = np.mean([-math.log(softmax(pairs[side][0], 1.0)[labels[row, side]]) for side in (0, 1)])
        assert right[row].item() == pytest.approx(naive, rel=1e-5)
    (taught.sum() + right.sum()).backward()
    assert torch.isfinite(first.grad).all() and (first.grad[torch.tensor(np.broadcast_to(padded, first.shape))] == 0).all()
    numbers, told = (torch.tensor(random.normal(size=(5, 1, 1)), dtype=torch.float32) for _ in range(2))
    assert teacher_loss("regression", numbers, told, 9.0).tolist() == pytest.approx(((numbers - told) ** 2).flatten().tolist())
    assert label_loss("regression", numbers, told[:, 0]).tolist() == pytest.approx(((numbers - told) ** 2).flatten().tolist())


@cache
def load(folder, seed, task):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from evaluation.fine_tuning.heads import load_with_new_head

    if seed is None:
        model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    else:
        model, tokenizer, _ = load_with_new_head(folder, task, seed)
    return model.double().eval(), tokenizer


def heads_output(folder, text, seed=None, task=TASK):
    """Logits of one unpadded text in float64, by transformers alone, in evaluation mode; with `seed` of a new head."""
    model, tokenizer = load(folder, seed, task)
    with torch.no_grad():
        return model(**tokenizer(text, return_tensors="pt")).logits[0].tolist()


def test_the_first_update_has_the_loss_of_the_formula(place):
    """A whole step of 24 texts of all lengths, against each of them alone and unpadded in float64; the student has no dropout."""
    data = replace(DATA, train=DATA.train.first(24))
    ours = fine_tune(place / "student", data, replace(ONE_STEP, alpha=0.7, temperature=3.0), teacher=place / "teacher", say=quiet).losses[0]
    each = []
    for text, label in zip(*data.train.texts, data.train.labels, strict=True):
        student, teacher = heads_output(place / "student", text, seed=3), heads_output(place / "teacher", text)
        each.append(-0.3 * math.log(softmax(student, 1.0)[label]) + 0.7 * naive_taught(student, teacher, 3.0))
    assert ours == pytest.approx(np.mean(each), rel=2e-6)
    numbers = replace(NUMBERS, train=NUMBERS.train.first(24))
    ours = fine_tune(place / "student", numbers, replace(ONE_STEP, alpha=0.7), teacher=place / "number_teacher", say=quiet).losses[0]
    each = []
    for text, label in zip(*numbers.train.texts, numbers.train.labels, strict=True):
        (student,), (teacher,) = heads_output(place / "student", text, 3, SCORE), heads_output(place / "number_teacher", text)
        each.append(0.3 * (student - label) ** 2 + 0.7 * (student - teacher) ** 2)
    assert ours == pytest.approx(np.mean(each), rel=2e-6)


def test_a_teacher_is_asked_once_for_all_seeds(place, tmp_path, monkeypatch):
    """And again as soon as anything differs that decides what it says; what is remembered is what it would say."""
    asked = []
    load = teacher.load_with_own_head
    monkeypatch.setattr(teacher, "load_with_own_head", lambda *arguments: (asked.append(arguments), load(*arguments))[1])
    teacher._remembered.clear()
    folder = change_config(place / "teacher", tmp_path / "teacher")
    data = replace(DATA, train=DATA.train.first(64))

    def losses(**changes):
        return fine_tune(place / "student", data, replace(SHORT, num_train_epochs=1, **changes), teacher=folder, say=quiet).losses

    first = [losses(seed=seed) for seed in (1, 2, 3)]
    assert len(asked) == 1 and len(teacher._remembered) == 1
    assert losses(seed=2, alpha=0.9) != first[1] and len(asked) == 1
    teacher._remembered.clear()
    assert losses(seed=2) == first[1] and len(asked) == 2
    changes = ({"max_seq_length": 8}, {"per_device_eval_batch_size": 8}, {"max_steps": 1}, {"max_train_samples": 32})
    for number, change in enumerate(changes):
        assert losses(seed=2, **change) and len(asked) == 3 + number
    data = replace(data, train=replace(data.train, texts=(data.train.texts[0][::-1],)))
    assert losses(seed=2) and len(asked) == 7
    assert losses(seed=3) and len(asked) == 7
    other = reorder(folder, tmp_path / "other", [2, 0, 1])
    shutil.copyfile(other / "model.safetensors", folder / "model.safetensors")
    assert losses(seed=3) and len(asked) == 8
    assert len(teacher._remembered) == teacher.REMEMBERED


def test_a_student_learns_without_labels_what_its_teacher_says(place):
    wrong = replace(DATA, train=Examples(DATA.train.texts, [0] * 256))
    taught = fine_tune(place / "student", wrong, replace(SHORT, alpha=1.0, num_train_epochs=16), teacher=place / "teacher", say=quiet)
    assert taught.metrics["accuracy"] > 0.85 > 0.7 > fine_tune(place / "student", wrong, SHORT).metrics["accuracy"]


def test_a_teachers_labels_are_paired_by_name(place, tmp_path):
    """In another order, and in capitals, it teaches and scores the same; unnamed labels are taken in order and said once."""
    other = reorder(place / "teacher", tmp_path / "other", [2, 0, 1])
    settings = replace(ONE_STEP, alpha=1.0)
    want = fine_tune(place / "student", DATA, settings, teacher=place / "teacher", say=quiet)
    assert fine_tune(place / "student", DATA, settings, teacher=other, say=quiet).losses == pytest.approx(want.losses, rel=1e-6)
    own, same = (score_only(folder, DATA, SHORT, say=quiet) for folder in (place / "teacher", other))
    assert own.metrics == same.metrics and own.metrics["accuracy"] > 0.85
    assert np.allclose(own.outputs["dev"], same.outputs["dev"], atol=1e-6)
    assert (own.losses, own.new_weights, own.train_size, own.best_step) == ([], [], 0, 0)
    names = {str(at): f"LABEL_{at}" for at in range(3)}
    unnamed = change_config(place / "teacher", tmp_path / "unnamed", id2label=names)
    said = []
    assert score_only(unnamed, DATA, SHORT, say=said.append).metrics == own.metrics
    assert [line for line in said if "does not name its labels" in line] == [
        f"{unnamed}: config.json does not name its labels; taken in the order entailment, neutral, contradiction"]


def test_a_teacher_reads_through_its_own_tokenizer(place, tmp_path):
    """Another vocabulary order is another encoding of the same texts; the logits must be those of the teacher's own."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = change_config(place / "teacher", tmp_path / "turned")
    model, rows = AutoModelForSequenceClassification.from_pretrained(folder), 19
    turned = torch.cat([torch.arange(5), torch.arange(rows - 1, 4, -1)])
    with torch.no_grad():
        table = model.bert.embeddings.word_embeddings.weight
        table.copy_(table[turned].clone())
    model.save_pretrained(folder)
    stored = json.loads((folder / "tokenizer.json").read_text())
    stored["model"]["vocab"] = {word: at if at < 5 else rows - 1 - (at - 5) for word, at in stored["model"]["vocab"].items()}
    (folder / "tokenizer.json").write_text(json.dumps(stored))
    assert AutoTokenizer.from_pretrained(folder)("good").input_ids != AutoTokenizer.from_pretrained(place / "teacher")("good").input_ids
    settings = replace(ONE_STEP, alpha=1.0)
    want = fine_tune(place / "student", DATA, settings, teacher=place / "teacher", say=quiet).losses
    assert fine_tune(place / "student", DATA, settings, teacher=folder, say=quiet).losses == pytest.approx(want, rel=1e-6)


def test_spans_are_taught_and_refuse_another_tokenizer(place, tmp_path):
    from evaluation.fine_tuning.heads import load_with_new_head, load_with_own_head
    from evaluation.fine_tuning.tokens import Tokenizer
    from evaluation.fine_tuning.windows import make_windows

    data = make_span_data(train=32, dev=8)
    windows = replace(SHORT, max_seq_length=20, max_query_length=6, doc_stride=4, max_answer_length=4)
    fine_tune(place / "large", data, windows, save_to=tmp_path / "spans")
    once = replace(windows, max_steps=1, warmup_ratio=0.0, per_device_train_batch_size=128)
    parts = [fine_tune(place / "student", data, replace(once, alpha=alpha), teacher=tmp_path / "spans", say=quiet).losses[0]
             for alpha in (0.0, 1.0, 0.25)]
    assert parts[2] == pytest.approx(0.75 * parts[0] + 0.25 * parts[1], rel=1e-5) and abs(parts[0] - parts[1]) > 0.05
    # Every window alone, unpadded, in float64.
    student, inner, _ = load_with_new_head(place / "student", data.task, windows.seed)
    teacher, _ = load_with_own_head(tmp_path / "spans", data.task)
    tokens, each = make_windows(Tokenizer(inner, student, "student"), data.train, windows).tokens, []
    for first, last in pairwise(tokens.starts):
        ids, kinds = (torch.from_numpy(rows[first:last]).long()[None] for rows in (tokens.ids, tokens.segments))
        with torch.no_grad():
            one, two = (model.double().eval()(input_ids=ids, token_type_ids=kinds) for model in (student, teacher))
        each += [naive_taught(one[side][0].tolist(), two[side][0].tolist(), windows.temperature) for side in ("start_logits", "end_logits")]
    assert parts[1] == pytest.approx(np.mean(each), rel=2e-6)
    padded = fine_tune(place / "student", data, replace(once, alpha=1.0, pad_to_max_length=True), teacher=tmp_path / "spans", say=quiet)
    assert padded.losses[0] == pytest.approx(parts[1], rel=1e-5)
    alien = make_teacher(tmp_path / "alien")
    with pytest.raises(UserError, match=r"its tokenizer is not that of .*a teacher with the student's tokenizer would work"):
        fine_tune(alien, data, once, teacher=tmp_path / "spans", say=quiet)


def test_a_head_that_does_not_fit_is_one_line(place, tmp_path):
    data = make_span_data(train=8, dev=8)
    windows = replace(SHORT, max_seq_length=20, max_query_length=6, doc_stride=4)
    coloured = change_config(place / "teacher", tmp_path / "coloured", id2label={"0": "red", "1": "green", "2": "blue"})
    two = replace(DATA, task=replace(TASK, label_names=("yes", "no")))
    lost = change_config(place / "student", tmp_path / "lost", architectures=["BertForSequenceClassification"],
                         id2label=dict(enumerate(TASK.label_names)))
    wrong = [
        (place / "student", DATA, SHORT, "BertForMaskedLM in its config.json, so no head for MNLI"),
        (place / "teacher", data, windows, "so no head for SQuAD"),
        (place / "teacher", two, SHORT, r"its head gives 3 outputs \(entailment, neutral, contradiction\), MNLI needs 2"),
        (place / "number_teacher", DATA, SHORT, "its head gives 1 outputs"),
        (place / "teacher", NUMBERS, SHORT, "its head gives 3 outputs"),
        (coloured, DATA, SHORT, "its labels are red, green, blue, those of MNLI are entailment"),
        (lost, DATA, SHORT, "weights are missing, first bert.pooler.dense.bias"),
    ]
    for folder, task_data, settings, told in wrong:
        with pytest.raises(UserError, match=told):
            score_only(folder, task_data, settings, say=quiet)
        with pytest.raises(UserError, match=told):
            fine_tune(place / "student", task_data, settings, teacher=folder, say=quiet)
