"""The flags of `distil`: those of every run with defaults for small students, the task, what is learnt from, and the student's."""

from dataclasses import dataclass, field
from typing import ClassVar

from pretraining.args.budget import BudgetFlags, ValidationFlags
from pretraining.args.checkpoints import CheckpointFlags
from pretraining.args.data import LoadingFlags
from pretraining.args.engine import EngineFlags
from pretraining.args.flag_set import FlagSet
from pretraining.args.flags import flag, parse_int
from pretraining.args.optimization import OptimizationFlags
from pretraining.args.run import RunFlags
from pretraining.args.run_values import RunValues
from task_distillation.students.flags import StudentFlags


@dataclass
class TaskRunFlags(RunFlags):
    job_name: str = flag("task_distillation", "name of the experiment: a folder, and the group in W&B")
    print_steps: int = flag(20, "a train event in metrics.jsonl and a line or bar update every so many optimizer steps")


@dataclass
class TaskDataFlags(LoadingFlags):
    task_name: str = flag(None, "a task of GLUE, whose dev sets measure the student", str, metavar="NAME")
    task_file: str = flag(None, "a task of one's own in the place of --task_name: a YAML file", str, metavar="YAML")
    glue_dir: str = flag(None, "folder of GLUE's official files", str, metavar="DIR")
    transfer_set: str = flag(
        None, "the texts to learn from, as augment and generate write them; default: the task's training set, with its labels", str,
        metavar="FILE")
    logits: str = flag(
        None, "what label wrote of --transfer_set: Parquet or TSV; default: none, or the logits that the transfer set itself holds", str,
        metavar="FILE")


@dataclass
class TaskObjectiveFlags:
    method: str = flag(
        None, "objective, or a weighted sum such as logit_mse:1.0,hard_labels:1.0; default: logit_mse where there are logits, else labels",
        str)
    temperature: float = flag(3.0, "softmax temperature of kl")


@dataclass
class TaskOptimizationFlags(OptimizationFlags):
    train_batch_size: int = flag(64, "rows per optimizer step over all ranks")
    train_micro_batch_size_per_gpu: int = flag(64, "rows per forward pass and rank")
    lr: float = flag(0.001, "peak learning rate")


@dataclass
class TaskBudgetFlags(BudgetFlags):
    total_training_time: float = flag(1.0, "budget in hours; progress, markers and the time schedule are fractions of it")
    num_epochs: int = flag(1_000_000, "stop after so many passes over the transfer set")


@dataclass
class TaskValidationFlags(ValidationFlags):
    do_validation: bool = flag(True, "measure loss and scores on the dev sets, at markers and as often as the flags below say")
    validation_micro_batch: int = flag(64, "rows per forward pass and rank in validation")
    validation_epochs: int = flag(1, "validate every so many passes over the transfer set in the middle of the budget")
    validation_samples: int = flag(
        None, "size of the held-out set of pre-training", parse_int,
        no_effect="dev sets are scored whole, because scores of a part could be compared with no other")


FLAGS = FlagSet({
    "run": TaskRunFlags,
    "data": TaskDataFlags,
    "student": StudentFlags,
    "objective": TaskObjectiveFlags,
    "optimization": TaskOptimizationFlags,
    "budget": TaskBudgetFlags,
    "checkpoints": CheckpointFlags,
    "validation": TaskValidationFlags,
    "engine": EngineFlags,
}, "run_task_distillation.py distil", "Train a small student on the transfer set of a task, under a wall-clock budget.",
    "configs/task/distil_bilstm.yaml",
    free=frozenset({"task_name", "task_file", "glue_dir", "transfer_set", "logits", "word_vectors", "student_path"}))


@dataclass
class TaskArgs(RunValues):
    """Every flag of a distillation, by group."""

    flags: ClassVar[FlagSet] = FLAGS
    run: TaskRunFlags = field(default_factory=TaskRunFlags)
    data: TaskDataFlags = field(default_factory=TaskDataFlags)
    student: StudentFlags = field(default_factory=StudentFlags)
    objective: TaskObjectiveFlags = field(default_factory=TaskObjectiveFlags)
    optimization: TaskOptimizationFlags = field(default_factory=TaskOptimizationFlags)
    budget: TaskBudgetFlags = field(default_factory=TaskBudgetFlags)
    validation: TaskValidationFlags = field(default_factory=TaskValidationFlags)
