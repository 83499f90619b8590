"""The flags of run_pretraining.py: its groups, and a command line and recipe as their values, with what was said explicitly remembered.

Nothing heavy is imported here: a wrong flag is answered in a few hundredths of a second.
"""

from dataclasses import dataclass, field
from typing import ClassVar

from pretraining.args.budget import BudgetFlags, ValidationFlags
from pretraining.args.checkpoints import CheckpointFlags
from pretraining.args.data import DataFlags
from pretraining.args.distillation import DistillationFlags
from pretraining.args.engine import EngineFlags
from pretraining.args.flag_set import FlagSet, parse_flags
from pretraining.args.flags import FlagInfo
from pretraining.args.model import ModelFlags
from pretraining.args.optimization import OptimizationFlags
from pretraining.args.run import RunFlags
from pretraining.args.run_values import RunValues

GROUPS: dict[str, type] = {
    "run": RunFlags,
    "data": DataFlags,
    "model": ModelFlags,
    "distillation": DistillationFlags,
    "optimization": OptimizationFlags,
    "budget": BudgetFlags,
    "checkpoints": CheckpointFlags,
    "validation": ValidationFlags,
    "engine": EngineFlags,
}
FLAGS = FlagSet(GROUPS, "run_pretraining.py", "Distil or pre-train a BERT-family encoder under a wall-clock budget.",
                "configs/hidden_mse_6layer.yaml")
INFO: dict[str, FlagInfo] = FLAGS.info


@dataclass
class Args(RunValues):
    """Every flag of a run, by group."""

    flags: ClassVar[FlagSet] = FLAGS
    data: DataFlags = field(default_factory=DataFlags)
    model: ModelFlags = field(default_factory=ModelFlags)
    distillation: DistillationFlags = field(default_factory=DistillationFlags)


def parse(argv: list[str], prog: str | None = None) -> Args:
    """Args from a command line (without the program's name) and its --config. UserError for anything not understood."""
    return parse_flags(Args, argv, prog)
