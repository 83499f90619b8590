"""Which checkpoints stay, which one a run goes on from, and what it is told about the others."""

import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from checkpoint_case import flip, names, save

from dataset.errors import UserError
from dataset.files import PARTIAL_PREFIX
from pretraining.checkpoint import Keep, clean_partials, complete_checkpoints, damage, find_checkpoint, read_state, supersede_later

NOBODY = 65534


@pytest.fixture(scope="module")
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter; pytest's are closed to others."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_the_newest_and_the_markers_are_kept(tmp_path):
    for step in range(1, 8):
        save(tmp_path / "markers", step, Keep(2, True), marker=0.5 if step in (2, 4) else None)
        save(tmp_path / "newest", step, Keep(3, False), marker=0.5 if step in (2, 4) else None)
    assert names(tmp_path / "markers") == ["step_7", "step_6", "step_4", "step_2"]
    assert names(tmp_path / "newest") == ["step_7", "step_6", "step_5"]
    assert [read_state(path)["marker"] for path in complete_checkpoints(tmp_path / "markers")] == [None, None, 0.5, 0.5]
    assert (tmp_path / "newest" / "latest").read_text() == "step_7\n"


def test_what_is_damaged_or_later_never_pushes_out_the_last_good_one(tmp_path):
    for step in (1, 2, 3, 9):
        save(tmp_path, step)
    (tmp_path / "step_2" / "state.json").unlink()
    save(tmp_path, 4, Keep(2, True))
    assert names(tmp_path) == ["step_9", "step_4", "step_3", "step_2"]
    save(tmp_path, 5, Keep(1, True))
    assert names(tmp_path) == ["step_9", "step_5", "step_2"]


def test_later_checkpoints_are_set_aside_and_stay_there(tmp_path):
    for step in (1, 2, 3, 10):
        save(tmp_path, step)
    flip(tmp_path / "step_10" / "deepspeed" / "model.pt")
    supersede_later(tmp_path, 2)
    assert names(tmp_path) == ["step_2", "step_1"]
    assert names(tmp_path / "superseded") == ["step_10", "step_3"]
    assert (tmp_path / "latest").read_text() == "step_2\n"
    assert find_checkpoint(tmp_path) == (tmp_path / "step_2", [])
    save(tmp_path, 4)
    supersede_later(tmp_path, 1)
    assert names(tmp_path / "superseded") == ["step_10", "step_4", "step_3", "step_2"]
    supersede_later(tmp_path, -1)
    assert (names(tmp_path), names(tmp_path / "superseded")) == ([], ["step_10", "step_4", "step_3", "step_2", "step_1"])
    assert not (tmp_path / "latest").exists()
    assert find_checkpoint(tmp_path) == (None, [])


def truncate(path: Path) -> None:
    os.truncate(path, 999)


def rewrite(content: bytes) -> Callable[[Path], Any]:
    return lambda path: path.write_bytes(content)


DAMAGES = [
    ("deepspeed/optimizer.pt", Path.unlink, "deepspeed/optimizer.pt is missing"),
    ("deepspeed/optimizer.pt", truncate, "deepspeed/optimizer.pt has 999 bytes, expected 1000"),
    ("deepspeed/model.pt", flip, "deepspeed/model.pt is not what was written"),
    ("state.json", flip, "state.json is not what was written"),
    ("state.json", Path.unlink, "state.json is missing"),
    ("manifest.json", Path.unlink, "manifest.json is missing"),
    *(("manifest.json", rewrite(content), "manifest.json is broken")
      for content in (b"", b"{", b"[]", b"{}", b'{"state.json": 3}', b"null", b"\xff\xfe")),
]


@pytest.mark.parametrize(("name", "spoil", "line"), DAMAGES, ids=[f"{line} {number}" for number, (*_, line) in enumerate(DAMAGES)])
def test_every_damage_has_its_line_and_the_one_before_is_taken(tmp_path, name, spoil, line):
    good, bad = save(tmp_path, 1), save(tmp_path, 2)
    spoil(bad / name)
    assert damage(bad) == line
    found, warnings = find_checkpoint(tmp_path)
    assert found == good
    assert warnings == [f"checkpoint {bad} is damaged ({line}); going back to the one before"]
    with pytest.raises(UserError, match=re.escape(f"{bad} is damaged ({line}); beside it there are step_1")):
        find_checkpoint(tmp_path, "step_2")
    spoil(good / name)
    with pytest.raises(UserError, match="every checkpoint is damaged"):
        find_checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["state.json", "manifest.json", "deepspeed/model.pt", "deepspeed", "."])
def test_what_may_not_be_read_is_one_line(open_folder, name):
    with tempfile.TemporaryDirectory(dir=open_folder) as place:
        folder = Path(place)
        folder.chmod(0o755)
        save(folder, 1)
        spoilt = save(folder, 2) / name
        mode = spoilt.stat().st_mode
        spoilt.chmod(0)
        with as_somebody_else():
            found, warnings = find_checkpoint(folder)
        spoilt.chmod(mode)
        assert found == folder / "step_1"
        assert len(warnings) == 1
        assert "cannot be read (Permission denied)" in warnings[0]
        folder.chmod(0)
        with as_somebody_else(), pytest.raises(UserError, match=r"cannot be searched for checkpoints \(Permission denied\)"):
            find_checkpoint(folder)
        folder.chmod(0o755)


