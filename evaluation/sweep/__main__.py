"""A grid of flags times seeds, trained one after another under a total budget, and one table of what came of it.

    python -m evaluation.sweep configs/sweep_objectives.yaml                    what would be done, and how far it is
    python -m evaluation.sweep configs/sweep_objectives.yaml --print_commands   the commands, to be run elsewhere
    python -m evaluation.sweep configs/sweep_objectives.yaml --run              train, score (where the recipe says how), make the table
    python -m evaluation.sweep configs/sweep_objectives.yaml --score --table    the same for what is trained by now
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from dataset.errors import OneLineParser, UserError, run_command
from evaluation.scoring.panels import counted
from evaluation.sweep.child import StopWish
from evaluation.sweep.recipe import Recipe, read_recipe
from evaluation.sweep.record import Lock, Record
from evaluation.sweep.render import as_text, plan_text, write_table
from evaluation.sweep.runs import Run, check_files, make_runs
from evaluation.sweep.scoring import Scoring, check_scoring, read_scoring, score_all, scoring_command
from evaluation.sweep.table import make_table
from evaluation.sweep.training import fits, needed, shown, train_all, training_command

EXIT_FAILED, EXIT_STOPPED = 1, 75

_STATUSES = """exit status:
  0   done, or the budget is used up
  1   a run, or its scoring, failed; the others were done
  75  it was asked to stop: the same call goes on
  2   a mistake in the recipe, before anything ran"""


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(prog="python -m evaluation.sweep", description=__doc__, allow_abbrev=False, epilog=_STATUSES,
                           formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path, help="YAML: name, output_dir, flags, grid, exclude, seeds, budget_hours, score, baselines")
    parser.add_argument("--print_commands", action="store_true", help="print the shell commands of runs and scoring, run nothing")
    parser.add_argument("--run", action="store_true", help="train what is not finished; then --score and --table if the recipe has `score`")
    parser.add_argument("--score", action="store_true", help="score what is trained")
    parser.add_argument("--table", action="store_true", help="make the table of what is scored: text, Markdown, CSV and JSON")
    parser.add_argument("--stop_at_failure", action="store_true", help="do not go on with the other runs when one fails")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    flags = _parser().parse_args(argv)
    if flags.print_commands and (flags.run or flags.score or flags.table):
        raise UserError("--print_commands runs nothing; give it alone")
    recipe = read_recipe(flags.recipe.expanduser())
    runs = make_runs(recipe)
    scoring = read_scoring(recipe)
    if scoring is None and (flags.score or flags.table):
        raise UserError(f"{recipe.path}: no score; score: {{protocol: quick, task_name: [sst2, rte], glue_dir: glue}} would say how")
    record = Record(recipe)
    record.check(runs)
    notes = [*recipe.notes]
    if not (flags.score or flags.table) or flags.run:
        longest = scoring.longest if scoring is not None else 0
        notes += check_files(recipe, [run for run in runs if not record.state(run).is_finished], longest)
    if scoring is not None and (flags.run or flags.score or not flags.table):  # a table alone needs neither data nor models
        check_scoring(recipe, scoring, runs, here=flags.run or flags.score)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    if flags.print_commands:
        _print_commands(recipe, runs, scoring)
        return 0
    if not (flags.run or flags.score or flags.table):
        _print_plan(recipe, runs, record, scoring)
        return 0
    status = _work(flags, recipe, runs, scoring) if flags.run or flags.score else 0
    if flags.table or (flags.run and scoring is not None and status != EXIT_STOPPED):
        _make_table(recipe, scoring, runs)
    return status


def _say(text: str) -> None:
    print(text, flush=True)


def _print_commands(recipe: Recipe, runs: Sequence[Run], scoring: Scoring | None) -> None:
    print(f"# training: {len(runs)} runs, in this order")
    for run in runs:
        print(shlex.join(training_command(recipe, run)))
    if scoring is not None:
        print("# scoring, when they are trained")
        for run in runs:
            print(shlex.join(scoring_command(scoring, run)))
        print(f"# {_call(recipe, '--table')}")


def _print_plan(recipe: Recipe, runs: Sequence[Run], record: Record, scoring: Scoring | None) -> None:
    points = list(dict.fromkeys(run.point.id for run in runs))
    total = sum(run.hours for run in runs)
    size = f"{counted(len(points), 'point')} x {counted(len(runs) // len(points), 'seed')} = {counted(len(runs), 'run')}"
    print(f"sweep {recipe.name}: {size} of up to {total:.4g} h in all, in {shown(recipe.folder)}\n")
    states = {run.id: record.state(run) for run in runs}
    rows = [["point", "seed", "hours", "done", "state"]]
    rows += [[run.point.id, str(run.seed), f"{run.hours:.4g}", f"{states[run.id].hours:.4g}", str(states[run.id])] for run in runs]
    print(plan_text(rows))
    print(f"\n{_left(recipe, runs, record)}")
    print(f"\n{_call(recipe, '--run')}\n  trains one after another{', then scores' if scoring else ''}; after a stop the same call goes on")
    print(f"{_call(recipe, '--print_commands')}\n  prints the commands instead")
    if scoring is not None:
        print(f"{_call(recipe, '--score --table')}\n  scores what is trained by now and makes the table")


def _left(recipe: Recipe, runs: Sequence[Run], record: Record) -> str:
    """What is left to train, and how much of it the budget allows."""
    left = [(run, needed(run, record.state(run))) for run in runs if not record.state(run).is_finished]
    spent = record.spent(runs)
    if not left:
        return f"all {len(runs)} runs are finished, {spent:.4g} h"
    text = f"left: {len(left)} of {len(runs)} runs, up to {sum(hours for _, hours in left):.4g} h"
    if recipe.budget_hours is None:
        return text
    going, used = 0, spent
    for _, hours in left:
        if not fits(recipe, used, hours):
            break
        going, used = going + 1, used + hours
    rest = "all of them fit" if going == len(left) else f"{going} of them fit, it stops before {left[going][0].id}"
    return f"{text}; budget_hours {recipe.budget_hours:g}, {spent:.4g} h spent: {rest}"


def _call(recipe: Recipe, flags: str) -> str:
    return f"python -m evaluation.sweep {shlex.quote(str(recipe.path))} {flags}"


def _work(flags: argparse.Namespace, recipe: Recipe, runs: Sequence[Run], scoring: Scoring | None) -> int:
    """Train, score, or both, alone in the folder."""
    lock = Lock(recipe.folder)
    try:
        record = Record(recipe)  # what another call may have written before the lock was ours
        with StopWish() as wish:
            asked = flags.run and not train_all(recipe, runs, record, lock, wish, _say, stop_at_failure=flags.stop_at_failure)
            failed = [run.id for run in runs if flags.run and record.state(run).kind == "failed"]
            if scoring is not None and not asked and not (failed and flags.stop_at_failure):
                failed += [run.id for run in score_all(scoring, runs, record, lock, wish, _say, stop_at_failure=flags.stop_at_failure)]
            asked = asked or wish.name is not None
    finally:
        lock.close()
    if flags.run:
        _say(_left(recipe, runs, record))
    if failed:
        _say(f"failed: {', '.join(dict.fromkeys(failed))}")
    if asked:
        _say(f"stopped ({wish.name or 'a run was asked to stop'}); {_call(recipe, '--run' if flags.run else '--score')} goes on")
    return EXIT_STOPPED if asked else EXIT_FAILED if failed else 0


def _make_table(recipe: Recipe, scoring: Scoring, runs: Sequence[Run]) -> None:
    table = make_table(recipe, scoring, runs, Record(recipe))
    paths = write_table(table, recipe.folder)
    _say(f"\n{as_text(table)}\n\n" + "\n".join(shown(path) for path in paths))


if __name__ == "__main__":
    run_command(main)
