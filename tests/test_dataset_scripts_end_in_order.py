"""SIGTERM, SIGHUP and SIGKILL of the dataset scripts leave no process behind, and no file that the next run does not take away."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from test_dataset_jobs_outlive_failures import processes_of, wait_for
from test_dataset_wiki_dumps_become_articles import fake_wikiextractor, make_dump
from tiny_corpus import ROOT, make_articles, write_articles

from dataset import process_data

# As wikiextractor does: processes that wait for each other, and a file of articles that is being written.
WAITS = """import multiprocessing, sys, time
from pathlib import Path
workers = [multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,)) for _ in range(2)]
for worker in workers:
    worker.start()
folder = Path(sys.argv[sys.argv.index("-o") + 1]) / "AA"
folder.mkdir(parents=True)
(folder / "wiki_00").write_text("half")
for worker in workers:
    worker.join()
"""


def start(name: str, place: Path, *flags: object, **environment: str) -> subprocess.Popen:
    """A script as a user starts it, with a mark that all its processes inherit."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / "dataset" / f"{name}.py"), *map(str, flags)],
        env=os.environ | {"MARK_OF_TEST": str(place)} | environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_wikiextractor_ends_with_process_data(how, tmp_path):
    fake_wikiextractor(tmp_path, WAITS)
    dump, output = tmp_path / "dump.xml", tmp_path / "out"
    dump.write_text(make_dump())
    process = start("process_data", tmp_path, "--type", "wiki", "-f", dump, "-o", output, PYTHONPATH=str(tmp_path))
    wait_for(lambda: list(output.glob(".partial_wiki_*/text/AA/wiki_00")))
    assert len(processes_of(tmp_path)) == 5, "the script, the one that watches over it, wikiextractor and its two"
    process.send_signal(how)
    error = process.communicate(timeout=30)[1]
    wait_for(lambda: not processes_of(tmp_path))
    if how == signal.SIGTERM:
        assert (process.returncode, error) == (143, "ended by SIGTERM\n")
        assert list(output.iterdir()) == []
    else:
        assert process.returncode == -signal.SIGKILL and list(output.glob(".partial_wiki_*"))
        process_data.main(["--type", "wiki", "-f", str(dump), "-o", str(output), "--n_processes", "1"])
        assert [path.name for path in output.iterdir()] == ["wiki_one_article_per_line.txt"]


def test_sharding_ends_with_one_line_and_leaves_nothing(tmp_path):
    write_articles(tmp_path / "processed" / "wiki.txt", make_articles(6000))
    output = tmp_path / "out"
    process = start("shard_data", tmp_path, "--dir", tmp_path / "processed", "-o", output, "--n_processes", 1)
    wait_for(lambda: list(output.glob(".partial_texts/part_*")))
    process.send_signal(signal.SIGHUP)
    error = process.communicate(timeout=30)[1]
    assert (process.returncode, error) == (129, "ended by SIGHUP\n")
    wait_for(lambda: not processes_of(tmp_path))
    assert not output.exists() or list(output.iterdir()) == []


def test_a_signal_that_is_ignored_stays_ignored(tmp_path):
    """nohup: a terminal that closes ends nothing."""
    script = (
        "import os, signal\nfrom dataset.errors import run_script\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "run_script(lambda: os.kill(os.getpid(), signal.SIGHUP) or os.kill(os.getpid(), signal.SIGTERM))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (143, "ended by SIGTERM\n")
