"""What every script that trains does with its flags: show them, see whether the run has ended, plan, try or train, and say how it went."""

import os
import shutil
import sys
from collections.abc import Callable
from typing import TypeVar

import yaml

from dataset.errors import UserError
from pretraining.args.resolve_run import Resolved
from pretraining.args.run_values import RunValues
from pretraining.launch import Launch, read_launch
from pretraining.run_folder import UNFINISHED_REASONS, RunFolder, RunPlan, check_limits, finished_reason, run_path
from pretraining.stopping import StopSignal

# The exit status of a run that was asked to stop and saved itself; a scheduler can queue it again (EX_TEMPFAIL of sysexits.h).
EXIT_REQUEUE = 75
Values = TypeVar("Values", bound=RunValues)
Plan = TypeVar("Plan", bound=RunPlan)


def train(
    args: Values, resolve: Callable[[Values, Launch], Resolved], make_plan: Callable[[Resolved], Plan],
    run: Callable[[Plan, StopSignal], str],
) -> int:
    """Do what `args` ask for; returns the exit status. UserError for what cannot be.

    `resolve` looks at flags, `make_plan` at files, `run` trains and returns the exit reason. What is slow to import belongs inside them.
    """
    launch = read_launch(args.run.local_rank)
    resolved = resolve(args, launch)
    if args.run.print_config:
        if launch.rank == 0:
            print(yaml.safe_dump(args.as_dict(), sort_keys=False), end="")
            for note in resolved.notes:
                print(f"note: {note}", file=sys.stderr)
        return 0
    if args.run.resume and not args.checkpoints.allow_changes and _has_ended(args, launch):
        return 0
    # From here on a signal is remembered: imports and checks take seconds, in which it would end the process with another status.
    signal = StopSignal(speaks=launch.rank == 0)
    plan = make_plan(resolved)
    if not args.run.dry_run:
        # torchrun would take any status but 0 for a failure, and with --max_restarts start again what was asked to stop.
        requeue = run(plan, signal) in UNFINISHED_REASONS and "TORCHELASTIC_RUN_ID" not in os.environ
        return EXIT_REQUEUE if requeue else 0
    return _dry_run(plan, lambda: run(plan, signal))


def _has_ended(args: RunValues, launch: Launch) -> bool:
    """Whether --resume has nothing to go on with, which is said; UserError where the flags ask for more."""
    folder = RunFolder(run_path(args))
    finished = finished_reason(folder)
    if finished is None:
        return False
    check_limits(folder, args, finished)
    if launch.rank == 0:
        print(f"note: --resume: {folder.path} holds a finished run ({finished}); nothing to do", file=sys.stderr)
    return True


def _dry_run(plan: RunPlan, run: Callable[[], str]) -> int:
    """One step of everything in a temporary folder."""
    from pretraining.assemble_run import describe_dry_run, dry_run_flags

    # All ranks must agree on the folder before they can talk; they share the launch's port.
    folder = plan.folder.existing_ancestor / f".dry_run_{os.environ['MASTER_PORT']}"
    try:
        dry_run_flags(plan, folder)
        reason = run()
        if reason in UNFINISHED_REASONS:
            raise UserError(f"--dry_run: a {reason} came before its step; give it more time")
        if plan.resolved.launch.rank == 0:
            print(describe_dry_run(folder))
    finally:
        if plan.resolved.launch.rank == 0:
            shutil.rmtree(folder, ignore_errors=True)
    return 0
