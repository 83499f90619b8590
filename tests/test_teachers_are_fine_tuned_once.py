"""`teach`: run_glue.py's fine-tuning with the model as its result; what is done stays, and what other settings made is never replaced."""

import json

import pytest
from safetensors.torch import load_file
from teaching_case import SST2
from tiny_glue import make_model, write_cola, write_sst2

from dataset.errors import UserError
from dataset.files import PARTIAL_PREFIX
from evaluation.fine_tuning import training
from evaluation.fine_tuning.settings import FineTuningSettings
from evaluation.tasks.table import load_task
from task_distillation.teaching import label, teach

SETTINGS = {"max_seq_length": 32, "learning_rate": 5e-3, "num_train_epochs": 6.0, "per_device_train_batch_size": 16, "precision": "fp32",
            "seed": 7}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("teach")
    write_sst2(place / "glue", train=128, dev=32)
    write_cola(place / "glue")
    make_model(place / "model")
    teach.main(flags(place))
    return place


def flags(place, **changed):
    given = {"model": place / "model", "task_name": "sst2", "glue_dir": place / "glue", "output_dir": place / "teacher", "device": "cpu"}
    return [str(word) for name, value in (given | SETTINGS | changed).items() if value is not None for word in (f"--{name}", value)]


def test_the_teacher_is_what_the_scores_own_fine_tuning_gives(place, tmp_path):
    data = load_task(SST2, place / "glue")
    outcome = training.fine_tune(place / "model", data, FineTuningSettings(**SETTINGS), device="cpu", save_to=tmp_path / "same", say=str)
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (place / "teacher", tmp_path / "same"))
    assert ours.keys() == theirs.keys() and all(ours[name].equal(theirs[name]) for name in ours)
    record = json.loads((place / "teacher" / teach.RECORD).read_text())
    assert record["metrics"] == outcome.metrics and record["metrics"]["accuracy"] > record["constant_metrics"]["accuracy"] + 0.2
    assert (record["task"], record["label_names"], record["settings"]) == ("SST-2", ["negative", "positive"], {
        **record["settings"], **SETTINGS})
    assert record["data_sha256"] == data.sha256 and record["best_step"] == 48 and record["precision"] == "fp32"


def test_the_teacher_can_be_scored_and_can_label_as_it_is(place, tmp_path):
    data = load_task(SST2, place / "glue")
    settings = FineTuningSettings(max_seq_length=32, precision="fp32")
    scored = training.score_only(place / "teacher", data, settings, device="cpu", say=str)
    assert scored.metrics == json.loads((place / "teacher" / teach.RECORD).read_text())["metrics"]
    label.main(["--teacher_path", str(place / "teacher"), "--transfer_set", str(place / "glue/SST-2/dev.tsv"), "--task_name", "sst2",
                "--output", str(tmp_path / "dev.tsv"), "--max_seq_length", "32", "--precision", "fp32", "--devices", "cpu"])
    rows = [line.split("\t") for line in (tmp_path / "dev.tsv").read_text().splitlines()[1:]]
    right = [float(row[3]) > float(row[2]) for row in rows]
    assert sum(said == bool(wanted) for said, wanted in zip(right, data.dev["dev"].labels, strict=True)) / 32 == scored.metrics["accuracy"]


def test_what_is_done_is_not_trained_again(place, monkeypatch, capsys):
    monkeypatch.setattr(training, "fine_tune", None)
    before = {path: path.stat().st_mtime_ns for path in (place / "teacher").iterdir()}
    teach.main(flags(place))
    assert f"{place}/teacher: already done, accuracy " in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in (place / "teacher").iterdir()}


def told(arguments):
    with pytest.raises(UserError) as error:
        teach.main(arguments)
    said = str(error.value)
    assert "\n" not in said
    return said


