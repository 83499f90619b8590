"""`label`: every row gets what the teacher says of it alone; stopped, continued, or on other devices, the bytes are the same."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from teaching_case import MNLI, SST2, STSB, label_flags, make_teacher, rename_labels, write_set

from dataset.errors import UserError
from task_distillation.logits_file import join, read_logits
from task_distillation.teaching import label, parts, teacher
from task_distillation.transfer_set import read_transfer_set, transfer_writer

PROJECT = Path(__file__).parents[1]
ROWS = 83  # 6 chunks of 16, the last one short
ORDERS = {  # as the teacher's config.json names them, none of them in the task's order
    SST2: ("positive", "negative"), MNLI: ("contradiction", "entailment", "neutral"), STSB: (),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("label")
    make_teacher(place / "teacher", ORDERS[SST2])
    write_set(place / "set.tsv", SST2, ROWS)
    return place


def plain_logits(folder, texts, order):
    """One row at a time through plain transformers: nothing padded, nothing sorted, float32."""
    import torch
    import transformers

    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        rows = [model(**tokenizer(*text, return_tensors="pt")).logits[0] for text in texts]
    return torch.stack(rows)[:, order].numpy()


@pytest.mark.parametrize("task", ORDERS, ids=lambda task: task.name)
def test_logits_are_a_plain_forward_pass_in_the_tasks_order(task, tmp_path):
    names = ORDERS[task]
    make_teacher(tmp_path / "teacher", names, seed=3)
    texts = write_set(tmp_path / "set.tsv", task, 41)
    label.main(label_flags(tmp_path, task_name=task.name))
    found = np.concatenate([chunk.values for chunk in read_logits(tmp_path / "logits.parquet", task)])
    expected = plain_logits(tmp_path / "teacher", texts, [names.index(name) for name in task.label_names] if names else [0])
    assert found.shape == expected.shape == (41, task.outputs) and np.ptp(expected, axis=0).min() > 0.02
    assert np.abs(found - expected).max() < 1e-5
    rows = list(join(read_transfer_set(tmp_path / "set.tsv", task), tmp_path / "logits.parquet", task))
    assert [row.texts for row in rows] == texts and np.array_equal([row.logits for row in rows], found)


def test_a_teacher_that_spells_its_mask_otherwise_reads_a_mask(tmp_path):
    folder = make_teacher(tmp_path / "teacher", ORDERS[SST2], seed=3)
    for path in (folder / "tokenizer.json", folder / "tokenizer_config.json"):
        path.write_text(path.read_text().replace("[MASK]", "<mask>"))
    with transfer_writer(tmp_path / "set.tsv", SST2) as writer:
        for text in ("the [MASK] was good", "[MASK] film"):
            writer.write([text])
    label.main(label_flags(tmp_path))
    found = np.concatenate([chunk.values for chunk in read_logits(tmp_path / "logits.parquet", SST2)])
    expected, letters = (plain_logits(folder, [(text,) for text in texts], [1, 0]) for texts in (
        ("the <mask> was good", "<mask> film"), ("the [MASK] was good", "[MASK] film")))
    assert np.abs(found - expected).max() < 1e-5 < np.abs(found - letters).max()


def test_tsv_and_parquet_give_the_same_numbers(place):
    for name in ("same.parquet", "same.tsv"):
        label.main(label_flags(place, name))
    one, two = (list(read_logits(place / name, SST2)) for name in ("same.parquet", "same.tsv"))
    assert np.concatenate([chunk.values for chunk in one]).tobytes() == np.concatenate([chunk.values for chunk in two]).tobytes()
    assert [text for chunk in one for text in chunk.hashes] == [text for chunk in two for text in chunk.hashes]


@pytest.fixture
def asked(monkeypatch):
    """First rows of the chunks that a teacher was asked, in this process."""
    asked, real = [], teacher.ask

    def ask(one, chunk):
        asked.append(chunk.first)
        return real(one, chunk)

    monkeypatch.setattr(teacher, "ask", ask)
    return asked


@pytest.mark.parametrize("name", ["logits.parquet", pytest.param("logits.tsv", marks=pytest.mark.slow)])
def test_interrupted_anywhere_and_continued_gives_the_same_bytes(name, place, tmp_path, monkeypatch, asked, capsys):
    label.main(label_flags(place, output=tmp_path / name))
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).unlink()
    real = parts.save_part
    for moment in (0, 2, 5):  # chunks that are written before the interruption
        asked.clear()
        left = [moment]

        def save(path, values, left=left):
            if left[0] == 0:
                raise KeyboardInterrupt
            left[0] -= 1
            real(path, values)

        monkeypatch.setattr(teacher, "save_part", save)
        with pytest.raises(KeyboardInterrupt):
            label.main(label_flags(place, output=tmp_path / name))
        assert len(asked) == moment + 1 and not (tmp_path / name).exists()
        monkeypatch.setattr(teacher, "save_part", real)
        asked.clear()
        label.main(label_flags(place, output=tmp_path / name))
        assert asked == [16 * number for number in range(moment, 6)]  # and nothing twice
        assert (tmp_path / name).read_bytes() == whole
        assert {path.name for path in tmp_path.iterdir()} == {name, f"{name}.json"}
        (tmp_path / name).unlink()
    assert f"{ROWS} rows, 80 of them before; " in capsys.readouterr().out


def test_killed_while_the_file_is_put_together_it_is_put_together_again(place, tmp_path, monkeypatch, asked):
    label.main(label_flags(place, output=tmp_path / "logits.parquet"))
    whole = (tmp_path / "logits.parquet").read_bytes()
    (tmp_path / "logits.parquet").unlink()
    for moment in ("logits_writer", "write_record", "remove_folder"):  # before the file, between it and its record, after both
        asked.clear()
        with monkeypatch.context() as patch:
            patch.setattr(parts, moment, stop)
            with pytest.raises(KeyboardInterrupt):
                label.main(label_flags(place, output=tmp_path / "logits.parquet"))
        assert len(asked) == 6
        label.main(label_flags(place, output=tmp_path / "logits.parquet"))
        assert len(asked) == 6 and (tmp_path / "logits.parquet").read_bytes() == whole
        for path in tmp_path.iterdir():
            parts.remove_folder(path) if path.is_dir() else path.unlink()


def stop(*_):
    raise KeyboardInterrupt


def test_a_damaged_part_is_computed_again(place, tmp_path, monkeypatch, asked):
    with monkeypatch.context() as patch:
        patch.setattr(parts, "logits_writer", stop)
        with pytest.raises(KeyboardInterrupt):
            label.main(label_flags(place, output=tmp_path / "a.tsv"))
    for first, content in ((16, b""), (32, b"something else"), (48, (tmp_path / "a.tsv.parts/rows_000000000080.npy").read_bytes())):
        (tmp_path / f"a.tsv.parts/rows_{first:012d}.npy").write_bytes(content)
    asked.clear()
    label.main(label_flags(place, output=tmp_path / "a.tsv"))
    label.main(label_flags(place, output=tmp_path / "b.tsv"))
    assert asked[:3] == [16, 32, 48] and len(asked) == 9
    assert (tmp_path / "a.tsv").read_bytes() == (tmp_path / "b.tsv").read_bytes()


def test_order_of_chunks_and_number_of_threads_change_no_bit(place, monkeypatch):
    import torch

    network = teacher.Teacher(place / "teacher", SST2, (1, 0), label.FineTuningSettings(max_seq_length=64), "cpu", "fp32")
    chunks = list(parts.chunks(place / "set.tsv", SST2, 16))
    before, seen, predict = torch.get_num_threads(), [], teacher.Network.predict

    def counted(network, tokens):
        seen.append(torch.get_num_threads())
        return predict(network, tokens)

    monkeypatch.setattr(teacher.Network, "predict", counted)
    forward = [teacher.ask(network, chunk) for chunk in chunks]
    torch.set_num_threads(before + 1)
    try:
        backward = [teacher.ask(network, chunk) for chunk in chunks[::-1]][::-1]
        assert torch.get_num_threads() == before + 1 and set(seen) == {1}
    finally:
        torch.set_num_threads(before)
        teacher.forget()
    assert [values.tobytes() for values in forward] == [values.tobytes() for values in backward]


@pytest.mark.slow
def test_two_processes_give_the_bytes_of_one(place, tmp_path):
    for name, devices in (("one.parquet", "cpu"), ("two.parquet", "cpu,cpu")):
        label.main(label_flags(place, output=tmp_path / name, devices=devices))
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()


@pytest.mark.slow
def test_killed_without_warning_it_goes_on_with_what_is_there(place, tmp_path):
    write_set(tmp_path / "set.tsv", SST2, 4000)
    flags = {"transfer_set": tmp_path / "set.tsv", "chunk_rows": "40"}
    label.main(label_flags(place, output=tmp_path / "whole.parquet", **flags))
    words = [sys.executable, str(PROJECT / "run_task_distillation.py"), "label",
             *label_flags(place, output=tmp_path / "killed.parquet", **flags, devices="cpu,cpu")]
    for wanted in (1, 20, 60):
        process = subprocess.Popen(words, cwd=PROJECT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while len(list(tmp_path.glob("killed.parquet.parts/rows_*.npy"))) < wanted and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not (tmp_path / "killed.parquet").exists()
    assert subprocess.run(words, cwd=PROJECT, check=False).returncode == 0
    assert (tmp_path / "killed.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()


def told(arguments):
    with pytest.raises(UserError) as error:
        label.main(arguments)
    said = str(error.value)
    assert "\n" not in said
    return said


def test_what_is_done_is_not_done_again_and_nothing_else_is_replaced(place, tmp_path, asked, capsys):
    flags = {"output": tmp_path / "logits.parquet"}
    label.main(label_flags(place, **flags))
    first = (tmp_path / "logits.parquet").read_bytes()
    asked.clear()
    label.main(label_flags(place, **flags))
    assert not asked and f"already done, {ROWS} rows" in capsys.readouterr().out
    make_teacher(tmp_path / "other", ORDERS[SST2], seed=9)
    write_set(tmp_path / "other.tsv", SST2, ROWS, seed=5)
    write_set(tmp_path / "longer.tsv", SST2, ROWS + 1)
    for change, words in (
        ({"teacher_path": tmp_path / "other"}, "made with another teacher"),
        ({"transfer_set": tmp_path / "other.tsv"}, "made with another transfer set"),
        ({"transfer_set": tmp_path / "longer.tsv"}, "made with another transfer set"),
        ({"max_seq_length": 32}, "made with another max_seq_length (64, not 32)"),
        ({"chunk_rows": 20}, "made with another chunk_rows (16, not 20)"),
    ):
        said = told(label_flags(place, **flags | change))
        assert said.startswith(str(tmp_path / "logits.parquet")) and words in said and "--overwrite" in said
    assert not asked and (tmp_path / "logits.parquet").read_bytes() == first
    label.main(label_flags(place, **flags, teacher_path=tmp_path / "other", overwrite=""))
    assert len(asked) == 6 and (tmp_path / "logits.parquet").read_bytes() != first
    with (tmp_path / "logits.parquet").open("ab") as stream:
        stream.write(b"x")
    assert "changed since" in told(label_flags(place, **flags, teacher_path=tmp_path / "other"))
    (tmp_path / "logits.parquet.json").unlink()
    assert "there already" in told(label_flags(place, **flags))


def test_parts_of_another_teacher_are_not_mixed_in(place, tmp_path, monkeypatch, asked):
    flags = label_flags(place, output=tmp_path / "logits.parquet")
    with monkeypatch.context() as patch:
        patch.setattr(parts, "logits_writer", stop)
        with pytest.raises(KeyboardInterrupt):
            label.main(flags)
    make_teacher(tmp_path / "other", ORDERS[SST2], seed=9)
    other = label_flags(place, output=tmp_path / "logits.parquet", teacher_path=tmp_path / "other")
    assert "logits.parquet.parts: begun with another teacher" in told(other)
    identity = tmp_path / "logits.parquet.parts" / parts.IDENTITY
    there = identity.read_text()
    identity.write_text(there.replace('"cpu"', '"cuda"'))
    assert "begun on cuda in fp32, and this would be on cpu in fp32" in told(flags)
    identity.write_text(there)
    asked.clear()
    label.main([*other, "--overwrite"])
    assert len(asked) == 6
    label.main(label_flags(place, output=tmp_path / "b.parquet", teacher_path=tmp_path / "other"))
    assert (tmp_path / "logits.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_a_set_that_changes_meanwhile_is_not_taken_for_what_was_labelled(place, tmp_path, monkeypatch):
    write_set(tmp_path / "set.tsv", SST2, ROWS)
    real, changed = parts.save_part, (tmp_path / "set.tsv").read_text().replace("film", "plot", 1)

    def save(path, values):
        real(path, values)
        (tmp_path / "set.tsv").write_text(changed)

    monkeypatch.setattr(teacher, "save_part", save)
    said = told(label_flags(place, output=tmp_path / "logits.parquet", transfer_set=tmp_path / "set.tsv"))
    assert "changed while it was labelled" in said and not (tmp_path / "logits.parquet").exists()


def test_a_teacher_that_gives_no_numbers_is_named_with_the_row(place, tmp_path):
    import torch
    from safetensors.torch import load_file, save_file

    make_teacher(tmp_path / "teacher", ORDERS[SST2])
    weights = load_file(tmp_path / "teacher/model.safetensors")
    weights["bert.embeddings.word_embeddings.weight"][5 + 13] = torch.nan  # the last word, "music"
    save_file(weights, tmp_path / "teacher/model.safetensors", metadata={"format": "pt"})
    said = told(label_flags(place, output=tmp_path / "logits.parquet", teacher_path=tmp_path / "teacher"))
    row = next(number for number, row in enumerate(read_transfer_set(place / "set.tsv", SST2)) if "music" in row.texts[0])
    assert f"logits of row {row} (" in said and "not finite in fp32" in said and not (tmp_path / "logits.parquet").exists()


def test_memory_holds_a_chunk_and_not_the_set(place, tmp_path, monkeypatch):
    """Texts that were read and not yet labelled are at most one chunk's."""
    most = [0, 0]
    real_read, real_ask = parts.read_transfer_set, teacher.ask

    def read(path, task):
        for row in real_read(path, task):
            most[1] += 1
            most[0] = max(most)
            yield row

    def ask(one, chunk):
        most[1] = 0
        return real_ask(one, chunk)

    real_survey = label.survey
    monkeypatch.setattr(label, "survey", lambda path, task: (real_survey(path, task), most.__setitem__(slice(None), [0, 0]))[0])
    monkeypatch.setattr(parts, "read_transfer_set", read)
    monkeypatch.setattr(teacher, "ask", ask)
    monkeypatch.setattr(parts.Labelling, "merge", lambda *_: None)
    label.main(label_flags(place, output=tmp_path / "logits.parquet"))
    assert most[0] == 16


