"""Models without a run, and whole sweeps, make a page; what has learnt nothing is said; what flags changed stands there with its value."""

import json

import pytest
from matplotlib.figure import Figure
from report_case import QUICK, make_run, make_weights, marker_rows, reference_rows, row, write_rows
from report_page import read_page

from dataset.errors import UserError
from evaluation.report.__main__ import main
from evaluation.report.score_tables import learnt_nothing, overview
from evaluation.report.sources import SWEEP_FILE, find_sources
from evaluation.scoring.panels import conditions, panels, seeds_text, titles, told_apart
from evaluation.scoring.plot import draw_curve, draw_panel, looks
from evaluation.scoring.protocols import DEFAULTS, FLAGS, OWN_HEAD
from evaluation.sweep.record import FILE_NAME as RECORD_NAME


def of_run(one):
    return "run" if one["role"] == "marker" else None


def drawn(panel):
    axes = Figure().add_subplot()
    draw_panel(axes, panel, looks([panel]))
    return axes


@pytest.fixture
def models(tmp_path):
    """Rows of a teacher, a cut with hours 0 and a student on RTE, where the floor is 52.7; the cut is below it, the student on it."""
    folders = {name: make_weights(tmp_path / name, name) for name in ("teacher", "cut", "student")}
    cut = [row("cut", folders["cut"], "RTE", 0.34 + 0.08 * seed, seed, hours=0.0, step=0, fraction=0.0) for seed in (1, 2)]
    student = [row("student", folders["student"], "RTE", 0.527, seed, hours=1.5, step=9, fraction=1.0) for seed in (1, 2)]
    return [*reference_rows(folders["teacher"], "teacher", "teacher", ["RTE"], 0.9, 2), *cut, *student]


def test_a_folder_of_scores_alone_makes_a_page(tmp_path, models, capsys):
    main([str(write_rows(tmp_path / "scores", models))])
    page = read_page(tmp_path / "scores" / "report" / "report.html")
    assert "1 chart as PNG" in capsys.readouterr().out
    assert [section.attributes["id"] for section in page.all("section")] == ["warnings", "scores"]
    assert [link.attributes["href"] for link in page.all("nav")[0].all("a")] == ["#warnings", "#scores"]
    assert page.all("h1")[0].text == "Scores of 3 models"
    assert [item.text for item in page.all("ul", class_="warnings")[0].all("li")] == [
        "cut has learnt nothing on RTE: 46.0, always the same answer gives 52.7",
        "student has learnt nothing on RTE: 52.7, always the same answer gives 52.7"]
    table = page.all("table", id_="overview-1")[0].table()
    assert table["cut model"]["RTE"].text == "46.0? ± 5.7" and table["teacher teacher"]["kept of teacher %"].text == "100.0"
    assert table["student model"]["kept of teacher %"].text == f"{100 * 0.527 / 0.906:.1f}"
    svg, = page.all("svg")
    texts = [element.text for element in svg.all("text")]
    assert {"teacher", "cut", "student", "accuracy (%)"} <= set(texts) and "training time (hours)" not in texts
    assert svg.all("desc")[0].text == "accuracy on RTE by model: teacher 90.6 percent; cut 46.0 percent; student 52.7 percent"
    assert "mean of 2 seeds (n=2: no useful interval), protocol quick v1 (ab12cd34), data da7ada7a." in page.all("figcaption")[0].text


def test_markers_without_their_run_are_told_whose_they_are(tmp_path):
    run = make_run(tmp_path / "job" / "a")
    place = write_rows(tmp_path / "scores", marker_rows(run, ["RTE"], seeds=1))
    with pytest.raises(UserError, match=f"no score in it can be shown .*is a marker of {run}, which is not in this report") as error:
        main([str(place)])
    assert "\n" not in str(error.value) and [path.name for path in place.iterdir()] == ["glue.json"]


