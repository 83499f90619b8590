"""Deadlines, clocks that disagree, full disks, and what --resume, --allow_changes and --load_training_checkpoint go on from."""

import json
import signal
from datetime import datetime, timedelta

import pytest
import torch
from launching import events, losses, summary, without_times
from stops_case import EXIT_REQUEUE, flags, last_export, make_place, names, run_of, same

from pretraining.checkpoint import damage


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return make_place(tmp_path_factory.mktemp("stops"))


@pytest.fixture(scope="module")
def straight(place, zygote):
    """The folder of the run that nobody disturbed."""
    zygote.run(flags(place, "straight"))
    return run_of(place, "straight")


def test_a_run_has_saved_and_stopped_before_its_deadline(place, zygote, straight):
    at = datetime.now() + timedelta(seconds=20)
    life = zygote.start([*flags(place, "late", clock="monotonic"), "--deadline", at.isoformat()])
    assert life.wait() == [EXIT_REQUEUE], life.stderr()
    assert datetime.now() < at
    late = run_of(place, "late")
    done = summary(late)
    assert done["exit_reason"] == "deadline" and "a step and a checkpoint may take" in done["why"]
    assert done["markers"] == [] and done["checkpoint"] == f"checkpoints/{names(late)[0]}"
    assert names(late)[0] == f"step_{done['steps']}" and done["steps"] > 4
    life = zygote.start([*flags(place, "late", clock="monotonic"), "--resume", "--max_steps", str(done["steps"] + 3)])
    assert life.wait() == [0] and summary(late)["exit_reason"] == "max_steps"
    assert [event["step"] for event in events(late, "resume")] == [done["steps"]]


def test_ranks_whose_clocks_differ_by_an_hour_stop_on_the_same_step(place, zygote):
    """Rank 1's clock jumps an hour ahead; one stop, one marker, one deadline, by rank 0's."""
    more = ["--total_training_time", "0.0011", "--deadline", (datetime.now() + timedelta(minutes=30)).isoformat()]
    life = zygote.run([*flags(place, "clocks", clock="monotonic"), *more], ranks=2, call="drive_stops:late_rank")
    done = summary(run_of(place, "clocks"))
    assert done["exit_reason"] == "time_budget" and 0.0011 <= done["hours"] < 0.01, life.stderr()
    assert len(done["markers"]) == 2 and done["steps"] > 4


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGHUP])
def test_one_rank_that_is_asked_to_stop_stops_all_of_them(place, zygote, number):
    name = f"asked_{number.name}"
    patches = {"signal_after": {"step": 7, "number": int(number), "rank": 1}}
    life = zygote.start(flags(place, name), ranks=2, patches=patches)
    assert life.wait() == [EXIT_REQUEUE] * 2, life.stderr()
    done = summary(run_of(place, name))
    assert (done["exit_reason"], done["why"]) == ("signal", f"{number.name} at rank 1") and names(run_of(place, name))[0] == "step_7"


def test_a_disk_that_is_full_for_a_while_costs_no_more_than_its_checkpoints(place, zygote, straight):
    """Full from step 5 to 13: the checkpoints of 8 and 12 and the export of 10 are refused and said; the run ends with the same bits."""
    life = zygote.run(flags(place, "full"), call="drive_stops:small_disk_for_a_while")
    run = run_of(place, "full")
    for step in (8, 10, 12):
        assert f"warning: no checkpoint at step {step}" in life.stderr()
    assert "warning: no export at step 10" in life.stderr() and "File too large" in life.stderr()
    assert same(last_export(run), last_export(straight))
    # The export that was refused at its marker was made at the next occasion, and is named after it.
    assert [event["step"] for event in events(run, "marker")] == [16, 20] and "progress_0.8_step_16" in summary(run)["markers"]
    assert [event["loss"] for event in events(run)] == losses(straight) and not damage(run / "checkpoints" / names(run)[0])
    assert not [path for path in run.rglob("*") if path.name.startswith(".partial")]


def test_a_disk_that_takes_no_line_loses_none(place, zygote, straight):
    life = zygote.run(flags(place, "lines"), call="drive_stops:no_disk_for_a_while")
    run = run_of(place, "lines")
    assert "  step 8  " not in life.stderr() and "  step 16  " in life.stderr(), "the log was refused lines, too"
    assert losses(run) == losses(straight) and same(last_export(run), last_export(straight))


