"""Many real launches of the trainer for the price of one import: a server process that has torch, DeepSpeed and transformers loaded
forks the ranks of every launch.

A rank is a process of its own, with its own files, signals, gloo and, to the last line, its own way to exit. It shares with the others
nothing but modules imported before the fork: the server has one thread, no process group and no CUDA (`_fork` refuses
otherwise), and everything random in a run is drawn from seeds. What the first import costs (6 to 10 s) a launch saves.

    with Zygote(folder_of_logs) as zygote:
        life = zygote.start([...flags...], ranks=2)
        assert life.wait() == [0, 0], life.stderr()

Requests are JSON lines on the server's standard input, answers on its standard output; when the tests end or die, the
server kills what is left of its children and ends. Forking needs POSIX, as the trainer's own file locks do.
"""

import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launching import LAUNCHER_VARIABLES, ROOT, clean_environment

PRETRAIN = "run_pretraining:main"
LONGEST_LIFE = 300.0


@dataclass
class Life:
    """One launch. Signals go to ranks that were not waited for yet, so no process id is used twice."""

    zygote: "Zygote"
    pids: list[int]
    logs: Path
    statuses: dict[int, int] = field(default_factory=dict)  # by rank; negative: the signal that ended it

    def wait(self, seconds: float = LONGEST_LIFE) -> list[int]:
        """The exit statuses by rank; what outlives `seconds` is killed and an error."""
        if not self.ended(range(len(self.pids)), seconds):
            self.kill()
            raise AssertionError(f"ranks {self.alive()} still run after {seconds} s\n{self.stderr()}")
        return [self.statuses[rank] for rank in range(len(self.pids))]

    def ended(self, ranks: Any, seconds: float) -> bool:
        """Whether all of `ranks` end within `seconds`."""
        waiting = [rank for rank in ranks if rank not in self.statuses]
        answer = self.zygote.ask({"wait": [self.pids[rank] for rank in waiting], "seconds": seconds})
        self.statuses.update({rank: status for rank, status in zip(waiting, answer["statuses"], strict=True) if status is not None})
        return all(rank in self.statuses for rank in ranks)

    def alive(self) -> list[int]:
        """The ranks that were not seen to end."""
        return [rank for rank in range(len(self.pids)) if rank not in self.statuses]

    def send(self, number: int, ranks: Any = None) -> None:
        for rank in self.alive() if ranks is None else ranks:
            if rank not in self.statuses:
                os.kill(self.pids[rank], number)

    def kill(self) -> list[int]:
        """SIGKILL for every rank that is alive; the statuses of all."""
        self.send(signal.SIGKILL)
        return self.wait()

    def stderr(self) -> str:
        """The last words of every rank."""
        return "".join(f"-- rank {rank}\n{(self.logs / f'{rank}.err').read_text(errors='replace')[-4000:]}"
                       for rank in range(len(self.pids)))

    def stdout(self) -> str:
        return (self.logs / "0.out").read_text(errors="replace")


class Zygote:
    """The client's end of the server; a context manager, so that the server ends with the tests."""

    def __init__(self, logs: Path) -> None:
        self._logs, self._lives = logs, 0
        environment = clean_environment(PYTHONPATH=f"{ROOT}:{ROOT / 'tests'}", CUDA_VISIBLE_DEVICES="", DS_ACCELERATOR="cpu")
        # A session of its own: Ctrl-C at the terminal is for pytest, which then closes the pipe.
        self._server = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment,
            start_new_session=True)

    def __enter__(self) -> "Zygote":
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stdin.close()
        self._server.wait(timeout=60)
        self._server.stdout.close()

    def start(
        self, argv: list[str], ranks: int = 1, *, call: str = PRETRAIN, fault: dict[str, Any] | None = None,
        patches: dict[str, Any] | None = None,
    ) -> Life:
        """Fork `ranks` processes that run MODULE:FUNCTION under `argv`; one rank alone has no launcher's variables, as under `python`.

        `fault`: {"point": NAME, "count": K, "rank": R} and `patches`: {NAME: value}, both as in fault_points.py.
        """
        self._lives += 1
        logs = self._logs / f"life_{self._lives}"
        logs.mkdir(parents=True)
        answer = self.ask({"start": {"argv": argv, "ranks": ranks, "call": call, "fault": fault, "patches": patches, "logs": str(logs)}})
        return Life(self, answer["pids"], logs)

    def run(self, argv: list[str], ranks: int = 1, status: int = 0, **more: Any) -> Life:
        """A life to its end, which must be `status` on every rank."""
        life = self.start(argv, ranks, **more)
        assert life.wait() == [status] * ranks, life.stderr()
        return life

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        answer = self._server.stdout.readline()
        assert answer, "the zygote died"
        return json.loads(answer)


