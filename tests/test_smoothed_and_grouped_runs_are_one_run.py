"""Real runs with --token_counts and --group_by_length: one run whatever the ranks, the stops and the place of the file; and what cannot
work is one line, soon and before torch.
"""

import json
import re
import signal
from pathlib import Path

import h5py
import numpy as np
import pytest
from cli_case import command_line, run_cases, write_teacher
from launching import events, losses, summary, without_times
from stops_case import last_export, same
from tiny import VOCABULARY, make_shards, make_teacher, make_tokenizer, tokenizer_sha256
from zygote import Zygote

from dataset.token_counts import write_token_counts
from dataset.tokenizer import load_tokenizer, word_continuations
from pretraining.args.parser import FLAGS, INFO
from pretraining.objectives.catalog import Part
from pretraining.run_changes import changed_data, changed_flags

EXIT_REQUEUE, EXIT_MISTAKE = 75, 2
BATCH, STEPS, CUT = 8, 9, 4
COUNTS = np.arange(VOCABULARY) ** 2


def counts_file(path: Path, counts=COUNTS, sha256: str | None = None) -> Path:
    write_token_counts(path, counts, tokenizer_sha256=sha256)
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("smoothed_runs")
    make_teacher(folder / "teacher")
    make_shards(folder / "shards", train=3, rows=21, masking="none")
    counts_file(folder / "counts.json", sha256=tokenizer_sha256(folder / "teacher"))
    return folder


def flags(place: Path, run: str, *more: str, counts: str | None = "counts.json") -> list[str]:
    smoothed = ["--token_counts", str(place / counts)] if counts else []
    return ["--dataset_path", str(place / "shards"), "--teacher_path", str(place / "teacher"), "--distillation", "--method",
            "hidden_mse:1.0,mlm:0.5", "--student_initialize", "--num_hidden_layers", "2", "--layer_selection", "1,3", "--train_batch_size",
            str(BATCH), "--train_micro_batch_size_per_gpu", "2", "--lr", "1e-3", "--lr_schedule", "constant_step", "--num_warmup_steps",
            "0", "--output_dir", str(place / "out"), "--current_run_id", run, "--job_name", "job", "--max_steps", str(STEPS),
            "--print_steps", "1", "--do_validation", "--layer_norm_type", "pytorch", "--precision", "fp32", "--clock", "simulated:60",
            "--total_training_time", "1", "--finetune_checkpoint_at_end", "--group_by_length", *smoothed, *more]


def recorded(place: Path, run: str) -> dict[str, str]:
    folder = place / "masks" / run
    folder.mkdir(parents=True, exist_ok=True)
    return {"record_masks": str(folder)}


def masks(place: Path, run: str) -> dict[tuple, tuple]:
    """(epoch, shard, row) -> (shown ids, positions, labels); a sample that was read twice must have been the same."""
    found: dict[tuple, tuple] = {}
    for path in (place / "masks" / run).glob("*.jsonl"):
        for *sample, ids, positions, labels in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
            assert found.setdefault(tuple(sample), (ids, positions, labels)) == (ids, positions, labels)
    return found


def run_of(place: Path, name: str) -> Path:
    return place / "out" / "job" / name


@pytest.fixture(scope="module")
def straight(place, zygote) -> Path:
    zygote.run(flags(place, "straight"), patches=recorded(place, "straight"))
    return run_of(place, "straight")


def test_two_ranks_see_the_samples_masks_and_losses_of_one(place, zygote, straight):
    zygote.run(flags(place, "two"), ranks=2, patches=recorded(place, "two"))
    one, two = masks(place, "straight"), masks(place, "two")
    shared = one.keys() & two.keys()
    assert len(shared) >= STEPS * BATCH and all(one[sample] == two[sample] for sample in shared)
    assert losses(run_of(place, "two")) == pytest.approx(losses(straight), rel=1e-5)
    assert losses(straight)[-1] < losses(straight)[0]


