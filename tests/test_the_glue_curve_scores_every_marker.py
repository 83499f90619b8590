"""Every marker of a run is found, scored once with every seed, kept at once; what is known is not computed again."""

import json

import pytest
from tiny_glue import make_model, make_run, write_rte, write_sst2

from dataset.errors import UserError
from evaluation.fine_tuning import training
from evaluation.fine_tuning.settings import FineTuningSettings
from evaluation.scoring.candidates import Candidate, find_markers, named_candidate, run_state
from evaluation.scoring.jobs import Source
from evaluation.scoring.plan import Wanted
from evaluation.scoring.protocols import flags_only
from evaluation.scoring.results import read_results
from evaluation.scoring.score import Scorer
from evaluation.tasks.table import select_tasks

QUICK = {"num_train_epochs": 1, "max_seq_length": 32, "precision": "fp32", "max_train_samples": 32}
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
    """The (folder name, task, seed) of each fine-tuning that really happens."""
    done = []
    real = training.fine_tune

    def counted(folder, data, settings, **rest):
        done.append((folder.name, data.task.name, settings.seed))
        return real(folder, data, settings, **rest)

    monkeypatch.setattr(training, "fine_tune", counted)
    return done


def score(models, glue_dir, output_dir, *, tasks=("sst2",), seeds=(42,), say=lambda line: None, settings=None, starts=None, **wanted):
    protocol = flags_only(FineTuningSettings(**QUICK | (settings or {})), seeds).with_flags({}, None, starts)
    return Scorer(select_tasks(list(tasks)), protocol, Wanted(output_dir, Source(glue_dir), devices="cpu", **wanted), say).score(models)


def test_markers_come_in_order_of_hours(run_dir):
    (run_dir / "finetune" / "superseded").mkdir()
    (run_dir / "finetune" / ".partial_progress_0.9_step_9").mkdir()
    markers = find_markers(run_dir)
    assert [model.name for model in markers] == IN_ORDER
    assert [model.marker.hours for model in markers] == [0.02, 0.05, 0.1]
    assert {model.role for model in markers} == {"marker"}


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


def test_scores_are_kept_and_reused(run_dir, glue_dir, trainings, tmp_path):
    teacher = named_candidate(f"Teacher, 2 layers={make_model(tmp_path / 'teacher', 'BertModel', seed=9)}")
    assert teacher.role == "teacher" and named_candidate("other=x").role == "baseline"
    models = [*find_markers(run_dir)[:2], teacher]
    said = []
    rows = score(models, glue_dir, run_dir, tasks=["sst2,rte"], seeds=(1, 2), say=said.append)
    assert len(trainings) == len(rows) == len(said) == 12 and len(set(trainings)) == 12
    assert read_results(run_dir) == json.loads(json.dumps(rows))
    assert "[12 of 12]" in said[-1]
    first = rows[0]
    assert (first["model"], first["task"], first["fraction"], first["step"], first["hours"], first["seed"]) == (
        IN_ORDER[0], "SST-2", 0.5, 200, 0.02, 1
    )
    assert first["headline"] == "accuracy" and set(first["metrics"]) == {"accuracy"}
    assert (first["train_size"], first["dev_size"], rows[1]["seed"]) == (32, 32, 2)
    assert first["settings"]["learning_rate"] == 5e-5 and first["train_seconds"] > 0
    assert first["protocol"]["name"] == "flags" and len(first["protocol"]["sha256"]) == 64
    assert first["parameters"] > 10_000 and set(first["versions"]) == {"torch", "transformers"}
    assert "hours" not in rows[-1]
    ones = sum(line.endswith("1") for line in (glue_dir / "SST-2" / "dev.tsv").read_text().splitlines())
    assert first["constant_metrics"] == {"accuracy": max(ones, 32 - ones) / 32}

    trainings.clear(), said.clear()
    again = score(models, glue_dir, run_dir, tasks=["SST-2", "RTE"], seeds=(1, 2), say=said.append)
    assert trainings == [] and again == rows
    assert len(said) == 12 and all("already scored, skipped" in line for line in said)
    assert len(read_results(run_dir)) == 12
    score(models, glue_dir, run_dir, seeds=(2, 3))
    assert {seed for _, _, seed in trainings} == {3} and len(trainings) == 3


def test_what_changed_is_scored_again(run_dir, glue_dir, trainings):
    models = find_markers(run_dir)[:2]
    score(models, glue_dir, run_dir)
    make_model(models[1].folder, seed=50)
    trainings.clear()
    score(models, glue_dir, run_dir)
    assert trainings == [(IN_ORDER[1], "SST-2", 42)]
    for change in ({"seeds": (1,)}, {"settings": {"learning_rate": 1e-3}}, {"overwrite": True}):
        trainings.clear()
        score(models, glue_dir, run_dir, **change)
        assert len(trainings) == 2
    assert len(read_results(run_dir)) == 7  # three kinds of two markers, and the weights that were replaced


def test_changed_data_is_scored_again(run_dir, tmp_path, trainings):
    models = find_markers(run_dir)[:1]
    for count in (16, 24):
        glue = write_sst2(tmp_path / f"glue_{count}", train=64, dev=count)
        assert score(models, glue, run_dir)[0]["dev_size"] == count
    assert len(trainings) == 2


