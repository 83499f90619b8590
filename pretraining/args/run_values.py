"""The flag groups that every run of the trainer has, whatever it trains."""

from dataclasses import dataclass, field

from pretraining.args.budget import BudgetFlags, ValidationFlags
from pretraining.args.checkpoints import CheckpointFlags
from pretraining.args.data import LoadingFlags
from pretraining.args.engine import EngineFlags
from pretraining.args.flag_set import FlagValues
from pretraining.args.optimization import OptimizationFlags
from pretraining.args.run import RunFlags


@dataclass
class RunValues(FlagValues):
    """What the trainer, the engine and the run's folder read."""

    run: RunFlags = field(default_factory=RunFlags)
    data: LoadingFlags = field(default_factory=LoadingFlags)
    optimization: OptimizationFlags = field(default_factory=OptimizationFlags)
    budget: BudgetFlags = field(default_factory=BudgetFlags)
    checkpoints: CheckpointFlags = field(default_factory=CheckpointFlags)
    validation: ValidationFlags = field(default_factory=ValidationFlags)
    engine: EngineFlags = field(default_factory=EngineFlags)
