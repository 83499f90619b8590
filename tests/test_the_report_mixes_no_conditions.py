"""Scores stand beside each other only if protocol, task, version and data agree, and only if their weights are those that are there."""

import pytest
from report_case import QUICK, make_run, make_weights, marker_rows, reference_rows, row, write_rows

from evaluation.report.run import read_runs
from evaluation.report.score_tables import all_scores, overview
from evaluation.report.scores import read_scores
from evaluation.scoring.panels import panels, titles
from evaluation.scoring.plot import draw_curve, looks
from evaluation.scoring.statistics import retention, summarise

SANE = {"name": "sane", "version": 2, "sha256": "5a" * 32, "changed": ["seeds"], "aggregate": "median"}


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "job" / "a")


@pytest.fixture
def teacher(tmp_path):
    return make_weights(tmp_path / "teacher", "teacher")


def scores(*folders, more=()):
    return read_scores(read_runs(list(folders)), list(more))


def curves(found):
    return {name: [entry.label for entry in entries] for name, entries in found.curves.items()}


def test_other_protocols_data_and_versions_have_panels_of_their_own(run):
    rows = marker_rows(run, ["RTE"], seeds=2)
    others = [{"protocol": SANE}, {"protocol": {**QUICK, "sha256": "ff" * 32}}, {"data_sha256": "0d" * 32}, {"task_version": 2}]
    write_rows(run, [*rows, *(one | {"metrics": {"accuracy": 0.6}} | more for more in others for one in rows)])
    found = scores(run).panels
    assert len(found) == 5 and len(set(titles(found))) == 5
    for panel in found:
        assert [entry.score.seeds for entries in panel.curves.values() for entry in entries] == [(1, 2)] * 4
    assert len(overview(found, True)) == 3  # by protocol


def test_teachers_starts_and_own_heads_are_curves_of_their_own(run):
    rows = marker_rows(run, ["RTE"], seeds=2)
    write_rows(run, [*rows, *(one | {"teacher_sha256": "7e" * 32} for one in rows), *(one | {"mode": "as_it_is"} for one in rows),
                     *(one | {"start": {"task": "MNLI", "settings": {"seed": one["seed"]}}} for one in rows)])
    panel, = scores(run).panels
    assert list(panel.curves) == ["job/a", "job/a, with teacher 7e7e7e", "job/a, own head", "job/a, from MNLI"]
    for entries in panel.curves.values():
        assert len(entries) == 4 and all(entry.score.seeds == (1, 2) and not entry.score.selected_on_dev for entry in entries)


def test_a_grid_is_one_score_that_says_it_was_chosen(run):
    rows = marker_rows(run, ["RTE"], seeds=2)
    rows = [one | {"grid_point": {"learning_rate": one["settings"]["learning_rate"]}} for one in rows]
    grid = [one | {"settings": {**one["settings"], "learning_rate": 1e-4}, "grid_point": {"learning_rate": 1e-4},
                   "metrics": {"accuracy": one["metrics"]["accuracy"] + 0.1}} for one in rows]
    write_rows(run, [*rows, *grid])
    panel, = scores(run).panels
    entries = panel.curves["job/a"]
    assert len(entries) == 4 and all(entry.score.selected_on_dev and entry.score.settings["learning_rate"] == 1e-4 for entry in entries)
    assert "chosen on dev" in all_scores([panel]).lines[0].cells[-1].text
    (table,) = overview([panel], last_only=True)
    assert any(note.startswith("Chosen of the grid: learning_rate 0.0001 for RTE of ") for note in table.notes)


def test_scores_of_weights_that_changed_are_left_out(run):
    rows = marker_rows(run, ["RTE", "SST-2"], seeds=2)
    write_rows(run, rows)
    marker = run / "finetune" / rows[0]["model"]
    (marker / "model.safetensors").write_bytes(b"trained again")
    found = scores(run)
    assert all(len(entries) == 3 for panel in found.panels for entries in panel.curves.values())
    assert len(found.notes) == 1 and "holds other weights than those that were scored" in found.notes[0] and "(4 scores)" in found.notes[0]


