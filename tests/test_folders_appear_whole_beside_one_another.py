"""Processes that write one folder at the same time do not touch each other's half; what killed ones left goes."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from launching import ROOT

from dataset.files import PARTIAL_PREFIX, whole_folder

OTHER = """
import sys
from pathlib import Path
from dataset.files import whole_folder
with whole_folder(Path(sys.argv[1])) as partial:
    (partial / "one").write_text("other")
    print(partial, flush=True)
    sys.stdin.readline()
    (partial / "two").write_text("other")
"""


def names(folder):
    return sorted(path.name for path in Path(folder).iterdir())


@pytest.fixture
def other(tmp_path):
    """A process that is in the middle of writing `kept`, and its hidden folder."""
    with subprocess.Popen([sys.executable, "-c", OTHER, str(tmp_path / "kept")], cwd=ROOT, text=True, stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as process:
        yield process, process.stdout.readline().strip()
        process.kill()


def test_two_processes_write_one_folder_and_the_last_has_it(tmp_path, other):
    process, hidden = other
    with whole_folder(tmp_path / "kept") as partial:
        (partial / "one").write_text("ours")
        assert str(partial) != hidden and names(hidden) == ["one"]
    assert {path.name: path.read_text() for path in (tmp_path / "kept").iterdir()} == {"one": "ours"}
    process.communicate("go on\n", timeout=30)
    assert process.returncode == 0
    assert {path.name: path.read_text() for path in (tmp_path / "kept").iterdir()} == {"one": "other", "two": "other"}
    assert names(tmp_path) == ["kept"]


def test_what_killed_processes_left_goes_and_nothing_else(tmp_path, other):
    process, hidden = other
    process.kill()
    process.wait()
    assert names(hidden) == ["one"]
    host = socket.gethostname()
    kept = [f"{PARTIAL_PREFIX}{process.pid}_elsewhere.{host}_kept", f"{PARTIAL_PREFIX}{process.pid}_{host}_other",
            f"{PARTIAL_PREFIX}{os.getppid()}_{host}_kept"]
    ours = f"{PARTIAL_PREFIX}{os.getpid()}_{host}_kept"  # of an earlier process of our number
    for name in (*kept, ours):
        (tmp_path / name).mkdir()
        (tmp_path / name / "left").touch()
    with whole_folder(tmp_path / "kept") as partial:
        assert not names(partial)
    assert names(tmp_path) == sorted([*kept, "kept"])
