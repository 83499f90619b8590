"""`generate` from task files to a transfer set: the same bytes whatever was killed in between and however many processes draw."""

import json
import math
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest
from generation_case import EOS, SHORT, new_config, save_lm, word_tokenizer
from tiny_glue import write_rte, write_sst2

from dataset.errors import UserError
from evaluation.tasks.table import load_task, select_tasks
from task_distillation.generation import command, fine_tuning, parts, run
from task_distillation.generation.cleaning import Counts, write_transfer_set
from task_distillation.generation.text import Codec
from task_distillation.transfer_set import TransferRow, read_transfer_set

RESULTS = {"language_model", "language_model.json", "prefix_sampler.json", "transfer_set.tsv", "generation.json"}
TASK = select_tasks(["sst2"])[0]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    write_rte(write_sst2(folder / "glue", train=40, dev=16), train=24, dev=8)
    new_config(folder / "lm.json")
    save_lm(folder / "lm", dropout=0.1)
    return folder


def generate(inputs: Path, output: Path, *more: str, task: str = "sst2", source: str = "--lm_config lm.json") -> None:
    flag, name = source.split()
    words = ["--task_name", task, "--glue_dir", str(inputs / "glue"), flag, str(inputs / name), "--output_dir", str(output)]
    command.main([*words, *SHORT, *more])


@pytest.fixture(scope="module")
def whole(inputs, tmp_path_factory) -> Path:
    """What an undisturbed run makes, with dropout and texts in parts."""
    output = tmp_path_factory.mktemp("whole") / "out"
    generate(inputs, output, "--split_encode")
    return output


def contents(output: Path) -> dict[str, bytes]:
    """All that must not depend on kills and processes."""
    names = ("language_model/model.safetensors", "language_model/tokenizer.json", "prefix_sampler.json", "transfer_set.tsv")
    return {name: (output / name).read_bytes() for name in names}


def record(output: Path, name: str = "generation.json") -> dict:
    return json.loads((output / name).read_text())


def test_a_transfer_set_holds_the_originals_and_new_texts(inputs, whole):
    train = load_task(TASK, inputs / "glue").train
    rows = list(read_transfer_set(whole / "transfer_set.tsv", TASK))
    counts = record(whole)["counts"]
    originals = [TransferRow((text,), label) for text, label in zip(train.texts[0], train.labels, strict=True)]
    assert rows[:40] == originals
    new = [row.texts[0] for row in rows[40:]]
    assert all(row.label is None for row in rows[40:])
    assert len(set(new)) == len(new) == counts["kept"] > 0
    assert not set(new) & set(train.texts[0])
    assert all(text == " ".join(text.split()) != "" and "<|endoftext|>" not in text for text in new)
    assert counts["drawn"] == sum(counts[name] for name in ("unfinished", "unused", "empty", "equal_to_original", "repeated", "kept"))
    assert counts["drawn"] - counts["unfinished"] - counts["unused"] == 50  # three chunks of 20 for --num_samples 50
    assert counts["unused"] == 10
    assert counts["rows"] == len(rows) == counts["originals"] + counts["kept"]
    assert record(whole)["samples_per_second"] > 0
    assert {path.name for path in whole.iterdir()} == RESULTS


def test_the_epoch_of_the_lowest_perplexity_is_kept(whole, inputs, tmp_path, monkeypatch):
    told = record(whole, "language_model.json")
    found = [epoch["dev_perplexity"] for epoch in told["epochs"]]
    assert len(found) == 2
    assert told["dev_perplexity"] == min(found) == found[told["best_epoch"] - 1] == record(whole)["dev_perplexity"] < 300
    measure, measured = run.perplexity, []

    def worse_and_worse(*arguments) -> float:
        measured.append(measure(*arguments))
        return 1000.0 * len(measured)

    monkeypatch.setattr(fine_tuning, "perplexity", worse_and_worse)
    generate(inputs, tmp_path / "out", "--only", "finetune")
    assert record(tmp_path / "out", "language_model.json")["best_epoch"] == 1
    generate(inputs, tmp_path / "as_it_is", "--only", "sample", source=f"--lm_path {tmp_path / 'out' / 'language_model'}")
    assert measured[0] != pytest.approx(measured[1], rel=1e-3)
    assert record(tmp_path / "as_it_is", "language_model.json")["dev_perplexity"] == pytest.approx(measured[0], rel=1e-5)