def test_superseded_markers_are_left_out_and_folders_that_are_gone_are_told(run, teacher):
    write_rows(run, [*marker_rows(run, ["RTE"], seeds=1), *reference_rows(teacher, "teacher", "teacher", ["RTE"], 0.9, 1)])
    names = sorted(path.name for path in (run / "finetune").iterdir())
    (run / "finetune" / "superseded").mkdir()
    (run / "finetune" / names[-1]).rename(run / "finetune" / "superseded" / names[-1])
    teacher.rename(teacher.with_name("elsewhere"))
    found = scores(run)
    assert curves(found.panels[0]) == {"job/a": [name for name in names if name != names[-1]]}
    assert [entry.label for entry in found.panels[0].references] == ["teacher"]
    assert any("was superseded after it was scored" in note for note in found.notes)
    assert any(note.startswith("teacher: its folder is gone") for note in found.notes)


def test_scores_of_other_folders_find_their_run(tmp_path, run, teacher):
    other = make_run(tmp_path / "job" / "b", seed=1)
    place = write_rows(tmp_path / "scores", [*marker_rows(run, ["RTE"]), *marker_rows(other, ["RTE"]),
                                             *reference_rows(teacher, "teacher", "teacher", ["RTE"], 0.9)])
    # The first run's own file has its scores as well, and those of the second.
    write_rows(run, [*marker_rows(run, ["RTE"]), *marker_rows(other, ["RTE"]),
                     *reference_rows(teacher, "teacher", "teacher", ["RTE"], 0.9)])
    both = scores(run, other, more=[place])
    assert both.notes == []
    assert {name: len(entries) for name, entries in both.panels[0].curves.items()} == {"job/a": 4, "job/b": 4}
    assert [entry.score.seeds for entry in both.panels[0].references] == [(1, 2, 3)]
    assert both.seconds == {"job/a": 12 * 36.0, "job/b": 12 * 36.0}
    (run / "glue.json").unlink()
    alone = scores(run, more=[place])
    assert list(alone.panels[0].curves) == ["job/a"] and any("not in this report" in note for note in alone.notes)


def test_models_of_one_name_and_other_weights_are_told_apart(tmp_path, run):
    first, second = make_weights(tmp_path / "one", "1"), make_weights(tmp_path / "two", "2")
    write_rows(run, [row("base", first, "RTE", 0.6), row("base", second, "RTE", 0.7)])
    panel, = scores(run).panels
    labels = [entry.label for entry in panel.references]
    assert len(set(labels)) == 2 and all(label.startswith("base (") for label in labels)
    assert [entry.score.value for entry in panel.references] == [0.6, 0.7]


def test_rows_that_say_too_little_are_left_out_with_a_line(run):
    rows = marker_rows(run, ["RTE"], seeds=1)
    bare = {name: value for name, value in rows[0].items() if name != "protocol"}
    write_rows(run, [bare, rows[1] | {"metrics": {"accuracy": float("nan")}}, rows[2] | {"hours": None}, rows[3]])
    found = scores(run)
    assert curves(found.panels[0]) == {"job/a": [rows[3]["model"]]}
    assert len(found.notes) == 3 and "scores without 'protocol'" in found.notes[0] and "no finite score" in found.notes[1]


def test_every_number_comes_from_the_rows(run, teacher):
    tasks = ["SST-2", "RTE", "CoLA"]
    rows = [*marker_rows(run, tasks), *reference_rows(teacher, "teacher", "teacher", tasks, 0.9)]
    rows[-1]["diverged"] = True
    extra = row("base", teacher, "SST-2", 0.7, seed=1)  # has one task only
    write_rows(run, [*rows, extra])
    found = scores(run).panels
    by_task = {panel.task: panel for panel in found}
    table, = overview(found, False)
    assert table.head == ("model", "hours", "SST-2", "RTE", "CoLA", "average of 1", "kept of teacher %")
    last = table.lines[-1]
    expected = {score.task: score for score in summarise([one for one in rows if one["model"] == rows[-10]["model"]])}
    models = {score.model: score for score in summarise([one for one in rows if one["task"] == "SST-2"])}
    final = models["progress_1_step_40"]
    assert last.name == "100 %, step 40" and last.cells[0].value == 2.0
    assert last.cells[1].value == final.value and last.cells[1].about == f"± {100 * final.metrics['accuracy'].deviation:.1f}"
    assert last.cells[4].value == final.value and last.cells[5].value == pytest.approx(retention(final, models["teacher"]))
    assert expected  # the rows above are those of a marker
    assert any(note.startswith("Average over the tasks that all of these models have: SST-2. Not in it: RTE, CoLA") for note in table.notes)
    teacher_line = table.lines[0]
    assert teacher_line.name == "teacher" and teacher_line.cells[3].text.endswith("!")
    assert by_task["CoLA"].teacher.score.diverged == (3,) and len(by_task["CoLA"].teacher.score.metrics["matthews"].values) == 2
    lines = {(line.name, line.cells[1].text): line for line in all_scores(found).lines}
    cells = lines["job/a, 100 %, step 40", "SST-2"].cells
    spread = final.metrics["accuracy"]
    assert [cell.value for cell in cells[3:7]] == [spread.mean, spread.median, spread.deviation, 3]
    assert cells[7].text == f"{100 * spread.interval[0]:.2f} to {100 * spread.interval[1]:.2f}"
    assert cells[9].value == 0.509 and cells[10].text == "quick v1 (ab12cd34)" and cells[10].about == "mean, seeds 1, 2, 3"
    assert lines["teacher", "CoLA"].cells[-1].text == "diverged: seed 3"


