"""Killed at any rename or removal, merge_shards leaves the old set, or the new one, or one that is refused and finished by the next run."""

import json
import os
import signal
import sys
from pathlib import Path

import pytest
from test_dataset_folders_have_one_writer import fork
from tiny_corpus import folder_bytes, make_articles, write_text_shard

from dataset import generate_samples, merge_shards, shard_data, split_text
from dataset.errors import UserError
from dataset.text_shards import MANIFEST, UNFINISHED, text_files

EVENTS = ("os.rename", "os.remove", "os.rmdir", "os.mkdir")


@pytest.fixture
def place(tmp_path) -> Path:
    """Three shards of one text, two of another."""
    for name, shards in (("three", 3), ("two", 2)):
        for number, article in enumerate(make_articles(shards, seed=shards)):
            write_text_shard(tmp_path / name / f"training{number}.txt", [article])
    return tmp_path


def merge(place: Path, name: str, *flags: object) -> None:
    merge_shards.main(["--data", str(place / name), "--output_dir", str(place / "out"), *map(str, flags)])


def visible(folder: Path) -> dict[str, bytes]:
    return {name: content for name, content in folder_bytes(folder).items() if not name.startswith(".")}


def killed_at(place: Path, event: int, work) -> bool:
    """Whether a child that did `work` was killed at its event number `event` on a file of the output."""

    def run(_) -> None:
        left = event

        def hook(name: str, arguments: tuple) -> None:
            nonlocal left
            if name in EVENTS:
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        work()

    status = os.waitpid(fork(run, []), 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize("old", [True, False])
def test_no_kill_leaves_half_a_set_that_anybody_takes(place, old, capsys):
    merge(place, "two")
    two = visible(place / "out") if old else {}
    for path in place.joinpath("out").iterdir():
        path.unlink()
    merge(place, "three")
    three = visible(place / "out")
    event, met = 0, set()
    while True:
        event += 1
        for path in list(place.joinpath("out").iterdir()):
            path.unlink()
        if old:
            merge(place, "two")
        if not killed_at(place, event, lambda: merge(place, "three", "--overwrite")):
            break
        if (place / "out" / UNFINISHED).exists():
            met.add("half")
            for refused in (
                lambda: generate_samples.list_sources(place / "out"),
                lambda: merge_shards.main(["--data", str(place / "out"), "--output_dir", str(place / "other")]),
            ):
                with pytest.raises(UserError, match="holds half a set: merge_shards ended while it named the files; merge_shards into it"):
                    refused()
            assert not (place / "other").exists()
            capsys.readouterr()
            with pytest.raises(UserError, match="and its like already"):
                merge(place, "two")  # whatever is asked for, what was begun is finished
            assert "out: the set of 3 texts that merge_shards left, ended while it named them, is whole now" in capsys.readouterr().err
            assert visible(place / "out") == three
        else:
            found = {path.name: path.read_bytes() for path in text_files(place / "out")}
            assert found in (two, three)
            met.add("new" if found == three else "old")
        merge(place, "three", "--overwrite")
        assert visible(place / "out") == three and len(list(place.joinpath("out").iterdir())) == 3, "the next run cleans up"
    assert met == {"old", "half", "new"} and event > 8


def test_a_half_set_that_lost_a_file_is_named_and_made_anew_when_asked(place):
    merge(place, "two")
    event = 0
    while not (place / "out" / UNFINISHED).exists():
        event += 1
        assert killed_at(place, event, lambda: merge(place, "three", "--overwrite"))
    manifest = json.loads((place / "out" / UNFINISHED / MANIFEST).read_text())
    assert (manifest["script"], sorted(manifest["sizes"])) == ("merge_shards", [f"training{number}.txt" for number in range(3)])
    (place / "out" / UNFINISHED / "training2.txt").unlink()
    with pytest.raises(UserError, match=r"holds half a set, of which training2.txt is lost; --overwrite would make it anew"):
        merge(place, "three")
    merge(place, "three", "--overwrite")
    assert len(visible(place / "out")) == 3 and not (place / "out" / UNFINISHED).exists()


def test_the_scripts_name_themselves_and_look_again_before_they_rename(place, monkeypatch):
    """A file that came while the set was being made is not replaced."""
    write_text_shard(place / "whole.txt", make_articles(5))
    split = ["--read_file", str(place / "whole.txt"), "--split_number", "2", "--folder", str(place / "out"), "--name_base", "training"]
    plain = split_text.append_text

    def append(*arguments) -> None:
        (place / "out" / "training_7.txt").write_text("came meanwhile")
        plain(*arguments)

    monkeypatch.setattr(split_text, "append_text", append)
    with pytest.raises(UserError, match=r"holds training_7.txt and its like already"):
        split_text.main(split)
    assert visible(place / "out") == {"training_7.txt": b"came meanwhile"} and len(list(place.joinpath("out").iterdir())) == 1
    (place / "out" / "training_7.txt").unlink()
    monkeypatch.setattr(split_text, "append_text", plain)
    event = 0
    while not (place / "out" / UNFINISHED).exists():
        event += 1
        assert killed_at(place, event, lambda: split_text.main(split))
    with pytest.raises(UserError, match="split_text ended while it named the files"):
        shard_data.main(["--dir", str(place / "out"), "-o", str(place / "shards")])
