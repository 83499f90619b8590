"""The steps of a recipe as command lines that could be pasted one by one, and where each leaves what the next one needs."""

import shlex
from dataclasses import dataclass, field
from pathlib import Path

from dataset.files import file_hash
from evaluation.fine_tuning.model_folder import fingerprint
from pretraining.run_folder import RunFolder, finished_reason
from task_distillation.recipe.read import Recipe

TEACHER, TEXTS, LOGITS, STUDENTS, SERVING = "teacher", "transfer_set.tsv", "logits.parquet", "students", "serving"
FILE_FLAGS = {"teach": ("protocol",), "augment": ("spacy_model",), "generate": ("lm_path", "lm_config", "lm_tokenizer"),
              "distil": ("word_vectors", "student_path", "deepspeed_config")}
"""Flags of a recipe's sections that name what no step has made, or by another word something that is no file."""
DIVERGED = "diverged"


@dataclass(frozen=True)
class Step:
    """`command`: the subcommand; `words`: its flags; `again`: flags in the place of `once` where something before it was made anew.

    `output`: what is there when it is done. `inputs`: names of the steps whose work it reads, `reads`: flag -> what it reads beside the
    task and that work. `life`: a file that is written anew when the step has taken over what was there (default: `output`).
    """

    name: str
    command: str
    words: list[str]
    output: Path
    inputs: tuple[str, ...] = ()
    once: tuple[str, ...] = ()
    again: tuple[str, ...] = ()
    reads: dict[str, Path] = field(default_factory=dict)
    life: Path | None = None

    def line(self, stale: bool) -> list[str]:
        """The subcommand and all of its flags."""
        return [self.command, *self.words, *(self.again if stale else self.once)]

    def is_done(self) -> bool:
        """Whether its work is there. A run that was stopped has a summary too, and under torchrun its status is 0."""
        if self.command == "distil":
            return self._ended() not in (None, DIVERGED)
        return self.output.exists()

    def has_diverged(self) -> bool:
        """Whether it is a training that ended because its loss was no number; its status is 0."""
        return self.command == "distil" and self._ended() == DIVERGED

    def _ended(self) -> str | None:
        return finished_reason(RunFolder(self.output.parent))

    def content(self) -> str:
        """A hash of what it made, the same for the same bytes made again; of a training its summary's, which no other training has."""
        return fingerprint(self.output.parent) if self.command == "teach" else file_hash(self.output)

    def mark(self) -> int:
        """Changes when the step takes over what was there; 0 where nothing is."""
        path = self.life or self.output
        return path.stat().st_mtime_ns if path.exists() else 0


def student_run(output_dir: Path, seed: int) -> Path:
    """The run folder of the student with `seed`."""
    return output_dir / STUDENTS / f"seed_{seed}"


def plan_steps(recipe: Recipe, output_dir: Path, model: Path | None, teacher: Path | None, glue_dir: Path | None) -> list[Step]:
    """Every step but the export, whose student's folder is known after its training; `model` is fine-tuned, or `teacher` was before."""
    task = ["--task_name", recipe.task_name] if recipe.task_file is None else ["--task_file", str(recipe.task_file)]
    task += [] if glue_dir is None else ["--glue_dir", str(glue_dir)]
    steps = []
    taught = {} if teacher is None else {"--teacher_path": teacher}
    if teacher is None:
        teacher = output_dir / TEACHER
        steps.append(Step("teach", "teach", [*task, "--model", str(model), "--output_dir", str(teacher), *recipe.words("teach")],
                          teacher / "config.json", reads={"--model": model, **_files(recipe, "teach")}))
    if recipe.texts == "generate":
        folder = output_dir / "generated"
        texts, place = folder / TEXTS, ["--output_dir", str(folder)]
    else:
        texts = output_dir / TEXTS
        place = ["--output", str(texts)]
    steps.append(Step(recipe.texts, recipe.texts, [*task, *place, *recipe.words(recipe.texts)], texts, reads=_files(recipe, recipe.texts),
                      again=("--overwrite",) if recipe.texts == "augment" else ()))
    logits = output_dir / LOGITS
    steps.append(Step(
        "label", "label",
        [*task, "--teacher_path", str(teacher), "--transfer_set", str(texts), "--output", str(logits), *recipe.words("label")],
        logits, tuple(step.name for step in steps), again=("--overwrite",), reads=taught))
    for seed in recipe.seeds:
        run = student_run(output_dir, seed)
        steps.append(Step(
            f"distil seed {seed}", "distil",
            [*task, "--transfer_set", str(texts), "--logits", str(logits), "--output_dir", str(output_dir), "--job_name", STUDENTS,
             "--current_run_id", run.name, "--seed", str(seed), *recipe.words("distil")],
            run / "summary.json", ("label",), once=("--resume",), again=("--overwrite",), reads=_files(recipe, "distil"),
            life=run / "args.yaml"))
    return steps


def export_step(recipe: Recipe, output_dir: Path, seed: int, student: Path) -> Step:
    """`student`: the last export of the run with `seed`."""
    folder = output_dir / SERVING / f"seed_{seed}"
    return Step(f"export seed {seed}", "export", [str(student), "--output_dir", str(folder), *recipe.words("export")],
                folder / "serving.json", (f"distil seed {seed}",), again=("--overwrite",))


def export_line(recipe: Recipe, output_dir: Path, seed: int) -> str:
    """`export` for a shell that finds the last export of the run with `seed` itself, as nobody knows its name before the training."""
    run = student_run(output_dir, seed)
    newest = f'"$(ls -dt {shlex.quote(str(run / "finetune"))}/progress_*_step_* | head -n 1)"'
    step = export_step(recipe, output_dir, seed, run)
    return f"{step.command} {newest} {shlex.join(step.words[1:])}"


def _files(recipe: Recipe, section: str) -> dict[str, Path]:
    values = recipe.sections.get(section, {})
    return {f"--{name}": Path(values[name]).expanduser() for name in FILE_FLAGS.get(section, ()) if values.get(name)}
