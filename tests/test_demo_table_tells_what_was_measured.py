"""The demo's table: every number from the file that measured it, plain words about the score, failure where nothing was learnt."""

import json
from pathlib import Path

import pytest

from dataset.files import write_json
from demo.pipeline import CUT_NAME, TEACHER_NAME, Places
from demo.report import Line, report, training_speed, verdict
from demo.workshop import Workshop

EVENTS = [
    {"event": "start", "step": 0, "tokens": 0},
    {"event": "validation", "step": 0, "loss": 0.15},
    {"event": "train", "step": 5, "tokens": 1000, "tokens_per_s": 100.0},
    {"event": "train", "step": 10, "tokens": 3000, "tokens_per_s": 400.0},
    {"event": "validation", "step": 10, "loss": 0.05},
    {"event": "train", "step": 15, "tokens": 4000, "tokens_per_s": 200.0},
    {"event": "validation", "step": 20, "loss": 0.03},
    {"event": "train", "step": 20, "tokens": 5000, "tokens_per_s": 50.0},
]


def make_run(root: Path, final_loss: float = 0.03, scores: tuple[float, ...] = (0.9, 0.7, 0.75, 0.8)) -> tuple[Workshop, Places, list[str]]:
    """A finished run of two markers with its scores, as the real stages leave them."""
    said: list[str] = []
    places = Places(root / "work", "3min")
    shop = Workshop(root, places.work, said.append)
    shop.seconds |= {"dump": 2.0, "run_3min": 200.0}
    folders = [places.work / "teacher", places.work / "untrained_cut"]
    for fraction, step, loss in ((0.5, 10, 0.05), (1.0, 20, final_loss)):
        folder = places.run / "finetune" / f"progress_{fraction}_step_{step}"
        folder.mkdir(parents=True)
        write_json(folder / "run_state.json", {"progress": fraction, "step": step, "hours": 0.05 * fraction, "validation_loss": loss})
        folders.append(folder)
    (places.run / "metrics.jsonl").write_text("".join(json.dumps(event) + "\n" for event in EVENTS) + '{"event": "tr', encoding="utf-8")
    places.scores.mkdir()
    rows = [{"model": folder.name, "folder": shop.shown(folder), "task": "SST-2", "headline": "accuracy", "metrics": {"accuracy": score},
             "constant_metrics": {"accuracy": 0.5}, "diverged": False, "task_version": 1,
             "role": "marker", "seed": 42, "selected_on_dev": False,
             "protocol": {"name": "flags", "version": 1, "sha256": "ab" * 32, "changed": [], "aggregate": "mean"},
             "weights_sha256": folder.name, "data_sha256": "cd" * 32, "mode": "fine_tuning", "teacher_sha256": None,
             "start": None, "dev_size": 100, "train_size": 400,
             "settings": {"seed": 42}, "precision": "fp32"}
            for folder, score in zip(folders, scores, strict=True)]
    rows[0]["role"], rows[1]["role"] = "teacher", "baseline"
    for row, hours, step in zip(rows[2:], (0.025, 0.05), (10, 20), strict=True):
        row |= {"hours": hours, "step": step}
    # An older score of the same folder must not be taken for the newest.
    write_json(places.scores / "glue.json", [rows[0] | {"metrics": {"accuracy": 0.1}}, *rows])
    return shop, places, said


def test_every_number_is_in_its_place(tmp_path: Path) -> None:
    shop, places, said = make_run(tmp_path)
    assert report(shop, places, 3.0)
    text = (places.run / "table.txt").read_text(encoding="utf-8")
    assert text.strip() == "\n".join(said).strip()
    cells = [line.split("  ") for line in text.splitlines()[:5]]
    assert [[cell.strip() for cell in line if cell.strip()] for line in cells] == [
        ["model", "hours", "held-out loss", "accuracy %", "tokens/s"],
        [TEACHER_NAME, "-", "-", "90.0", "-"],
        [CUT_NAME, "0.0000", "0.1500", "70.0", "-"],
        ["student at 50%", "0.0250", "0.0500", "75.0", "200"],
        ["student at 100%", "0.0500", "0.0300", "80.0", "80"],
    ]
    assert "10.0 points above the untrained cut, 50% of the way to the teacher" in text
    for path in ("demo.png", "finetune", "checkpoints"):
        assert f"work/minilm_3layer/3min/{path}" in text
    assert (places.run / "demo.png").read_bytes().startswith(b"\x89PNG")
    saved = json.loads((places.run / "demo.json").read_text(encoding="utf-8"))
    assert saved["learnt"] and saved["total_seconds"] == 202.0 and saved["lines"][-1]["score"] == 0.8


def test_a_student_that_learnt_nothing_fails_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shop, places, _ = make_run(tmp_path, final_loss=0.15)
    assert not report(shop, places, 3.0)
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "not below the untrained cut's" in error


@pytest.mark.parametrize("student", [0.7, 0.6])
def test_a_score_that_is_not_above_the_cuts_is_said_plainly(tmp_path: Path, student: float) -> None:
    shop, places, said = make_run(tmp_path, scores=(0.9, 0.7, 0.8, student))
    assert report(shop, places, 3.0)
    assert f"the student is NOT above the untrained cut ({100 * student:.1f} against 70.0)" in said[-1]


def test_speed_is_all_tokens_over_all_seconds() -> None:
    assert training_speed(EVENTS, 0, 10) == pytest.approx(3000 / (10 + 5))
    assert training_speed(EVENTS, 10, 20) == pytest.approx(2000 / (5 + 20))
    assert training_speed(EVENTS, 20, 30) is None


@pytest.mark.parametrize(("student", "chance"), [(0.72, True), (0.8, False)])
def test_a_gain_within_the_noise_is_called_that(student: float, chance: bool) -> None:
    lines = [Line("t", None, None, 0.9, None), Line("c", 0.0, 0.2, 0.7, None), Line("s", 0.1, 0.1, student, 1.0)]
    assert ("may be chance" in " ".join(verdict(lines, 100)[1])) == chance


def test_the_share_of_the_gap_is_left_out_where_there_is_no_gap() -> None:
    lines = [Line("t", None, None, 0.7, None), Line("c", 0.0, 0.2, 0.8, None), Line("s", 0.1, 0.1, 0.9, 1.0)]
    learnt, sentences = verdict(lines, 100)
    assert learnt and "way to the teacher" not in " ".join(sentences)
