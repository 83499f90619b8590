"""Kills, full disks, errors and changes at the moments at which a run could quietly become another one."""

import json
import os
import shutil
import signal
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from launching import events, losses, summary, without_times
from safetensors.torch import load_file
from stops_case import EXIT_REQUEUE, flags, last_export, make_place, names, run_of, same
from tiny import make_shards

from dataset import errors
from pretraining import stopping
from pretraining.checkpoint import damage
from pretraining.stopping import StopSignal
from pretraining.tracking import cut_metrics
from pretraining.trainer import Trainer

AT_STEP_6 = {"signal_after": {"step": 6, "number": int(signal.SIGTERM)}}
EARLY = ["--do_validation", "--use_early_stopping", "--early_stop_time", "7", "--early_stop_eval_loss", "0.001", "--validation_epochs", "1"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return make_place(tmp_path_factory.mktemp("awkward"))


@pytest.fixture(scope="module")
def straight(place, zygote):
    """The folder of the run that nobody disturbed."""
    zygote.run(flags(place, "straight"))
    return run_of(place, "straight")


def stopped(place: Path, zygote, run: str, *more: str) -> Path:
    """A run that was asked to stop after step 6."""
    life = zygote.start(flags(place, run, *more), patches=AT_STEP_6)
    assert life.wait() == [EXIT_REQUEUE], life.stderr()
    return run_of(place, run)


@pytest.mark.parametrize("point", ["before the export", "before the summary's rename", "half of the summary"])
def test_an_early_stop_that_was_decided_stays_decided(place, zygote, point):
    """At step 10, a marker's: killed in the closing work and resumed, the run trains no further."""
    run = f"early_{point.replace(' ', '_')}"
    life = zygote.start(flags(place, run, *EARLY), fault={"point": point, "count": 1, "rank": 0})
    assert life.wait() == [-signal.SIGKILL], life.stderr()
    zygote.run([*flags(place, run, *EARLY), "--resume"])
    done = summary(run_of(place, run))
    assert (done["exit_reason"], done["steps"], done["markers"]) == ("early_stop", 10, ["progress_0.5_step_10"])


def test_a_signal_that_comes_before_the_first_step_is_not_lost(place, zygote):
    life = zygote.start(flags(place, "soon"), call="drive_stops:signalled_at_once")
    assert life.wait() == [EXIT_REQUEUE], life.stderr()
    assert summary(run_of(place, "soon"))["steps"] == 0 and "SIGTERM: saving and stopping" in life.stderr()
    zygote.run([*flags(place, "soon"), "--resume"])
    assert summary(run_of(place, "soon"))["steps"] == 20


def test_a_run_that_was_killed_before_its_first_checkpoint_leaves_no_folder_behind(place, zygote, straight):
    for _ in range(2):
        killed = zygote.start([*flags(place, "young"), "--resume"], patches={"signal_after": {"step": 3, "number": int(signal.SIGKILL)}})
        assert killed.wait() == [-signal.SIGKILL]
    zygote.run([*flags(place, "young"), "--resume"])
    assert without_times(run_of(place, "young")) == without_times(straight)
    assert not list(run_of(place, "young").parent.glob("young.old_*"))


def test_what_an_earlier_piece_did_is_not_said_again(place, zygote):
    life = zygote.start(flags(place, "said"), fault={"point": "after the export's rename", "count": 1, "rank": 0})
    assert life.wait() == [-signal.SIGKILL]
    life = zygote.run([*flags(place, "said"), "--resume"])
    assert "at step 10: folder" not in life.stderr() and "marker at step 10" not in life.stderr()
    assert [event["step"] for event in events(run_of(place, "said"), "marker")] == [10, 20]


def test_shards_of_other_content_are_noticed_though_they_are_called_the_same(place, zygote, tmp_path):
    stopped(place, zygote, "content")
    make_shards(tmp_path / "others", rows=40, masking="none", seed=9)
    shutil.copytree(place / "shards", tmp_path / "moved")
    refused = zygote.start([*flags(place, "content"), "--resume", "--dataset_path", str(tmp_path / "others")])
    assert refused.wait() == [2] and "the train shards are others" in refused.stderr()
    zygote.run([*flags(place, "content"), "--resume", "--dataset_path", str(tmp_path / "moved")])


def test_a_run_goes_on_from_its_own_args_yaml_under_a_longer_budget(place, zygote):
    zygote.run(flags(place, "recipe"))
    recipe = run_of(place, "recipe") / "args.yaml"
    zygote.run(["--config", str(recipe), "--resume", "--allow_changes", "--total_training_time", "0.5"])
    done = summary(run_of(place, "recipe"))
    assert (done["exit_reason"], done["steps"]) == ("time_budget", 30)


def test_what_to_go_on_from_is_never_guessed(place, zygote, straight, tmp_path):
    """A mistyped folder, a source without a whole checkpoint, going back under a flag that scripts repeat."""
    (tmp_path / "checkpoints" / ".partial_step_4").mkdir(parents=True)
    own = ["--load_training_checkpoint", str(straight), "--load_checkpoint_id", "step_10"]
    for more, expected in ((["--load_training_checkpoint", str(tmp_path)], "no complete checkpoint in it"),
                           (["--load_training_checkpoint", str(place / "nowhere"), "--load_checkpoint_id", "step_4"], "no checkpoint in"),
                           (["--current_run_id", "straight", "--allow_changes", "--resume", *own], "to go back to step_10, once")):
        life = zygote.start([*flags(place, "guess"), *more])
        assert life.wait() == [2] and expected in life.stderr(), life.stderr()
    assert not run_of(place, "guess").exists()


def test_a_tracker_that_fails_ends_no_run(place, zygote, straight):
    zygote.run([*flags(place, "board"), "--report_to", "tensorboard"], call="drive_stops:board_on_a_small_disk")
    assert losses(run_of(place, "board")) == losses(straight) and same(last_export(run_of(place, "board")), last_export(straight))


def test_an_export_that_was_refused_is_made_at_the_end_at_the_latest(place, zygote):
    more = ["--no_finetune_checkpoint_at_end", "--steps_between_checkpoints", "-1"]
    life = zygote.run(flags(place, "last_chance", *more), call="drive_stops:small_disk_for_a_while")
    assert "warning: no export at step 10" in life.stderr()
    assert summary(run_of(place, "last_chance"))["markers"] == ["progress_1.0_step_20"]


def test_a_batch_that_is_not_needed_is_not_missed(place, zygote, straight):
    zygote.run(flags(place, "unneeded"), call="drive_stops:no_batch_after_step_20")
    assert same(last_export(run_of(place, "unneeded")), last_export(straight))


def test_a_batch_that_cannot_be_read_ends_all_ranks_after_a_checkpoint(place, zygote):
    life = zygote.start(flags(place, "unread"), ranks=2, call="drive_stops:no_batch_for_rank_1_after_step_6")
    assert life.wait() == [2, 2]
    assert life.stderr().count("error: rank 1: train_shard_0.hdf5: cannot be read any more; copy it again") == 1
    run = run_of(place, "unread")
    assert names(run)[0] == "step_6" and damage(run / "checkpoints" / "step_6") is None
    zygote.run([*flags(place, "unread"), "--resume"], ranks=2)
    zygote.run(flags(place, "read"), ranks=2)
    assert same(last_export(run), last_export(run_of(place, "read")))


def test_another_objective_may_follow_between_two_reports(place, zygote):
    """Step 7 is none that is reported; the sums of the old objective are dropped and not mixed with the new one's."""
    life = zygote.start(flags(place, "objective"), patches={"signal_after": {"step": 7, "number": int(signal.SIGTERM)}})
    assert life.wait() == [EXIT_REQUEUE]
    zygote.run([*flags(place, "objective"), "--method", "cosine:1.0,mlm:0.5", "--resume", "--allow_changes"])
    terms = {event["step"]: {name.split("/")[1] for name in event if name.startswith("loss/")}
             for event in events(run_of(place, "objective"))}
    assert terms[6] == {"hidden_mse", "mlm"} and terms[8] == terms[20] == {"cosine", "mlm"}


def test_flags_without_effect_are_free(place, zygote):
    stopped(place, zygote, "free")
    life = zygote.run([*flags(place, "free"), "--resume", "--fused_linear_layer", "true", "--cache_dir", "x", "--fp16_opt", "O1",
                       "--train_micro_batch_size_per_gpu", "2", "--finetune_time_markers", "0.5,0.75", "--do_validation"])
    assert "resumed from" in life.stderr()
    assert summary(run_of(place, "free"))["markers"] == ["progress_0.5_step_10", "progress_0.75_step_15", "progress_1.0_step_20"]


def test_a_micro_batch_is_not_free_where_the_objective_compares_its_samples(place, zygote):
    method = ["--method", "crd:1.0"]
    stopped(place, zygote, "compares", *method)
    life = zygote.start([*flags(place, "compares", *method), "--resume", "--train_micro_batch_size_per_gpu", "8"])
    assert life.wait() == [2] and "train_micro_batch_size_per_gpu: 4 -> 8" in life.stderr()


def test_a_marker_at_the_very_step_of_a_stop_is_exported_though_the_markers_change(place, zygote):
    life = zygote.start(flags(place, "marker"), patches={"signal_after": {"step": 10, "number": int(signal.SIGTERM)}})
    assert life.wait() == [EXIT_REQUEUE]
    zygote.run([*flags(place, "marker"), "--resume", "--finetune_time_markers", "0.25,0.5,0.75"])
    assert summary(run_of(place, "marker"))["markers"] == ["progress_0.5_step_10", "progress_0.75_step_15", "progress_1.0_step_20"]


def test_a_dry_run_goes_on_from_what_the_run_would_and_leaves_it_alone(place, zygote):
    run = stopped(place, zygote, "dry")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    life = zygote.run([*flags(place, "dry"), "--resume", "--dry_run"])
    assert "resumed from" in life.stderr() and life.stdout().startswith("dry run: one step, ")
    refused = zygote.start([*flags(place, "dry"), "--resume", "--dry_run", "--lr", "0.5"])
    assert refused.wait() == [2] and "lr: 0.001 -> 0.5" in refused.stderr()
    at = (datetime.now() + timedelta(seconds=8)).isoformat()
    hurried = zygote.start([*flags(place, "dry2"), "--dry_run", "--deadline", at])
    assert hurried.wait() == [2] and "--dry_run: a deadline came before its step" in hurried.stderr()
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_checkpoints_say_the_same_wherever_the_run_was_cut(place, zygote, straight):
    """Cut after the last step: also what the optimizer remembers of the learning rate."""
    life = zygote.start(flags(place, "last_step"), patches={"signal_after": {"step": 20, "number": int(signal.SIGTERM)}})
    assert life.wait() == [EXIT_REQUEUE]
    zygote.run([*flags(place, "last_step"), "--resume"])
    rates = [[group["lr"] for group in torch.load(run / "checkpoints" / "step_20" / "deepspeed" / "mp_rank_00_model_states.pt",
                                                  weights_only=False)["optimizer"]["param_groups"]]
             for run in (straight, run_of(place, "last_step"))]
    assert rates[0] == rates[1]
    marker = "finetune/progress_1.0_step_20/model.safetensors"
    assert same(load_file(straight / marker), load_file(run_of(place, "last_step") / marker))
    assert [event for event in without_times(straight) if event["event"] == "train"] == [
        event for event in without_times(run_of(place, "last_step")) if event["event"] == "train"]


def test_metrics_that_were_cut_short_keep_whole_lines(tmp_path, capsys):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": 2}\n{"a"')
    cut_metrics(path, 40)
    assert path.read_bytes() == b'{"a": 1}\n{"a": 2}\n' and "some of its events are lost" in capsys.readouterr().err
    cut_metrics(path, 9)
    assert path.read_bytes() == b'{"a": 1}\n'


def test_a_mistake_on_another_machine_is_told_there(monkeypatch, capsys):
    def told(rank: str, local_rank: str, error: errors.UserError) -> str:
        def main() -> None:
            raise error

        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("LOCAL_RANK", local_rank)
        with pytest.raises(SystemExit) as ended:
            errors.run_command(main)
        assert ended.value.code == 2
        return capsys.readouterr().err

    agreed = errors.UserError("no such folder")
    assert told("0", "0", agreed) == "error: no such folder\n" and told("1", "1", agreed) == ""
    assert told("8", "0", agreed) == f"error: rank 8 ({os.uname().nodename}): no such folder\n"
    agreed.agreed = True
    assert told("0", "0", agreed) == "error: no such folder\n" and told("8", "0", agreed) == ""


def test_a_signal_is_heard_once_and_ctrl_c_again_later_ends_at_once(monkeypatch, capfd):
    before = {number: signal.getsignal(number) for number in StopSignal.NUMBERS}
    now = [100.0]
    monkeypatch.setattr(stopping.time, "monotonic", lambda: now[0])
    try:
        stop = StopSignal(speaks=True)
        assert not stop.asked
        os.kill(os.getpid(), signal.SIGUSR1)
        assert stop.asked and "SIGUSR1: saving and stopping" in capfd.readouterr().err
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGINT):
            os.kill(os.getpid(), number)
        now[0] += StopSignal.PATIENCE_S + 1
        for number in (signal.SIGTERM, signal.SIGUSR1):
            os.kill(os.getpid(), number)
        assert capfd.readouterr().err == ""
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_rank_that_dies_after_the_end_does_not_undo_it(tmp_path):
    written = []
    trainer = SimpleNamespace(events=SimpleNamespace(summary=tmp_path / "summary.json", write_summary=lambda *what: written.append(what)),
                              progress=None, outputs=SimpleNamespace(newest_step=lambda: 4))
    Trainer.note_rank_failure(trainer, "rank 1 died")
    assert written == [("rank_failure", None, "rank 1 died", 4)]
    (tmp_path / "summary.json").write_text(json.dumps({"exit_reason": "time_budget"}))
    Trainer.note_rank_failure(trainer, "rank 1 died")
    assert len(written) == 1
