"""A second call of the demo reuses what is done, one after a kill goes on, one with other inputs starts anew."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from dataset.errors import UserError
from demo import pipeline
from demo.pipeline import Places, demo_minutes, train
from demo.workshop import INTERRUPTED, Workshop, seconds_text


class Builder:
    """Does a chain of two stages and remembers what ran, and what each stage was told about an earlier call."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.said: list[str] = []

    def call(self, first: str = "a", second: str = "b", fail: bool = False) -> list[tuple[str, bool]]:
        ran = []
        shop = Workshop(self.root, self.root / "work", self.said.append)

        def work(name: str, unfinished: bool) -> None:
            ran.append((name, unfinished))
            if fail and name == "second":
                raise KeyboardInterrupt
            (self.root / name).touch()

        try:
            shop.do("first", "one", [first], (self.root / "first").exists, lambda unfinished: work("first", unfinished))
            shop.do("second", "two", [second], (self.root / "second").exists, lambda unfinished: work("second", unfinished), ["first"])
        except KeyboardInterrupt:
            pass
        finally:
            shop._lock.close()
        return ran


@pytest.fixture
def builder(tmp_path: Path) -> Builder:
    return Builder(tmp_path)


def test_what_is_done_is_reused_and_says_so(builder: Builder) -> None:
    assert builder.call() == [("first", False), ("second", False)]
    builder.said.clear()
    assert builder.call() == []
    assert [line.split(":")[0] for line in builder.said] == ["[first] reused", "[second] reused"]


def test_a_change_redoes_the_stage_and_what_follows(builder: Builder) -> None:
    builder.call()
    assert builder.call(second="other") == [("second", False)]
    assert builder.call(first="other", second="other") == [("first", False), ("second", False)]


def test_a_result_that_was_removed_is_made_again(builder: Builder) -> None:
    builder.call()
    (builder.root / "second").unlink()
    assert builder.call() == [("second", False)]


def test_an_interrupted_stage_goes_on(builder: Builder) -> None:
    assert builder.call(fail=True) == [("first", False), ("second", False)]
    assert builder.call(fail=True) == [("second", True)]
    assert builder.call() == [("second", True)]
    assert builder.call() == []


def test_an_interrupted_stage_with_other_inputs_starts_anew(builder: Builder) -> None:
    builder.call(fail=True)
    assert builder.call(second="other") == [("second", False)]


def test_two_calls_at_once_are_refused_while_any_program_lives(tmp_path: Path) -> None:
    shop = Workshop(tmp_path, tmp_path / "work")
    left_behind = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(shop._lock.fileno(),))
    shop._lock.close()
    try:
        with pytest.raises(UserError, match="another call works in"):
            Workshop(tmp_path, tmp_path / "work")
    finally:
        left_behind.communicate(b"\n")
    Workshop(tmp_path, tmp_path / "work")


