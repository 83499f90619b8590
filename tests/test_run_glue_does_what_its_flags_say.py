"""run_glue.py's flags, each by what it leaves on the disk: several models, starts from MNLI, the diagnostic set, submissions, own tasks."""

import json

import pytest
import yaml
from huggingface_hub import ModelCard
from tiny_glue import make_model, make_run, sentences, write_mnli, write_rte, write_sst2

import run_glue
from dataset.errors import UserError

TINY = ["--max_seq_length", "32", "--num_train_epochs", "1", "--precision", "fp32", "--devices", "cpu"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("place")
    glue = write_mnli(write_rte(write_sst2(place / "glue", train=64, dev=32)))
    texts = sentences(8, 20)
    (glue / "RTE" / "test.tsv").write_text("index\tsentence1\tsentence2\n" + "".join(
        f"{n + 100}\tthe film\t{text}\n" for n, (text, _) in enumerate(texts)))
    (glue / "diagnostic").mkdir()
    (glue / "diagnostic" / "diagnostic-full.tsv").write_text("Premise\tHypothesis\tLabel\n" + "".join(
        f"the film\t{text}\t{'entailment' if label else 'contradiction'}\n" for text, label in texts))
    (glue / "diagnostic" / "diagnostic.tsv").write_text("index\tsentence1\tsentence2\n" + "".join(
        f"{n}\tthe film\t{text}\n" for n, (text, _) in enumerate(texts)))
    make_model(place / "a")
    make_model(place / "b", "BertModel", seed=3)
    make_model(place / "teacher", seed=4)
    run = make_run(place / "run", [(0.5, 10, 0.01), (1.0, 20, 0.02)])
    (run / "args.yaml").write_text(yaml.safe_dump({"distillation": True, "teacher_path": str(place / "teacher")}))
    (run / "summary.json").write_text(json.dumps({"exit_reason": "time_budget"}))
    return place


def glue(place, *flags, output="out"):
    run_glue.main([*map(str, flags), "--output_dir", str(place / output), *TINY])
    return json.loads((place / output / "glue.json").read_text())


def test_several_models_and_seeds_are_one_table(place, capsys):
    rows = glue(place, "--models", place / "a", place / "b", "--task_name", "sst2,rte", "--glue_dir", place / "glue", "--seeds", "1,2",
                "--group_name", "x", "--fp16_full_eval", output="compared")
    assert {(row["model"], row["task"], row["seed"]) for row in rows} == {(m, t, s) for m in "ab" for t in ("SST-2", "RTE") for s in (1, 2)}
    said = capsys.readouterr().out
    assert "--group_name x: no effect: scores are kept in glue.json" in said and "--fp16_full_eval true: no effect" in said
    assert "±" in said and "average of 2" in said and "settings from flags" in said
    assert (place / "compared" / "glue.csv").read_text().count("\n") == 5 and (place / "compared" / "glue.png").is_file()
    assert not (place / "a" / "README.md").exists(), "a folder that is no export of ours is left alone"


def test_a_run_with_its_teacher_a_watch_and_cards(place, capsys):
    run_glue.main(["--run_dir", str(place / "run"), "--task_name", "sst2", "--glue_dir", str(place / "glue"), "--with_teacher", "--watch",
                   "--protocol", "quick", "--seeds", "1,2", "--watch_seconds", "0.1", *TINY])
    rows = json.loads((place / "run" / "glue.json").read_text())
    assert {(row["model"], row["role"]) for row in rows} == {
        ("progress_0.5_step_10", "marker"), ("progress_1.0_step_20", "marker"), ("teacher", "teacher")}
    assert rows[0]["protocol"]["changed"] == ["max_seq_length", "num_train_epochs", "precision"]
    card = ModelCard.load(place / "run" / "finetune" / "progress_1.0_step_20" / "README.md")
    (result,) = card.data.eval_results
    assert result.metric_args["protocol"] == "quick v1" and result.metric_args["seeds"] == [1, 2]
    assert (place / "run" / "glue.png").is_file() and "kept of teacher" in capsys.readouterr().out


def test_small_tasks_start_from_mnli_only_when_asked_and_say_so(place, capsys):
    plain = glue(place, "--model_name_or_path", place / "a", "--task_name", "rte", "--glue_dir", place / "glue", output="mnli")
    assert [(row["task"], row["start"]) for row in plain] == [("RTE", None)]
    flags = ["--model_name_or_path", place / "a", "--task_name", "rte,ax", "--glue_dir", place / "glue",
             "--do_train", "--do_eval", "--do_predict"]
    rows = glue(place, *flags, "--start_from_mnli", output="mnli")
    by_task = {(row["task"], bool(row["start"])): row for row in rows}
    assert set(by_task) == {("RTE", False), ("MNLI", False), ("RTE", True), ("AX", True)}
    assert by_task["RTE", True]["start"]["task"] == "MNLI" == by_task["AX", True]["start"]["task"]
    assert by_task["RTE", True]["protocol"]["changed"] == ["start_from"]
    assert set(by_task["MNLI", False]["metrics"]) == {"accuracy", "accuracy/mismatched"}
    assert by_task["AX", True]["train_size"] == 0 and "matthews" in by_task["AX", True]["metrics"]
    assert "(from MNLI)" in capsys.readouterr().out
    saved = list((place / "mnli" / "models" / "a" / "MNLI").iterdir())
    assert len(saved) == 1 and (saved[0] / "model.safetensors").is_file()
    submitted = {path.name: path.read_text().splitlines() for path in (place / "mnli" / "submissions").rglob("*.tsv")}
    assert set(submitted) == {"RTE.tsv", "AX.tsv"}
    assert submitted["RTE.tsv"][0] == "index\tprediction" and submitted["RTE.tsv"][1].split("\t")[0] == "100"
    assert all(line.split("\t")[1] in ("entailment", "neutral", "contradiction") for line in submitted["AX.tsv"][1:])
    again = glue(place, *flags, "--start_from_mnli", output="mnli")
    assert again == rows and capsys.readouterr().out.count("already scored, skipped") == 2


def test_a_start_that_is_scored_too_is_trained_once_and_a_test_set_without_labels_is_predicted(place, capsys):
    glue_dir = place / "unlabelled"
    (glue_dir / "diagnostic").mkdir(parents=True)
    (glue_dir / "MNLI").symlink_to(place / "glue" / "MNLI")
    (glue_dir / "diagnostic" / "diagnostic.tsv").symlink_to(place / "glue" / "diagnostic" / "diagnostic.tsv")
    rows = glue(place, "--model_name_or_path", place / "b", "--task_name", "mnli,ax", "--glue_dir", glue_dir, "--do_train", "--do_predict",
                output="once")
    assert [row["task"] for row in rows] == ["MNLI", "AX"] and rows[1]["metrics"] == {}
    said = capsys.readouterr().out
    assert "[2 of 2]" in said and "predicted, with no labels to score" in said
    assert {path.name for path in (place / "once" / "submissions").rglob("*.tsv")} == {"MNLI-m.tsv", "MNLI-mm.tsv", "AX.tsv"}


def test_without_a_test_set_nothing_is_submitted_nothing_is_done_twice_and_it_is_said(place, capsys):
    flags = ["--model_name_or_path", place / "b", "--task_name", "sst2", "--glue_dir", place / "glue", "--do_train", "--do_predict"]
    glue(place, *flags, output="no_test")
    assert "SST-2: no test set beside its dev set, so nothing is predicted" in capsys.readouterr().out
    glue(place, *flags, output="no_test")
    assert "already scored, skipped" in capsys.readouterr().out


def test_a_model_that_fails_costs_the_others_nothing(place):
    (make_model(place / "lfs") / "model.safetensors").unlink()
    (place / "lfs" / "pytorch_model.bin").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UserError, match=r"1 of 2 fine-tunings failed, the others are kept .*: SST-2  lfs seed 42"):
        glue(place, "--models", place / "lfs", place / "b", "--task_name", "sst2", "--glue_dir", place / "glue", output="one_fails")
    assert [row["model"] for row in json.loads((place / "one_fails" / "glue.json").read_text())] == ["b"]
    assert ",b," in (place / "one_fails" / "glue.csv").read_text().replace("\nb,", "\n,b,")