def test_a_teacher_of_other_settings_is_never_replaced(place, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "fine_tune", None)
    make_model(tmp_path / "other", seed=5)
    write_sst2(tmp_path / "glue", train=100, dev=32)
    before = {path.name: path.read_bytes() for path in (place / "teacher").iterdir()}
    for change, words in (
        ({"learning_rate": 2e-3}, "a teacher of other settings (--learning_rate 0.005, not 0.002)"),
        ({"seed": 8}, "a teacher of other settings (--seed 7, not 8)"),
        ({"model": tmp_path / "other"}, "a teacher of another --model"),
        ({"glue_dir": tmp_path / "glue"}, "a teacher of other data of SST-2"),
        ({"task_name": "cola"}, "a teacher of SST-2"),
    ):
        assert words in told(flags(place, **change))
    assert before == {path.name: path.read_bytes() for path in (place / "teacher").iterdir()}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    assert "no teacher of this command" in told(flags(place, output_dir=tmp_path / "mine"))
    assert "no teacher of this command" in told(flags(place, output_dir=tmp_path / "mine/notes.txt"))


def test_a_teacher_that_was_changed_since_is_not_taken_for_done(place, monkeypatch):
    monkeypatch.setattr(training, "fine_tune", None)
    config = place / "teacher" / "config.json"
    before = config.read_text()
    config.write_text(before.replace("negative", "poor"))
    try:
        assert "changed since teach.json was written" in told(flags(place))
    finally:
        config.write_text(before)


def test_interrupted_anywhere_it_leaves_nothing_under_the_final_name(place, tmp_path, monkeypatch):
    fast = {"max_steps": 1, "num_train_epochs": 3.0}

    def stop(*_):
        raise KeyboardInterrupt

    for moment in ("write_json", "replace_folder"):
        with monkeypatch.context() as patch:
            patch.setattr(teach, moment, stop)
            with pytest.raises(KeyboardInterrupt):
                teach.main(flags(place, output_dir=tmp_path / "new", **fast))
        assert not list(tmp_path.iterdir())
    (tmp_path / f"{PARTIAL_PREFIX}teach_new").mkdir()  # what a killed process may leave
    teach.main(flags(place, output_dir=tmp_path / "new", **fast))
    assert [path.name for path in tmp_path.iterdir()] == ["new"] and (tmp_path / "new" / teach.RECORD).is_file()


def test_a_teacher_that_diverged_is_no_teacher(place, tmp_path):
    said = told(flags(place, output_dir=tmp_path / "new", learning_rate=1e30, max_grad_norm=0.0, max_steps=3))
    assert "not finite after 3 updates; a lower --learning_rate" in said and not list(tmp_path.iterdir())


def test_a_protocol_gives_the_settings_and_flags_change_them(place):
    parsed = teach.make_parser().parse_args(["--model", "m", "--output_dir", "o", "--protocol", "quick", "--learning_rate", "1e-4"])
    settings, notes = teach.teach_settings(parsed, "SST-2")
    assert (settings.learning_rate, settings.max_train_samples, settings.num_train_epochs, settings.seed) == (1e-4, 2500, 2.0, 1)
    assert len(notes) == 1 and "the first of its seeds, 1; --seed says another" in notes[0]
    parsed = teach.make_parser().parse_args(["--model", "m", "--output_dir", "o", "--protocol", "quick", "--seed", "3"])
    settings, notes = teach.teach_settings(parsed, "SST-2")
    assert settings.seed == 3 and notes == []
    free = dict.fromkeys(("learning_rate", "per_device_train_batch_size", "num_train_epochs"))
    assert "a grid over " in told(flags(place, output_dir=place / "never", protocol="budget", **free))


@pytest.mark.parametrize(("change", "words"), [
    ({"model": "nowhere"}, "nowhere: no such folder"), ({"task_name": "sst3"}, "unknown task 'sst3'"),
    ({"glue_dir": "nowhere"}, "nowhere: no such folder"),
    ({"task_name": None}, "no task named"), ({"max_seq_length": 128}, "has 64 positions"), ({"learning_rate": 0}, "give more than 0"),
    ({"task_name": "squad1.1"}, "task distillation is for classifications and regressions"), ({"protocol": "quik"}, "did you mean quick?"),
    ({"rate": 1}, "unknown flag --rate"),
])
def test_mistakes_are_one_line(place, tmp_path, monkeypatch, change, words):
    monkeypatch.setattr(training, "fine_tune", None)
    assert words in told(flags(place, **{"output_dir": tmp_path / "new"} | change)) and not list(tmp_path.iterdir())
