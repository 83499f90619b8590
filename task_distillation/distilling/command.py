"""`distil`: train a small student on a transfer set under a wall-clock budget, with the trainer of run_pretraining.py."""

from typing import TYPE_CHECKING

from pretraining.args.flag_set import parse_flags
from pretraining.args.resolve_run import Resolved
from pretraining.command import train
from pretraining.stopping import StopSignal
from task_distillation.distilling.flags import TaskArgs
from task_distillation.distilling.resolve import resolve

if TYPE_CHECKING:
    from task_distillation.distilling.plan import TaskPlan


def _make_plan(resolved: Resolved) -> "TaskPlan":
    from task_distillation.distilling.plan import make_plan

    return make_plan(resolved)


def _run(plan: "TaskPlan", signal: StopSignal) -> str:
    from task_distillation.distilling.assemble import run

    return run(plan, signal)


def main(arguments: list[str]) -> int:
    return train(parse_flags(TaskArgs, arguments), resolve, _make_plan, _run)