def test_a_stopped_run_goes_on_bit_for_bit_with_the_same_counts_wherever_they_lie(place, zygote, straight):
    stop = {"signal_after": {"step": CUT, "number": int(signal.SIGTERM)}}
    zygote.run(flags(place, "cut"), status=EXIT_REQUEUE, patches=stop)
    counts_file(place / "other.json", COUNTS + 1)
    refused = zygote.run(flags(place, "cut", "--resume", counts="other.json"), status=EXIT_MISTAKE)
    assert "the token counts are others" in refused.stderr()
    refused = zygote.run(flags(place, "cut", "--resume", counts=None), status=EXIT_MISTAKE)
    assert "the token counts are others" in refused.stderr()
    refused = zygote.run(flags(place, "cut", "--resume", "--mlm_smoothing", "0.5"), status=EXIT_MISTAKE)
    assert "mlm_smoothing: 0.7 -> 0.5" in refused.stderr()
    counts_file(place / "moved.json")
    zygote.run(flags(place, "cut", "--resume", counts="moved.json"))
    assert summary(run_of(place, "cut"))["steps"] == STEPS
    told = [event for event in without_times(run_of(place, "cut")) if event["event"] in ("train", "validation")]
    assert told == [event for event in without_times(straight) if event["event"] in ("train", "validation")]
    assert same(last_export(run_of(place, "cut")), last_export(straight))


def test_grouping_alone_changes_no_loss_and_held_out_masks_stay_plain(place, zygote, straight):
    """Without dropout a step's loss is a sum over the same samples; held-out losses before the first step agree in all runs."""
    make_teacher(place / "teacher_still")
    config = place / "teacher_still" / "config.json"
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config.write_text(json.dumps(json.loads(config.read_text(encoding="utf-8")) | still), encoding="utf-8")
    for run, grouped in (("grouped", "--group_by_length"), ("plain", "--group_by_length=false")):
        zygote.run(flags(place, run, "--teacher_path", str(place / "teacher_still"), grouped, counts=None))
    assert losses(run_of(place, "grouped")) == pytest.approx(losses(run_of(place, "plain")), rel=1e-5)
    first = [events(run, "validation")[0] for run in (straight, run_of(place, "plain"))]
    assert first[0]["step"] == 0 and first[0]["loss/mlm"] == first[1]["loss/mlm"]
    assert losses(straight)[0] != losses(run_of(place, "plain"))[0]


def test_whole_words_are_masked_in_a_real_run(place, zygote: Zygote):
    make_tokenizer(place / "pieces", continuations=True)
    make_shards(place / "whole", train=1, rows=21, masking="none", whole_words=True, continuations=True)
    more = ("--dataset_path", str(place / "whole"), "--tokenizer_name", str(place / "pieces"), "--max_steps", "2")
    zygote.run(flags(place, "whole", *more, counts=None), patches=recorded(place, "whole"))
    continues = word_continuations(load_tokenizer(place / "pieces"))
    with h5py.File(place / "whole" / "train_shard_0.hdf5") as file:
        originals, numbers = file["input_ids"][:], file["input_mask"][:].sum(axis=1)
    found, several = masks(place, "whole"), 0
    for (_, _, row), (_, positions, labels) in found.items():
        assert originals[row, positions].tolist() == labels
        for place_of in range(2, int(numbers[row]) - 1):  # after the first word's beginning, before [SEP]
            if continues[originals[row, place_of]]:
                assert (place_of in positions) == (place_of - 1 in positions)
                several += place_of in positions
    assert len(found) >= 16 and several > 0


def test_what_belongs_to_the_run_and_what_may_change():
    """A run that was saved before there were counts had none; the place of the file and grouping are free, unless samples are compared."""
    old = {"train": [1], "test": [], "teacher": None}
    assert list(changed_data(old, old | {"token_counts": None})) == []
    assert list(changed_data(old, old | {"token_counts": "a"})) == ["the token counts are others"]
    now = {name: info.default for name, info in INFO.items()}
    for change, listed in (({"token_counts": "x"}, []), ({"mlm_smoothing": 0.5}, []), ({"group_by_length": True}, []),
                           ({"token_counts": "x", "mlm_smoothing": 0.5}, ["mlm_smoothing"])):
        assert [name for name, _ in changed_flags(now, now | change, FLAGS, [Part("mlm", 1.0)])] == listed
    compared = changed_flags(now, now | {"group_by_length": True}, FLAGS, [Part("crd", 1.0)])
    assert [name for name, _ in compared] == ["group_by_length"]


