"""The steps of a recipe as command lines that could be pasted one by one, and where each leaves what the next one needs."""

from dataclasses import dataclass
from pathlib import Path

from task_distillation.recipe.read import Recipe

TEACHER, TEXTS, LOGITS, STUDENTS, SERVING = "teacher", "transfer_set.tsv", "logits.parquet", "students", "serving"


@dataclass(frozen=True)
class Step:
    """`command`: the subcommand; `words`: its flags; `again`: flags in the place of `once` where something before it was made anew.

    `output`: what is there when it is done. `inputs`: names of the steps whose work it reads.
    """

    name: str
    command: str
    words: list[str]
    output: Path
    inputs: tuple[str, ...] = ()
    once: tuple[str, ...] = ()
    again: tuple[str, ...] = ()

    def line(self, stale: bool) -> list[str]:
        """The subcommand and all of its flags."""
        return [self.command, *self.words, *(self.again if stale else self.once)]


def student_run(output_dir: Path, seed: int) -> Path:
    """The run folder of the student with `seed`."""
    return output_dir / STUDENTS / f"seed_{seed}"


def plan_steps(recipe: Recipe, output_dir: Path, model: Path | None, teacher: Path | None, glue_dir: Path | None) -> list[Step]:
    """Every step but the export, whose student's folder is known after its training; `model` is fine-tuned, or `teacher` was before."""
    task = ["--task_name", recipe.task_name] if recipe.task_file is None else ["--task_file", str(recipe.task_file)]
    task += [] if glue_dir is None else ["--glue_dir", str(glue_dir)]
    steps = []
    if teacher is None:
        teacher = output_dir / TEACHER
        steps.append(Step("teach", "teach", [*task, "--model", str(model), "--output_dir", str(teacher), *recipe.words("teach")],
                          teacher / "config.json"))
    if recipe.texts == "generate":
        folder = output_dir / "generated"
        texts, place = folder / TEXTS, ["--output_dir", str(folder)]
    else:
        texts = output_dir / TEXTS
        place = ["--output", str(texts)]
    steps.append(Step(recipe.texts, recipe.texts, [*task, *place, *recipe.words(recipe.texts)], texts))
    logits = output_dir / LOGITS
    steps.append(Step(
        "label", "label",
        [*task, "--teacher_path", str(teacher), "--transfer_set", str(texts), "--output", str(logits), *recipe.words("label")],
        logits, tuple(step.name for step in steps), again=("--overwrite",)))
    for seed in recipe.seeds:
        run = student_run(output_dir, seed)
        steps.append(Step(
            f"distil seed {seed}", "distil",
            [*task, "--transfer_set", str(texts), "--logits", str(logits), "--output_dir", str(output_dir), "--job_name", STUDENTS,
             "--current_run_id", run.name, "--seed", str(seed), *recipe.words("distil")],
            run / "summary.json", ("label",), once=("--resume",), again=("--overwrite",)))
    return steps


def export_step(recipe: Recipe, output_dir: Path, seed: int, student: Path) -> Step:
    """`student`: the last export of the run with `seed`."""
    folder = output_dir / SERVING / f"seed_{seed}"
    return Step(f"export seed {seed}", "export", [str(student), "--output_dir", str(folder), *recipe.words("export")],
                folder / "serving.json", (f"distil seed {seed}",), again=("--overwrite",))
