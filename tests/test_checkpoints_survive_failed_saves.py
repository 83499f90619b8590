"""A save that fails, or a process that is killed amid one, costs nothing that was saved before."""

import json
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from checkpoint_case import TwoFiles, flip, names, save
from launching import ROOT, launch, torchrun

from dataset.files import PARTIAL_PREFIX, remove_folder, replace_folder
from pretraining.checkpoint import (
    Keep,
    SaveError,
    clean_partials,
    complete_checkpoints,
    damage,
    find_checkpoint,
    read_state,
    save_checkpoint,
    supersede_later,
)
from pretraining.control import Control

REASONS = {"full on the last rank": "File too large", "full on rank 0": "File too large", "full at state.json": "File too large",
           "flush fails on the last rank": "Input/output error",
           "read-only": "Permission denied", "read-only on the last rank": "Permission denied", "a file in its place": "File exists",
           "too little space": "0.009 GB are free", "rename fails": "Input/output error"}


@pytest.fixture(scope="module")
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter; pytest's are closed to others."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="module", params=[1, 2])
def reports(request: pytest.FixtureRequest, open_folder: Path) -> list[list[dict[str, Any]]]:
    """For every ZeRO stage and trouble, what each rank saw."""
    folder = open_folder / str(request.param)
    folder.mkdir()
    done = launch([*torchrun(request.param), str(ROOT / "tests" / "drive_saves.py"), str(folder)], timeout=120, PYTHONPATH=str(ROOT))
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULTS"))
    ranks = json.loads(line.removeprefix("RESULTS"))
    assert len(ranks) == request.param
    return [list(of_ranks) for of_ranks in zip(*ranks, strict=True)]


def test_every_rank_reports_the_same_reason_at_once(reports):
    assert {report[0]["trouble"] for report in reports} == set(REASONS) - ({"read-only on the last rank"} if os.getuid() != 0 else set())
    for report in reports:
        said, trouble = report[0]["said"], report[0]["trouble"]
        assert all(rank["said"] == said and rank["seconds"] < 30 for rank in report), report
        if trouble.endswith("last rank") and len(report) == 2 and report[0]["stage"] == 0:
            assert said is None, report  # at ZeRO 0 rank 1 has nothing to write
            continue
        assert REASONS[trouble] in said, report
        assert "\n" not in said
        if len(report) == 2 and trouble != "too little space":
            assert f"rank {1 if trouble.endswith('last rank') else 0}: " in said, report


def test_a_failed_save_leaves_older_checkpoints_alone_and_nothing_of_its_own(reports):
    for report in reports:
        assert all(rank["older"] is None and rank["untouched"] and rank["left"] == [] for rank in report), report
        assert report[0]["exists"] is (report[0]["said"] is None), report


def test_the_next_save_loads_back_bit_for_bit(reports):
    for report in reports:
        for rank in report:
            assert (rank["next"], rank["damage"], rank["same"], rank["latest"], rank["kept"]) == (None, None, True, True, 2), rank


def test_the_bytes_of_a_checkpoint_are_known_before(reports):
    for report in reports:
        tensors, files = report[0]["tensors"], report[0]["bytes"]
        assert tensors <= files <= tensors + 10_000 * len(report[0]["files"]), report
        assert len(report[0]["files"]) == 1 + (len(report) if report[0]["stage"] else 0), "only what DeepSpeed's load reads"


def test_all_of_a_checkpoint_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    done, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (done.append(os.fstat(descriptor).st_ino), fsync(descriptor)))
    monkeypatch.setattr(os, "replace", lambda source, target: (done.append(target), replace(source, target)))
    path = save(tmp_path, 1)
    renamed = done.index(path)
    inside = {file.stat().st_ino for file in [path, *path.rglob("*")]}
    assert len(inside) == 6 and inside <= set(done[:renamed])
    assert tmp_path.stat().st_ino in done[renamed:]