def test_a_copy_under_another_name_is_known_and_has_no_hours(run_dir, glue_dir, trainings):
    marker = find_markers(run_dir)[0]
    copy = Candidate("copy", marker.folder, "baseline")
    said = []
    rows = score([marker, copy], glue_dir, run_dir, say=said.append)
    assert len(trainings) == 1
    assert rows[1]["metrics"] == rows[0]["metrics"] and read_results(run_dir) == json.loads(json.dumps(rows))
    assert "hours" in rows[0] and "hours" not in rows[1] and f"already scored as {marker.name}" in said[1]
    with pytest.raises(UserError, match="two models are called 'copy'"):
        score([copy, copy], glue_dir, run_dir)


def test_an_interrupted_call_keeps_what_it_scored(run_dir, glue_dir, monkeypatch):
    real = training.fine_tune

    def stops_at_the_second(folder, *rest, **more):
        if folder.name == IN_ORDER[1]:
            raise KeyboardInterrupt
        return real(folder, *rest, **more)

    monkeypatch.setattr(training, "fine_tune", stops_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        score(find_markers(run_dir), glue_dir, run_dir)
    assert [row["model"] for row in read_results(run_dir)] == IN_ORDER[:1]


def test_one_that_fails_is_named_and_the_others_go_on(run_dir, glue_dir, monkeypatch):
    real = training.fine_tune

    def fails_at_the_second(folder, *rest, **more):
        if folder.name == IN_ORDER[1]:
            raise LookupError("out of memory\nand more")
        return real(folder, *rest, **more)

    monkeypatch.setattr(training, "fine_tune", fails_at_the_second)
    protocol = flags_only(FineTuningSettings(**QUICK), (42,))
    scorer = Scorer(select_tasks(["sst2"]), protocol, Wanted(run_dir, Source(glue_dir), devices="cpu"), lambda line: None)
    rows = scorer.score(find_markers(run_dir))
    assert [row["model"] for row in rows] == [IN_ORDER[0], IN_ORDER[2]] == [row["model"] for row in read_results(run_dir)]
    assert scorer.failures == [f"SST-2  {IN_ORDER[1]} seed 42: LookupError: out of memory and more"] and scorer.done == 3


def test_two_processes_give_the_scores_of_one(run_dir, glue_dir, tmp_path):
    markers = find_markers(run_dir)
    alone = score(markers, glue_dir, tmp_path / "one", tasks=["sst2,rte"])
    protocol = flags_only(FineTuningSettings(**QUICK), (42,))
    wanted = Wanted(tmp_path / "two", Source(glue_dir), devices="cpu,cpu")
    said = []
    both = Scorer(select_tasks(["sst2,rte"]), protocol, wanted, said.append).score(markers)
    assert [row["metrics"] for row in both] == [row["metrics"] for row in alone] and len(said) == 6
    kept = {(row["model"], row["task"]): row for row in read_results(tmp_path / "two")}
    assert [kept[row["model"], row["task"]] for row in both] == json.loads(json.dumps(both))
    with pytest.raises(UserError, match="--devices cuda:9: cuda:9 is not here; auto, or a list of cpu"):
        Scorer(select_tasks(["sst2"]), protocol, Wanted(tmp_path / "three", Source(glue_dir), devices="cuda:9")).score(markers)


def test_saved_models_are_made_where_they_are_missing(run_dir, glue_dir, trainings, tmp_path):
    models = find_markers(run_dir)[:1]
    score(models, glue_dir, tmp_path / "out")
    for expected in (2, 2):
        score(models, glue_dir, tmp_path / "out", save_models=True)
        assert len(trainings) == expected
        (folder,) = (tmp_path / "out" / "models" / IN_ORDER[0] / "SST-2").iterdir()
        assert folder.name.startswith("seed_42_") and (folder / "model.safetensors").is_file()
    # Other settings leave another model.
    score(models, glue_dir, tmp_path / "out", save_models=True, settings={"learning_rate": 1e-3})
    assert len({path.read_bytes() for path in folder.parent.glob("*/model.safetensors")}) == 2
    # A fine-tuned model is scored as it is, with the head it has, and then gives the same score again.
    saved = Candidate("saved", folder)
    (as_it_is,) = score([saved], glue_dir, tmp_path / "out", seeds=(1, 2), mode="as_it_is")
    assert as_it_is["mode"] == "as_it_is" and len(trainings) == 3
    assert as_it_is["metrics"] == read_results(tmp_path / "out")[0]["metrics"]
    said = []
    score([saved], glue_dir, tmp_path / "out", seeds=(5,), mode="as_it_is", settings={"learning_rate": 1e-3}, say=said.append)
    assert said == [f"SST-2  saved: accuracy {100 * as_it_is['metrics']['accuracy']:.1f}, already scored, skipped"], "neither matters"


def test_a_damaged_result_file_is_an_error_before_training(run_dir, glue_dir, trainings):
    (run_dir / "glue.json").write_text('[{"model": "a"')
    for overwrite in (False, True):
        with pytest.raises(UserError, match=r"glue\.json: not JSON"):
            score(find_markers(run_dir), glue_dir, run_dir, overwrite=overwrite)
    assert trainings == []


def test_a_run_has_ended_where_its_summary_says_so(tmp_path):
    assert run_state(tmp_path) is None
    for reason, state in (("time_budget", "time_budget"), ("signal", None), ("rank_failure", None)):
        (tmp_path / "summary.json").write_text(json.dumps({"exit_reason": reason}))
        assert run_state(tmp_path) == state
    (tmp_path / "summary.json").write_text("{}")
    with pytest.raises(UserError, match="no exit_reason"):
        run_state(tmp_path)
