"""`distil` has the trainer's promises: scores at markers that a stranger can compute again, a run that can be killed, any number of ranks,
a report, and mistakes in one line before torch is imported."""

import json
import signal
import sys

import numpy as np
import pytest
import torch
from launching import events, launch, summary
from safetensors.torch import load_file
from task_case import CALL, flags, label, make_task, run_of
from tiny_glue import make_model

from dataset.errors import UserError
from evaluation.report.__main__ import main as report
from evaluation.scoring.results import read_results
from pretraining.args.flag_set import parse_flags
from pretraining.launch import Launch
from task_distillation.distilling.flags import TaskArgs
from task_distillation.distilling.plan import make_plan
from task_distillation.distilling.resolve import resolve
from task_distillation.students.build import encode
from task_distillation.students.folder import load_student
from task_distillation.students.part import collate_parts

EXIT_REQUEUE, KILLED = 75, -9


@pytest.fixture(scope="module")
def place(tmp_path_factory, zygote):
    """A task, and a run of it that nothing disturbed."""
    folder = tmp_path_factory.mktemp("task")
    data = make_task(folder)
    zygote.run(flags(folder, "whole"), call=CALL)
    return folder, data


def exports(run):
    return [run / "finetune" / name for name in summary(run)["markers"]]


def weights(run):
    return load_file(exports(run)[-1] / "model.safetensors")


def test_scores_at_markers_are_those_of_the_exported_student(place):
    folder, data = place
    run = run_of(folder, "whole")
    rows = {row["model"]: row for row in read_results(run)}
    assert [path.name.split("_step")[0] for path in exports(run)] == ["progress_0.5", "progress_1.0"] and len(rows) == 2
    for path in exports(run):
        student = load_student(path)
        parts = encode(student.config, student.tokenizer, data.dev["dev"].texts)
        right = 0
        for number, label_ in enumerate(data.dev["dev"].labels):
            with torch.no_grad():
                logits = student.module(collate_parts(parts, np.array([number]), student.module.pad_token_id))
            right += int(logits.argmax()) == label_
        row = rows[path.name]
        assert row["metrics"]["accuracy"] == right / len(data.dev["dev"]) and row["role"] == "marker" and not row["selected_on_dev"]
        assert "model-index" in (path / "README.md").read_text()
    assert rows[exports(run)[-1].name]["metrics"]["accuracy"] > 0.9  # one word tells the class


def test_the_report_shows_losses_and_scores(place, tmp_path):
    folder, _ = place
    report([str(run_of(folder, "whole")), "--output_dir", str(tmp_path)])
    text = next(tmp_path.glob("*.html")).read_text()
    assert "SST-2" in text and "logit_mse" in text


@pytest.mark.parametrize(("fault", "patches", "status"), [
    ({"point": "before the checkpoint's rename", "count": 2, "rank": 0}, None, KILLED),
    ({"point": "before run_state.json", "count": 1, "rank": 0}, None, KILLED),
    (None, {"signal_after": {"step": 7, "number": int(signal.SIGTERM)}}, EXIT_REQUEUE),
])
def test_a_killed_run_goes_on_to_the_same_bits(place, zygote, fault, patches, status):
    folder, _ = place
    name = f"cut_{status}_{fault['count'] if fault else 0}"
    zygote.run(flags(folder, name), call=CALL, status=status, fault=fault, patches=patches)
    zygote.run(flags(folder, name, "--resume"), call=CALL)
    whole, cut = run_of(folder, "whole"), run_of(folder, name)
    assert all(torch.equal(tensor, weights(cut)[key]) for key, tensor in weights(whole).items())
    losses = [[(event["step"], event["loss"]) for event in events(run)] for run in (whole, cut)]
    assert losses[0] == losses[1] and len(losses[0]) == 10
    scores = [[(row["model"], row["metrics"]) for row in read_results(run)] for run in (whole, cut)]
    assert scores[0] == scores[1]


def test_ranks_and_micro_batches_change_nothing(place, zygote):
    folder, _ = place
    zygote.run(flags(folder, "one", "--dropout", "0"), call=CALL)
    zygote.run(flags(folder, "two", "--dropout", "0", "--train_micro_batch_size_per_gpu", "4", "--group_by_length"), ranks=2, call=CALL)
    one, two = run_of(folder, "one"), run_of(folder, "two")
    for key, tensor in weights(one).items():
        torch.testing.assert_close(weights(two)[key], tensor, rtol=1e-4, atol=1e-5)
    assert read_results(one)[-1]["metrics"] == read_results(two)[-1]["metrics"]
    held = [[event["loss"] for event in events(run, "validation")] for run in (one, two)]
    assert held[0] == pytest.approx(held[1], rel=1e-4)