def test_the_same_step_stays_saved_where_saving_it_again_fails(tmp_path, monkeypatch):
    path = save(tmp_path, 1)
    before, replace = read_state(path), os.replace

    def failing(source: Path, target: Path) -> None:
        if (source.name, target.name) == (f"{PARTIAL_PREFIX}step_1", "step_1"):
            raise OSError(5, "Input/output error")
        replace(source, target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(SaveError, match="Input/output error"):
        save_checkpoint(tmp_path, 1, TwoFiles(), {"marker": None, "new": True}, Control(0, 1), Keep(2, True))
    assert sorted(left.name for left in tmp_path.iterdir()) == ["latest", "step_1"]
    assert (damage(path), read_state(path)) == (None, before)


# Kills: a child process does the work and kills itself before its n-th call that changes the disk, for every n there is.

CALLS = ("replace", "rename", "unlink", "remove", "rmdir", "mkdir", "fsync")


def killed_before(number: int, work: Callable[[], object]) -> bool:
    """Whether a child that does `work` died before its `number`-th call of CALLS; False where it came to the end."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            left = [number]

            def counted(plain: Callable) -> Callable:
                def call(*arguments: Any, **named: Any) -> Any:
                    if left[0] == 0:
                        os.kill(os.getpid(), signal.SIGKILL)
                    left[0] -= 1
                    return plain(*arguments, **named)

                return call

            for name in CALLS:
                setattr(os, name, counted(getattr(os, name)))
            work()
            status = 0
        finally:
            os._exit(status)
    status = os.waitpid(child, 0)[1]
    assert status == 0 or os.WTERMSIG(status) == signal.SIGKILL
    return status != 0


def every_kill(tmp_path: Path, prepare: Callable[[Path], object], work: Callable[[Path], object]) -> Iterator[Path]:
    """A folder made by `prepare` for every place in which `work` can be killed, and one in which it came to its end."""
    number, alive = 0, False
    while not alive:
        folder = tmp_path / str(number)
        folder.mkdir()
        prepare(folder)
        alive = not killed_before(number, lambda folder=folder: work(folder))
        yield folder
        number += 1
    assert number > 5


def test_a_kill_inside_replacing_or_removing_leaves_no_half_folder(tmp_path):
    def prepare(folder: Path) -> None:
        for path in (folder / "final", folder / "partial"):
            path.mkdir()
            for name in ("a", "b", "c"):
                (path / name).write_text(path.name)

    def whole(folder: Path) -> dict[str, str]:
        """What each folder that is whole under a name which is no leftover's says."""
        left = {path.name: sorted((file.name, file.read_text()) for file in path.iterdir()) for path in folder.iterdir()}
        return {name: files[0][1] for name, files in left.items() if [file for file, _ in files] == ["a", "b", "c"]}

    seen = []
    for folder in every_kill(tmp_path, prepare, lambda folder: replace_folder(folder / "partial", folder / "final")):
        found = whole(folder)
        assert found.get("final", found.get("partial")) is not None, "the new or the old is there under one of its names"
        assert not (folder / "final").exists() or "final" in found
        assert "final" in found or set(found) == {"partial", f"{PARTIAL_PREFIX}replaced_final"}
        seen.append(found.get("final"))
    assert list(dict.fromkeys(seen)) == ["final", None, "partial"], "old, then both hidden, then new"
    (tmp_path / "removing").mkdir()
    for folder in every_kill(tmp_path / "removing", prepare, lambda folder: remove_folder(folder / "final")):
        assert not (folder / "final").exists() or "final" in whole(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["partial"]


@pytest.mark.parametrize(("saved", "step", "keep"), [((1, 2), 3, 2), ((1, 2), 2, 1)], ids=["another step", "the same step again"])
def test_a_kill_anywhere_in_a_save_leaves_the_old_or_the_new_one(tmp_path, saved, step, keep):
    def again(run: Path) -> None:
        save_checkpoint(run / "checkpoints", step, TwoFiles(), {"marker": None, "new": True}, Control(0, 1), Keep(keep, True))

    ends = []
    for run in every_kill(tmp_path, lambda run: [save(run / "checkpoints", number) for number in saved], again):
        folder = run / "checkpoints"
        assert all(damage(path) is None for path in complete_checkpoints(folder)), "a final name never stands for half a checkpoint"
        found, warnings = find_checkpoint(folder)
        assert warnings == []
        ends.append("new" in read_state(found))
        assert found.name == (f"step_{step}" if ends[-1] else "step_2")
        clean_partials(run)
        assert not list(folder.glob(f"{PARTIAL_PREFIX}*"))
        save(folder, 50, Keep(1, True))
        assert names(folder) == ["step_50"]
    assert ends == sorted(ends) and set(ends) == {False, True}


def test_a_kill_while_setting_aside_loses_no_checkpoint_to_go_on_from(tmp_path):
    def prepare(run: Path) -> None:
        for number in (1, 2, 3, 4):
            save(run / "checkpoints", number)
        supersede_later(run / "checkpoints", 3)
        save(run / "checkpoints", 5)

    for run in every_kill(tmp_path, prepare, lambda run: supersede_later(run / "checkpoints", 1)):
        folder = run / "checkpoints"
        assert all(damage(path) is None for path in [*complete_checkpoints(folder), *complete_checkpoints(folder / "superseded")])
        clean_partials(run)
        assert find_checkpoint(folder, "step_1") == (folder / "step_1", [])
        supersede_later(folder, 1)
        assert names(folder) == ["step_1"]
        assert sorted(path.name for path in folder.iterdir()) == ["latest", "step_1", "superseded"]
    assert names(folder / "superseded") == ["step_5", "step_4", "step_3", "step_2"]


def test_an_old_checkpoint_comes_back_where_its_replacement_is_spoilt(tmp_path):
    path = save(tmp_path, 1)
    path.rename(tmp_path / f"{PARTIAL_PREFIX}replaced_step_1")
    (tmp_path / f"{PARTIAL_PREFIX}step_1").mkdir()
    assert find_checkpoint(tmp_path) == (path, [])
    good = save(tmp_path, 2).rename(tmp_path / f"{PARTIAL_PREFIX}step_2")
    path.rename(tmp_path / "step_2")
    flip(tmp_path / "step_2" / "state.json")
    assert find_checkpoint(tmp_path) == (tmp_path / "step_2", [])
    assert not good.exists()
