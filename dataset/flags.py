"""Flags that the dataset scripts share, and their checks."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from dataset.errors import OneLineParser, UserError
from dataset.jobs import core_count

SEED = 555
LARGEST_SEED = 2**64 - 1  # what an HDF5 attribute holds


def script_parser(description: str) -> OneLineParser:
    """A parser that takes no abbreviated flags and reports a mistake in one line."""
    return OneLineParser(description=description, allow_abbrev=False)


def add_seed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=int, default=SEED, help=f"0 to 2**64 - 1; default: {SEED}")


def add_workers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--n_processes", type=int, help="processes of this machine; default: one per core")
    parser.add_argument("--dask_address", help="run on this Dask scheduler's workers instead, such as tcp://host:8786")


def parse(parser: OneLineParser, arguments: list[str] | None, ranges: Mapping[str, tuple[float, float | None]]) -> argparse.Namespace:
    """Parsed flags, "~" expanded in paths; UserError for a number outside its (least, most or None) in `ranges`."""
    flags = parser.parse_args(arguments)
    for name, value in vars(flags).items():
        if isinstance(value, Path):
            setattr(flags, name, value.expanduser())
    for name, (least, most) in {"seed": (0, LARGEST_SEED), "n_processes": (1, None), **ranges}.items():
        value = getattr(flags, name, None)
        if value is not None and not (least <= value and (most is None or value <= most)):
            raise UserError(f"--{name} {value}; {f'{least} to {most}' if most is not None else f'{least} or more'} would work")
    if "dask_address" in flags:  # see add_workers
        if flags.dask_address and flags.n_processes is not None:
            print(f"no effect: --n_processes {flags.n_processes}: the workers of --dask_address do the work", file=sys.stderr)
        flags.n_processes = flags.n_processes or core_count()
    return flags


def cap_predictions(flags: argparse.Namespace, special: int) -> None:
    """Bring --max_predictions_per_seq down to the tokens of a full sample that are text, and say so: the file would hold zeros beyond.

    `special`: tokens of a full sample that are none.
    """
    room = flags.max_seq_length - special
    if flags.max_predictions_per_seq > room:
        print(f"--max_predictions_per_seq {flags.max_predictions_per_seq}: a sample has {room} tokens of text, so {room}", file=sys.stderr)
        flags.max_predictions_per_seq = room