def test_all_seeds_diverged_is_said_and_not_averaged(run, teacher):
    tasks = ["SST-2", "RTE"]
    rows = [*marker_rows(run, tasks, seeds=1), *reference_rows(teacher, "teacher", "teacher", tasks, 0.9, 1)]
    for one in rows:
        if one["task"] == "RTE" and one["role"] == "marker":
            one |= {"diverged": True, "metrics": {}}
    write_rows(run, rows)
    found = scores(run).panels
    table, = overview(found, False)
    assert [line.cells[2].text for line in table.lines[1:]] == ["diverged"] * 4
    assert table.head[4] == "average of 1"
    assert "diverged: seed 1" in all_scores(found).lines[-1].cells[-1].text


def test_of_several_runs_the_last_marker_counts_and_colours_stay(tmp_path, teacher):
    folders = [make_run(tmp_path / "job" / name, seed=number) for number, name in enumerate("ab")]
    for number, folder in enumerate(folders):
        write_rows(folder, [*marker_rows(folder, ["RTE", "SST-2"], gain=0.01 * number),
                            *reference_rows(teacher, "teacher", "teacher", ["RTE", "SST-2"], 0.9)])
    found = scores(*folders).panels
    table, = overview(found, True)
    assert [line.name for line in table.lines] == ["teacher", "job/a", "job/b"]
    ends = [panel.curves["job/b"][-1].score.value for panel in found]
    assert [cell.value for cell in table.lines[2].cells[1:3]] == ends and table.lines[2].cells[0].value == 2.0
    look = looks(found, ["job/a", "job/b"])
    assert len({one.colour for one in look.values()}) == 3 and look == looks(found[::-1], ["job/a", "job/b"])


def test_glue_png_draws_one_panel_for_each_condition(tmp_path, run, teacher):
    rows = [*marker_rows(run, ["SST-2", "RTE"]), *reference_rows(teacher, "teacher", "teacher", ["SST-2"], 0.9)]
    rows += [one | {"data_sha256": "0d" * 32} for one in rows]
    assert draw_curve([*rows, *rows], tmp_path / "four.png", "four $x$")
    assert png_size(tmp_path / "four.png") == (2700, 1350)
    assert draw_curve([rows[0] | {"diverged": True, "metrics": {}}], tmp_path / "none.png", "diverged")
    assert png_size(tmp_path / "none.png") == (900, 675)
    assert not draw_curve([], tmp_path / "no.png", "nothing")
    assert not draw_curve([rows[0] | {"metrics": {}, "constant_metrics": {}}], tmp_path / "no.png", "no labels")
    assert not (tmp_path / "no.png").exists()
    other = make_run(tmp_path / "job" / "b", seed=1)
    pictures = []
    for name, folders in (("one", [run]), ("two", [run, other])):
        assert draw_curve([one for folder in folders for one in marker_rows(folder, ["RTE"])], tmp_path / f"{name}.png", "runs")
        pictures.append((tmp_path / f"{name}.png").read_bytes())
    assert pictures[0] != pictures[1]
    shown = panels(rows, lambda one: "student" if "hours" in one else None)
    assert [(panel.task, len(panel.references)) for panel in shown] == [("SST-2", 1), ("SST-2", 1), ("RTE", 0), ("RTE", 0)]


def png_size(path):
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n" and content[-8:-4] == b"IEND"
    return int.from_bytes(content[16:20]), int.from_bytes(content[20:24])
