"""The page needs nothing but itself, says what the files say, and shows every name as it is."""

import json
import re

import pytest
from quick import train
from report_case import FLOORS, make_run, make_weights, marker_rows, reference_rows, row, write_rows
from report_page import read_page
from tiny import make_shards, make_teacher

from evaluation.report.__main__ import main
from evaluation.scoring.statistics import average, summarise

SECTIONS = ["summary", "warnings", "scores", "training", "cost", "flags", "environment"]
EVIL = '<script>alert("1")<&amp;$a$ & _b'


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    """(page, folders of the runs, their rows): three runs, a teacher and a baseline of evil names, two protocols."""
    place = tmp_path_factory.mktemp("a place & more")
    teacher, base = make_weights(place / "teacher", "t"), make_weights(place / "base", "b")
    runs, rows = [], {}
    for number, name in enumerate(["one", EVIL, "_three"]):
        run = make_run(place / "job" / name, steps=1500 if number == 0 else 20, seed=number, mfu=0.3 if number else None,
                       terms=("hidden_mse", "<b>logit & $k$") if number == 2 else ("hidden_mse",), lr=1e-4 * (number + 1))
        rows[run] = [*marker_rows(run, ["SST-2", "RTE"], gain=0.01 * number),
                     *reference_rows(teacher, "teacher", "teacher", ["SST-2", "RTE"], 0.9),
                     row(f"_{EVIL} base", base, "SST-2", 0.8, role="baseline"), row(f"_{EVIL} base", base, "RTE", 0.6, role="baseline")]
        other = {"name": "sane & slow", "version": 2, "sha256": "5a" * 32, "changed": ["seeds"], "aggregate": "median"}
        write_rows(run, [*rows[run], *marker_rows(run, ["SST-2"], protocol=other)])
        runs.append(run)
    main([*map(str, runs), "--output_dir", str(place / "out")])
    return place / "out" / "report.html", runs, rows


def test_it_is_one_whole_file_that_asks_for_nothing(comparison):
    path, _, _ = comparison
    page, text = read_page(path), path.read_text()
    assert [section.attributes["id"] for section in page.all("section")] == SECTIONS
    assert [link.attributes["href"] for link in page.all("nav")[0].all("a")] == [f"#{name}" for name in SECTIONS[1:]]
    assert not re.search(r"https?:|//[a-z]|@import|@font-face|<(img|iframe|object|embed)", text)
    for element in page.all():
        assert not {"src", "srcset", "onclick", "onload"} & set(element.attributes), element
        target = element.attributes.get("href", "")
        assert target.startswith(("#", "data:,")) or target == "" or (path.parent / target).is_file(), target
    pngs = sorted(link.attributes["href"] for link in page.all("a") if link.text == "PNG")
    assert pngs == sorted(f"report_charts/{file.name}" for file in (path.parent / "report_charts").iterdir())
    assert len(pngs) == len(page.all("svg")) == len(page.all("figcaption")) == 9
    assert all((path.parent / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" for name in pngs)


def test_ids_are_unique_and_every_chart_has_words(comparison):
    path, _, _ = comparison
    page, text = read_page(path), path.read_text()
    ids = [element.attributes["id"] for element in page.all() if "id" in element.attributes]
    assert len(ids) == len(set(ids))
    wanted = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', text)) | {name for svg in page.all("svg")
                                                                     for name in svg.attributes["aria-labelledby"].split()}
    assert wanted <= set(ids)
    for svg in page.all("svg"):
        assert svg.attributes["role"] == "img" and svg.all("title")[0].text and "ends at" in svg.all("desc")[0].text
        assert "training time (hours)" in [element.text for element in svg.all("text")]
    assert "<metadata" not in text and "DejaVu" not in text and not re.search(r"(fill|stroke): #", text)


def test_names_are_shown_as_they_are_and_run_nothing(comparison):
    path, _, _ = comparison
    page = read_page(path)
    assert len(page.all("script")) == 1 and "alert" not in page.all("script")[0].text
    name = " ".join(f"job/{EVIL}".split())
    assert name in page.all("table", id_="runs")[0].table() and name in page.all("table", id_="overview-1")[0].table()
    legends = [element.text for svg in page.all("svg") for element in svg.all("text")]
    assert name in legends and "job/_three" in legends and f"_{EVIL} base (80.0)" in legends and "Loss term <b>logit & $k$" in legends


def test_overview_and_scores_have_the_numbers_of_the_rows(comparison):
    path, runs, rows = comparison
    page = read_page(path)
    overview = page.all("table", id_="overview-1")[0].table()
    assert "average of 2" in overview["teacher teacher"]
    for run in runs:
        last = summarise([one for one in rows[run] if one["model"].startswith("progress_1_")])
        line = overview[" ".join(f"job/{run.name}".split())]
        for score in last:
            assert float(line[score.task].attributes["data-value"]) == score.value
            assert line[score.task].text == f"{100 * score.value:.1f} ± {100 * score.metrics['accuracy'].deviation:.1f}"
        assert float(line["average of 2"].attributes["data-value"]) == average(last, ["SST-2", "RTE"])
    lines = page.all("table", id_="all-scores")[0].all("tbody")[0].all("tr")
    assert len(lines) == 3 * 4 * 3 + 2 + 2  # markers of three tasks and protocols, teacher and baseline on two tasks, each once
    assert sum("sane & slow v2 (5a5a5a5a, changed)" in line.text for line in lines) == 12
    assert len(page.all("table", id_="overview-2")) == 1
    charts = [svg.all("title")[0].text for svg in page.all("svg")][:3]
    assert charts == ["SST-2, quick v1 (ab12cd34)", "SST-2, sane & slow v2 (5a5a5a5a, changed)", "RTE"]


def test_runs_flags_and_charts_say_what_the_files_say(comparison):
    path, runs, _ = comparison
    page = read_page(path)
    table = page.all("table", id_="runs")[0].table()
    for run in runs:
        summary = json.loads((run / "summary.json").read_text())
        line = table[" ".join(f"job/{run.name}".split())]
        assert [float(line[head].attributes["data-value"]) for head in ("training time", "steps", "samples", "non-padding tokens")] == [
            summary[key] for key in ("hours", "steps", "samples", "tokens")]
    differing = page.all("table", id_="differing-flags")[0].table()
    assert set(differing) == {"current_run_id", "lr", "method"} and [cell.text for cell in differing["lr"].values()] == [
        "0.0001", "0.0002", "0.00030000000000000003"]
    assert len(page.all("table", id_="flags-1")[0].all("tr")) == 12
    captions = " ".join(caption.text for caption in page.all("figcaption"))
    assert "of 1,500 points" in captions and "Thinned out for drawing" in captions
    assert "Share of peak is not known for job/one" in page.all("section", id_="training")[0].text


def test_the_same_run_gives_the_same_bytes(tmp_path):
    run = make_run(tmp_path / "a")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    kept = [{name: value for name, value in line.items() if name not in ("lr", "tokens_per_s")} for line in lines]  # fewer charts
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in kept))
    write_rows(run, marker_rows(run, ["RTE"]))
    pages = []
    for name in ("one", "two"):
        main([str(run), "--output_dir", str(tmp_path / name)])
        pages.append({path.name: path.read_bytes() for path in (tmp_path / name).rglob("*.*")})
    assert sorted(pages[0]) == ["loss_term_hidden_mse.png", "report.html", "rte.png"] and pages[0] == pages[1]


