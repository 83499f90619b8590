"""Flags that the dataset scripts share, and their checks."""

import argparse
from collections.abc import Mapping
from pathlib import Path

from dataset.errors import OneLineParser, UserError
from dataset.jobs import core_count

SEED = 555


def script_parser(description: str) -> OneLineParser:
    """A parser that takes no abbreviated flags and reports a mistake in one line."""
    return OneLineParser(description=description, allow_abbrev=False)


def add_seed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=int, default=SEED, help=f"0 or more; default: {SEED}")


def add_workers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--n_processes", type=int, default=core_count(), help="processes of this machine; default: one per core")
    parser.add_argument("--dask_address", help="run on this Dask scheduler's workers instead, such as tcp://host:8786")


def parse(parser: OneLineParser, arguments: list[str] | None, ranges: Mapping[str, tuple[float, float | None]]) -> argparse.Namespace:
    """Parsed flags, "~" expanded in paths; UserError for a number outside its (least, most or None) in `ranges`."""
    flags = parser.parse_args(arguments)
    for name, value in vars(flags).items():
        if isinstance(value, Path):
            setattr(flags, name, value.expanduser())
    for name, (least, most) in {"seed": (0, None), "n_processes": (1, None), **ranges}.items():
        value = getattr(flags, name, None)
        if value is not None and not (least <= value and (most is None or value <= most)):
            raise UserError(f"--{name} {value}; {f'{least} to {most}' if most is not None else f'{least} or more'} would work")
    return flags
