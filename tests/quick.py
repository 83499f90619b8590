"""`train` as in launching.py, but forked from one zygote that lives as long as the test session: a run costs what it does, not an import.

For tests about what a run does; those about how it is started use `launching.train`.
"""

import atexit
import functools
import subprocess
import tempfile
from pathlib import Path

import launching
import torch
from zygote import Zygote


def train(flags: list[str], status: int = 0) -> subprocess.CompletedProcess[str]:
    """Run the trainer on one rank as under plain python, and assert its exit status."""
    if torch.cuda.is_available():
        return launching.train(flags, status)  # the zygote hides the GPU, which does not survive a fork
    life = shared_zygote().start(flags)
    assert life.wait() == [status], life.stderr()
    return subprocess.CompletedProcess(flags, status, life.stdout(), (life.logs / "0.err").read_text())


@functools.cache
def shared_zygote() -> Zygote:
    """The server of this session, started when it is first needed."""
    logs = tempfile.TemporaryDirectory(prefix="quick_")
    atexit.register(logs.cleanup)
    zygote = Zygote(Path(logs.name)).__enter__()
    atexit.register(zygote.__exit__)
    return zygote
