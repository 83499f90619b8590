"""Whatever state a run is in, it can be reported on: what is missing or damaged is one line; a mistake ends before anything is written."""

import json
import math

import numpy as np
import pytest
from report_case import HOURS, make_run, marker_rows, train_event, write_rows

from dataset.errors import UserError
from evaluation.report.__main__ import main
from evaluation.report.curves import loss_charts, measure_charts, thin
from evaluation.report.run import read_runs
from evaluation.report.tables import cost_table, differing_flags, facts


def read(folder):
    return read_runs([folder])[0]


def shown(run):
    return dict(facts(run))


def test_a_finished_run_says_what_its_summary_says(tmp_path):
    run = read(make_run(tmp_path / "job" / "a", steps=40))
    said = shown(run)
    assert run.name == "job/a" and run.notes == []
    assert said["ended"].text == "time_budget: the time budget was used up"
    assert [said[label].value for label in ("training time", "steps", "samples", "non-padding tokens", "tokens per second")] == [
        HOURS + 0.001, 40, 1280, 160000, 3812.5]
    assert said["devices"].text == "2 × CPU (16 cores)" and "deepspeed 0.19.8" in said["versions"].text
    table = cost_table([run], {run.name: 7200.0})
    cost = dict(zip(table.head[1:], table.lines[0].cells, strict=True))
    assert cost["hours × devices"].value == 2 * (HOURS + 0.001) and cost["closing work"].value == 3.5
    assert cost["energy"].text == "unknown" and cost["fine-tuning for scores"].value == 2.0


@pytest.mark.parametrize(("file", "key", "value", "kwh"), [
    ("summary.json", "energy_kwh", 1.5, 1.5), ("environment.json", "energy_wh", 500, 0.5), ("summary.json", "energy_j", 7.2e6, 2.0)])
def test_energy_is_told_where_the_files_tell_it(tmp_path, file, key, value, kwh):
    folder = make_run(tmp_path / "a")
    path = folder / file
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    assert read(folder).energy_kwh == pytest.approx(kwh)


def test_a_run_that_is_still_going_says_what_its_last_event_says(tmp_path):
    run = read(make_run(tmp_path / "a", steps=40, finished=False))
    said = shown(run)
    assert said["ended"].text == "no summary.json: still going, or killed"
    assert [said[label].value for label in ("training time", "steps", "samples")] == [HOURS, 40, 1280]
    assert run.notes == ["no summary.json: the run is still going, or was killed"]


def test_what_is_missing_or_damaged_is_one_line_each(tmp_path):
    folder = make_run(tmp_path / "a", finished=False)
    (folder / "args.yaml").write_text("a: [1")
    (folder / "environment.json").write_text("[]")
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    lines[5] = '{"event": "tra'
    lines[7] = "[1, 2]"
    lines.append('{"event": "train", "step": 4')
    (folder / "metrics.jsonl").write_text("\n".join(lines))
    run = read(folder)
    assert len(run.notes) == 5 and all("\n" not in note for note in run.notes)
    expected = ["args.yaml cannot be read (while", "environment.json is not a mapping", "no summary.json",
                f"metrics.jsonl line {len(lines)} is cut short", "metrics.jsonl lines 6, 8 cannot be read"]
    assert all(words in note for words, note in zip(expected, run.notes, strict=True))
    assert len(run.events) == len(lines) - 3
    assert run.flags == {} and run.devices is None and shown(run)["devices"].text == "unknown"


def test_only_a_start_is_enough(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"event": "start", "step": 0, "samples": 0, "tokens": 0, "hours": 0.0, "progress": 0.0}\n')
    run = read(tmp_path)
    assert "no training step is logged yet" in run.notes
    assert loss_charts([run]) == measure_charts([run]) == []


def test_losses_that_are_not_finite_resumes_and_superseded_markers_are_told(tmp_path):
    folder = make_run(tmp_path / "a", steps=10, finished=False)
    (folder / "summary.json").write_text(json.dumps({"exit_reason": "diverged", "why": "the loss is NaN"}))
    (folder / "finetune" / "superseded" / "progress_0.1_step_4").mkdir(parents=True)
    with (folder / "metrics.jsonl").open("a") as file:
        losses = (train_event(11, 10, loss=None), train_event(12, 10, loss=math.inf), train_event(13, 10))
        for event in ({"event": "resume", "step": 10}, *losses):
            file.write(json.dumps(event) + "\n")
    notes = read(folder).notes
    assert [note for note in notes if "diverged (the loss is NaN)" in note]
    assert "the training loss was not finite in 2 of 13 events, first at step 11" in notes
    assert [note for note in notes if note.startswith("resumed 1 time, at step 10")]
    assert [note for note in notes if note.startswith("1 marker superseded") and note.endswith("progress_0.1_step_4")]


