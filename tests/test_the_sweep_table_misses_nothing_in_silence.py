"""The table of a sweep: means and deviations over seeds against hand-computed ones, hours, teacher and baselines, retention; a cell that is
not there is a dash and has its reason below the table. And scoring: every finished run, teacher and baselines fine-tuned once.
"""

import csv
import json
import statistics
from pathlib import Path
from typing import Any

import pytest
from cli_case import write_teacher
from sweep_case import ONE, TWO, make_place, recipe
from tiny_glue import write_sst2

from dataset.errors import UserError
from evaluation.fine_tuning.model_folder import fingerprint
from evaluation.scoring.protocols import read_protocol
from evaluation.scoring.results import MEASURED, Row
from evaluation.sweep import scoring
from evaluation.sweep.__main__ import main

SCORE = {"protocol": "quick", "task_name": ["sst2", "mrpc"], "seeds": [1, 2]}
PROTOCOL = read_protocol("quick").with_flags({}, (1, 2), None).describe()
TASKS = {"SST-2": "accuracy", "MRPC": "f1"}
MARKERS = {"progress_0.5_step_5": (0.5, 5, 0.25), "progress_1.0_step_10": (1.0, 10, 0.5)}


def row(model: str, task: str, value: float, seed: int = 1, role: str = "marker", **more: Any) -> Row:
    measured = dict.fromkeys(MEASURED) | {"metrics": {TASKS[task]: value}, "constant_metrics": {TASKS[task]: 0.5}, "diverged": False,
                                          "selected_on_dev": False}
    place = dict(zip(("fraction", "step", "hours"), MARKERS[model], strict=True)) if model in MARKERS else {}
    return {"model": model, "role": role, "folder": f"somewhere/{model}", "task": task, "task_version": 1, "headline": TASKS[task],
            "seed": seed, "settings": {"seed": seed, "learning_rate": 5e-5}, "protocol": PROTOCOL, "weights_sha256": model,
            "data_sha256": task, "teacher_sha256": None, "start": None, "mode": "fine_tuning", **place, **measured, **more}


def make_run(place: Path, run_id: str, values: dict[str, dict[str, tuple[float, ...]]], *more: Row, hours: float = 0.5) -> Path:
    """A finished run whose glue.json holds, by marker and task, the values of fine-tuning seeds 1, 2, ..."""
    run = place / "out" / "tiny" / run_id
    for name, (fraction, step, at) in MARKERS.items():
        (run / "finetune" / name).mkdir(parents=True)
        (run / "finetune" / name / "run_state.json").write_text(json.dumps({"progress": fraction, "step": step, "hours": at}))
    (run / "summary.json").write_text(json.dumps({"exit_reason": "time_budget", "hours": hours}))
    rows = [row(marker, task, value, seed) for marker, tasks in values.items() for task, found in tasks.items()
            for seed, value in enumerate(found, 1)]
    (run / "glue.json").write_text(json.dumps([*rows, *more]))
    return run


@pytest.fixture
def place(tmp_path: Path) -> Path:
    place = make_place(tmp_path)
    middle, last = MARKERS
    teacher = [row("teacher", task, value, seed, "teacher") for task, value in (("SST-2", 0.9), ("MRPC", 0.8)) for seed in (1, 2)]
    values = {last: {"SST-2": (0.70, 0.80), "MRPC": (0.60, 0.60)}, middle: {"SST-2": (0.6,), "MRPC": (0.5,)}}
    make_run(place, f"{ONE}/seed_1", values, *teacher)
    make_run(place, f"{ONE}/seed_2", {last: {"SST-2": (0.85, 0.85), "MRPC": (0.64, 0.64)}}, *teacher,
             row("cut", "SST-2", 0.55, role="baseline"), row(last, "SST-2", 0.1, protocol={**PROTOCOL, "version": 2}))
    make_run(place, f"{TWO}/seed_1", {last: {"SST-2": (0.81, 0.83)}})
    return place


def table_of(place: Path, capsys: pytest.CaptureFixture, **changes: Any) -> tuple[str, dict]:
    path = recipe(place, score=SCORE, **changes)
    assert main([str(path), "--table"]) == 0
    return capsys.readouterr().out, json.loads((place / "out" / "tiny" / "table.json").read_text(encoding="utf-8"))