def test_of_a_sweep_all_runs_that_ended_are_taken(tmp_path):
    assert SWEEP_FILE == RECORD_NAME
    sweep = tmp_path / "sweep"
    ended = [make_run(sweep / point / f"seed_{seed}", markers=0) for point in ("lr=1", "lr=2") for seed in (2, 10)]
    (sweep / SWEEP_FILE).write_text("{}")
    (sweep / "lr=1" / "seed_2.log").write_text("")
    going = make_run(sweep / "lr=3" / "seed_1", finished=False)
    stopped = make_run(sweep / "lr=4" / "seed_1")
    (stopped / "summary.json").write_text(json.dumps({"exit_reason": "signal"}))
    scores = write_rows(tmp_path / "scores", [])
    found = find_sources([sweep, scores, going])
    assert found.runs == [*ended, going] and found.scores == [scores]
    assert found.notes == [f"{sweep}: left out, because they have not ended: lr=3/seed_1, lr=4/seed_1"]
    for run in ended:
        (run / "metrics.jsonl").unlink()  # nothing to draw
    main([str(sweep)])
    page = read_page(sweep / "report" / "report.html")
    assert list(page.all("table", id_="runs")[0].table()) == [f"lr={value}/seed_{seed}" for value in (1, 2) for seed in (2, 10)]
    assert page.all("section", id_="warnings")[0].all("li")[0].text == found.notes[0]
    for run in ended:
        (run / "summary.json").unlink()
    with pytest.raises(UserError, match="none of its runs has ended yet; give the folder of a run, such as"):
        find_sources([sweep])


def test_runs_that_learn_nothing_are_told_with_their_markers(tmp_path):
    run = make_run(tmp_path / "a")
    rows = marker_rows(run, ["RTE", "SST-2", "MRPC", "CoLA"], seeds=1)
    for place, one in enumerate(rows):
        low = {"RTE": 0.5, "SST-2": 0.5 if place < 8 else 0.6, "MRPC": 0.9, "CoLA": 0.0}[one["task"]]
        one["metrics"] = {one["headline"]: low}
        one["diverged"] = one["task"] == "CoLA" and one["hours"] < 2
    found = panels(rows, of_run)
    assert learnt_nothing(found) == [
        "run has learnt nothing on RTE in any of 4 markers: 50.0, always the same answer gives 52.7",
        "run had learnt nothing on SST-2 in 2 of 4 markers (25 %, step 10, 50 %, step 20): 50.0, always the same answer gives 50.9",
        "run has learnt nothing on CoLA in any of 4 markers: 0.0, always the same answer gives 0.0"]
    for one in rows:
        one["diverged"] = one["task"] == "CoLA"
    assert learnt_nothing(panels(rows, of_run))[-1] == "run has no score on CoLA: every seed diverged in any of 4 markers"


def test_nothing_is_kept_of_a_teacher_that_has_learnt_nothing(tmp_path):
    teacher, student = make_weights(tmp_path / "t", "t"), make_weights(tmp_path / "s", "s")
    rows = [row("teacher", teacher, task, value, role="teacher") for task, value in (("RTE", 0.5), ("SST-2", 0.9))]
    rows += [row("student", student, task, 0.6) for task in ("RTE", "SST-2")]
    both, = overview(panels(rows, of_run), False)
    assert both.head[-1] == "kept of teacher %" and both.lines[1].cells[-1].value == pytest.approx(0.6 / 0.9)
    assert "Kept of teacher: mean over SST-2 of the share of teacher's score." in both.notes
    alone, = overview(panels(rows[::2], of_run), False)
    assert "kept of teacher %" not in alone.head


