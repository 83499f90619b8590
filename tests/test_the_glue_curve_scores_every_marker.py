"""Every marker of a run is found, scored once, kept at once and drawn; what is known is not computed again."""

import json
import struct
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_glue import make_model, make_run, write_rte, write_sst2

from dataset.errors import UserError
from evaluation.fine_tuning import training
from evaluation.fine_tuning.settings import FineTuningSettings
from evaluation.scoring.curve import Candidate, find_markers, score_models
from evaluation.scoring.plot import draw_curve
from evaluation.scoring.results import read_results, table

QUICK = FineTuningSettings(num_train_epochs=1, max_seq_length=32, precision="fp32", max_train_samples=32)
# Written out of order; by name the first would sort behind the second.
MARKERS = [(0.5, 1000, 0.05), (0.5, 200, 0.02), (1.0, 1500, 0.1)]
IN_ORDER = ["progress_0.5_step_200", "progress_0.5_step_1000", "progress_1.0_step_1500"]


@pytest.fixture(scope="module")
def glue_dir(tmp_path_factory):
    place = tmp_path_factory.mktemp("data")
    return write_rte(write_sst2(place, train=64, dev=32))


@pytest.fixture
def run_dir(tmp_path):
    return make_run(tmp_path / "run", MARKERS)


@pytest.fixture
def trainings(monkeypatch):
    """The (folder name, task) of each fine-tuning that really happens."""
    done = []
    real = training.fine_tune

    def counted(folder, data, *rest):
        done.append((folder.name, data.task.name))
        return real(folder, data, *rest)

    monkeypatch.setattr(training, "fine_tune", counted)
    return done


def png_size(path: Path) -> tuple[int, int]:
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n" and content[-8:-4] == b"IEND"
    return struct.unpack(">II", content[16:24])


def test_markers_come_in_order_of_hours(run_dir):
    (run_dir / "finetune" / "superseded").mkdir()
    (run_dir / "finetune" / ".partial_progress_0.9_step_9").mkdir()
    markers = find_markers(run_dir)
    assert [model.name for model in markers] == IN_ORDER
    assert [model.marker.hours for model in markers] == [0.02, 0.05, 0.1]


def test_a_run_without_markers_is_an_error(tmp_path, run_dir):
    (tmp_path / "empty" / "finetune").mkdir(parents=True)
    with pytest.raises(UserError, match="has the run passed a marker yet"):
        find_markers(tmp_path / "empty")
    with pytest.raises(UserError, match=f"did you mean {run_dir}"):
        find_markers(tmp_path)


@pytest.mark.parametrize("state", ['{"progress": 0.5, "step": 200}', "[]", "{", '{"progress": 0.5, "step": 1, "hours": null}'])
def test_a_marker_without_its_place_in_the_run_is_an_error(run_dir, state):
    (run_dir / "finetune" / IN_ORDER[0] / "run_state.json").write_text(state)
    with pytest.raises(UserError, match="progress, step and hours"):
        find_markers(run_dir)


def test_scores_are_kept_reused_and_drawn(run_dir, glue_dir, trainings, tmp_path):
    teacher = Candidate("teacher", make_model(tmp_path / "teacher", "BertModel", seed=9))
    models = [*find_markers(run_dir), teacher]
    said = []
    rows = score_models(models, ["sst2,rte"], glue_dir, run_dir, QUICK, say=said.append)
    assert len(trainings) == len(rows) == len(said) == 8
    assert read_results(run_dir) == json.loads(json.dumps(rows))
    assert png_size(run_dir / "glue.png") == (1800, 675)
    first = rows[0]
    assert (first["model"], first["task"], first["fraction"], first["step"], first["hours"]) == (
        IN_ORDER[0], "SST-2", 0.5, 200, 0.02
    )
    assert first["headline"] == "accuracy" and set(first["metrics"]) == {"accuracy"}
    assert (first["train_size"], first["dev_size"], first["seed"]) == (32, 32, 42)
    assert first["settings"]["learning_rate"] == 5e-5 and first["train_seconds"] > 0
    assert "hours" not in rows[-1]
    ones = sum(line.endswith("1") for line in (glue_dir / "SST-2" / "dev.tsv").read_text().splitlines())
    assert first["constant_metrics"] == {"accuracy": max(ones, 32 - ones) / 32}

    trainings.clear(), said.clear()
    again = score_models(models, ["SST-2", "RTE"], glue_dir, run_dir, QUICK, say=said.append)
    assert trainings == [] and again == rows
    assert len(said) == 8 and all("already scored, skipped" in line for line in said)
    assert len(read_results(run_dir)) == 8