def test_other_texts_or_logits_are_noticed_on_resume_and_other_words_always(place, zygote):
    folder, data = place
    zygote.run(flags(folder, "changed"), call=CALL, status=EXIT_REQUEUE,
               patches={"signal_after": {"step": 5, "number": int(signal.SIGTERM)}})
    kept = (folder / "logits.parquet").read_bytes()
    values = label(folder, data.task, "other.parquet") + 1
    assert len(values)
    texts = (folder / "texts.tsv").read_text().splitlines(keepends=True)
    (folder / "fewer.tsv").write_text("".join(texts[:-1]))
    life = zygote.run(flags(folder, "changed", "--transfer_set", str(folder / "fewer.tsv"), "--resume"), call=CALL, status=2)
    assert "row" in life.stderr() and life.stderr().count("error:") == 1
    labels = ["--transfer_set", str(folder / "texts.tsv"), "--logits", str(folder / "edited.tsv"), "--resume"]
    lines = [f"{row}\t{hash_}\t{first + 1:.9g}\t{second:.9g}" for row, hash_, (first, second) in _rows(folder, data)]
    (folder / "edited.tsv").write_text("row\ttext_hash\tlogits_0\tlogits_1\n" + "\n".join(lines) + "\n")
    life = zygote.run(flags(folder, "changed", *labels), call=CALL, status=2)
    assert "the transfer set changed" in life.stderr() and "--allow_changes" in life.stderr() and "shards" not in life.stderr()
    assert (folder / "logits.parquet").read_bytes() == kept
    # As many words, so that every size is the same and the embeddings would fit.
    (folder / "renamed.tsv").write_text("".join(texts).replace("film", "motion"))
    label(folder, data.task, "renamed.parquet", "renamed.tsv")
    files = ["--transfer_set", str(folder / "renamed.tsv"), "--logits", str(folder / "renamed.parquet")]
    metrics = (run_of(folder, "changed") / "metrics.jsonl").read_bytes()
    life = zygote.run(flags(folder, "changed", *files, "--resume", "--allow_changes"), call=CALL, status=2)
    assert "belong to other words" in life.stderr() and life.stderr().count("error:") == 1 and "Traceback" not in life.stderr()
    assert (run_of(folder, "changed") / "metrics.jsonl").read_bytes() == metrics


def test_an_encoder_of_another_tokenizer_is_noticed_on_resume(place, zygote):
    folder, _ = place
    student = make_model(folder / "encoder")
    more = ["--student", "encoder", "--student_path", str(student), "--max_length", "16"]
    life = zygote.run(flags(folder, "retold", *more), call=CALL, status=EXIT_REQUEUE,
                      patches={"signal_after": {"step": 5, "number": int(signal.SIGTERM)}})
    tokenizer = json.loads((student / "tokenizer.json").read_text())
    tokenizer["normalizer"] = {"type": "Replace", "pattern": {"String": "good"}, "content": "bad"}
    (student / "tokenizer.json").write_text(json.dumps(tokenizer))
    life = zygote.run(flags(folder, "retold", *more, "--resume"), call=CALL, status=2)
    assert "the student's first weights and tokenizer changed" in life.stderr() and life.stderr().count("error:") == 1


def test_logits_that_nothing_reads_and_logits_that_beat_others_are_told(place):
    folder, _ = place
    words = flags(folder, "notes", "--method", "labels")
    resolved = resolve(parse_flags(TaskArgs, words[1:]), Launch(0, 1, 0, False))
    assert any(note.startswith("--logits: no effect: no objective of --method") for note in resolved.notes)
    header, *lines = (folder / "texts.tsv").read_text().splitlines()
    (folder / "taught.tsv").write_text("\n".join([f"{header}\tlogits_0\tlogits_1", *(f"{line}\t9\t9" for line in lines)]) + "\n")
    for more, beaten in ((["--logits", str(folder / "logits.parquet")], True), ([], False)):
        words = flags(folder, "notes")
        at = words.index("--transfer_set")
        del words[at : at + 4]
        words += ["--transfer_set", str(folder / "taught.tsv"), *more]
        plan = make_plan(resolve(parse_flags(TaskArgs, words[1:]), Launch(0, 1, 0, False)))
        assert any("beats the logits" in note for note in plan.resolved.notes) == beaten
        assert (plan.transfer.logits == 9).all() != beaten


def _rows(folder, data):
    from task_distillation.logits_file import read_logits

    for chunk in read_logits(folder / "logits.parquet", data.task):
        yield from zip(range(chunk.first, chunk.first + len(chunk.hashes)), chunk.hashes, chunk.values.tolist(), strict=True)


def test_labels_alone_need_no_transfer_set(place, zygote):
    folder, _ = place
    words = flags(folder, "labels")
    for name in ("--transfer_set", "--logits"):
        at = words.index(name)
        del words[at : at + 2]
    zygote.run(words, call=CALL)
    said = json.loads((exports(run_of(folder, "labels"))[-1] / "run_state.json").read_text())
    assert said["losses"]["training loss"] == said["losses"]["training loss/labels"]
    assert said["quality"]["score/accuracy"] > 0.7


MISTAKES = {
    "no task": (["--task_name", ""], "--task_name is empty"),
    "unknown task": (["--task_name", "sst3"], "unknown task"),
    "unknown objective": (["--method", "mse"], "unknown objective 'mse'; did you mean logit_mse?"),
    "named twice": (["--method", "kl,kl"], "kl is named twice"),
    "weight": (["--method", "kl:-1"], "'-1' is not a weight above 0"),
    "labels of synthetic rows": (["--method", "labels"], "--method labels: row 256 of the transfer set (from 0) has no label"),
    "temperature": (["--temperature", "0", "--method", "kl"], "--temperature 0"),
    "no transfer set": (["--transfer_set", "nowhere.tsv"], "nowhere.tsv"),
    "siamese": (["--student", "siamese_bilstm"], "siamese_bilstm compares the two texts"),
    "flag": (["--hidden", "3"], "unknown flag --hidden"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_line(place, name):
    folder, _ = place
    more, said = MISTAKES[name]
    with pytest.raises(UserError) as caught:
        make_plan(resolve(parse_flags(TaskArgs, flags(folder, "mistake", *more)[1:]), Launch(0, 1, 0, False)))
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert not run_of(folder, "mistake").exists()


def test_mistakes_are_found_before_torch_is_imported():
    probe = "import sys, task_distillation.distilling.command, task_distillation.distilling.plan; assert 'torch' not in sys.modules"
    assert launch([sys.executable, "-c", probe]).returncode == 0
