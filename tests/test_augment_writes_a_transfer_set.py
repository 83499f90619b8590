"""`augment` writes the task's rows and then new ones: the same bytes from one seed however many processes, each row once, or nothing."""

import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml
from tiny_glue import write_rte, write_sst2, write_stsb

from dataset.errors import UserError
from evaluation.tasks.table import select_tasks
from task_distillation.augmentation import command
from task_distillation.augmentation.command import main
from task_distillation.augmentation.corpus import MASK_WORD, Corpus, build_corpus, tag_texts
from task_distillation.augmentation.new_rows import write_new
from task_distillation.augmentation.rule import Rule
from task_distillation.augmentation.words import split_words
from task_distillation.record import read_record, record_path
from task_distillation.transfer_set import TransferRow, read_transfer_set, transfer_writer

PROJECT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def glue(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("glue")
    for write in (write_sst2, write_rte, write_stsb):
        write(folder)
    rows = (folder / "SST-2" / "train.tsv").read_text()
    (folder / "SST-2" / "train.tsv").write_text(rows + "It's a film, isn't it?\t1\nfilm\t0\n  a   bad  film \t0\n")
    return folder


def augment(glue: Path, output: Path, *more: str, name: str = "sst2", workers: int = 1) -> list[TransferRow]:
    main(["--task_name", name, "--glue_dir", str(glue), "--output", str(output), "--num_workers", str(workers), *more])
    return list(read_transfer_set(output, select_tasks([name])[0]))


@pytest.fixture(scope="module")
def sst2(glue, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("out") / "sst2.tsv"
    augment(glue, path)
    return path


def test_the_tasks_rows_come_first_and_new_ones_have_no_label(glue, sst2):
    rows = list(read_transfer_set(sst2, select_tasks(["sst2"])[0]))
    lines = (glue / "SST-2" / "train.tsv").read_text().splitlines()[1:]
    own = [TransferRow((" ".join(line.split("\t")[0].split()),), int(line.split("\t")[1])) for line in lines]
    assert rows[: len(own)] == own
    assert len(rows) > 8 * len(own) and all(row.label is None for row in rows[len(own) :])


def test_no_row_is_new_twice_or_an_old_one_and_each_keeps_a_word(glue, sst2):
    rows = [row.texts[0] for row in read_transfer_set(sst2, select_tasks(["sst2"])[0])]
    own = len((glue / "SST-2" / "train.tsv").read_text().splitlines()) - 1
    counts = Counter(rows[own:])
    assert max(counts.values()) == 1
    assert not counts.keys() & {*rows[:own], *(" ".join(split_words(text)) for text in rows[:own])}
    assert all(set(text.split()) != {MASK_WORD} for text in counts)
    words = {word for text in rows[:own] for word in split_words(text)} | {MASK_WORD}
    assert all(set(text.split(" ")) <= words for text in counts)


def test_the_bytes_are_those_of_the_seed_whatever_the_processes(glue, sst2, tmp_path, monkeypatch):
    monkeypatch.setattr("task_distillation.augmentation.corpus.ROWS_OF_A_JOB", 50)
    augment(glue, tmp_path / "two.tsv", workers=2)
    assert (tmp_path / "two.tsv").read_bytes() == sst2.read_bytes()


def test_a_file_of_so_many_rows_is_the_beginning_of_a_longer_one(glue, sst2, tmp_path):
    new = augment(glue, tmp_path / "new.tsv", "--keep_originals", "false", "--max_rows", "1000")
    assert [row.label for row in new] == [None] * 1000
    assert new == list(read_transfer_set(sst2, select_tasks(["sst2"])[0]))[259:1259]


def tagged(rows: list[tuple[str, ...]]) -> Corpus:
    return build_corpus(iter([tag_texts([text for row in rows for text in row], "hanta", "")]), len(rows[0]))


def test_passes_go_over_all_rows_and_differ_by_the_seed(tmp_path, monkeypatch):
    monkeypatch.setattr("task_distillation.augmentation.new_rows.BLOCK", 16)
    rows = [(f"film number {number} was not very good",) for number in range(100)]
    corpus, task = tagged(rows), select_tasks(["sst2"])[0]

    def new(seed: int, n_iter: int, most: int | None = None) -> list[str]:
        with transfer_writer(tmp_path / "new.tsv", task) as writer:
            tried = write_new(writer, corpus, Rule(0.2, 0.2, 0), seed, n_iter, [row[0] for row in rows], most)
        assert tried == n_iter * 100 or most is not None
        return [row.texts[0] for row in read_transfer_set(tmp_path / "new.tsv", task)]

    one, three = new(0, 1), new(0, 3)
    assert three[: len(one)] == one and 60 < len(one) <= 100 and 2 * len(one) < len(three) <= 300
    assert {int(text.split()[2]) // 10 for text in one if text.split()[2].isdecimal()} == set(range(10))  # of every row, in one pass
    assert new(0, 3, most=70) == three[:70]
    assert len(set(new(1, 1)) & set(one)) < 10


def test_a_row_of_the_task_that_has_a_mask_is_not_made_again(tmp_path):
    rows, task = [("good film",), ("[MASK] film",)], select_tasks(["sst2"])[0]
    with transfer_writer(tmp_path / "new.tsv", task) as writer:
        write_new(writer, tagged(rows), Rule(0.5, 0, 0), 0, 50, [row[0] for row in rows], None)
    new = {row.texts[0] for row in read_transfer_set(tmp_path / "new.tsv", task)}
    assert {"good [MASK]", "[MASK] MASK ] film"} <= new and not new & {"good film", "[MASK] film", "[ MASK ] film"}


def test_pairs(glue, tmp_path, capsys):
    rows = augment(glue, tmp_path / "pairs.tsv", name="stsb")
    own, new = [row for row in rows if row.label is not None], [row for row in rows if row.label is None]
    assert len(own) == 64 and {row.label for row in own} == {4.25, 0.6}
    assert len({row.texts for row in new}) == len(new) > 200  # of 640 tries, for the first sentences are all the same
    olds = [{row.texts[side] for row in own} for side in (0, 1)]
    kept = Counter(tuple(text in old for text, old in zip(row.texts, olds, strict=True)) for row in new)
    assert kept[True, False] > 100 and kept[False, True] > 50 and kept[False, False] > 30
    assert re.search(r": 64 training rows and \d+ new ones of 640 tries", capsys.readouterr().out)


def test_flags_without_effect_and_rows_without_text_are_told(tmp_path, capsys):
    (tmp_path / "t.tsv").write_text("title\tstars\na good film was fine\tx\n \ty\nbad\ty\n")
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(
        {"name": "own", "kind": "classification", "train": "t.tsv", "dev": "t.tsv", "text": "title", "label": "stars"}))
    output = tmp_path / "new" / "out.tsv"
    main(["--task_file", str(tmp_path / "own.yaml"), "--output", str(output), "--single_only_prob", "0.5", "--num_workers", "1"])
    told = capsys.readouterr().out
    assert "--single_only_prob 0.5: no effect: own has single sentences" in told
    assert "own: 1 training rows without text passed over" in told
    lines = output.read_text().splitlines()
    assert lines[:3] == ["sentence\tlabel", "a good film was fine\tx", "bad\ty"] and len(lines) > 5


def test_a_set_without_rows_is_not_written(glue, tmp_path):
    nothing = ["--mask_prob", "0", "--random_prob", "0", "--window_prob", "0"]
    with pytest.raises(UserError, match="RTE: no new row in 640 tries"):
        augment(glue, tmp_path / "out.tsv", "--keep_originals", "false", *nothing, name="rte")
    assert list(tmp_path.iterdir()) == []


MISTAKES = {
    "no task": ([], "no task named; --task_name sst2"),
    "two tasks": (["--task_name", "sst2,rte", "--glue_dir", "GLUE"], "--task_name sst2,rte: 2 tasks"),
    "both": (["--task_name", "sst2", "--task_file", "x.yaml"], "--task_name and --task_file: two tasks"),
    "no data": (["--task_name", "sst2"], "SST-2: no data named"),
    "questions": (["--task_name", "squad", "--glue_dir", "GLUE"], "SQuAD-1.1: task distillation is for classifications"),
    "unknown": (["--task_name", "sst3", "--glue_dir", "GLUE"], "unknown task 'sst3'; did you mean sst2"),
    "flag": (["--task_name", "sst2", "--glue_dir", "GLUE", "--mask_probs", "1"], "unknown flag --mask_probs; did you mean --mask_prob"),
    "probability": (["--task_name", "sst2", "--glue_dir", "GLUE", "--window_prob", "2"], "--window_prob 2; 0 to 1"),
    "lengths": (["--task_name", "sst2", "--glue_dir", "GLUE", "--window_lengths", "1,x"], "--window_lengths 1,x; whole numbers"),
    "passes": (["--task_name", "sst2", "--glue_dir", "GLUE", "--n_iter", "0"], "--n_iter 0; 1 or more"),
    "seed": (["--task_name", "sst2", "--glue_dir", "GLUE", "--seed", "-1"], "--seed -1"),
    "rows": (["--task_name", "sst2", "--glue_dir", "GLUE", "--max_rows", "259"], "--max_rows 259: SST-2 has 259 training rows, which come"),
    "input": (["--task_name", "rte", "--glue_dir", "GLUE", "--output", "GLUE/RTE/train.tsv"], "train.tsv: one of the task's own files"),
    "folder": (["--task_name", "rte", "--glue_dir", "GLUE", "--output", "GLUE"], ": a folder; a file's name would work"),
    "no place": (["--task_name", "rte", "--glue_dir", "GLUE", "--output", "GLUE/RTE/train.tsv/x.tsv"], "train.tsv: cannot be made"),
    "no training rows": (["--task_name", "ax", "--glue_dir", "GLUE"], "AX: a task without training data"),
    "bad row": (["--task_name", "cola", "--glue_dir", "GLUE"], "CoLA/train.tsv, line 2: found '7' in column label, expected one of 0, 1"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_line_and_nothing_is_written(case, glue, tmp_path):
    flags, told = MISTAKES[case]
    (glue / "CoLA").mkdir(exist_ok=True)
    for name in ("train", "dev"):
        (glue / "CoLA" / f"{name}.tsv").write_text("gj04\t1\t\tGood .\ngj04\t7\t\tOdd .\n")
    (glue / "diagnostic").mkdir(exist_ok=True)
    (glue / "diagnostic" / "diagnostic-full.tsv").write_text("Premise\tHypothesis\tLabel\na\tb\tneutral\n")
    before = {path: path.read_bytes() for path in glue.rglob("*.tsv")}
    words = [word.replace("GLUE", str(glue)) for word in flags]
    with pytest.raises(UserError, match=re.escape(told)) as caught:
        main([*([] if "--output" in words else ["--output", str(tmp_path / "out.tsv")]), *words])
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == [] and {path: path.read_bytes() for path in glue.rglob("*.tsv")} == before


def test_nothing_has_the_final_name_before_all_is_written(glue, tmp_path):
    command = [sys.executable, str(PROJECT / "run_task_distillation.py"), "augment", "--task_name", "sst2", "--glue_dir", str(glue),
               "--output", str(tmp_path / "out.tsv"), "--num_workers", "1", "--n_iter", "100000"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    # The first bytes are there once the tagging is over and new rows come.
    while not any(path.stat().st_size > 50_000 for path in tmp_path.glob(".partial_*")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    assert not (tmp_path / "out.tsv").exists()
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 143 and told.splitlines()[-1] == "ended by SIGTERM" and list(tmp_path.iterdir()) == []


def test_flags_are_checked_before_torch_is_there():
    code = "import sys, task_distillation.augmentation.command; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=PROJECT).returncode == 0


def test_the_same_command_does_nothing_and_another_replaces_nothing(glue, tmp_path, monkeypatch, capsys):
    output, short = tmp_path / "set.tsv", ("--n_iter", "2")
    augment(glue, output, *short)
    made, when = output.read_bytes(), output.stat().st_mtime_ns
    augment(glue, output, *short, workers=2)
    assert "set.tsv: already done" in capsys.readouterr().out and output.stat().st_mtime_ns == when
    for more, said in ((("--n_iter", "3"), r"made with another n_iter \(2, not 3\)"), ((*short, "--seed", "1"), "made with another seed"),
                       ((*short, "--keep_originals", "false"), "made with another keep_originals")):
        with pytest.raises(UserError, match=f"set.tsv: there already, {said}.*another --output, or --overwrite, would work"):
            augment(glue, output, *more)
    output.write_bytes(made + b"mine\t\n")
    with pytest.raises(UserError, match="changed since it was made"):
        augment(glue, output, *short)
    record_path(output).unlink()
    with pytest.raises(UserError, match="nothing beside it says from what"):
        augment(glue, output, *short)
    assert output.read_bytes() == made + b"mine\t\n"
    augment(glue, output, *short, "--overwrite")
    assert output.read_bytes() == made
    record_path(output).write_text("[]")
    with pytest.raises(UserError, match="not what this command writes"):
        augment(glue, output, *short)


def test_a_kill_before_the_record_costs_the_same_work_again(glue, tmp_path, monkeypatch):
    output, write = tmp_path / "set.tsv", command.write_record

    def killed(path, content):
        if content["xxh3"] is not None:
            raise KeyboardInterrupt
        write(path, content)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(command, "write_record", killed)
        augment(glue, output, "--n_iter", "2")
    made = output.read_bytes()
    augment(glue, output, "--n_iter", "2")
    assert output.read_bytes() == made and read_record(record_path(output))["xxh3"] is not None