def test_a_command_is_shown_as_it_can_be_pasted_and_its_failure_is_one_line(tmp_path: Path) -> None:
    said: list[str] = []
    shop = Workshop(tmp_path, tmp_path / "work", said.append)
    (tmp_path / "script.py").write_text("import sys; open(sys.argv[1], 'w').close(); sys.exit(int(sys.argv[2]))", encoding="utf-8")
    shop.run("script.py", tmp_path / "a file", "0")
    assert said[-1].endswith("script.py 'a file' 0") and (tmp_path / "a file").exists()
    with pytest.raises(UserError, match=r"script\.py ended with status 3"):
        shop.run("script.py", tmp_path / "a file", "3")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_demo_lets_its_program_save_itself_first(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "slow.py").write_text(textwrap.dedent("""
        import pathlib, signal, time
        asked = []
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, _: asked.append(number))
        pathlib.Path("ready").touch()
        while not asked:
            time.sleep(0.01)
        time.sleep(0.5)
        pathlib.Path("saved").touch()
    """), encoding="utf-8")
    code = f"from pathlib import Path; from demo.workshop import Workshop as W; r=Path({str(tmp_path)!r}); W(r, r / 'work').run('slow.py')"
    demo = subprocess.Popen([sys.executable, "-c", code], cwd=Path(pipeline.__file__).parents[1], stdout=subprocess.PIPE, text=True,
                            start_new_session=True)
    give_up = time.monotonic() + 20
    while not (tmp_path / "ready").exists() and time.monotonic() < give_up:
        time.sleep(0.02)
    # A terminal sends Ctrl-C to the whole group, `kill` SIGTERM to the demo alone.
    os.killpg(demo.pid, number) if number == signal.SIGINT else demo.send_signal(number)
    said, _ = demo.communicate(timeout=20)
    assert demo.returncode == INTERRUPTED and (tmp_path / "saved").exists()
    assert said.splitlines()[-1] == "stopped; the next call goes on from here"


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """(shop maker, commands that were run, what the next run's exit reason is) with the trainer replaced by a summary."""
    commands: list[tuple[str, ...]] = []
    reasons: list[str | None] = []
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "demo.yaml").write_text("lr: 1\n", encoding="utf-8")
    places = Places(tmp_path / "work", "3min")

    def run(_: Workshop, *arguments: object) -> None:
        commands.append(tuple(map(str, arguments)))
        places.run.mkdir(parents=True, exist_ok=True)
        reason = reasons.pop(0)
        if reason is None:
            raise KeyboardInterrupt
        (places.run / "summary.json").write_text(json.dumps({"exit_reason": reason}), encoding="utf-8")

    monkeypatch.setattr(Workshop, "run", run)

    def call(reason: str | None, recipe: str = "lr: 1\n") -> str | None:
        (tmp_path / "configs" / "demo.yaml").write_text(recipe, encoding="utf-8")
        reasons[:] = [reason]
        commands.clear()
        shop = Workshop(tmp_path, places.work, lambda _: None)
        shop._keys |= {"samples": "x", "teacher": "y"}
        try:
            train(shop, places, 3.0)
        except KeyboardInterrupt:
            pass
        finally:
            shop._lock.close()
        return (*[word for word in commands[0] if word in ("--resume", "--overwrite")], "fresh")[0] if commands else None

    return call, places


def test_a_run_is_started_continued_or_moved_aside(trained) -> None:
    call, _ = trained
    assert call(None) == "fresh"
    assert call(None) == "--resume"
    with pytest.raises(UserError, match="'signal'"):
        call("signal")
    assert call("time_budget") == "--resume"
    assert call("time_budget") is None
    assert call("time_budget", recipe="lr: 2\n") == "--overwrite"
    with pytest.raises(UserError, match="'diverged'"):
        call("diverged", recipe="lr: 3\n")
    assert call("time_budget", recipe="lr: 3\n") == "--overwrite"


def test_a_finished_run_whose_record_was_lost_in_a_kill_is_kept(trained) -> None:
    call, places = trained
    call("time_budget")
    record = places.work / "stages" / "run_3min.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"finished": False}), encoding="utf-8")
    assert call("time_budget") is None
    assert json.loads(record.read_text())["finished"]


@pytest.mark.parametrize("text", ["three", "0", "-1", "nan", "inf", ""])
def test_minutes_that_make_no_sense_are_one_line(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("DEMO_MINUTES", text)
    with pytest.raises(UserError, match="DEMO_MINUTES"):
        demo_minutes()


def test_minutes_default_to_three(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEMO_MINUTES", raising=False)
    assert demo_minutes() == 3.0
    monkeypatch.setenv("DEMO_MINUTES", "0.5")
    assert demo_minutes() == 0.5


def test_the_recipe_and_the_demo_name_the_same_places() -> None:
    from pretraining.args.parser import parse
    from pretraining.args.resolve import resolve
    from pretraining.launch import read_launch
    from pretraining.run_folder import run_path

    root = Path(pipeline.__file__).parents[1]
    args = parse(["--config", str(root / pipeline.RECIPE), "--current_run_id", "3min"])
    resolved = resolve(args, read_launch(-1))
    places = Places(Path(".demo"), "3min")
    assert run_path(args) == places.run
    assert (args.data.dataset_path, args.distillation.teacher_path) == (str(places.work / "samples"), str(places.work / "teacher"))
    assert resolved.markers == (0.25, 0.5, 0.75, 1.0) and resolved.total_hours * 60 == pytest.approx(3.0)


@pytest.mark.parametrize(("seconds", "text"), [(9.34, "9.3 s"), (59.97, "1 min 00 s"), (192.4, "3 min 12 s")])
def test_durations_read_well(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text
