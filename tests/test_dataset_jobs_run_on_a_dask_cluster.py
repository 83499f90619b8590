"""A Dask cluster does the same work to the same bytes as this machine's processes, and whatever is wrong with it is one line."""

import logging
import operator
import os
import signal
import socket
import sys
import threading
import time

import pytest
from dask_case import scheduler, workers
from tiny_corpus import folder_bytes, make_articles, run_script, wait_and_return, write_articles

from dataset import dask_cluster
from dataset.errors import UserError
from dataset.jobs import Job, Workers


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """(address, folder) of a scheduler, which has no worker until `two_workers` starts some."""
    folder = tmp_path_factory.mktemp("cluster")
    with scheduler(folder) as address:
        yield address, folder


def test_a_scheduler_without_workers_is_one_line(cluster):
    with pytest.raises(UserError, match=r"the Dask scheduler at tcp://.* has no worker; `dask worker tcp://.*` starts one"):
        Workers(2, cluster[0]).__enter__()


@pytest.fixture(scope="module")
def two_workers(cluster):
    with workers(cluster[1], cluster[0]):
        yield cluster[0]


def test_shards_are_the_same_with_1_2_and_8_processes_and_on_a_cluster(two_workers, tmp_path):
    write_articles(tmp_path / "in" / "a.txt", make_articles(200))
    write_articles(tmp_path / "in" / "b.txt", make_articles(100, seed=1))
    outputs = {}
    ways = {number: ["--n_processes", number] for number in (1, 2, 8)} | {"dask": ["--dask_address", two_workers]}
    for name, flags in ways.items():
        numbers = ["--num_train_shards", 3, "--num_test_shards", 2]
        done = run_script("shard_data", "--dir", "in", "-o", f"out{name}", *numbers, *flags, cwd=tmp_path)
        assert done.returncode == 0 and not done.stderr, done.stderr
        outputs[name] = folder_bytes(tmp_path / f"out{name}")
    assert len(outputs[1]) == 5 and all(output == outputs[1] for output in outputs.values())


def test_failures_are_named_and_the_other_jobs_are_done(two_workers, capfd):
    with Workers(1, two_workers) as here:
        jobs = [Job(str(number), (12, number - 2)) for number in range(5)]
        with pytest.raises(RuntimeError, match=r"^1 of 5 shards failed, the others are done: 2: ZeroDivisionError: "):
            here.run(operator.floordiv, jobs, "shards")
        assert list(here.run(operator.floordiv, jobs[3:], "shards").items()) == [("3", 12), ("4", 6)]
        results = here.in_order(operator.floordiv, jobs, "blocks", 5)
        assert [next(results), next(results)] == [-6, -12]
        with pytest.raises(RuntimeError, match=r"^2: ZeroDivisionError: "):
            next(results)
        with pytest.raises(UserError, match=r"^1 of 1 shards failed: text: /none/here: No such file or directory$"):
            here.run(os.listdir, [Job("text", ("/none/here",))], "shards")
        advice = r"cannot import tiny_corpus \(No module named 'tiny_corpus'\); it needs .* and the same packages as here"
        with pytest.raises(UserError, match=rf"^1 of 1 shards failed: x: the Dask worker tcp://[0-9.:]* {advice}$"):
            here.run(wait_and_return, [Job("x", (0, 1))], "shards")
        with pytest.raises(UserError, match=r"^1 of 1 shards failed: dies: the 4 Dask workers that tried it died"):
            here.run(os._exit, [Job("dies", (1,))], "shards")
    assert capfd.readouterr().err == ""


def test_a_worker_killed_in_mid_job_costs_nothing(two_workers):
    with Workers(1, two_workers) as here:
        pids = set(here.run(os.getpid, [Job(str(number), ()) for number in range(20)], "jobs").values())
        threading.Timer(0.5, os.kill, (min(pids), signal.SIGKILL)).start()
        jobs = [Job(str(number), (1.5,)) for number in range(2)]
        start_time = time.monotonic()
        assert here.run(time.sleep, jobs, "jobs") == {"0": None, "1": None}
        assert time.monotonic() - start_time > 1.8, "no job was begun again"


def test_what_is_no_scheduler_is_one_line(two_workers, monkeypatch):
    monkeypatch.setattr(dask_cluster, "CONNECT_SECONDS", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(UserError, match=rf"127.0.0.1:{port}: no Dask scheduler answers within 1 s; `dask scheduler` and `dask worker"):
            Workers(1, f"tcp://127.0.0.1:{port}").__enter__()
    with pytest.raises(UserError, match=rf"127.0.0.1:{port}: no Dask scheduler answers"):
        Workers(1, f"127.0.0.1:{port}").__enter__()
    for address in ("host", "ftp://host:1", "tcp://host:port", ""):
        with pytest.raises(UserError, match=rf"^--dask_address {address}: no Dask scheduler answers \("):
            Workers(1, address).__enter__()
    with Workers(1, two_workers) as here:
        worker = next(iter(here._executor._client.nthreads()))
    with pytest.raises(UserError, match=rf"^--dask_address {worker} is a Dask worker; the scheduler's address would work"):
        Workers(1, worker).__enter__()
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UserError, match=r"needs a package .*; `pip install distributed` would work"):
        Workers(1, two_workers).__enter__()


def test_a_cluster_that_dies_ends_the_run(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(dask_cluster, "LOOK_SECONDS", 0.2)
    monkeypatch.setattr(dask_cluster, "PATIENCE_SECONDS", 1.0)
    with scheduler(tmp_path) as address:
        with workers(tmp_path, address, processes=1, threads=2):
            here = Workers(1, address).__enter__()
        with pytest.raises(UserError, match=r"1 of 1 jobs failed: a: no Dask worker was left for 1 s; `dask worker tcp://.*` starts one"):
            here.run(time.sleep, [Job("a", (60,))], "jobs")
        here.__exit__(None, None, None)
        with workers(tmp_path, address, processes=1, threads=2):
            here = Workers(1, address).__enter__()
            threading.Timer(0.5, os.kill, (int((tmp_path / "pid").read_text()), signal.SIGKILL)).start()
            with pytest.raises(UserError, match=r"2 of 2 jobs failed: a: the Dask scheduler at tcp://[0-9.:]* (is gone|gave it up)"):
                here.run(time.sleep, [Job("a", (60,)), Job("b", (60,))], "jobs")
            here.__exit__(None, None, None)
    assert capfd.readouterr().err == ""
    loggers = [logging.getLogger(name) for name in ("distributed", "distributed.client", "distributed.new")]
    assert not any(logger.isEnabledFor(logging.CRITICAL) for logger in loggers), "Dask's log is not for the user"
