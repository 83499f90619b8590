"""Runs a program as its child, in a process group of its own, and ends the whole group when whoever started it is gone.

    python -I -S supervise.py PROGRAM ARGUMENT ...

Standard input is the lifeline: nothing is written to it, and it ends with the process that holds its other end, by SIGKILL too. A program
of many processes cannot be ended by a signal that the system sends to one of them (PR_SET_PDEATHSIG), so this one stands between. It ends
as its child did, with the same status or by the same signal. Nothing of the project is imported: it starts in a moment.
"""

import os
import signal
import subprocess
import sys
import threading
import time

GRACE_SECONDS = 5.0


def main(command: list[str]) -> int:
    """Run `command` to its end; the exit status to end with."""
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    signal.signal(signal.SIGTERM, lambda *_: None)  # meant for the group: the child's end is waited for
    threading.Thread(target=_end_with_lifeline, daemon=True).start()
    status = child.wait()
    if status < 0:
        if -status != signal.SIGKILL:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status


def _end_with_lifeline() -> None:
    os.read(sys.stdin.fileno(), 1)
    os.killpg(0, signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
