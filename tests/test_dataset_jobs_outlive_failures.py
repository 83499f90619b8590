"""Jobs on processes of this machine: a failing, a killed and an interrupted one are named, cost no other job its result, and leave no
process behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_corpus import ROOT, wait_and_return

from dataset.errors import UserError
from dataset.files import whole_file
from dataset.jobs import Job, Workers


class Unpicklable(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def fail(kind: str, folder: Path) -> None:
    if kind == "unpicklable":
        raise Unpicklable("this", "that")
    if kind == "user":
        raise UserError("line 7 of it is\nno text")
    if kind == "memory":
        raise MemoryError
    if kind == "package":
        raise ModuleNotFoundError("No module named 'zstd'")
    (folder / "none" / "file").read_text()


def note_and_return(folder: Path, number: int, wait: float = 0) -> int:
    (folder / f"job{number}").write_text("")
    time.sleep(wait)
    return number


def die_or_note(folder: Path, number: int, deaths: int = 1) -> int:
    """Note the job, or where `number` is negative die as for want of memory, `deaths` times in all."""
    tries = len(list(folder.glob("try*")))
    if number < 0 and tries < deaths:
        (folder / f"try{tries}").write_text("")
        os.kill(os.getpid(), signal.SIGKILL)
    return note_and_return(folder, number)


def write_slowly(path: Path) -> None:
    with whole_file(path) as partial:
        partial.write_text("begun")
        for _ in range(1000):
            time.sleep(0.02)


@pytest.fixture(scope="module")
def workers():
    with Workers(2) as workers:
        yield workers


def test_results_come_in_the_order_of_the_jobs_not_of_their_end(workers):
    jobs = [Job("slow", (0.3, 1)), Job("quick", (0, 2))]
    assert list(workers.run(wait_and_return, jobs, "jobs").items()) == [("slow", 1), ("quick", 2)]
    waits = [0.2, 0, 0.1, 0, 0]
    jobs = (Job(str(number), (wait, number)) for number, wait in enumerate(waits))
    assert list(workers.in_order(wait_and_return, jobs, "jobs", len(waits))) == [0, 1, 2, 3, 4]
    assert workers.run(wait_and_return, [], "jobs") == {} and list(workers.in_order(wait_and_return, [], "jobs", 0)) == []


def test_failures_are_named_three_at_most_and_the_other_jobs_are_done(workers, tmp_path):
    jobs = [Job(kind, (kind, tmp_path)) for kind in ("user", "memory", "file", "package", "more")]
    with pytest.raises(UserError) as caught:
        workers.run(fail, jobs, "shards")
    path = tmp_path / "none" / "file"
    assert str(caught.value) == (
        "5 of 5 shards failed: user: line 7 of it is no text; memory: out of memory; fewer --n_processes may work; "
        f"file: {path}: No such file or directory; and 2 more"
    )
    with pytest.raises(UserError, match="package: No module named 'zstd'"):
        workers.run(fail, jobs[3:4], "shards")
    jobs = [Job(str(number), (tmp_path, number)) for number in range(5)]
    bad = Job("bad", (tmp_path / "none", 9))
    with pytest.raises(UserError, match=r"1 of 6 shards failed, the others are done: bad: .*none/job9: No such file"):
        workers.run(note_and_return, [bad, *jobs], "shards")
    assert len(list(tmp_path.glob("job*"))) == 5
    with pytest.raises(RuntimeError, match=r"1 of 1 shards failed: odd: RuntimeError: .*this and that"):
        workers.run(fail, [Job("odd", ("unpicklable", tmp_path))], "shards")


def test_a_stream_of_jobs_is_bounded_and_ends_with_the_first_failure(workers, tmp_path):
    taken = []

    def jobs():
        for number in range(40):
            taken.append(number)
            yield Job(f"block {number}", (tmp_path / ("none" if number == 9 else ""), number))

    results = workers.in_order(note_and_return, jobs(), "blocks", 40)
    assert next(results) == 0
    time.sleep(0.2)
    assert len(taken) <= 5, "jobs are made although nobody took the results"
    delivered = []
    with pytest.raises(UserError, match=r"^block 9: .*none/job9: No such file or directory$"):
        for result in results:
            delivered.append(result)  # noqa: PERF402
    assert delivered == list(range(1, 9)), "results before the failure are delivered"
    assert len(taken) <= 9 + 5
    slow = (Job(str(number), (tmp_path, 100 + number, 0.5 if number else 0)) for number in range(9))
    results = workers.in_order(note_and_return, slow, "blocks", 9)
    assert next(results) == 100
    results.close()
    time.sleep(0.8)
    assert len(list(tmp_path.glob("job1??"))) <= 3, "jobs begin although nobody wants them any more"


def test_a_killed_process_costs_no_other_job_and_its_own_job_gets_another(workers, tmp_path):
    numbers = [-1, *range(6)]
    jobs = [Job(f"shard {number}", (tmp_path, number)) for number in numbers]
    assert list(workers.run(die_or_note, jobs, "shards").values()) == numbers
    (tmp_path / "try0").unlink()
    assert list(workers.in_order(die_or_note, jobs, "shards", 7)) == numbers
    killed = r"shard -1: a process was killed \(out of memory\?\); fewer --n_processes may work"
    jobs[0] = Job("shard -1", (tmp_path, -1, 99))
    for number in range(6):
        (tmp_path / f"job{number}").unlink()
    with pytest.raises(UserError, match=rf"^1 of 7 shards failed, the others are done: {killed}$"):
        workers.run(die_or_note, jobs, "shards")
    assert len(list(tmp_path.glob("job?"))) == 6
    with pytest.raises(UserError, match=rf"^{killed}$"):
        list(workers.in_order(die_or_note, jobs, "shards", 7))


SCRIPT = """
import sys
from pathlib import Path
from dataset.jobs import Job, Workers
from test_dataset_jobs_outlive_failures import write_slowly
if __name__ == "__main__":
    with Workers(2) as workers:
        workers.run(write_slowly, [Job(str(number), (Path(sys.argv[1]) / f"file{number}",)) for number in range(9)], "files")
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_run_leaves_no_process_and_no_half_file(how, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "out").mkdir()
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "MARK_OF_TEST": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "script.py"), str(tmp_path / "out")],
        env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    wait_for(lambda: len(list((tmp_path / "out").iterdir())) == 2)
    if how == signal.SIGINT:
        os.killpg(process.pid, how)  # as the terminal does
    else:
        process.send_signal(how)
    error = process.communicate(timeout=20)[1]
    assert process.returncode and error.count("Traceback") == (how == signal.SIGINT), error
    wait_for(lambda: not processes_of(tmp_path))
    assert not list((tmp_path / "out").iterdir())


def wait_for(condition) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def processes_of(mark: Path) -> list[str]:
    """Ids of all processes that were started with the mark in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if f"MARK_OF_TEST={mark}\0".encode() in (path / "environ").read_bytes():
                found.append(path.name)
        except OSError:
            continue
    return found