def test_the_same_command_again_changes_nothing_and_another_is_refused(whole, inputs, capsys):
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.is_file()}
    generate(inputs, whole, "--split_encode")
    assert "already there" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.is_file()} == before
    with pytest.raises(UserError, match=r"generation.json there is of another temperature \(1.0, not 0.5\)"):
        generate(inputs, whole, "--split_encode", "--temperature", "0.5")
    with pytest.raises(UserError, match=r"language_model.json there is of another learning_rate \(0.01, not 0.02\)"):
        generate(inputs, whole, "--split_encode", "--learning_rate", "2e-2")
    with pytest.raises(UserError, match=r"language_model.json there is of another task \(SST-2, not RTE\)"):
        generate(inputs, whole, "--split_encode", task="rte")


class Killed(BaseException):
    pass


@pytest.mark.parametrize("moment", ["after_an_epoch", pytest.param("before_its_state", marks=pytest.mark.slow)])
def test_a_fine_tuning_that_was_killed_ends_with_the_same_weights(moment, whole, inputs, tmp_path, monkeypatch):
    store = fine_tuning.FineTuning._store
    trained = []

    def killed(self) -> None:
        if moment == "after_an_epoch":
            store(self)
        raise Killed

    monkeypatch.setattr(fine_tuning.FineTuning, "_store", killed)
    with pytest.raises(Killed):
        generate(inputs, tmp_path, "--split_encode")
    assert not (tmp_path / "language_model.json").exists()
    monkeypatch.setattr(fine_tuning.FineTuning, "_store", store)
    train = fine_tuning.FineTuning._train
    monkeypatch.setattr(fine_tuning.FineTuning, "_train", lambda self, epoch: trained.append(epoch) or train(self, epoch))
    if moment == "after_an_epoch":
        with pytest.raises(UserError, match=r"fine_tuning_state.pt there is of another num_train_epochs \(2, not 3\)"):
            generate(inputs, tmp_path, "--split_encode", "--num_train_epochs", "3")
        trained.clear()
    generate(inputs, tmp_path, "--split_encode")
    assert trained == ([1] if moment == "after_an_epoch" else [0, 1])
    assert contents(tmp_path) == contents(whole)
    losses = [[epoch["train_loss"] for epoch in record(folder, "language_model.json")["epochs"]] for folder in (tmp_path, whole)]
    assert losses[0] == losses[1]
    assert {path.name for path in tmp_path.iterdir()} == RESULTS


def test_a_sampling_that_was_killed_gives_the_same_bytes(inputs, tmp_path, monkeypatch):
    folders = [tmp_path / name for name in ("whole", "killed")]
    generate(inputs, folders[0], "--only", "sample", source="--lm_path lm")
    drawn = []
    draw = parts.draw_chunk

    def killed(lm, prefixes, settings, ends, chunk):
        if len(drawn) == 2:
            raise Killed
        drawn.append(chunk)
        return draw(lm, prefixes, settings, ends, chunk)

    monkeypatch.setattr(parts, "draw_chunk", killed)
    with pytest.raises(Killed):
        generate(inputs, folders[1], "--only", "sample", source="--lm_path lm")
    assert not (folders[1] / "transfer_set.tsv").exists()
    drawn.pop(0)
    with pytest.raises(UserError, match=r"settings.json there is of another top_k \(0, not 3\)"):
        generate(inputs, folders[1], "--only", "sample", "--top_k", "3", source="--lm_path lm")
    (folders[1] / "parts" / "part_000001.json").write_text("{}")
    with pytest.raises(UserError, match=r"part_000001.json: not what this command wrote; remove it"):
        generate(inputs, folders[1], "--only", "sample", source="--lm_path lm")
    (folders[1] / "parts" / "part_000001.json").unlink()
    drawn.clear()
    generate(inputs, folders[1], "--only", "sample", source="--lm_path lm")
    assert drawn == [1]
    assert (folders[1] / "transfer_set.tsv").read_bytes() == (folders[0] / "transfer_set.tsv").read_bytes()
    assert record(folders[1])["counts"] == record(folders[0])["counts"]


def test_a_transfer_set_that_was_edited_is_not_taken_for_what_was_drawn(whole, inputs, tmp_path):
    output = shutil.copytree(whole, tmp_path / "out")
    drawn = (output / "transfer_set.tsv").read_text()
    (output / "transfer_set.tsv").write_text(drawn.replace("film", "plot", 1))
    with pytest.raises(UserError, match=r"transfer_set.tsv: damaged or edited since generation.json beside it was written; move it"):
        generate(inputs, output, "--split_encode")
    assert (output / "transfer_set.tsv").read_text() == drawn.replace("film", "plot", 1)


