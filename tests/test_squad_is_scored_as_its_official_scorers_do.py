"""SQuAD's exact match and F1: hand-made cases, a reference that counts words one by one, and the form of the official files."""

import json
import random

import pytest
from tiny_glue import write_squad

from dataset.errors import UserError
from evaluation.metrics.squad import best_threshold, normalize, score_answers
from evaluation.tasks.squad import SQUAD_1, SQUAD_2
from evaluation.tasks.table import load_task
from evaluation.tasks.task import Questions


def ask(*answers):
    ids = [f"q{number}" for number in range(len(answers))]
    return Questions(ids, ["?"] * len(ids), ["context"] * len(ids), list(answers), [[0] * len(one) for one in answers])


def one(task, prediction, *answers):
    found = score_answers(task, ask(list(answers)), {"q0": prediction})
    return found["exact"], found["f1"]


@pytest.mark.parametrize(("text", "normal"), [
    ("The  Quick\tbrown\n fox", "quick brown fox"),
    ("a an the", ""),
    ("Theatre and another Antigone", "theatre and another antigone"),  # articles are whole words
    ("U.S.A.", "usa"),  # punctuation goes without leaving a blank
    ("the-end", "theend"),  # and before the articles do
    ("in–the–end", "in– –end"),  # an en dash is no ASCII punctuation, but it bounds a word
    ("don't stop", "dont stop"),
    ("ÉCOLE «l'été»", "école «lété»"),
    ("$5.00\u00a0a day", "500 day"),  # str.split knows the no-break space
    ("  ", ""),
])
def test_normalising(text, normal):
    assert normalize(text) == normal


@pytest.mark.parametrize(("prediction", "answers", "expected"), [
    ("Denver Broncos", ["The Denver Broncos."], (1, 1)),
    ("Broncos", ["Denver Broncos"], (0, 2 / 3)),
    ("Broncos Denver", ["Denver Broncos"], (0, 1)),  # a bag of words has no order
    ("no no no", ["no no yes"], (0, 2 / 3)),  # a repeated word counts as often as both have it
    ("no", ["no no no"], (0, 1 / 2)),
    ("the cat", ["a dog", "cat!", "cat food"], (1, 1)),  # the best of several answers
    ("a big cat", ["cat", "big dogs bark"], (0, 2 / 3)),
    ("x y", ["x z", "x y z"], (0, 0.8)),
    ("nothing", ["else"], (0, 0)),
    ("", ["else"], (0, 0)),
])
def test_both_versions_agree_on_answers(prediction, answers, expected):
    assert one(SQUAD_1, prediction, *answers) == pytest.approx(expected)
    assert one(SQUAD_2, prediction, *answers) == pytest.approx(expected)


@pytest.mark.parametrize(("prediction", "answers", "first", "second"), [
    ("the", ["a"], (1, 0), (1, 1)),  # both empty once normalised: 1.1's F1 is 0
    ("", ["the"], (1, 0), (1, 1)),
    ("!", ["the", "cat"], (1, 0), (0, 0)),  # 2.0 leaves out an empty answer where others remain
    ("cat", ["the", "cat"], (1, 1), (1, 1)),
])
def test_where_the_versions_differ(prediction, answers, first, second):
    assert one(SQUAD_1, prediction, *answers) == first
    assert one(SQUAD_2, prediction, *answers) == second


def test_questions_without_answer():
    questions = ask(["cat"], [], ["big dog", "dog"], [])
    found = score_answers(SQUAD_2, questions, {"q0": "", "q1": "", "q2": "a big dog", "q3": "dog"})
    assert found == pytest.approx({
        "exact": 0.5, "f1": 0.5, "exact/has_answer": 0.5, "f1/has_answer": 0.5, "exact/no_answer": 0.5, "f1/no_answer": 0.5,
    })
    assert set(score_answers(SQUAD_2, ask(["x"]), {"q0": "x"})) == {"exact", "f1", "exact/has_answer", "f1/has_answer"}
    assert set(score_answers(SQUAD_1, ask(["x"]), {"q0": "x"})) == {"exact", "f1"}


def test_what_is_missing_is_never_scored():
    with pytest.raises(ValueError, match="answers: 1 of 2 questions are missing, 'q1' is the first"):
        score_answers(SQUAD_2, ask(["x"], []), {"q0": "x"})
    with pytest.raises(ValueError, match="no_answer_scores: 2 of 2"):
        score_answers(SQUAD_2, ask(["x"], []), {"q0": "x", "q1": ""}, {})


def naive_f1(prediction, answer):
    words, right = normalize(prediction).split(), normalize(answer).split()
    if not words or not right:
        return float(words == right)
    left, shared = list(right), 0
    for word in words:
        if word in left:
            left.remove(word)
            shared += 1
    precision, recall = shared / len(words), shared / len(right)
    return 2 * precision * recall / (precision + recall) if shared else 0.0


