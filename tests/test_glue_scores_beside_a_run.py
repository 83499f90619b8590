"""--watch scores each marker as it appears and ends with the run; the export's card gains the scores in the form the hub reads."""

import json
import shutil
import threading
import time

import pytest
from huggingface_hub import ModelCard
from tiny_glue import make_model, make_run

from dataset.errors import UserError
from evaluation.scoring.card import update_card
from evaluation.scoring.watch import watch
from evaluation.tasks.table import TASKS

FIRST, SECOND = (0.5, 10, 0.01), (1.0, 20, 0.02)
NAMES = ["progress_0.5_step_10", "progress_1.0_step_20"]


def end(run_dir, reason):
    (run_dir / "summary.json").write_text(json.dumps({"exit_reason": reason}))


class Course:
    """A run that does something each time the watch sleeps."""

    def __init__(self, run_dir, *acts):
        self.run_dir, self.acts, self.scored, self.said = run_dir, list(acts), [], []

    def score(self, markers):
        self.scored += [marker.name for marker in markers]

    def sleep(self, _):
        self.acts.pop(0)()

    def watch(self):
        return watch(self.run_dir, self.score, 1.0, self.said.append, self.sleep)


def test_markers_are_scored_as_they_appear_until_the_run_has_ended(tmp_path):
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    course = Course(run_dir, lambda: make_run(run_dir, [FIRST]), lambda: end(run_dir, "signal"), lambda: make_run(run_dir, [SECOND]),
                    lambda: end(run_dir, "time_budget"))
    course.watch()
    assert course.scored == NAMES
    assert sum("waiting for the next" in line for line in course.said) == 3 and "has ended (time_budget), 2 markers" in course.said[-1]


def test_a_marker_that_a_resumed_run_wrote_anew_is_scored_anew(tmp_path):
    run_dir = make_run(tmp_path / "run", [FIRST, SECOND])

    def again():
        shutil.rmtree(run_dir / "finetune" / NAMES[1])
        time.sleep(0.01)
        make_run(run_dir, [(1.0, 20, 0.03)])
        end(run_dir, "time_budget")

    course = Course(run_dir, again)
    course.watch()
    assert course.scored == [*NAMES, NAMES[1]]


def test_a_marker_that_cannot_be_scored_costs_itself_alone(tmp_path):
    run_dir = make_run(tmp_path / "run", [FIRST, SECOND])
    end(run_dir, "time_budget")
    course = Course(run_dir)
    real = course.score

    def score(markers):
        if markers[0].name == NAMES[0]:
            raise UserError("its weights are cut short")
        return real(markers)

    course.score = score
    with pytest.raises(UserError, match=f"1 of 2 markers could not be scored, the others are kept: {NAMES[0]}: its weights are cut short"):
        course.watch()
    assert course.scored == NAMES[1:]


def test_a_watch_in_a_thread_of_its_own_sees_a_run_grow(tmp_path):
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    course = Course(run_dir)
    thread = threading.Thread(target=watch, args=(run_dir, course.score, 0.01, course.said.append))
    thread.start()
    make_run(tmp_path / "made", [FIRST, SECOND])
    (run_dir / "finetune").mkdir()
    for name in NAMES:  # as the trainer writes them: whole or not at all
        (tmp_path / "made" / "finetune" / name).rename(run_dir / "finetune" / name)
    end(run_dir, "max_steps")
    thread.join(timeout=60)
    assert course.scored == NAMES and not thread.is_alive()


def row(task, metrics, seed, headline, **changes):
    protocol = {"name": "quick", "version": 1, "sha256": "cd" * 32, "changed": [], "aggregate": "mean"}
    made = {
        "model": "m", "role": "marker", "folder": "x", "task": task, "task_version": 1, "headline": headline, "seed": seed,
        "settings": {"seed": seed}, "metric_names": list(metrics), "precision": "fp32", "device": "cpu", "grid_point": {}, "train_size": 9,
        "dev_size": {"MNLI": 9815, "STS-B": 1500, "RTE": 277}.get(task, 8), "protocol": protocol, "weights_sha256": "w",
        "data_sha256": task, "mode": "fine_tuning", "teacher_sha256": None, "start": None, "metrics": metrics,
        "constant_metrics": dict.fromkeys(metrics, 0.25), "diverged": False, "selected_on_dev": False,
    }
    return made | changes


CARD = """---
library_name: transformers
tags: [distillation, academic-budget]
---

# a student

Words that stay.

## Use

A snippet.
"""