class ThreadsInTurn(ThreadPoolExecutor):
    """Threads of which one at a time works: loading a model replaces functions of transformers for the whole process."""

    turn = threading.Lock()

    def submit(self, work, /, *arguments):
        def in_turn():
            with self.turn:
                return work(*arguments)

        return super().submit(in_turn)


@pytest.mark.parametrize("executor", [
    ThreadsInTurn, pytest.param(parts.ProcessExecutor, marks=pytest.mark.slow)], ids=["threads", "processes"])
def test_processes_change_no_byte_and_more_samples_keep_the_first(executor, inputs, tmp_path, monkeypatch):
    """Threads in the place of processes are the same loop without the seconds that a process needs to import torch."""
    monkeypatch.setattr(parts, "ProcessExecutor", executor)
    one, two = tmp_path / "one", tmp_path / "two"
    as_it_is = ("--only", "sample", "--keep_originals", "false")
    generate(inputs, one, *as_it_is, source="--lm_path lm")
    generate(inputs, two, *as_it_is, "--num_samples", "80", "--devices", "cpu,cpu", source="--lm_path lm")
    first, more = (read.read_text().splitlines() for read in (one / "transfer_set.tsv", two / "transfer_set.tsv"))
    assert more[: len(first)] == first
    assert len(more) > len(first) > 10
    assert record(two)["devices"] == ["cpu", "cpu"]


def test_pairs_have_two_sides(inputs, tmp_path):
    """From a model whose second side is often empty: its rows are dropped."""
    generate(inputs, tmp_path, "--only", "sample", "--keep_originals", "false", task="rte", source="--lm_path lm")
    counts = record(tmp_path)["counts"]
    rows = list(read_transfer_set(tmp_path / "transfer_set.tsv", select_tasks(["rte"])[0]))
    assert len(rows) == counts["kept"] == counts["rows"] > 5
    assert counts["empty"] > 0
    assert all(len(row.texts) == 2 and all(row.texts) for row in rows)
    assert EOS not in (tmp_path / "transfer_set.tsv").read_text()


def test_what_is_no_new_row_is_dropped_and_counted(inputs, tmp_path):
    data = load_task(TASK, inputs / "glue")
    own = data.train.texts[0][3]
    texts = ["new one", "", f" {own}", "new one", "New one", "beyond"]
    (tmp_path / "part_000000.json").write_text(json.dumps({"drawn": 8, "unfinished": 2, "texts": [[text.strip()] for text in texts]}))
    counts = write_transfer_set(tmp_path / "set.tsv", data, tmp_path, 1, 5, keep_originals=False)
    assert (tmp_path / "set.tsv").read_text() == "sentence\tlabel\nnew one\t\nNew one\t\n"
    assert counts == Counts(drawn=8, unfinished=2, unused=1, empty=1, equal_to_original=1, repeated=1, kept=2, rows=2)


def test_every_epoch_cuts_texts_anew(inputs, tmp_path, monkeypatch):
    encode, seen = Codec.encode_in_parts, []
    monkeypatch.setattr(Codec, "encode_in_parts", lambda *arguments: seen.append(encode(*arguments)) or seen[-1])
    generate(inputs, tmp_path, "--only", "finetune", "--split_encode")
    assert len(seen) == 2
    assert seen[0] != seen[1]


def test_prefixes_are_counted_in_the_training_texts(inputs, tmp_path):
    generate(inputs, tmp_path, "--only", "sample", source="--lm_path lm")
    tokens = word_tokenizer()
    texts = load_task(TASK, inputs / "glue").train.texts[0]
    kept = json.loads((tmp_path / "prefix_sampler.json").read_text())
    assert kept["texts"] == 40
    expected: dict[int, int] = {}
    for text in texts:
        first = tokens(text)["input_ids"][0]
        expected[first] = expected.get(first, 0) + 1
    assert dict(kept["first_tokens"]) == expected
    assert all(one[0] < other[0] for one, other in pairwise(kept["first_tokens"]))


def test_a_diverged_training_is_named(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(fine_tuning, "perplexity", lambda *_: math.nan)
    with pytest.raises(UserError, match=r"epoch 1: the loss is .*; a lower --learning_rate"):
        generate(inputs, tmp_path)
    assert not (tmp_path / "language_model").exists()