def test_a_disk_that_stays_full_ends_in_one_line_and_the_older_checkpoint_goes_on(place, zygote, straight):
    life = zygote.start(flags(place, "stuck"), patches={"signal_after": {"step": 6, "number": int(signal.SIGTERM)}})
    assert life.wait() == [EXIT_REQUEUE]
    run = run_of(place, "stuck")
    before = {name: damage(run / "checkpoints" / name) for name in names(run)}
    assert before == {"step_6": None, "step_4": None}
    life = zygote.start([*flags(place, "stuck"), "--resume"], call="drive_stops:small_disk_for_ever")
    assert life.wait() == [2]
    last = life.stderr().strip().splitlines()[-1]
    assert last.startswith("error: the run ended (time_budget) at step 20 and could not be saved whole") and "step_6" in last, last
    assert not (run / "summary.json").exists()
    assert {name: damage(run / "checkpoints" / name) for name in names(run)} == before
    zygote.run([*flags(place, "stuck"), "--resume"])
    assert same(last_export(run), last_export(straight))


def test_resuming_a_finished_run_is_no_mistake(place, zygote, straight):
    before = (straight / "metrics.jsonl").read_bytes()
    life = zygote.run([*flags(place, "straight"), "--resume"])
    assert "holds a finished run (time_budget); nothing to do" in life.stderr()
    assert (straight / "metrics.jsonl").read_bytes() == before
    assert zygote.start(flags(place, "straight")).wait() == [2]


def test_a_finished_run_goes_on_under_a_longer_budget(place, zygote):
    """Twice the hours: what was passed at 100 % is half of it now, so markers come anew; and args.yaml is the new run's."""
    zygote.run(flags(place, "longer", "--lr_schedule", "constant_step", "--num_warmup_steps", "0", "--max_steps", "100"))
    more = ["--lr_schedule", "constant_step", "--num_warmup_steps", "0", "--max_steps", "100", "--total_training_time", "0.666666",
            "--finetune_time_markers", "0.25,0.75"]
    run = run_of(place, "longer")
    assert zygote.start([*flags(place, "longer"), *more]).wait() == [2]
    asked = zygote.start([*flags(place, "longer"), *more, "--resume"])
    assert asked.wait() == [2] and "of other limits (total_training_time: 0.333333 -> 0.666666); --allow_changes" in asked.stderr()
    life = zygote.run([*flags(place, "longer"), *more, "--resume", "--allow_changes"])
    assert "markers 0.25 lie before" in life.stderr()
    assert summary(run)["steps"] == 40 and [event["fraction"] for event in events(run, "marker")][-2:] == [0.75, 1.0]
    assert "total_training_time: 0.666666" in (run / "args.yaml").read_text()


def test_flags_that_change_what_is_computed_are_listed_and_refused_before_anything_is_written(place, zygote):
    life = zygote.start(flags(place, "changed"), patches={"signal_after": {"step": 6, "number": int(signal.SIGTERM)}})
    assert life.wait() == [EXIT_REQUEUE]
    run = run_of(place, "changed")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    refused = zygote.start([*flags(place, "changed"), "--resume", "--lr", "3e-3", "--seed", "7", "--print_steps", "5"])
    assert refused.wait() == [2]
    assert "seed: 42 -> 7; lr: 0.001 -> 0.003" in refused.stderr() and "--allow_changes" in refused.stderr()
    assert "print_steps" not in refused.stderr()
    for unreadable in (["--optimizer_type", "adam"], ["--zero_stage", "1"]):
        refused = zygote.start([*flags(place, "changed"), "--resume", "--allow_changes", *unreadable])
        assert refused.wait() == [2] and "cannot read its optimizer state" in refused.stderr()
    misfit = zygote.start([*flags(place, "changed"), "--resume", "--allow_changes", "--num_hidden_layers", "3", "--layer_selection",
                           "0,1,3"])
    assert misfit.wait() == [2] and "does not fit a run with num_hidden_layers: 2 -> 3" in misfit.stderr()
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_changes_that_are_allowed_take_effect(place, zygote):
    """Weight decay, betas and the learning rate lie in the saved optimizer, too: the flags must win."""
    life = zygote.start(flags(place, "allowed"), patches={"signal_after": {"step": 6, "number": int(signal.SIGTERM)}})
    assert life.wait() == [EXIT_REQUEUE]
    run = run_of(place, "allowed")
    life = zygote.run([*flags(place, "allowed"), "--resume", "--allow_changes", "--weight_decay", "0.25", "--adam_beta2", "0.9", "--lr",
                       "2e-3"])
    assert "--allow_changes: weight_decay: 0.01 -> 0.25" in life.stderr()
    saved = torch.load(run / "checkpoints" / names(run)[0] / "deepspeed" / "mp_rank_00_model_states.pt", weights_only=False)
    groups = saved["optimizer"]["param_groups"]
    assert sorted(group["weight_decay"] for group in groups) == [0.0, 0.25] and {group["betas"][1] for group in groups} == {0.9}
    rates = {event["step"]: event["lr"] for event in events(run)}
    assert rates[8] > 1e-3 > rates[20]


