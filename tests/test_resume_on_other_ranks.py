"""A run goes on with another number of ranks, or another micro-batch, with the next sample, the same global batch and the same losses."""

import json
import signal
from pathlib import Path

import pytest
from launching import losses, summary
from tiny import make_shards, make_teacher
from zygote import Zygote

from pretraining.batches.order import GlobalOrder

EXIT_REQUEUE, EXIT_MISTAKE = 75, 2
BATCH, STEPS, CUT, ROWS, SHARDS, SEED = 8, 18, 7, 21, 3, 42
# (ranks, micro-batch) after the cut; before it 2 ranks took 4 samples at a time, and so does the uninterrupted run.
AFTERWARDS = [(1, 4), (4, 2), (2, 1), *(pytest.param(*case, marks=pytest.mark.slow) for case in ((1, 2), (4, 1), (2, 2)))]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Models without dropout, whose draws depend on the micro-batches; shards that no batch divides."""
    folder = tmp_path_factory.mktemp("ranks")
    config = make_teacher(folder / "teacher") / "config.json"
    settings = json.loads(config.read_text(encoding="utf-8"))
    config.write_text(json.dumps(settings | {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}), encoding="utf-8")
    make_shards(folder / "shards", train=SHARDS, rows=ROWS, masking="none")
    return folder


def flags(place: Path, run: str, micro_batch: int, *more: str) -> list[str]:
    return ["--dataset_path", str(place / "shards"), "--teacher_path", str(place / "teacher"), "--distillation", "--method",
            "hidden_mse:1.0,mlm:0.5", "--student_initialize", "--num_hidden_layers", "2", "--layer_selection", "1,3", "--train_batch_size",
            str(BATCH), "--train_micro_batch_size_per_gpu", str(micro_batch), "--lr", "1e-3", "--lr_schedule", "constant_step",
            "--num_warmup_steps", "0", "--output_dir", str(place / "out"), "--current_run_id", run, "--job_name", "job", "--max_steps",
            str(STEPS), "--print_steps", "1", "--do_validation", "--seed", str(SEED), "--layer_norm_type", "pytorch", "--precision", "fp32",
            "--clock", "simulated:60", "--total_training_time", "1", "--resume", *more]


def recorded(folder: Path) -> dict[str, object]:
    """The patch that makes every rank note what its steps read, in files in `folder`."""
    folder.mkdir(parents=True)
    return {"record_samples": str(folder)}


def samples_by_step(folder: Path) -> dict[int, list[tuple[int, int, int]]]:
    """step -> (epoch, shard, row) of every sample that a rank trained on in it, sorted."""
    read: dict[int, list[tuple[int, int, int]]] = {}
    for path in folder.glob("*.jsonl"):
        for step, epoch, shard, rows in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
            read.setdefault(step, []).extend((epoch, shard, row) for row in rows)
    return {step: sorted(samples) for step, samples in read.items()}


def expected_samples(step: int) -> list[tuple[int, int, int]]:
    segments = GlobalOrder(SEED, [ROWS] * SHARDS).segments(step * BATCH, BATCH)
    return sorted((segment.epoch, segment.shard, row) for segment in segments for row in segment.rows.tolist())


def cut(place: Path, zygote: Zygote, run: str, *more: str) -> Path:
    """Two ranks that one of them was asked to stop after step `CUT`; the folder with the samples they read."""
    samples = place / "samples" / run / "before"
    patches = {"signal_after": {"step": CUT, "number": int(signal.SIGTERM), "rank": 1}, **recorded(samples)}
    zygote.run(flags(place, run, 4, *more), ranks=2, status=EXIT_REQUEUE, patches=patches)
    assert summary(place / "out" / "job" / run)["steps"] == CUT
    return samples


@pytest.fixture(scope="module")
def straight(place, zygote):
    """Losses of the uninterrupted run, whose every step read its slice of the order."""
    samples = place / "samples" / "straight"
    zygote.run(flags(place, "straight", 4), ranks=2, patches=recorded(samples))
    assert samples_by_step(samples) == {step: expected_samples(step) for step in range(STEPS)}
    return losses(place / "out" / "job" / "straight")


@pytest.mark.parametrize(("ranks", "micro_batch"), AFTERWARDS)
def test_other_ranks_and_micro_batches_go_on_with_the_next_sample(place, zygote, straight, ranks, micro_batch):
    name = f"then_{ranks}_times_{micro_batch}"
    before = samples_by_step(cut(place, zygote, name))
    after_folder = place / "samples" / name / "after"
    zygote.run(flags(place, name, micro_batch), ranks=ranks, patches=recorded(after_folder))
    after = samples_by_step(after_folder)
    assert before == {step: expected_samples(step) for step in range(CUT)}
    assert after == {step: expected_samples(step) for step in range(CUT, STEPS)}
    found = losses(place / "out" / "job" / name)
    assert len(found) == STEPS and found[:CUT] == straight[:CUT]
    assert found == pytest.approx(straight, rel=1e-5)
    assert found[-1] < found[0]


@pytest.mark.parametrize(("stage", "ranks", "micro_batch"), [("1", 1, 4), pytest.param("2", 4, 2, marks=pytest.mark.slow)])
def test_a_split_optimizer_state_is_refused_on_other_ranks_and_then_goes_on(place, zygote, straight, stage, ranks, micro_batch):
    run, more = place / "out" / "job" / f"zero_{stage}", ("--zero_stage", stage)
    cut(place, zygote, run.name, *more)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    life = zygote.run(flags(place, run.name, micro_batch, *more), ranks=ranks, status=EXIT_MISTAKE)
    mistakes = [line for line in life.stderr().splitlines() if line.startswith("error: ")]
    assert len(mistakes) == 1 and "made by 2 ranks" in mistakes[0] and "launch 2" in mistakes[0] and "--zero_stage 0" in mistakes[0]
    assert "Traceback" not in life.stderr()
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before, "a refused call changes nothing"
    zygote.run(flags(place, run.name, 4, *more), ranks=2)
    assert losses(run) == pytest.approx(straight, rel=1e-5)