def test_means_and_deviations_are_over_seeds_of_training(place, capsys):
    _, found = table_of(place, capsys)
    rows = {(line["name"], line["marker"]): line for line in found["rows"]}
    assert list(rows) == [("teacher", ""), ("cut", ""), (ONE, "0.5"), (ONE, "end"), (TWO, "end")]
    end = rows[ONE, "end"]
    assert end["tasks"]["SST-2"]["values"] == pytest.approx([0.75, 0.85]) and end["point"] == {"method": "hidden_mse"}
    assert end["tasks"]["SST-2"]["mean"] == pytest.approx(0.80)
    assert end["tasks"]["SST-2"]["deviation"] == pytest.approx(statistics.stdev([0.75, 0.85]))
    assert end["average"]["values"] == pytest.approx([(0.75 + 0.60) / 2, (0.85 + 0.64) / 2])
    assert end["hours"]["mean"] == 0.5 and rows[ONE, "0.5"]["hours"]["mean"] == 0.25
    assert end["retention"] == pytest.approx((0.80 / 0.9 + 0.62 / 0.8) / 2)
    assert rows["teacher", ""]["retention"] == 1 and rows["teacher", ""]["average"]["mean"] == pytest.approx(0.85)
    assert rows[TWO, "end"]["tasks"]["MRPC"] is None and rows[TWO, "end"]["average"] is None and rows[TWO, "end"]["retention"] is None
    assert rows["cut", ""]["average"] is None


def test_what_is_missing_is_a_dash_and_named(place, capsys):
    said, found = table_of(place, capsys)
    lines = said.splitlines()
    assert lines[1].split() == ["method", "marker", "hours", "SST-2", "MRPC", "average", "kept", "of", "teacher"]
    assert next(line for line in lines if line.startswith("att_mse")).split() == ["att_mse", "end", "0.5", "82.0", "(1", "of", "2)", *"---"]
    assert "80.0 ± 7.1" in next(line for line in lines if line.split()[:2] == ["hidden_mse", "end"])
    assert found["missing"] == [
        "cut: MRPC not scored", f"{ONE}/seed_2 at 0.5: SST-2, MRPC not scored", f"{TWO}/seed_1 at end: MRPC not scored",
        f"{TWO}/seed_2: waiting"]
    assert all(f"missing: {text}" in said for text in found["missing"])
    assert "1 results under other protocols, settings, seeds, tasks or data, of other teachers or older weights are left out" in said
    assert "protocol quick v1 (" in said and "mean of seeds 1, 2 of fine-tuning" in said
    markdown = (place / "out" / "tiny" / "table.md").read_text(encoding="utf-8")
    assert markdown.startswith("# tiny\n\n| method | marker |") and f"- {TWO}/seed_2: waiting" in markdown