def test_another_folder_goes_on_from_a_named_checkpoint(place, zygote, straight):
    """As the originals' --load_training_checkpoint; the run it came from stays as it is, and its own --resume goes on in its own folder."""
    before = (straight / "metrics.jsonl").read_bytes()
    source = ["--load_training_checkpoint", str(straight), "--load_checkpoint_id", "step_16"]
    life = zygote.start([*flags(place, "branch"), *source], patches={"signal_after": {"step": 18, "number": int(signal.SIGTERM)}})
    assert life.wait() == [EXIT_REQUEUE], life.stderr()
    branch = run_of(place, "branch")
    assert [(event["step"], event["from"]) for event in events(branch, "resume")] == [(16, str(straight / "checkpoints" / "step_16"))]
    life = zygote.run([*flags(place, "branch"), *source, "--resume"])
    assert f"resumed from {branch / 'checkpoints' / 'step_18'}" in life.stderr()
    assert same(last_export(branch), last_export(straight)) and (straight / "metrics.jsonl").read_bytes() == before
    missing = zygote.start([*flags(place, "branch2"), *source[:3], "step_17"])
    assert missing.wait() == [2] and "no checkpoint step_17" in missing.stderr() and "step_20" in missing.stderr()
    assert not run_of(place, "branch2").exists()


def test_an_older_checkpoint_of_its_own_puts_the_later_ones_aside(place, zygote, straight):
    zygote.run(flags(place, "back"))
    run = run_of(place, "back")
    source = ["--load_training_checkpoint", str(run / "checkpoints"), "--load_checkpoint_id", "step_10", "--allow_changes"]
    zygote.run([*flags(place, "back"), *source, "--finetune_time_markers", "0.5,0.75"])
    assert sorted(path.name for path in (run / "checkpoints" / "superseded").iterdir()) == ["step_16", "step_20"]
    assert [path.name for path in (run / "finetune" / "superseded").iterdir()] == ["progress_1.0_step_20"]
    assert summary(run)["markers"] == ["progress_0.5_step_10", "progress_0.75_step_15", "progress_1.0_step_20"]
    assert same(last_export(run), last_export(straight))
    assert losses(run) == losses(straight)


def test_tensorboard_shows_a_resumed_run_once(place, zygote):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board_flags = [*flags(place, "board"), "--report_to", "tensorboard"]
    zygote.run([*board_flags, "--num_epochs", "2", "--keep_checkpoints", "3"])
    own = ["--load_training_checkpoint", str(run_of(place, "board")), "--load_checkpoint_id", "step_4", "--allow_changes"]
    zygote.run([*board_flags, *own])
    board = EventAccumulator(str(run_of(place, "board") / "tensorboard"))
    board.Reload()
    assert [scalar.step for scalar in board.Scalars("train/loss")] == [event["step"] for event in events(run_of(place, "board"))]


def test_markers_keep_their_checkpoints_and_the_newest_n_stay(place, zygote, straight):
    assert names(straight) == ["step_20", "step_16", "step_10"]
    zygote.run([*flags(place, "few"), "--keep_checkpoints", "1", "--no_keep_marker_checkpoints"])
    assert names(run_of(place, "few")) == ["step_20"]
    zygote.run([*flags(place, "many"), "--keep_checkpoints", "4"])
    assert names(run_of(place, "many")) == ["step_20", "step_16", "step_12", "step_10"]
    assert without_times(run_of(place, "few")) == without_times(straight)


def test_the_folder_of_another_program_is_told_apart(place, zygote, tmp_path):
    (tmp_path / "checkpoint_epoch_3").mkdir()
    (tmp_path / "checkpoint_epoch_3" / "mp_rank_00_model_states.pt").write_bytes(b"x")
    life = zygote.start([*flags(place, "foreign"), "--load_training_checkpoint", str(tmp_path), "--load_checkpoint_id",
                         "checkpoint_epoch_3"])
    assert life.wait() == [2] and "another program" in life.stderr() and "convert_budget_bert" in life.stderr()
    assert not run_of(place, "foreign").exists()


def test_the_summary_counts_the_speed_of_all_pieces(place, zygote, straight):
    state = json.loads((straight / "checkpoints" / "step_20" / "state.json").read_text())["progress"]
    assert state["timed_tokens"] == state["tokens"] == summary(straight)["tokens"]
    assert summary(straight)["tokens_per_s"] == pytest.approx(state["timed_tokens"] / state["timed_s"])
