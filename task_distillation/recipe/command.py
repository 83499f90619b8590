"""`recipe`: every step of one YAML file, from a task's TSV to students that are ready to serve; going on where it stopped."""

import argparse
import shlex
from pathlib import Path

from dataset.errors import OneLineParser, UserError
from evaluation.tasks.task import Task
from task_distillation.recipe.check import check_inputs, check_steps
from task_distillation.recipe.outside import Outside
from task_distillation.recipe.read import Recipe, read_recipe
from task_distillation.recipe.run import Runner, shown
from task_distillation.recipe.steps import SERVING, TEACHER, Step, export_line, export_step, plan_steps, student_run
from task_distillation.task_flags import read_task, select_task
from task_distillation.teaching.label import label_settings
from task_distillation.teaching.label import make_parser as label_parser

PATHS = ("recipe", "output_dir", "model", "teacher_path", "glue_dir")


def make_parser() -> OneLineParser:
    """The parser of `recipe`."""
    parser = OneLineParser(prog="run_task_distillation.py recipe", description=__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("recipe", type=Path, help="a YAML file such as configs/task/sst2.yaml")
    add("--output_dir", type=Path, required=True, metavar="DIR", help="gets the teacher, the transfer set, its logits and the students")
    add("--model", type=Path, metavar="FOLDER", help="an encoder, which is fine-tuned as the teacher")
    add("--teacher_path", type=Path, metavar="FOLDER", help="or a teacher that is fine-tuned on the task already")
    add("--glue_dir", type=Path, metavar="DIR", help="folder of GLUE's official files")
    add("--seeds", metavar="1,2,3", help="a student for each (default: the recipe's)")
    add("--set", action="append", default=[], metavar="STEP.FLAG=VALUE", help="change a flag of a step, such as distil.hidden_size=300")
    add("--launcher", default="", metavar="WORDS", help='before the script for distil, such as "torchrun --nproc_per_node 2"')
    add("--devices", default="auto", metavar="LIST", help="where the teacher is scored: auto, cpu, cuda:0")
    add("--print_commands", action="store_true", help="print the steps' command lines, which run alone as well, and exit")
    return parser


def main(arguments: list[str]) -> None:
    """Run the recipe; UserError for anything that flags and the recipe show to be wrong, before the first step."""
    flags = make_parser().parse_args(arguments)
    for name in PATHS:  # the same place under another spelling is the same
        if (path := getattr(flags, name)) is not None:
            setattr(flags, name, path.expanduser().resolve())
    if (flags.model is None) == (flags.teacher_path is None):
        found = "no teacher" if flags.model is None else "--model and --teacher_path: two teachers"
        raise UserError(f"{found}; --model FOLDER fine-tunes an encoder, --teacher_path FOLDER takes one that is fine-tuned")
    recipe = read_recipe(flags.recipe, flags.set, flags.seeds)
    named = argparse.Namespace(task_name=recipe.task_name, task_file=recipe.task_file, glue_dir=flags.glue_dir)
    task = select_task(named)
    output_dir = flags.output_dir
    try:
        launcher = shlex.split(flags.launcher)
    except ValueError as error:
        raise UserError(f"--launcher {flags.launcher}: {error}; words as a shell reads them would work") from None
    steps = plan_steps(recipe, output_dir, flags.model, flags.teacher_path, flags.glue_dir)
    check_steps(recipe, task, [*steps, export_step(recipe, output_dir, recipe.seeds[0], student_run(output_dir, recipe.seeds[0]))])
    if flags.print_commands:
        for step in steps:
            print(shown(step.command, shlex.join(step.line(stale=False)), launcher))
        for seed in recipe.seeds:
            print(shown("export", export_line(recipe, output_dir, seed), launcher))
        return
    data = read_task(named)
    runner = Runner(output_dir, launcher, Outside(data))
    runner.check(steps)
    check_inputs(recipe, data, [step for step in steps if not runner.has_done(step)], flags)
    for step in steps:
        runner.run(step)
    _finish(flags, recipe, task, steps, runner)


def _finish(flags: argparse.Namespace, recipe: Recipe, task: Task, steps: list[Step], runner: Runner) -> None:
    """Exports, the teacher's score, the table, and the commands that show more."""
    from task_distillation.recipe.summary import last_marker, score_teacher, summarise

    output_dir = flags.output_dir
    runs = [student_run(output_dir, seed) for seed in recipe.seeds]
    for seed, run in zip(recipe.seeds, runs, strict=True):
        runner.run(export_step(recipe, output_dir, seed, last_marker(run)))
    words = next(step.words for step in steps if step.command == "label")
    folder, settings = flags.teacher_path or output_dir / TEACHER, label_settings(label_parser().parse_args(words))
    teacher = score_teacher(output_dir, runs, folder, task, settings, flags.glue_dir, flags.devices)
    text = summarise(output_dir, recipe.seeds, task, teacher)
    serving = output_dir / SERVING / f"seed_{recipe.seeds[0]}"
    print(f"\n{text}\n"
          f"python -m evaluation.report {shlex.quote(str(output_dir))}\n"
          f"python -m benchmarks.task_students {shlex.join(map(str, (folder, serving)))}")