def test_what_flags_changed_stands_with_its_value(models):
    first = {**QUICK, "changed": ["max_train_samples", "start_from"]}
    second = first | {"sha256": "cd" * 32}
    found = panels([one | {"protocol": protocol, "settings": {**one["settings"], "max_train_samples": count}}
                    for protocol, count in ((first, 200), (second, 2500)) for one in models], of_run)
    assert titles(found) == ["RTE, quick v1 (ab12cd34, changed), max_train_samples 200",
                             "RTE, quick v1 (cdcdcdcd, changed), max_train_samples 2500"]
    assert [table.title for table in overview(found, False)] == [f"Protocol {told_apart(panel, found)}" for panel in found]
    assert overview(found, False)[1].notes[1] == "Flags changed the protocol: max_train_samples 2500, other start_from."
    assert conditions(first, found[0].settings) == "quick v1 (ab12cd34), max_train_samples 200, other start_from"
    alone = {"name": FLAGS, "version": 0, "sha256": "ef" * 32, "changed": [], "aggregate": "mean"}
    assert conditions(alone, {**DEFAULTS, "max_steps": 7}) == "settings from flags (efefefef), max_steps 7"


def test_models_as_they_are_have_no_seeds(models):
    own = {"name": OWN_HEAD, "version": 1, "sha256": "ef" * 32, "changed": [], "aggregate": "mean"}
    found = panels([one | {"protocol": own, "settings": {"max_seq_length": 64}, "mode": "as_it_is", "seed": 0} for one in models], of_run)
    assert seeds_text(found[0]) == "nothing trained" and [entry.curve for entry in found[0].references] == ["teacher", "cut", "student"]
    table, = overview(found, False)
    assert table.title == "Protocol own head (efefefef)"
    assert table.notes[0].startswith("In percent, models as they are, with their own heads: ")
    assert table.notes[1] == "Settings that differ from the defaults: max_seq_length 64."


def test_each_model_without_a_run_is_a_dot_by_its_name(tmp_path, models):
    panel, = panels(models, of_run)
    axes = drawn(panel)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["teacher", "cut", "student"]
    dots = [line for line in axes.lines if line.get_linestyle() == "None"]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in dots] == [
        (pytest.approx(100 * entry.score.value), place) for place, entry in enumerate(panel.references)]
    low, high = axes.get_xlim()
    assert low < 42 and high > 90.8 and axes.get_legend_handles_labels()[1] == ["always the same answer (52.7)"]
    assert [text.get_text() for text in axes.texts] == ["90.6 ± 0.3", "46.0 ± 5.7", "52.7 ± 0.0"]
    without_hours = [{name: value for name, value in one.items() if name != "hours"} for one in models]
    for name, rows in {"exports.png": models, "plain.png": without_hours}.items():
        assert draw_curve(rows, tmp_path / name, "")
    assert (tmp_path / "exports.png").read_bytes() == (tmp_path / "plain.png").read_bytes()  # an export that is no marker is no curve


@pytest.mark.parametrize(("seeds", "said", "bars", "bands"), [
    (1, "1 seed", 0, 0), (2, "2 seeds (n=2: no useful interval)", 0, 0), (3, "3 seeds", 1, 1)])
def test_two_seeds_have_dots_and_no_interval(tmp_path, models, seeds, said, bars, bands):
    run = make_run(tmp_path / "a")
    curve, = panels(marker_rows(run, ["RTE"], seeds=seeds), of_run)
    teacher, = panels(reference_rows(tmp_path / "teacher", "teacher", "teacher", ["RTE"], 0.9, seeds), of_run)
    assert seeds_text(curve) == seeds_text(teacher) == said
    axes = drawn(curve)
    assert sum(type(one).__name__ == "FillBetweenPolyCollection" for one in axes.collections) == bands
    assert sum(type(one).__name__ == "PathCollection" for one in axes.collections) == (seeds > 1)
    assert len([line for line in drawn(teacher).lines if line.get_marker() == "|"]) == bars


def test_hours_can_be_read_and_a_point_at_their_start_is_whole(tmp_path):
    run = make_run(tmp_path / "a")
    rows = [one | {"hours": (one["hours"] - 0.5) * 0.0171} for one in marker_rows(run, ["RTE"], seeds=1)]
    axes = drawn(panels(rows, of_run)[0])
    line = axes.lines[0]
    assert line.get_xdata()[0] == 0 == axes.get_xlim()[0] and not line.get_clip_on()
    low, high = axes.get_ylim()
    assert all(low < value < high for value in line.get_ydata())
    assert len(axes.get_xticks()) <= 6
