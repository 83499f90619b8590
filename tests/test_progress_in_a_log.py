"""Progress without a terminal, as in a batch job's log: lines now and then, and none of what is over soon."""

import sys
import time

import pytest

from dataset import progress as progress_file
from dataset.progress import progress


def test_what_is_over_within_a_minute_says_nothing(capsys):
    assert list(progress(range(5), desc="label", unit=" rows")) == [0, 1, 2, 3, 4]
    with progress(total=5, desc="label", unit=" rows") as bar:
        bar.update(5)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("leave", [True, False])
def test_long_work_says_how_far_it_is_in_whole_lines(capsys, monkeypatch, leave):
    monkeypatch.setattr(progress_file, "SECONDS_BETWEEN_LINES", 1e-6)
    with progress(total=1000, initial=200, desc="label", unit=" rows", leave=leave) as bar:
        bar.update(300)
        bar.update(500)
    said = capsys.readouterr().err
    lines = said.splitlines()
    assert lines[0].startswith("label: 50%, 500 of 1000 rows, ") and lines[0].endswith(" left")
    assert lines[1].startswith("label: 100%, 1000 of 1000 rows, ")
    assert "\r" not in said and "" not in lines


def test_work_that_slows_down_is_told_as_often(capsys, monkeypatch):
    monkeypatch.setattr(progress_file, "SECONDS_BETWEEN_LINES", 0.05)
    with progress(total=1_000_020, desc="label", unit=" rows") as bar:
        until = time.monotonic() + 0.06
        while time.monotonic() < until:
            bar.update(1000)
        before = len(capsys.readouterr().err.splitlines())
        for _ in range(10):
            time.sleep(0.02)
            bar.update(1)
        assert before == 1 and len(capsys.readouterr().err.splitlines()) >= 3


def test_work_without_a_known_end_counts(capsys, monkeypatch):
    monkeypatch.setattr(progress_file, "SECONDS_BETWEEN_LINES", 1e-6)
    for _ in progress(iter(range(3)), desc="texts", unit=" rows"):
        pass
    assert capsys.readouterr().err.splitlines()[-1].startswith("texts: 3 rows, ")


def test_a_terminal_gets_a_bar(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    for _ in progress(range(3), desc="label"):
        pass
    said = capsys.readouterr().err
    assert "label: 100%|" in said and "\r" in said