GOOD = {
    "distillation": None, "method": "hidden_mse", "teacher_path": "teacher", "student_initialize": None, "num_hidden_layers": 2,
    "layer_selection": "1,3", "dataset_path": "shards", "output_dir": "runs", "job_name": "job", "current_run_id": "1",
    "train_batch_size": 8, "train_micro_batch_size_per_gpu": 4, "layer_norm_type": "pytorch", "precision": "fp32",
    "token_counts": "counts.json",
}
# name -> (changes to GOOD, what is said)
MISTAKES: dict[str, tuple[dict, str]] = {
    "missing": ({"token_counts": "nowhere.json"}, "--token_counts: no file of token counts nowhere.json"),
    "empty": ({"token_counts": ""}, "--token_counts is empty"),
    "no_json": ({"token_counts": "teacher/vocab.txt"}, "--token_counts: .*vocab.txt is no JSON"),
    "short": ({"token_counts": "short.json"}, f"short.json: {VOCABULARY - 1} counts, .*shard_0.hdf5 has a vocabulary of {VOCABULARY}"),
    "foreign": ({"token_counts": "foreign.json"}, "foreign.json: tokenizer_sha256 is abc, expected [0-9a-f]{64}"),
    "static": ({"dataset_path": "static"}, "--token_counts counts.json: the masks of .*static/train_shard_0.hdf5 are in the file"),
    "words": ({"dataset_path": "words"}, "--token_counts counts.json: .*words/train_shard_0.hdf5 asks for whole words"),
    "rates": ({"dataset_path": "rates"}, "masked_lm_prob is 0.3 in .*rates/train_shard_1.hdf5 and 0.15 in .*train_shard_0.hdf5"),
    "negative": ({"mlm_smoothing": "-1"}, "--mlm_smoothing -1.0: a number of at least 0"),
    "nan": ({"mlm_smoothing": "nan"}, "--mlm_smoothing nan: a number of at least 0"),
    "causal": ({"model_type": "gpt2-clm", "method": "clm", "distillation": False, "teacher_path": False, "student_initialize": False,
                "layer_selection": False, "tokenizer_name": "teacher", "hidden_size": 32, "num_attention_heads": 4,
                "intermediate_size": 64}, "--token_counts counts.json: a causal student sees its text unmasked"),
    "unmarked": ({"dataset_path": "words", "token_counts": False, "tokenizer_name": "unmarked"}, "does not mark where words begin"),
}
NOTES = {
    "smoothing_alone": ({"token_counts": False, "mlm_smoothing": "0.5"}, "--mlm_smoothing: no effect: --token_counts is not given"),
    "one_micro_batch": ({"group_by_length": None, "train_micro_batch_size_per_gpu": 8},
                        "--group_by_length: no effect: one micro-batch is the whole batch"),
    "predictions": ({"max_predictions_per_seq": 3}, "--max_predictions_per_seq: no effect: --token_counts draws masks over whole batches"),
    "held_out": ({"max_predictions_per_seq": 3, "do_validation": None}, "--max_predictions_per_seq 3: bounds held-out samples only"),
}


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> dict[str, dict]:
    folder = tmp_path_factory.mktemp("counts")
    digest = tokenizer_sha256(write_teacher(folder / "teacher"))
    make_shards(folder / "shards", masking="none")
    make_shards(folder / "static")
    make_shards(folder / "words", masking="none", whole_words=True)
    make_shards(folder / "rates", masking="none")
    with h5py.File(folder / "rates" / "train_shard_1.hdf5", "r+") as file:
        file.attrs["masked_lm_prob"] = 0.3
    bare = json.loads((make_tokenizer(folder / "unmarked") / "tokenizer.json").read_text(encoding="utf-8"))
    (folder / "unmarked" / "tokenizer.json").write_text(json.dumps(bare | {"decoder": None}), encoding="utf-8")
    counts_file(folder / "counts.json", sha256=digest)
    counts_file(folder / "short.json", COUNTS[1:])
    counts_file(folder / "foreign.json", sha256="abc")
    cases = {**MISTAKES, **NOTES}
    lines = [command_line(GOOD | changes) + (["--print_config"] if name in NOTES else []) for name, (changes, _) in cases.items()]
    return dict(zip(cases, run_cases(folder, lines), strict=True))


@pytest.mark.parametrize("name", MISTAKES)
def test_what_cannot_work_is_one_line_soon_and_before_torch(results, name):
    found = results[name]
    assert found["status"] == EXIT_MISTAKE, found
    assert len(found["err"].strip().splitlines()) == 1 and re.search(MISTAKES[name][1], found["err"]), found["err"]
    assert found["seconds"] < 2 and not found["heavy"] and not found["changed"]


@pytest.mark.parametrize("name", NOTES)
def test_what_has_no_effect_says_so(results, name):
    found = results[name]
    assert found["status"] in (0, None) and NOTES[name][1] in found["out"] + found["err"], found