def test_what_changed_is_scored_again(run_dir, glue_dir, trainings):
    models = find_markers(run_dir)[:2]
    score_models(models, ["sst2"], glue_dir, run_dir, QUICK, say=lambda line: None)
    make_model(models[1].folder, seed=50)
    trainings.clear()
    score_models(models, ["sst2"], glue_dir, run_dir, QUICK, say=lambda line: None)
    assert trainings == [(IN_ORDER[1], "SST-2")]

    trainings.clear()
    score_models(models, ["sst2"], glue_dir, run_dir, replace(QUICK, seed=1), say=lambda line: None)
    assert len(trainings) == 2

    trainings.clear()
    score_models(models, ["sst2"], glue_dir, run_dir, QUICK, overwrite=True, say=lambda line: None)
    assert len(trainings) == 2
    assert len(read_results(run_dir)) == 5  # two seeds of two markers, and the weights that were replaced


def test_changed_data_is_scored_again(run_dir, tmp_path, trainings):
    models = find_markers(run_dir)[:1]
    for count in (16, 24):
        glue = write_sst2(tmp_path / f"glue_{count}", train=64, dev=count)
        rows = score_models(models, ["sst2"], glue, run_dir, QUICK, say=lambda line: None)
        assert rows[0]["dev_size"] == count
    assert len(trainings) == 2


def test_a_copy_under_another_name_is_known_and_has_no_hours(run_dir, glue_dir, trainings):
    marker = find_markers(run_dir)[0]
    copy = Candidate("copy", marker.folder)
    rows = score_models([marker, copy], ["sst2"], glue_dir, run_dir, QUICK, say=lambda line: None)
    assert len(trainings) == 1
    assert rows[1]["metrics"] == rows[0]["metrics"]
    assert "hours" in rows[0] and "hours" not in rows[1]
    with pytest.raises(UserError, match="two models are called 'copy'"):
        score_models([copy, copy], ["sst2"], glue_dir, run_dir, QUICK)


def test_an_interrupted_call_keeps_what_it_scored(run_dir, glue_dir, monkeypatch):
    real = training.fine_tune

    def stops_at_the_second(folder, *rest):
        if folder.name == IN_ORDER[1]:
            raise KeyboardInterrupt
        return real(folder, *rest)

    monkeypatch.setattr(training, "fine_tune", stops_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        score_models(find_markers(run_dir), ["sst2"], glue_dir, run_dir, QUICK, say=lambda line: None)
    assert [row["model"] for row in read_results(run_dir)] == IN_ORDER[:1]


def test_saved_models_are_made_where_they_are_missing(run_dir, glue_dir, trainings, tmp_path):
    models = find_markers(run_dir)[:1]
    score_models(models, ["sst2"], glue_dir, tmp_path / "out", QUICK, say=lambda line: None)
    for expected in (2, 2):
        score_models(models, ["sst2"], glue_dir, tmp_path / "out", QUICK, save_models=True, say=lambda line: None)
        assert len(trainings) == expected
        assert (tmp_path / "out" / "models" / IN_ORDER[0] / "SST-2" / "model.safetensors").is_file()


def test_a_damaged_result_file_is_an_error_before_training(run_dir, glue_dir, trainings):
    (run_dir / "glue.json").write_text('[{"model": "a"')
    with pytest.raises(UserError, match=r"glue\.json: not JSON"):
        score_models(find_markers(run_dir), ["sst2"], glue_dir, run_dir, QUICK)
    assert trainings == []


def row(model, task, value, **more):
    return {
        "model": model, "task": task, "headline": "accuracy", "metrics": {"accuracy": value}, "dev_size": 10,
        "constant_metrics": {"accuracy": 0.5},
        "diverged": False, **more,
    }


def test_plots_with_many_tasks_repeated_rows_and_nothing_to_draw(tmp_path):
    rows = [row("m", f"T{number}", 0.5, hours=0.1, step=1) for number in range(4)]
    assert draw_curve([*rows, *rows, row("teacher", "T0", 0.9)], tmp_path / "four.png", "four")
    assert png_size(tmp_path / "four.png") == (2700, 1350)
    assert draw_curve([row("m", "T", 0.5, hours=0.1, step=1) | {"diverged": True}], tmp_path / "none.png", "diverged")
    assert not draw_curve([row("teacher", "T0", 0.9)], tmp_path / "no.png", "no hours")
    assert not (tmp_path / "no.png").exists()


def test_the_table_has_a_line_for_each_model():
    rows = [
        row("m1", "SST-2", 0.5, hours=0.1, step=1), row("m1", "RTE", 0.25, hours=0.1, step=1),
        row("teacher", "SST-2", 0.875), row("teacher", "RTE", 0.5) | {"diverged": True},
    ]
    assert [line.split() for line in table(rows).splitlines()] == [
        ["model", "hours", "SST-2", "accuracy", "RTE", "accuracy"],
        ["m1", "0.100", "50.0", "25.0"],
        ["teacher", "87.5", "diverged"],
    ]
