"""How every command of this project reports a mistake: one line, what was found and what would work, exit status 2.

Lives in the first room of the house so that every other room can use it.
"""

import argparse
import difflib
import os
import re
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

EXIT_USAGE = 2
EXIT_INTERRUPTED = 130  # as shells report SIGINT
EXIT_SIGNAL = 128  # and, with a signal's number added, any other
ENDING_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class UserError(Exception):
    """A mistake in flags, files or hardware that the user can mend; its text is the one line they will read.

    `agreed`: every process of the launch reports the same one. `alone`: this process met it in work that no other one does.
    """

    agreed = alone = False


class Terminated(KeyboardInterrupt):
    """A signal that asks to end, such as SIGTERM, came: what cleans up after Ctrl-C does so after it too."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class OneLineParser(argparse.ArgumentParser):
    """argparse, but a wrong flag is one line like every other mistake, and names the nearest one that there is."""

    def parse_args(self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None) -> argparse.Namespace:
        words = sys.argv[1:] if args is None else [str(word) for word in args]
        known = [option for action in self._actions for option in action.option_strings]
        for word in words[: words.index("--") if "--" in words else None]:
            name = word.partition("=")[0]
            # argparse would complain of a required flag before an unknown one, which is likelier what was meant.
            if re.fullmatch(r"--\w[\w-]*", name) and name not in known:
                raise UserError(f"unknown flag {name}{nearest(name, known)} (--help lists every flag)")
        return super().parse_args(words, namespace)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (--help lists every flag)")


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean X?` for the closest known name, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""


@contextmanager
def working_alone() -> Iterator[None]:
    """Around work that each process has of its own: its `UserError` is printed by the process that met it, whatever its rank."""
    try:
        yield
    except UserError as error:
        error.alone = True
        raise


def is_printing_rank() -> bool:
    """True on the one process of a launch that may print (rank 0, or no launcher at all)."""
    return _rank() == "0"


def _rank() -> str:
    return os.environ.get("RANK", os.environ.get("OMPI_COMM_WORLD_RANK", "0"))


def one_line(error: BaseException) -> str:
    """What an error says, or its kind where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def _print_error(error: UserError) -> None:
    """On rank 0, on the first rank of every other machine, whose files may lack what rank 0 has, and on a rank that works alone."""
    text = one_line(error)
    if is_printing_rank():
        print(f"error: {text}", file=sys.stderr, flush=True)
    elif error.alone or (not error.agreed and os.environ.get("LOCAL_RANK", os.environ.get("OMPI_COMM_WORLD_LOCAL_RANK")) == "0"):
        print(f"error: rank {_rank()} ({socket.gethostname()}): {text}", file=sys.stderr, flush=True)


def run_command(main: Callable[[], int | None]) -> None:
    """Run a script's `main` and exit with its status; a `UserError` becomes one line on stderr and status 2.

    Under a launcher every rank finds the same mistake, so one of each machine prints it.
    """
    try:
        status = main()
    except UserError as error:
        _print_error(error)
        sys.exit(EXIT_USAGE)
    except Terminated as error:
        print(f"ended by {error}", file=sys.stderr, flush=True)
        sys.exit(EXIT_SIGNAL + error.number)
    except KeyboardInterrupt:
        if is_printing_rank():
            print("interrupted", file=sys.stderr, flush=True)
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output (`| head`) went away: nothing is wrong, but Python would print a traceback at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    sys.exit(status or 0)


def run_script(main: Callable[[], int | None]) -> None:
    """`run_command` for a script that no launcher starts and that has no way of its own to stop: SIGTERM and SIGHUP end it in order.

    The first of them raises `Terminated`, further ones let it clean up; status 143 or 129. One that is ignored (nohup) stays so.
    """

    def end(number: int, _frame: object) -> None:
        for other in ENDING_SIGNALS:
            signal.signal(other, signal.SIG_IGN)
        raise Terminated(number)

    for number in ENDING_SIGNALS:
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, end)
    run_command(main)