def test_twenty_markers_on_eight_tasks_stay_below_three_megabytes(tmp_path):
    run = make_run(tmp_path / "a", steps=3000, markers=20)
    write_rows(run, marker_rows(run, list(FLOORS)[:2], seeds=1))  # a quarter of the tasks in a quarter of the size
    main([str(run)])
    page = run / "report" / "report.html"
    assert page.stat().st_size < 3_000_000 / 4
    assert len(read_page(page).all("table", id_="overview-1")[0].table()) == 20


def test_a_real_run_is_reported(tmp_path):
    make_shards(tmp_path / "shards")
    make_teacher(tmp_path / "teacher")
    train(["--dataset_path", str(tmp_path / "shards"), "--teacher_path", str(tmp_path / "teacher"), "--distillation", "--method",
           "hidden_mse", "--student_initialize", "--num_hidden_layers", "2", "--layer_selection", "3", "--train_batch_size", "8",
           "--train_micro_batch_size_per_gpu", "4", "--lr", "1e-3", "--output_dir", str(tmp_path / "out"),
           "--job_name", "real", "--current_run_id", "1", "--lr_schedule", "constant_step",
           "--num_warmup_steps", "0", "--max_steps", "4", "--print_steps", "1",
           "--precision", "fp32", "--layer_norm_type", "pytorch", "--do_validation"])
    run = tmp_path / "out" / "real" / "1"
    main([str(run)])
    page = read_page(run / "report" / "report.html")
    summary = json.loads((run / "summary.json").read_text())
    facts = dict(zip((term.text for term in page.all("dt")), page.all("dd"), strict=True))
    assert facts["ended"].text == "max_steps: the last step was done"
    assert float(facts["training time"].attributes["data-value"]) == summary["hours"]
    assert float(facts["non-padding tokens"].attributes["data-value"]) == summary["tokens"]
    assert "Nothing out of the ordinary" in page.all("section", id_="warnings")[0].text
    assert [svg.all("title")[0].text for svg in page.all("svg")] == ["Loss term hidden_mse", "Learning rate", "Throughput"]
    assert "--max_steps" not in page.text and page.all("table", id_="flags-1")[0].text.count("max_steps") == 2