def test_the_csv_holds_fractions_and_counts(place, capsys):
    table_of(place, capsys)
    with (place / "out" / "tiny" / "table.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    end = next(line for line in rows if line["method"] == "hidden_mse" and line["marker"] == "end")
    assert float(end["SST-2"]) == pytest.approx(0.8) and end["SST-2_n"] == "2" and float(end["hours"]) == 0.5
    lost = next(line for line in rows if line["method"] == "att_mse")
    assert (lost["MRPC"], lost["MRPC_n"], lost["average"], lost["retention"]) == ("", "0", "", "")


def test_diverged_runs_are_named_and_in_no_mean(place, capsys):
    last = list(MARKERS)[1]
    gone = [row(last, task, 0.0, seed, diverged=True) for task in TASKS for seed in (1, 2)]
    make_run(place, f"{TWO}/seed_2", {}, *gone)
    said, found = table_of(place, capsys)
    assert f"{TWO}/seed_2 at end: every fine-tuning on SST-2, MRPC diverged" in found["missing"]
    assert "82.0 (1 of 2)" in said


def test_another_protocol_or_other_settings_are_another_table(place, capsys):
    path = recipe(place, score={**SCORE, "learning_rate": "1e-5"})
    assert main([str(path), "--table"]) == 0
    said = capsys.readouterr().out
    assert "22 results under other" in said and f"missing: {ONE}/seed_1: finished, not scored" in said and "80.0" not in said


def test_scores_on_other_data_are_left_out(place, capsys):
    path = place / "out" / "tiny" / TWO / "seed_1" / "glue.json"
    path.write_text(json.dumps([{**line, "data_sha256": "another dev set"} for line in json.loads(path.read_text())]))
    said, _ = table_of(place, capsys)
    assert "82.0" not in said and "3 results under other" in said and f"missing: {TWO}/seed_1: finished, not scored" in said


def test_conditions_are_not_mixed(place, capsys):
    """Scores of one marker and one teacher by another way of scoring, another teacher, another start, or of weights that are gone."""
    last = list(MARKERS)[1]
    start = {"task": "MNLI", "task_version": 1, "data_sha256": "mnli", "settings": {}}
    other = [{"mode": "as_it_is"}, {"seed": 3}, {"teacher_sha256": fingerprint(place / "teacher")}, {"start": start}]
    more = [row(last, task, 0.05) | change for task in TASKS for change in other]
    more += [row("teacher", task, 0.05, role="teacher") | change for task in TASKS for change in other]
    path = place / "out" / "tiny" / ONE / "seed_1" / "glue.json"
    old = json.loads(path.read_text())
    _, want = table_of(place, capsys)
    gone = [row(last, task, 0.99, seed, weights_sha256="before") for task in TASKS for seed in (1, 2)]
    path.write_text(json.dumps([*gone, *old, *more]))
    said, found = table_of(place, capsys)
    assert found["rows"] == want["rows"] and found["missing"] == want["missing"]
    assert f"{1 + len(gone) + len(more)} results under other" in said
    # With the teacher in the recipe's flags its scores are what is asked for, and no others.
    assert main([str(recipe(place, score={**SCORE, "teacher_path": str(place / "teacher")})), "--table"]) == 0
    found = json.loads((place / "out" / "tiny" / "table.json").read_text(encoding="utf-8"))
    rows = {(line["name"], line["marker"]): line["tasks"]["SST-2"] for line in found["rows"]}
    assert rows["teacher", ""]["values"] == rows[ONE, "end"]["values"] == [0.05]
    assert f"distilled from {place}/teacher" in capsys.readouterr().out


def test_a_median_protocol_aggregates_fine_tunings_by_their_median(tmp_path, capsys):
    place = make_place(tmp_path)
    last = list(MARKERS)[1]
    protocol = read_protocol("sane").describe()
    rows = [row(last, "SST-2", value, seed, protocol=protocol) for seed, value in enumerate((0.5, 0.9, 0.91, 0.92, 0.4), 1)]
    teacher = [row("teacher", "SST-2", value, seed, "teacher", protocol=protocol)
               for seed, value in enumerate((0.1, 0.95, 0.96, 0.97, 0.2), 1)]
    make_run(place, f"{ONE}/seed_1", {}, *rows, *teacher)
    path = recipe(place, score={"protocol": "sane", "task_name": "sst2"}, seeds=[1])
    assert main([str(path), "--table"]) == 0
    said = capsys.readouterr().out
    assert "90.0" in said and "95.0 ± 44.5" in said and f"{100 * 0.9 / 0.95:.1f}%" in said


def test_scoring_hands_on_what_is_known_of_teacher_and_baselines(place, capsys, monkeypatch):
    """The stand-in for run_glue.py notes its flags, and what it found in the run's glue.json."""
    (place / "run_glue.py").write_text(
        "import json, sys\nfrom pathlib import Path\nrun = Path(sys.argv[sys.argv.index('--run_dir') + 1])\n"
        "rows = json.loads((run / 'glue.json').read_text())\n"
        "(run / 'seen.json').write_text(json.dumps([sys.argv[1:], [row['model'] for row in rows if row['role'] != 'marker']]))\n"
        "print('error: no room')\nsys.exit(2 * ('att_mse' in str(run)))\n", encoding="utf-8")
    monkeypatch.setattr(scoring, "ROOT", place)
    write_teacher(place / "teacher", max_position_embeddings=128)
    folder = write_sst2(place / "glue", train=4, dev=4) / "MRPC"
    folder.mkdir()
    for name in ("train", "dev"):
        (folder / f"{name}.tsv").write_text("Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t1\t2\tgood\tfine\n0\t3\t4\tgood\tbad\n")
    score = {**SCORE, "glue_dir": str(place / "glue")}
    path = recipe(place, score=score, baselines={"teacher": str(place / "teacher"), "cut": str(place / "teacher")})
    assert main([str(path), "--score", "--table"]) == 1
    said = capsys.readouterr().out
    for run_id in (f"{ONE}/seed_1", f"{TWO}/seed_1"):
        words, known = json.loads((place / "out" / "tiny" / run_id / "seen.json").read_text())
        assert sorted(known) == ["cut", *["teacher"] * 4]
        assert words[2:] == ["--protocol", "quick", "--task_name", "sst2,mrpc", "--seeds", "1,2", "--glue_dir", f"{place}/glue",
                             "--baseline", f"teacher={place}/teacher", "--baseline", f"cut={place}/teacher"]
    assert f"{TWO}/seed_1: scoring failed (status 2: error: no room)" in said and f"{TWO}/seed_2: not scored: waiting" in said
    assert f"failed: {TWO}/seed_1" in said and "80.0 ± 7.1" in said


def test_a_teacher_of_other_weights_is_no_second_teacher(place):
    path = place / "out" / "tiny" / TWO / "seed_1" / "glue.json"
    path.write_text(json.dumps([*json.loads(path.read_text()), row("teacher", "SST-2", 0.95, 1, "teacher", weights_sha256="other")]))
    with pytest.raises(UserError, match="teacher has scores of two models' weights"):
        main([str(recipe(place, score=SCORE)), "--table"])
