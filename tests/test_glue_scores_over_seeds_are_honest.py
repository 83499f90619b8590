"""What several seeds say: statistics against numpy and scipy, grids chosen by aggregates, nothing pooled that differs."""

import math

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from evaluation.scoring.statistics import average, retention, spread, summarise
from evaluation.scoring.tables import table, write_csv

PROTOCOL = {"name": "quick", "version": 1, "sha256": "ab" * 32, "changed": [], "aggregate": "median"}


def row(model="student", task="RTE", seed=1, value=0.6, **changes):
    settings = {"learning_rate": changes.pop("learning_rate", 1e-5), "seed": seed}
    made = {
        "model": model, "role": "model", "folder": f"/models/{model}", "task": task, "task_version": 1, "headline": "accuracy",
        "seed": seed, "settings": settings, "protocol": PROTOCOL, "weights_sha256": model, "data_sha256": task, "mode": "fine_tuning",
        "teacher_sha256": None, "start": None, "metrics": {"accuracy": value}, "constant_metrics": {"accuracy": 0.5}, "diverged": False,
        "selected_on_dev": False, "precision": "fp32", "device": "cpu", "grid_point": {}, "train_size": 9, "dev_size": 8,
    }
    return made | changes


def test_spread_is_numpys_and_the_interval_students():
    values = [0.61, 0.58, 0.66, 0.60]
    found = spread(values)
    assert math.isclose(found.mean, np.mean(values)) and math.isclose(found.median, np.median(values))
    assert math.isclose(found.deviation, np.std(values, ddof=1))
    # The ends of a 95 % interval are the means that a two-sided t test rejects at exactly 5 %.
    for end in found.interval:
        assert math.isclose(ttest_1samp(values, end).pvalue, 0.05, rel_tol=1e-9)
    assert found.interval[0] < found.mean < found.interval[1]
    lone = spread([0.5])
    assert (lone.mean, lone.median, lone.deviation, lone.interval) == (0.5, 0.5, None, None)


def test_seeds_are_put_together_and_nothing_else():
    rows = [row(seed=2, value=0.7), row(seed=1, value=0.5), row(seed=3, value=0.9)]
    rows += [row(model="other", value=0.1), row(task="MRPC", value=0.2)]
    scores = summarise(rows)
    assert [(score.model, score.task) for score in scores] == [("student", "RTE"), ("student", "MRPC"), ("other", "RTE")]
    assert scores[0].seeds == (1, 2, 3) and scores[0].metrics["accuracy"].values == (0.5, 0.7, 0.9) and scores[0].value == 0.7
    for change in ({"protocol": PROTOCOL | {"name": "sane"}}, {"start": {"task": "MNLI"}}):
        assert len(summarise([row(), row(seed=2, **change)])) == 2


def test_the_newest_row_of_a_seed_counts_once():
    (score,) = summarise([row(value=0.1), row(value=0.3)])
    assert score.metrics["accuracy"].values == (0.3,)


def test_a_grid_point_is_chosen_by_its_aggregate_and_marked():
    lucky = [row(seed=seed, value=value, learning_rate=1e-5) for seed, value in ((1, 0.9), (2, 0.4), (3, 0.4))]
    steady = [row(seed=seed, value=0.6, learning_rate=3e-5) for seed in (1, 2, 3)]
    (score,) = summarise(lucky + steady)
    assert score.value == 0.6 and score.settings["learning_rate"] == 3e-5 and score.selected_on_dev
    (alone,) = summarise(steady)
    assert not alone.selected_on_dev


def test_seeds_that_diverged_are_named_and_left_out():
    (score,) = summarise([row(seed=1, value=math.nan, diverged=True), row(seed=2, value=0.6), row(seed=3, value=0.7)])
    assert score.diverged == (1,) and score.metrics["accuracy"].values == (0.6, 0.7)
    (lost,) = summarise([row(model="lost", seed=1, diverged=True)])
    assert lost.value is None and lost.metrics == {}
    text = table([score, lost])
    assert "65.0 ±7.1!" in text and "! RTE of student: seeds 1 diverged and are left out" in text and "RTE of lost: seeds 1 div" in text
    # A grid point with a seed that diverged never beats one without.
    half = [row(seed=1, value=0.9, learning_rate=1.0), row(seed=2, diverged=True, learning_rate=1.0)]
    (steady,) = summarise([*half, row(seed=1, value=0.2), row(seed=2, value=0.3)])
    assert steady.value == 0.25
    (best,) = summarise([row(seed=1, diverged=True, learning_rate=1.0), row(seed=1, value=0.2)])
    assert best.value == 0.2


def test_averages_need_every_task_and_retention_a_teacher():
    scores = summarise([row(value=0.6), row(task="MRPC", value=0.8)])
    assert average(scores, ["RTE", "MRPC"]) == pytest.approx(0.7)
    assert average(scores, ["RTE", "QQP"]) is None and average(scores, []) is None
    (teacher,) = summarise([row(model="teacher", value=0.75)])
    assert retention(scores[0], teacher) == pytest.approx(0.8)
    (useless,) = summarise([row(model="teacher", value=0.0)])
    assert retention(scores[0], useless) is None


def test_the_table_says_protocol_seeds_and_marks(tmp_path):
    rows = [row(model="teacher", role="teacher", seed=seed, value=0.8, task=task) for seed in (1, 2) for task in ("RTE", "MRPC")]
    rows += [row(seed=1, value=0.6, role="marker", fraction=0.5, step=3, hours=0.25, validation_loss=None, start={"task": "MNLI"}),
             row(seed=2, value=0.7, role="marker", fraction=0.5, step=3, hours=0.25, validation_loss=None, start={"task": "MNLI"})]
    text = table(summarise(rows))
    lines = text.splitlines()
    assert lines[0].split("  ")[0] == "model" and "average of 2" in lines[0] and "kept of teacher" in lines[0] and "hours" in lines[0]
    assert "80.0 ±0.0" in lines[1] and "100.0%" in lines[1]
    assert "65.0 ±7.1 (from MNLI)" in lines[2] and "0.250" in lines[2] and lines[2].split()[-1] == "-", "one task is missing"
    assert "quick v1 (abababab), median ± deviation of seeds 1, 2, in percent" in text
    write_csv(summarise(rows), tmp_path / "glue.csv")
    content = (tmp_path / "glue.csv").read_text().splitlines()
    assert len(content) == 4 and content[0].startswith("model,role,hours") and ",MNLI," in content[3]
