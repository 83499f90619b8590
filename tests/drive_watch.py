"""Ranks with a watch and nothing else, one case after another: `python drive_watch.py FOLDER` prints a JSON object of what became of them.

Ranks are forked from one process that has imported torch, so that a case costs a second.
"""

import ctypes
import itertools
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch.distributed as dist  # noqa: E402

from pretraining import watch as watching  # noqa: E402
from pretraining.control import Control  # noqa: E402
from pretraining.watch import Watch  # noqa: E402

RANKS = 3
GIVEN_UP_AFTER = 20.0
OWN_STATUS = 7


def hang() -> None:
    """A main thread that nothing reaches."""
    while True:
        time.sleep(100)


def stay(rank: int, control: Control, watch: Watch) -> None:
    hang()


def fail_alone(rank: int, control: Control, watch: Watch) -> None:
    if rank == 1:
        watch.failed("shard 3 is broken\nsecond line")
        sys.exit(OWN_STATUS)
    hang()


def fail_and_pull_others_down(rank: int, control: Control, watch: Watch) -> None:
    """Rank 2 fails; what the others' collective then raises is not what they are asked to tell."""
    if rank == 2:
        watch.failed("the disk is full")
        sys.exit(OWN_STATUS)
    try:
        control.barrier()
    except RuntimeError as error:
        watch.verdict(10)
        watch.failed(str(error))
        sys.exit(OWN_STATUS)


def ask_for_verdict(rank: int, control: Control, watch: Watch) -> None:
    """Rank 1 dies, and the main threads of the others notice by themselves that something is wrong."""
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    assert (watch.verdict(10) or "").startswith("rank 1 (host "), "no verdict"
    hang()


def leave_a_child(rank: int, control: Control, watch: Watch) -> None:
    """The killed rank had forked a child that lives on."""
    if rank == 1 and os.fork() == 0:
        time.sleep(GIVEN_UP_AFTER)
        os._exit(0)
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    hang()


def leave_in_every_order(rank: int, control: Control, watch: Watch) -> None:
    """A hundred watches one after another, left in all orders with and without time between the ranks."""
    watch.goodbye()
    orders = list(itertools.permutations(range(RANKS)))
    for number in range(100):
        again = Watch(control, lost)
        time.sleep(orders[number % len(orders)].index(rank) * (0, 0.001, 0.004)[number % 3])
        again.goodbye()
    assert again.verdict(0) is None


def be_slow(rank: int, control: Control, watch: Watch) -> None:
    """Rank 1 is stopped for a while, rank 0 and then rank 2 hold their interpreter's lock."""
    sleep = ctypes.PyDLL(None).sleep  # PyDLL does not release the lock
    if rank == 1:
        stopped = os.getpid()
        if os.fork() == 0:
            os.kill(stopped, signal.SIGSTOP)
            time.sleep(3)
            os.kill(stopped, signal.SIGCONT)
            os._exit(0)
        time.sleep(0.5)
    else:
        sleep(3)
    control.barrier()
    watch.goodbye()


def leave_while_others_work(rank: int, control: Control, watch: Watch) -> None:
    """Rank 1 is through and gone, rank 2 dies while rank 0 still works."""
    if rank == 1:
        watch.goodbye()
        os._exit(0)
    time.sleep(0.5)
    if rank == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    hang()


def dial_elsewhere(rank: int, control: Control, watch: Watch) -> None:
    """Rank 2 cannot reach rank 0: no watch for anybody, and no harm."""
    watch.goodbye()
    watching.CONNECT_SECONDS = 1.0
    if rank == 2:
        os.environ["MASTER_ADDR"] = "127.0.0.2"
    again = Watch(control, lost)
    assert again.verdict(60) is None
    control.barrier()
    again.failed("nobody hears this")


def lost(text: str) -> None:
    (FOLDER / "on_lost").open("a").write(f"{text}\n")


# case: (what ranks do, the rank to kill from outside)
CASES: dict[str, tuple[Callable[[int, Control, Watch], None], int | None]] = {
    "kill_0": (stay, 0), "kill_1": (stay, 1), "kill_2": (stay, 2),
    **{work.__name__: (work, None) for work in (
        fail_alone, fail_and_pull_others_down, ask_for_verdict, leave_a_child, leave_in_every_order, be_slow, leave_while_others_work,
        dial_elsewhere)},
}


def member(rank: int, folder: Path, work: Callable[[int, Control, Watch], None]) -> None:
    """One rank, in its own process."""
    os.dup2(os.open(folder / f"stderr_{rank}", os.O_CREAT | os.O_WRONLY), 2)
    os.environ["MASTER_ADDR"] = "127.0.0.1"
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=RANKS)
    control = Control(rank, RANKS)
    watch = Watch(control, lost)
    (folder / f"ready_{rank}").touch()
    work(rank, control, watch)


def run_case(folder: Path, work: Callable[[int, Control, Watch], None], victim: int | None) -> dict:
    processes = []
    for rank in range(RANKS):
        process = os.fork()
        if process == 0:
            status = 1
            try:
                member(rank, folder, work)
                status = 0
            except SystemExit as end:
                status = end.code
            except BaseException as error:
                os.write(2, repr(error).encode())
            finally:
                os._exit(status)
        processes.append(process)
    until = time.monotonic() + GIVEN_UP_AFTER
    while not all((folder / f"ready_{rank}").exists() for rank in range(RANKS)) and time.monotonic() < until:
        time.sleep(0.01)
    started = time.monotonic()
    if victim is not None:
        os.kill(processes[victim], signal.SIGKILL)
    statuses: list[int | None] = [None] * RANKS
    while None in statuses:
        for rank, process in enumerate(processes):
            if statuses[rank] is None and (ended := os.waitpid(process, os.WNOHANG)) != (0, 0):
                statuses[rank] = os.waitstatus_to_exitcode(ended[1])
            elif statuses[rank] is None and time.monotonic() - started > GIVEN_UP_AFTER:
                os.kill(process, signal.SIGKILL)
        time.sleep(0.01)
    on_lost = folder / "on_lost"
    return {"seconds": time.monotonic() - started, "statuses": statuses, "processes": processes,
            "stderr": [(folder / f"stderr_{rank}").read_text() for rank in range(RANKS)],
            "on_lost": on_lost.read_text().splitlines() if on_lost.exists() else []}


if __name__ == "__main__":
    results = {}
    for name, (work, victim) in CASES.items():
        FOLDER = Path(sys.argv[1]) / name
        FOLDER.mkdir()
        results[name] = run_case(FOLDER, work, victim)
    print(json.dumps(results))