_DRIVER = """
import json, sys
from task_distillation.teaching import label
from dataset.errors import UserError
for arguments in json.load(sys.stdin):
    try:
        label.main(arguments)
        print(json.dumps("done"))
    except UserError as error:
        print(json.dumps(str(error)))
assert "torch" not in sys.modules
"""


def test_mistakes_are_one_line_before_torch_is_imported(place, tmp_path):
    for name, text in {"empty.tsv": "sentence\n", "nothing.tsv": "", "ragged.tsv": "sentence\tlabel\ngood\t1\nbad\n",
                       "columns.tsv": "text\ngood\n"}.items():
        (tmp_path / name).write_text(text)
    for name in ("bare", "three", "foreign"):
        make_teacher(tmp_path / name, ("a", "b", "c") if name == "three" else ("good", "bad") if name == "foreign" else ORDERS[SST2])
    rename_labels(tmp_path / "bare", architectures=["BertForMaskedLM"])
    (tmp_path / "there.parquet").write_bytes(b"mine")
    cases = {
        f"{tmp_path}/empty.tsv: an empty transfer set": {"transfer_set": tmp_path / "empty.tsv"},
        f"{tmp_path}/nothing.tsv: an empty transfer set": {"transfer_set": tmp_path / "nothing.tsv"},
        f"{tmp_path}/ragged.tsv, line 3: found 1 columns, expected 2": {"transfer_set": tmp_path / "ragged.tsv"},
        f"{tmp_path}/columns.tsv, line 1: found columns 'text' and no 'sentence'": {"transfer_set": tmp_path / "columns.tsv"},
        f"{tmp_path}/nowhere.tsv: No such file": {"transfer_set": tmp_path / "nowhere.tsv"},
        f"{tmp_path}/bare: BertForMaskedLM in its config.json, so no head for SST-2": {"teacher_path": tmp_path / "bare"},
        f"{tmp_path}/three: its head gives 3 outputs": {"teacher_path": tmp_path / "three"},
        f"{tmp_path}/foreign: its labels are good, bad, those of SST-2 are": {"teacher_path": tmp_path / "foreign"},
        f"{tmp_path}/nowhere: no such folder": {"teacher_path": tmp_path / "nowhere"},
        f"{tmp_path}/out.csv: its name does not tell its format": {"output": tmp_path / "out.csv"},
        f"{tmp_path}/there.parquet: there already": {"output": tmp_path / "there.parquet"},
        "--chunk_rows 0; 1 or more would work": {"chunk_rows": 0},
        "--per_device_eval_batch_size 0: give 1 or more": {"per_device_eval_batch_size": 0},
        "--max_seq_length 128: the model in": {"max_seq_length": 128},
        "no task named; --task_name sst2": {"task_name": None},
        "unknown flag --chunk_row; did you mean --chunk_rows?": {"chunk_row": 3},
    }
    arguments = [label_flags(place, **{"output": tmp_path / "out.parquet"} | change) for change in cases.values()]
    done = subprocess.run([sys.executable, "-c", _DRIVER], input=json.dumps(arguments), capture_output=True, text=True, cwd=PROJECT,
                          timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    said = [json.loads(line) for line in done.stdout.splitlines()]
    for expected, line in zip(cases, said, strict=True):
        assert line.startswith(expected) and "\n" not in line, (expected, line)
    assert not (tmp_path / "out.parquet").exists() and (tmp_path / "there.parquet").read_bytes() == b"mine"


def test_devices_that_are_not_here_and_kinds_that_do_not_mix_are_refused(place, tmp_path):
    from task_distillation.devices import devices_of

    assert "--devices cuda:9: cuda:9 is not here" in told(label_flags(place, output=tmp_path / "logits.parquet", devices="cuda:9"))
    with contextlib.ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr("task_distillation.devices.select_devices", lambda text: ["cpu", "cuda:0"])
        with pytest.raises(UserError, match="cpu and cuda round differently"):
            devices_of("cpu,cuda:0", 5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("task_distillation.devices.select_devices", lambda text: ["cpu"])
        patch.setattr("task_distillation.devices.core_count", lambda: 8)
        assert devices_of("auto", 3) == ["cpu"] * 3 and devices_of("auto", 100) == ["cpu"] * 8


def test_a_small_set_is_cut_for_several_processes_by_its_size_alone():
    assert [parts.usual_chunk_rows(rows) for rows in (1, 1000, 40_000, 100_000, 10_000_000)] == [1000, 1000, 2500, 6250, 20_000]