def test_curves_have_the_values_of_the_events(tmp_path):
    run = read(make_run(tmp_path / "a", steps=16, terms=("hidden_mse", "logit"), mfu=0.25))
    hidden, logit, total = loss_charts([run])
    assert [chart.key for chart in (hidden, logit, total)] == ["loss/hidden_mse", "loss/logit", "loss"]
    train = run.of("train")
    np.testing.assert_array_equal(total.lines[0].values, [event["loss"] for event in train])
    np.testing.assert_array_equal(total.lines[0].hours, [event["hours"] for event in train])
    held_out = run.of("validation")
    assert total.lines[1].held_out and len(held_out) == 8
    np.testing.assert_array_equal(logit.lines[1].values, [event["loss/logit"] for event in held_out])
    rate, speed, peak = measure_charts([run])
    np.testing.assert_array_equal(speed.lines[0].values, [event["tokens_per_s"] for event in train])
    np.testing.assert_array_equal(peak.lines[0].values, [25.0] * 16)
    assert rate.key == "lr"


def test_the_sum_of_one_term_is_not_drawn_twice_and_sums_of_other_objectives_stay_apart(tmp_path):
    terms = {"a": ("hidden_mse",), "b": ("hidden_mse", "logit"), "c": ("mlm", "logit")}
    runs = read_runs([make_run(tmp_path / name, terms=own) for name, own in terms.items()])
    found = {chart.title: [line.run.split("/")[-1] for line in chart.lines if not line.held_out] for chart in loss_charts(runs)}
    assert found == {"Loss term hidden_mse": ["a", "b"], "Loss term logit": ["b", "c"], "Loss term mlm": ["c"],
                     "Loss, weighted sum: hidden_mse+logit": ["b"], "Loss, weighted sum: mlm+logit": ["c"]}


def test_thinning_keeps_ends_extremes_and_gaps():
    hours = np.arange(5000.0)
    values = np.sin(hours / 300)
    values[1234], values[3210], values[4000] = 50.0, -50.0, np.nan
    few_hours, few = thin(hours, values, 200)
    assert len(few) <= 3 * 100 + 2 and (few_hours[0], few_hours[-1]) == (0, 4999)
    assert np.nanmax(few) == 50 and np.nanmin(few) == -50 and np.isnan(few).sum() == 1
    assert (np.diff(few_hours) > 0).all() and set(few_hours) <= set(hours)
    np.testing.assert_array_equal(few, values[few_hours.astype(int)])
    assert thin(hours[:200], values[:200], 200)[0] is not None and len(thin(hours[:200], values[:200], 200)[0]) == 200


def test_only_flags_that_differ_are_told(tmp_path):
    runs = read_runs([make_run(tmp_path / "a", lr=1e-4, aug=False), make_run(tmp_path / "b", lr=2e-4, aug=0, extra="x")])
    table = differing_flags(runs)
    found = {line.name: [cell.text for cell in line.cells] for line in table.lines}
    assert found == {"current_run_id": ["a", "b"], "lr": ["0.0001", "0.0002"], "aug": ["false", "0"], "extra": ["–", "x"]}
    assert table.notes == ("The same in all of these runs: 9 other flags.",)


def test_names_tell_runs_apart(tmp_path):
    folders = [make_run(tmp_path / place / "job" / "1") for place in ("x", "y")]
    assert [run.name for run in read_runs(folders)] == ["x/job/1", "y/job/1"]


def test_mistakes_are_one_line_and_write_nothing(tmp_path):
    run = make_run(tmp_path / "runs" / "job" / "a")
    other = make_run(tmp_path / "runs" / "job" / "b")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    broken = make_run(tmp_path / "broken")
    (broken / "glue.json").write_text("[{")
    for arguments, words in {
        (tmp_path / "none",): "no such folder; give the folder of a run",
        (tmp_path / "empty",): "none of metrics.jsonl",
        (tmp_path / "runs",): f"did you mean {run}",
        (run, other): "--output_dir FOLDER says where",
        (run, run, "--output_dir", tmp_path / "out"): "given twice",
        (run, "--scores", tmp_path / "empty"): "no glue.json in it",
        (broken,): "not JSON",
        (run, "--output_dir", tmp_path / "file"): "cannot be written",
        (): "required",
    }.items():
        with pytest.raises(UserError, match=words) as error:
            main([str(argument) for argument in arguments])
        assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists() and not (run / "report").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken", "empty", "file", "runs"]


def test_a_run_without_scores_is_told_the_command_and_a_second_call_leaves_no_old_charts(tmp_path, capsys):
    run = make_run(tmp_path / "with a space")
    main([str(run)])
    text = (run / "report" / "report.html").read_text()
    assert f"python run_glue.py --run_dir &#39;{run}&#39; --task_name" in text
    assert capsys.readouterr().out.splitlines()[0] == str(run / "report" / "report.html")
    write_rows(run, marker_rows(run, ["RTE"], seeds=1))
    charts = run / "report" / "report_charts"
    (charts / "throughput.png").rename(charts / "old.png")
    main([str(run)])
    assert sorted(path.name for path in charts.iterdir()) == ["learning_rate.png", "loss_term_hidden_mse.png", "rte.png", "throughput.png"]
    assert "run_glue.py --run_dir" not in (run / "report" / "report.html").read_text()
    assert not [path for path in (run / "report").iterdir() if path.name.startswith(".")]