def _preload() -> None:
    for name in ("torch", "deepspeed", "transformers", "h5py", "pretraining.preflight", "pretraining.assemble", "run_pretraining",
                 "task_distillation.students.build", "evaluation.scoring.card", "evaluation.fine_tuning.scorer", "fault_points"):
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # the children's collector would otherwise copy every page of it


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait(pids: list[int], seconds: float) -> list[int | None]:
    """Exit statuses; None for those that still run after `seconds`."""
    deadline = time.monotonic() + seconds
    found: dict[int, int] = {}
    client = select.poll()
    client.register(sys.stdout.fileno(), 0)  # errors only: nobody reads the answers any more
    while True:
        for pid in pids:
            if pid not in found and (ended := os.waitpid(pid, os.WNOHANG))[0] == pid:
                found[pid] = os.waitstatus_to_exitcode(ended[1])
        if len(found) == len(pids) or time.monotonic() > deadline:
            return [found.get(pid) for pid in pids]
        if client.poll(2):
            raise BrokenPipeError("the tests are gone")


def _fork(order: dict[str, Any], rank: int, port: int) -> int:
    """0 in the child, which is then set up as rank `rank`."""
    tasks = Path("/proc/self/task")
    assert not tasks.is_dir() or len(list(tasks.iterdir())) == 1, "a thread that lives at the fork leaves its locks behind in the child"
    pid = os.fork()
    if pid == 0:
        for name in LAUNCHER_VARIABLES:
            os.environ.pop(name, None)
        if order["ranks"] > 1:
            os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(order["ranks"]), MASTER_ADDR="127.0.0.1",
                              MASTER_PORT=str(port))
        for number, path, mode in ((0, os.devnull, os.O_RDONLY), (1, f"{order['logs']}/{rank}.out", os.O_WRONLY | os.O_CREAT),
                                   (2, f"{order['logs']}/{rank}.err", os.O_WRONLY | os.O_CREAT)):
            os.dup2(os.open(path, mode), number)
        sys.argv = ["run_pretraining.py", *order["argv"]]
    return pid


def _serve() -> tuple[dict[str, Any], int] | None:
    """Answer requests until the input ends. Returns None then, and in every child its order and rank."""
    children: set[int] = set()
    try:
        for line in sys.stdin:
            request = json.loads(line)
            if "start" in request:
                order, port, pids = request["start"], _free_port(), []
                for rank in range(order["ranks"]):
                    pid = _fork(order, rank, port)
                    if pid == 0:
                        children.clear()
                        return order, rank
                    pids.append(pid)
                    children.add(pid)
                answer: dict[str, Any] = {"pids": pids}
            else:
                statuses = _wait(request["wait"], request["seconds"])
                children -= {pid for pid, status in zip(request["wait"], statuses, strict=True) if status is not None}
                answer = {"statuses": statuses}
            print(json.dumps(answer), flush=True)
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    return None


def _live(order: dict[str, Any], rank: int) -> None:
    """What a rank does from here to its exit; the interpreter then ends as after any script."""
    import fault_points

    from dataset.errors import run_command

    for name, value in (order["patches"] or {}).items():
        fault_points.PATCHES[name](value)
    fault = order["fault"]
    if fault is not None and fault["rank"] == rank:
        fault_points.install(fault["point"], fault["count"])
    module, _, function = order["call"].partition(":")
    run_command(getattr(importlib.import_module(module), function))


if __name__ == "__main__":
    _preload()
    child = _serve()
    if child is not None:
        _live(*child)
