"""Distil or pre-train a BERT-family encoder under a wall-clock budget: parse, check, build, run."""

import sys
from typing import TYPE_CHECKING

from dataset.errors import run_command
from pretraining.args.parser import parse
from pretraining.args.resolve import resolve
from pretraining.args.resolve_run import Resolved
from pretraining.command import train
from pretraining.stopping import StopSignal

if TYPE_CHECKING:
    from pretraining.preflight import Plan


def _make_plan(resolved: Resolved) -> "Plan":
    from pretraining.preflight import make_plan

    return make_plan(resolved)


def _run(plan: "Plan", signal: StopSignal) -> str:
    from pretraining.assemble import run

    return run(plan, signal)


def main() -> int:
    return train(parse(sys.argv[1:]), resolve, _make_plan, _run)


if __name__ == "__main__":
    run_command(main)