@contextmanager
def as_somebody_else() -> Iterator[None]:
    """Root may read everything, so it is somebody else for a while."""
    if os.geteuid() != 0:
        yield
        return
    try:
        os.seteuid(NOBODY)
    except OSError as error:
        pytest.skip(f"root may not become another user here ({error.strerror}), and permission bits do not bind it")
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_state_of_another_version_is_refused_in_one_line(tmp_path):
    path = save(tmp_path, 1)
    assert read_state(path)["format_version"] == 1
    for text, line in [('{"format_version": 2}', "format_version 2, and this program reads 1"), ("{}", "format_version None"),
                       ("[]", "format_version None"), ("{", "not JSON")]:
        (path / "state.json").write_text(text)
        with pytest.raises(UserError, match=line) as caught:
            read_state(path)
        assert "\n" not in str(caught.value)
    (path / "state.json").unlink()
    with pytest.raises(UserError, match=r"cannot be read \(No such file or directory\)"):
        read_state(path)


def test_a_named_checkpoint_is_that_one_or_an_error_that_lists_the_others(tmp_path):
    folder = tmp_path / "run" / "checkpoints"
    for step in range(8, 15):
        save(folder, step)
    assert find_checkpoint(folder, "step_9") == (folder / "step_9", [])
    assert find_checkpoint(folder, "latest") == find_checkpoint(folder, "latest_checkpoint") == (folder / "step_14", [])
    assert find_checkpoint(tmp_path / "run", "step_9") == (folder / "step_9", [])
    with pytest.raises(UserError, match="no checkpoint step_7 in it; there are step_14, step_13, step_12, step_11, step_10 and 2 more"):
        find_checkpoint(folder, "step_7")
    flip(folder / "step_14" / "deepspeed" / "model.pt")
    with pytest.raises(UserError, match=r"step_14 is damaged .*; beside it there are step_13, "):
        find_checkpoint(folder, "step_14")
    chosen, (warning,) = find_checkpoint(folder, "latest")
    assert chosen == folder / "step_13" and "step_14 is damaged" in warning
    for empty in (tmp_path / "empty", tmp_path):
        with pytest.raises(UserError, match="no checkpoint latest in it; there are none"):
            find_checkpoint(empty, "latest")
    with pytest.raises(UserError, match=f"is itself a checkpoint; give its folder {re.escape(str(folder))} and the name step_9"):
        find_checkpoint(folder / "step_9", "latest")


@pytest.mark.parametrize("tag", ["checkpoint_epoch_3", "latest_checkpoint", "."])
@pytest.mark.parametrize("name", [None, "latest_checkpoint"])
def test_checkpoints_of_other_programs_are_told_apart(tmp_path, tag, name):
    (tmp_path / tag).mkdir(exist_ok=True)
    (tmp_path / tag / "mp_rank_00_model_states.pt").touch()
    with pytest.raises(UserError, match=r"another program.*pretraining\.convert_budget_bert .* --student_initialize") as caught:
        find_checkpoint(tmp_path, name)
    assert "\n" not in str(caught.value)


def test_another_runs_folder_is_only_read(tmp_path):
    path = save(tmp_path, 1)
    path.rename(tmp_path / f"{PARTIAL_PREFIX}step_1")
    assert find_checkpoint(tmp_path, ours=False) == (None, [])
    assert find_checkpoint(tmp_path) == (path, [])
    assert (tmp_path / "latest").read_text() == "step_1\n"


def test_only_our_own_leftovers_are_cleaned(tmp_path):
    checkpoints, finetune = tmp_path / "checkpoints", tmp_path / "finetune"
    save(checkpoints, 1)
    save(checkpoints, 2).rename(checkpoints / f"{PARTIAL_PREFIX}step_2")
    ours = ("args.yaml", "deepspeed_config.json", "environment.json", "summary.json")
    theirs = [f"{PARTIAL_PREFIX}77_results.json", f"{PARTIAL_PREFIX}args.yaml", f"{PARTIAL_PREFIX}77_args.yaml.txt", "args.yaml"]
    for name in [*(f"{PARTIAL_PREFIX}77_{name}" for name in ours), *theirs]:
        (tmp_path / name).touch()
    for name in ("step_3", "removed_step_1", "replaced_step_1"):
        (checkpoints / f"{PARTIAL_PREFIX}{name}" / "deepspeed").mkdir(parents=True)
    (checkpoints / f"{PARTIAL_PREFIX}77_latest").touch()
    for name in ("progress_0.5_step_2", "replaced_progress_0.7_step_3", "replaced_progress_1.0_step_4"):
        (finetune / f"{PARTIAL_PREFIX}{name}").mkdir(parents=True)
    (finetune / "progress_1.0_step_4").mkdir()
    clean_partials(tmp_path)
    assert names(checkpoints) == ["step_2", "step_1"]
    assert sorted(path.name for path in checkpoints.iterdir()) == ["latest", "step_1", "step_2"]
    assert sorted(path.name for path in finetune.iterdir()) == ["progress_0.7_step_3", "progress_1.0_step_4"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*theirs, "checkpoints", "finetune"])
    clean_partials(tmp_path / "elsewhere")
