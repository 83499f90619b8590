"""What the flags of `distil` alone decide."""

from argparse import Namespace
from pathlib import Path

from dataset.errors import UserError
from evaluation.tasks.task import Task
from pretraining.args.deepspeed_file import read_deepspeed_file
from pretraining.args.ranges import check_not_empty, check_run_ranges
from pretraining.args.resolve_run import Resolved, flags_without_effect, idle_flags, resolve_run
from pretraining.launch import Launch
from task_distillation.distilling.catalog import OBJECTIVES, parse_methods
from task_distillation.distilling.flags import TaskArgs, TaskDataFlags
from task_distillation.task_flags import select_task
from task_distillation.transfer_set import holds_logits

LEAST_TEMPERATURE = 1e-3
"""Of kl: nearer to 0 a softmax of fp32 is a choice, and as far above 1 its T² drowns the rest."""
_PATHS = ("task_name", "task_file", "glue_dir", "transfer_set", "logits", "word_vectors", "student_path")


def resolve(args: TaskArgs, launch: Launch) -> Resolved:
    """Check the flags against one another and derive what follows from them; fills in contextual defaults in `args`."""
    notes = flags_without_effect(args)
    file = read_deepspeed_file(args, notes)
    check_run_ranges(args)
    if not LEAST_TEMPERATURE <= args.objective.temperature <= 1 / LEAST_TEMPERATURE:
        raise UserError(f"--temperature {args.objective.temperature:g}: {LEAST_TEMPERATURE:g} to {1 / LEAST_TEMPERATURE:g} would work")
    check_not_empty(args, _PATHS)
    task = select_task(task_words(args.data))
    if args.objective.method is None:
        args.objective.method = "logit_mse" if has_logits(args.data, task) else "labels"
    methods = parse_methods(args.objective.method)
    is_softened = any(part.name == "kl" for part in methods)
    is_taught = any(OBJECTIVES[part.name].logits for part in methods)
    notes.extend(idle_flags(args, [(("temperature",), is_softened, "no objective of --method has one"),
                                   (("logits",), is_taught, "no objective of --method reads the teacher's logits")]))
    return resolve_run(args, launch, methods, file, notes)


def task_words(flags: TaskDataFlags) -> Namespace:
    """The flags that name the task, as every command has them."""
    return Namespace(task_name=flags.task_name, task_file=None if flags.task_file is None else Path(flags.task_file).expanduser(),
                     glue_dir=None if flags.glue_dir is None else Path(flags.glue_dir).expanduser())


def has_logits(flags: TaskDataFlags, task: Task) -> bool:
    """Whether there is a teacher's word for the texts, in a file of its own or beside them."""
    return flags.logits is not None or (flags.transfer_set is not None and holds_logits(Path(flags.transfer_set).expanduser(), task))
