"""A recipe: one YAML file that says every step from a task's TSV to a student that is ready to serve.

    task_name: SST-2                       # or task_file: own.yaml
    seeds: [1, 2, 3]                       # one student for each
    teach: {num_train_epochs: 3}           # flags of every step, by its name
    augment: {n_iter: 20}                  # or generate: {...}
    label: {}
    distil: {student: bilstm, total_training_time: 0.5}
    export: {formats: "torch_export,onnx"}

What belongs to one machine (folders, the teacher, a launcher) comes from the command line. Every flag and its value, and the data, models
and devices that they name, are checked before the first step runs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from dataset.errors import UserError, nearest, one_line
from dataset.files import reason
from pretraining.args.flag_set import ONE_SHOT, RecipeLoader

SECTIONS = ("teach", "augment", "generate", "label", "distil", "export")
KEYS = ("task_name", "task_file", "seeds", *SECTIONS)
OURS = {
    "teach": ("model", "output_dir"), "augment": ("output", "overwrite"), "generate": ("output_dir",),
    "label": ("teacher_path", "transfer_set", "output", "overwrite"),
    "distil": ("transfer_set", "logits", "output_dir", "job_name", "current_run_id", "seed", "resume", "overwrite", "config",
               "finetune_checkpoint_at_end", "no_finetune_checkpoint_at_end"),
    "export": ("output_dir", "overwrite"),
}
"""Flags that the recipe sets itself, because they tie the steps together or say what becomes of what is there."""
TASK_FLAGS = ("task_name", "task_file", "glue_dir")


@dataclass(frozen=True)
class Recipe:
    """`sections`: flag -> value of every step that is to be run; `texts` is augment or generate."""

    path: Path
    task_name: str | None
    task_file: Path | None
    seeds: tuple[int, ...]
    sections: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def texts(self) -> str:
        return "generate" if "generate" in self.sections else "augment"

    def words(self, section: str) -> list[str]:
        """The section as words of a command line."""
        found = []
        for name, value in self.sections.get(section, {}).items():
            if value is None:  # the default
                continue
            found += [f"--{name}", ",".join(map(str, value)) if isinstance(value, list) else str(value)]
        return found


def read_recipe(path: Path, changes: Sequence[str], seeds: str | None) -> Recipe:
    """The recipe in the YAML file `path` with `changes` (`distil.hidden_size=300`) and other `seeds` (`1,2,3`).

    UserError, with file and key, for what is no recipe, an unknown key and a flag that the recipe sets itself. Whether the flags of a step
    are any is for the step to say (`check_words`).
    """
    content = _read(path)
    for change in changes:
        _change(content, change)
    unknown = next((key for key in content if key not in KEYS), None)
    if unknown is not None:
        raise UserError(f"{path}: unknown key {unknown!r}{nearest(str(unknown), KEYS)}; known are {', '.join(KEYS)}")
    sections = {name: content.get(name) or {} for name in SECTIONS if name in content or name not in ("augment", "generate")}
    for name, section in sections.items():
        if not isinstance(section, dict):
            raise UserError(f"{path}: {name}: found a {type(section).__name__}, expected `flag: value` pairs")
        own = next((flag for flag in section if flag in (*OURS[name], *TASK_FLAGS, "help")), None)
        if own is not None:
            raise UserError(f"{path}: {name}: {own} is set by the recipe itself; leave it out")
        once = next((flag for flag in section if name == "distil" and flag in ONE_SHOT), None)
        if once is not None:
            raise UserError(f"{path}: distil: {once} belongs to one call and not to a recipe; leave it out")
    if "augment" in sections and "generate" in sections:
        raise UserError(f"{path}: augment and generate: two transfer sets for one student; one of them would work")
    if "augment" not in sections and "generate" not in sections:
        sections["augment"] = {}
    for key in ("task_name", "task_file"):
        if not isinstance(content.get(key), str | None):
            raise UserError(f"{path}: {key}: found a {type(content[key]).__name__}; one name would work")
    own_file = content.get("task_file")
    if own_file is None and content.get("task_name") is None:
        raise UserError(f"{path}: no task named; task_name: SST-2, or task_file: own.yaml beside the recipe, would work")
    return Recipe(path, content.get("task_name"), None if own_file is None else path.parent / own_file,
                  _seeds(path, seeds if seeds is not None else content.get("seeds", ["1"])), sections)


def check_words(recipe: Recipe, section: str, words: list[str], check: Callable[[list[str]], Any]) -> None:
    """UserError, with the recipe's name and the step, where `check` finds something wrong with the words of a step."""
    try:
        check(words)
    except UserError as error:
        raise UserError(f"{recipe.path}: {section}: {error}") from None


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=RecipeLoader)
    except OSError as error:
        raise UserError(f"{path}: {reason(error)}; a recipe such as configs/task/sst2.yaml would work") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{path}: not a recipe ({one_line(error)[:200]})") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: found a {type(content).__name__}, expected the steps of a recipe")
    return content


def _change(content: dict[str, Any], change: str) -> None:
    name, equals, value = change.partition("=")
    section, dot, flag = name.partition(".")
    if not (equals and dot and flag and section in SECTIONS):
        raise UserError(f"--set {change}: STEP.FLAG=VALUE would work, such as distil.hidden_size=300; steps are {', '.join(SECTIONS)}")
    there = content.setdefault(section, {}) or {}
    if isinstance(there, dict):
        content[section] = there | {flag: value}


def _seeds(path: Path, found: Any) -> tuple[int, ...]:
    words = found.split(",") if isinstance(found, str) else found
    try:
        seeds = tuple(int(word) for word in words)
    except (TypeError, ValueError):
        seeds = ()
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise UserError(f"{path}: seeds {found}: different whole numbers would work, such as 1,2,3")
    return seeds
