"""One step in a process of its own, with the wish to stop passed on to it: a run saves itself, the other steps end in order."""

import subprocess
from collections.abc import Sequence

from dataset.errors import UserError
from dataset.files import reason
from evaluation.sweep.child import StopWish, wait_for

TERMINAL_S = 1.0
"""A Ctrl-C has reached the step through the terminal; one that still runs so much later is told, in case it came from elsewhere."""


def start(command: Sequence[str]) -> tuple[int, bool]:
    """Run `command` to its end: (its exit status, negative for a signal, and whether somebody asked this process to stop meanwhile).

    The wish (SIGTERM, SIGINT or SIGHUP) becomes one SIGTERM, every further Ctrl-C some seconds later a SIGINT. UserError for a program
    that is not there.
    """
    with StopWish() as wish:
        try:
            process = subprocess.Popen(command)
        except OSError as error:
            raise UserError(f"{command[0]}: cannot be started ({reason(error)}); a program that is there would work") from None
        return wait_for(process, wish, TERMINAL_S), wish.name is not None