def test_a_model_is_scored_as_it_is_with_its_own_head(place):
    flags = ["--task_name", "sst2", "--glue_dir", place / "glue"]
    trained = glue(place, "--model_name_or_path", place / "a", *flags, "--save_models", output="kept")
    (saved,) = (place / "kept" / "models" / "a" / "SST-2").iterdir()
    rows = glue(place, "--model_name_or_path", saved, *flags, "--do_eval", output="kept")
    assert rows[-1]["mode"] == "as_it_is" and rows[-1]["metrics"] == trained[0]["metrics"]
    for name in ("a", "b"):
        with pytest.raises(UserError, match=r"head|classif"):
            glue(place, "--model_name_or_path", place / name, *flags, "--do_eval", output="headless")
    assert not (place / "headless" / "glue.json").exists()
    distilled = glue(place, "--model_name_or_path", place / "b", *flags, "--teacher_path", saved, "--alpha", "0.9", output="distilled")
    assert len(distilled[0]["teacher_sha256"]) == 64 and distilled[0]["settings"]["alpha"] == 0.9


def test_own_tasks_by_yaml_or_by_two_files(place):
    for name, count, seed in (("train", 48, 30), ("dev", 16, 31)):
        rows = "".join(json.dumps({"body": text, "label": "good" if label else "bad"}) + "\n" for text, label in sentences(count, seed))
        (place / f"{name}.jsonl").write_text(rows)
    (place / "reviews.yaml").write_text("name: reviews\nkind: classification\ntrain: train.jsonl\ndev: dev.jsonl\ntext: body\n"
                                        "label: label\nmetrics: [accuracy, f1]\n")
    rows = glue(place, "--model_name_or_path", place / "a", "--task_file", place / "reviews.yaml", output="own")
    assert rows[0]["task"] == "reviews" and set(rows[0]["metrics"]) == {"accuracy", "f1"} and rows[0]["dev_size"] == 16
    (place / "reviews.yaml").write_text((place / "reviews.yaml").read_text().replace("[accuracy, f1]", "[matthews]"))
    rows = glue(place, "--model_name_or_path", place / "a", "--task_file", place / "reviews.yaml", output="own")
    assert set(rows[-1]["metrics"]) == {"matthews"} and len(rows) == 2, "other metrics are another score"
    rows = glue(place, "--model_name_or_path", place / "a", "--train_file", place / "train.jsonl", "--validation_file", place / "dev.jsonl",
                output="own_files")
    assert rows[0]["dev_size"] == 16 and rows[0]["metrics"]["accuracy"] >= 0


@pytest.mark.parametrize(("flags", "told"), [
    (["--watch"], "--watch: only a run has markers"),
    (["--with_teacher"], "--with_teacher: only a run"),
    (["--train_file", "x.csv"], "--validation_file is missing"),
    (["--seed", "1", "--seeds", "1,2"], "--seed and --seeds"),
    (["--seeds", "1,x"], "--seeds .* different whole numbers"),
    (["--dataset_name", "nyu-mll/glue"], "--glue_dir and --dataset_name"),
    (["--protocol", "quik"], "did you mean quick"),
    (["--do_train", "false"], "leaves nothing to do"),
    (["--do_eval", "--teacher_path", "t"], "nothing is trained without --do_train"),
    (["--watch_seconds", "0"], "more than 0"),
    (["--teacher_path", "nowhere"], "nowhere: no such folder"),
    (["--early_stopping_patience", "3"], "add --eval_strategy epoch"),
])
def test_flags_that_contradict_one_another_are_one_line(place, flags, told):
    with pytest.raises(UserError, match=told):
        glue(place, "--model_name_or_path", place / "a", "--task_name", "sst2", "--glue_dir", place / "glue", *flags, output="no")
    assert not (place / "no").exists()