def test_a_card_says_its_scores_as_the_hub_reads_them(tmp_path):
    folder = make_model(tmp_path / "export")
    (folder / "README.md").write_text(CARD)
    rows = [row("MNLI", {"accuracy": 0.5 + seed / 10, "accuracy/mismatched": 0.4}, seed, "accuracy") for seed in (1, 2)]
    rows += [row("STS-B", {"spearman": 0.8, "pearson": 0.9}, 1, "spearman"), row("SST-2", {"accuracy": 0.0}, 1, "accuracy", diverged=True)]
    update_card(folder, rows, TASKS)
    card = ModelCard.load(folder / "README.md")
    results = {(r.dataset_type, r.dataset_config, r.dataset_split, r.metric_type): r for r in card.data.eval_results}
    assert set(results) == {
        ("glue", "mnli", "validation_matched", "accuracy"), ("glue", "mnli", "validation_mismatched", "accuracy"),
        ("glue", "stsb", "validation", "spearmanr"), ("glue", "stsb", "validation", "pearsonr"),
    }
    matched = results["glue", "mnli", "validation_matched", "accuracy"]
    assert matched.metric_value == pytest.approx(0.65) and matched.metric_args["seeds"] == [1, 2]
    assert matched.metric_args["protocol"] == "quick v1" and matched.task_type == "text-classification"
    text = (folder / "README.md").read_text()
    assert "Words that stay." in text and "A snippet." in text and text.index("## Scores") < text.index("## Use")
    assert "| MNLI | accuracy | 65.00 | 7.07 | 25.0 |" in text
    assert card.data.tags == ["distillation", "academic-budget"] and card.data.library_name == "transformers"

    update_card(folder, rows, TASKS)
    assert (folder / "README.md").read_text() == text, "saying it twice changes nothing"
    update_card(folder, [row("STS-B", {"spearman": 0.7, "pearson": 0.6}, 1, "spearman")], TASKS)
    card = ModelCard.load(folder / "README.md")
    values = {r.metric_type: r.metric_value for r in card.data.eval_results}
    assert values == {"accuracy": 0.4, "spearmanr": 0.7, "pearsonr": 0.6}, "a new value replaces its own"
    assert (folder / "README.md").read_text().count("## Scores") == 1


def test_scores_that_differ_in_how_or_on_what_stand_beside_each_other(tmp_path):
    folder = make_model(tmp_path / "export")
    rows = [row("RTE", {"accuracy": 0.6}, 1, "accuracy"), row("RTE", {"accuracy": 0.7}, 1, "accuracy", teacher_sha256="t"),
            row("RTE", {"accuracy": 0.65}, 1, "accuracy", mode="as_it_is"),
            row("RTE", {"accuracy": 0.9}, 1, "accuracy", dev_size=20, data_sha256="x"),
            row("SQuAD-2.0", {"exact": 0.5, "exact/no_answer": 0.4}, 1, "exact")]
    update_card(folder, rows, TASKS)
    results = ModelCard.load(folder / "README.md").data.eval_results
    assert sorted(r.metric_value for r in results if r.dataset_type == "glue") == [0.6, 0.65, 0.7]
    (part,) = [r for r in results if r.metric_value == 0.9]
    assert part.dataset_config is None and "not the official dev set" in part.dataset_type and part.dataset_args["dev_examples"] == 20
    assert {r.metric_name: r.metric_value for r in results if "squad" in r.dataset_type} == {"exact": 0.5, "exact/no_answer": 0.4}
    text = (folder / "README.md").read_text()
    assert text.count("| RTE | accuracy |") == 4 and "distilled from a teacher" in text


@pytest.mark.parametrize("given", ["args: en", "args: [1]"])
def test_a_card_of_another_hand_is_kept_or_refused_in_one_line(tmp_path, given):
    folder = make_model(tmp_path / "export")
    index = ("model-index:\n- name: other\n  results:\n  - task: {type: text-classification}\n    dataset: {name: x, type: glue}\n"
             f"    metrics:\n    - {{type: accuracy, value: 0.5, {given}}}\n")
    (folder / "README.md").write_text(f"---\n{index}---\n# x\n")
    try:
        update_card(folder, [row("RTE", {"accuracy": 0.6}, 1, "accuracy")], TASKS)
    except UserError as error:
        assert "README.md: its metadata cannot be read" in str(error)
    else:
        assert {r.metric_value for r in ModelCard.load(folder / "README.md").data.eval_results} == {0.5, 0.6}


def test_a_card_that_cannot_be_read_or_is_not_there(tmp_path):
    folder = make_model(tmp_path / "export")
    rows = [row("RTE", {"accuracy": 0.5}, 1, "accuracy")]
    update_card(folder, rows, TASKS)
    assert ModelCard.load(folder / "README.md").data.eval_results[0].dataset_config == "rte"
    (folder / "README.md").write_text("---\nmodel-index: 3\n---\n# x\n")
    before = (folder / "README.md").read_text()
    with pytest.raises(UserError, match=r"README\.md: its metadata cannot be read"):
        update_card(folder, rows, TASKS)
    assert (folder / "README.md").read_text() == before
