"""How every command of this project reports a mistake: one line, what was found and what would work, exit status 2.

Lives in the first room of the house so that every other room can use it.
"""

import argparse
import os
import sys
from collections.abc import Callable
from typing import NoReturn

EXIT_USAGE = 2


class UserError(Exception):
    """A mistake in flags, files or hardware that the user can mend; its text is the one line they will read."""


class OneLineParser(argparse.ArgumentParser):
    """argparse, but a wrong flag is one line like every other mistake."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (--help lists every flag)")


def is_printing_rank() -> bool:
    """True on the one process of a launch that may print (rank 0, or no launcher at all)."""
    return os.environ.get("RANK", os.environ.get("OMPI_COMM_WORLD_RANK", "0")) == "0"


def run_command(main: Callable[[], int | None]) -> None:
    """Run a script's `main` and exit with its status; a `UserError` becomes one line on stderr and status 2.

    Under a launcher every rank finds the same mistake, so only rank 0 prints it.
    """
    try:
        status = main()
    except UserError as error:
        if is_printing_rank():
            print(f"error: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
        sys.exit(EXIT_USAGE)
    except BrokenPipeError:
        # The reader of our output (`| head`) went away: nothing is wrong, but Python would print a traceback at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    sys.exit(status or 0)
