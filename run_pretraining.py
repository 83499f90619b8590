"""Distil or pre-train a BERT-family encoder under a wall-clock budget: parse, check, build, run."""

import os
import shutil
import sys

import yaml

from dataset.errors import UserError, run_command
from pretraining.args.parser import Args, parse
from pretraining.args.resolve import resolve
from pretraining.launch import Launch, read_launch
from pretraining.run_folder import UNFINISHED_REASONS, RunFolder, check_limits, finished_reason, run_path
from pretraining.stopping import StopSignal

# The exit status of a run that was asked to stop and saved itself; a scheduler can queue it again (EX_TEMPFAIL of sysexits.h).
EXIT_REQUEUE = 75


def _has_ended(args: Args, launch: Launch) -> bool:
    """Whether --resume has nothing to go on with, which is said; UserError where the flags ask for more."""
    folder = RunFolder(run_path(args))
    finished = finished_reason(folder)
    if finished is None:
        return False
    check_limits(folder, args, finished)
    if launch.rank == 0:
        print(f"note: --resume: {folder.path} holds a finished run ({finished}); nothing to do", file=sys.stderr)
    return True


def main() -> int:
    args = parse(sys.argv[1:])
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
    from pretraining.preflight import make_plan

    # From here on a signal is remembered: the imports below take seconds, in which it would end the process with another status.
    signal = StopSignal(speaks=launch.rank == 0)
    plan = make_plan(resolved)
    from pretraining import assemble

    if not args.run.dry_run:
        # torchrun would take any status but 0 for a failure, and with --max_restarts start again what was asked to stop.
        requeue = assemble.run(plan, signal) in UNFINISHED_REASONS and "TORCHELASTIC_RUN_ID" not in os.environ
        return EXIT_REQUEUE if requeue else 0
    # All ranks must agree on the folder before they can talk; they share the launch's port.
    folder = plan.folder.existing_ancestor / f".dry_run_{os.environ['MASTER_PORT']}"
    try:
        assemble.dry_run_flags(plan, folder)
        reason = assemble.run(plan, signal)
        if reason in UNFINISHED_REASONS:
            raise UserError(f"--dry_run: a {reason} came before its step; give it more time")
        if launch.rank == 0:
            print(assemble.describe_dry_run(folder))
    finally:
        if launch.rank == 0:
            shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    run_command(main)