@pytest.mark.parametrize("seed", range(3))
def test_random_answers_and_thresholds(seed):
    source = random.Random(seed)
    words = ["the", "cat", "Dog", "a", "dog.", "big", "Big", "!"]
    answers = [[" ".join(source.choices(words, k=source.randint(1, 4))) for _ in range(source.choice([0, 1, 3]))] for _ in range(40)]
    questions = ask(*answers)
    given = {name: " ".join(source.choices(words, k=source.randint(0, 4))) for name in questions.ids}
    scores = {name: source.choice([-2.5, -1.0, 0.0, 0.25, 0.5, 3.0]) for name in questions.ids}
    found = score_answers(SQUAD_2, questions, given, scores)

    def mean(metric, threshold):
        total = 0.0
        for name, right in zip(questions.ids, answers, strict=True):
            if scores[name] > threshold:
                total += not right
            else:
                right = [text for text in right if normalize(text)] or [""]
                total += max(metric(given[name], text) for text in right)
        return total / len(answers)

    metrics = {"f1": naive_f1, "exact": lambda guess, text: float(normalize(guess) == normalize(text))}
    for name, metric in metrics.items():
        assert found[name] == pytest.approx(mean(metric, 99.0))
        tried = {threshold: mean(metric, threshold) for threshold in [-3.5, *sorted(set(scores.values()))]}
        assert found[f"best_{name}"] == pytest.approx(max(tried.values()))
        assert mean(metric, found[f"best_{name}_threshold"]) == pytest.approx(max(tried.values()))
        has = [name for name, right in zip(questions.ids, answers, strict=True) if right]
        parts = found[f"{name}/has_answer"] * len(has) + found[f"{name}/no_answer"] * (len(answers) - len(has))
        assert parts == pytest.approx(found[name] * len(answers))


def test_the_best_threshold():
    assert best_threshold([1, 1, 0], [0, 0, 1], [0.1, 0.2, 0.9]) == (1.0, 0.2)
    assert best_threshold([0, 0], [1, 1], [0.5, 0.7]) == (1.0, -0.5)  # withhold everything
    # Two questions of one score cannot be parted: answering both is as good as answering none, and the lowest threshold counts.
    assert best_threshold([1, 0], [0, 1], [0.5, 0.5]) == (0.5, -0.5)


@pytest.mark.parametrize(("task", "version", "folder"), [(SQUAD_1, "v1.1", "SQuAD"), (SQUAD_2, "v2.0", "squad_v2"), (SQUAD_1, "v1.1", ".")])
def test_the_official_files(tmp_path, task, version, folder):
    write_squad(tmp_path, version)
    target = tmp_path / folder
    for file in (tmp_path / "SQuAD").iterdir():
        target.mkdir(exist_ok=True)
        file.rename(target / file.name)
    data = load_task(task, tmp_path)
    assert (len(data.train), len(data.dev["dev"]), list(data.dev), data.task) == (64, 16, ["dev"], task)
    for questions in (data.train, data.dev["dev"]):
        for context, texts, starts in zip(questions.contexts, questions.answers, questions.starts, strict=True):
            assert [context[start:start + len(text)] for text, start in zip(texts, starts, strict=True)] == texts
        assert any(not texts for texts in questions.answers) == (version == "v2.0")
    assert data.train.ids[:2] == ["train0", "train1"]
    path = target / f"dev-{version}.json"
    path.write_text(path.read_text().replace('"answer_start": 0', '"answer_start": 3'))
    changed = load_task(task, tmp_path)
    assert changed.sha256 != data.sha256
    assert 3 in [start for starts in changed.dev["dev"].starts for start in starts]  # kept, though the text does not stand there


def paragraph(**question):
    return {"data": [{"paragraphs": [{"context": "A cat.", "qas": [{"id": "1", "question": "?", **question}]}]}]}


ANSWER = {"text": "cat", "answer_start": 2}


@pytest.mark.parametrize(("content", "told"), [
    ('{"data": [\n1,}', ["train-v1.1.json, line 2: not JSON"]),
    ("", ["train-v1.1.json, line 1: the file is empty"]),
    ([], ["no 'data' in the file"]),
    ({"data": {}}, ["'data' in the file is of type dict, expected list"]),
    ({"data": []}, ["no questions in it"]),
    ({"data": [{}]}, ["no 'paragraphs' in data[0]"]),
    ({"data": [{"paragraphs": [{"qas": []}]}]}, ["no 'context' in data[0].paragraphs[0]"]),
    (paragraph(), ["no 'answers' in data[0].paragraphs[0].qas[0]"]),
    (paragraph(answers=[{"text": "cat"}]), ["no 'answer_start' in data[0].paragraphs[0].qas[0].answers[0]"]),
    (paragraph(answers=[{"text": "cat", "answer_start": "2"}]), ["'answer_start'", "of type str, expected int"]),
    (paragraph(answers=[{"text": "cat", "answer_start": True}]), ["'answer_start'", "of type bool, expected int"]),
    (paragraph(answers=[]), ["data[0].paragraphs[0].qas[0] has no answer", "--task_name SQuAD-2.0"]),
    (paragraph(answers=[ANSWER], is_impossible=True), ["is_impossible and has an answer"]),
    ({"data": paragraph(answers=[ANSWER])["data"] * 2}, ["two questions have the id '1'"]),
    (None, ["no train-v1.1.json", "train-v1.1.json and dev-v1.1.json"]),
])
def test_broken_files_are_named(tmp_path, content, told):
    write_squad(tmp_path, "v1.1")
    path = tmp_path / "SQuAD" / "train-v1.1.json"
    if content is None:
        path.unlink()
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(UserError) as caught:
        load_task(SQUAD_1, tmp_path)
    assert [part for part in (str(tmp_path), *told) if part not in str(caught.value)] == [], str(caught.value)


def test_what_is_to_be_predicted_needs_no_answers(tmp_path):
    write_squad(tmp_path, "v1.1")
    data = load_task(SQUAD_1, tmp_path, test=True)
    assert data.test == data.dev  # the official test set is not given out: predictions.json is of dev
    (tmp_path / "SQuAD" / "test-v1.1.json").write_text(json.dumps(paragraph()))
    assert load_task(SQUAD_1, tmp_path).test == {}
    assert load_task(SQUAD_1, tmp_path, test=True).test == {"test": Questions(["1"], ["?"], ["A cat."], None, None)}
