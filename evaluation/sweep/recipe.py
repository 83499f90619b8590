"""A sweep's recipe: one YAML file that says which flags vary, which stay, how many hours there are and how runs are scored.

Scalars are text, as in the trainer's own recipes, and mean what they mean on its command line. The form of the originals' script
(`hyperparameters` and `default_parameters`) is translated. What a flag may be is the trainer's to say (`runs.py`).
"""

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from dataset.errors import UserError, nearest, one_line
from pretraining.args.flag_set import ONE_SHOT, RecipeLoader
from pretraining.args.flags import parse_bool
from pretraining.args.parser import INFO

KEYS = ("name", "output_dir", "launcher", "config", "flags", "grid", "exclude", "seeds", "budget_hours", "score", "baselines")
ORIGINALS_KEYS = ("hyperparameters", "default_parameters")
OURS = {"output_dir": "output_dir", "job_name": "name", "current_run_id": "grid and seeds", "seed": "seeds", "config": "config"}
"""Flags of the trainer that a sweep sets itself, and the key of the recipe that says them."""
SCORES_OURS = ("run_dir", "model_name_or_path", "models", "output_dir", "baseline", "watch")
"""Flags of run_glue.py that a sweep sets itself, or has no use for."""
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*")

Words = dict[str, str | None]
"""Flag -> its word on the command line; None: the flag is left out."""


@dataclass(frozen=True)
class Value:
    """One value of an axis: its name in tables and folders, and the flags that it sets."""

    label: str
    words: Words


@dataclass(frozen=True)
class Recipe:
    """`grid`: axis -> values; `score`: flag of run_glue.py -> word, None where runs are not scored; `notes`: to be printed once."""

    path: Path
    name: str
    output_dir: Path
    launcher: str | None = None
    config: str | None = None
    flags: Words = field(default_factory=dict)
    grid: dict[str, tuple[Value, ...]] = field(default_factory=dict)
    exclude: tuple[dict[str, str], ...] = ()
    seeds: tuple[int, ...] = ()
    """Empty where the recipe names none: each point then runs once with the seed of its flags."""
    budget_hours: float | None = None
    score: Words | None = None
    baselines: dict[str, Path] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Where all runs of the sweep, its record and its tables lie: OUTPUT_DIR/NAME, which is the trainer's OUTPUT_DIR/JOB_NAME."""
        return self.output_dir.expanduser() / self.name


def read_recipe(path: Path) -> Recipe:
    """The recipe in the file `path`; UserError, which names file and key, for what is not one."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; give the YAML of a sweep such as configs/sweep_objectives.yaml")
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=RecipeLoader)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{path}{line}: not YAML ({error.problem}); configs/sweep_objectives.yaml shows the form") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, OSError) as error:
        raise UserError(f"{path}: not YAML ({one_line(error)}); configs/sweep_objectives.yaml shows the form") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: not a mapping; the keys of a sweep are {', '.join(KEYS)}")
    notes: tuple[str, ...] = ()
    if any(key in content for key in ORIGINALS_KEYS):
        content, notes = _translated(path, content)
    unknown = next((str(key) for key in content if key not in KEYS), None)
    if unknown is not None:
        hint = "; flags of the trainer belong below `flags`" if unknown in INFO else nearest(unknown, KEYS)
        raise UserError(f"{path}: unknown key {unknown!r}{hint}; the keys of a sweep are {', '.join(KEYS)}")
    return _Reader(path).recipe({key: value for key, value in content.items() if value is not None}, notes)


def word(value: Any) -> str:
    """A scalar, or a list of scalars, as a command line says it; ValueError for anything else."""
    if isinstance(value, list):
        if not value or any(isinstance(item, list | dict) or item is None for item in value):
            raise ValueError("found a list of lists, mappings or nothing, expected a value or a list of values")
        return ",".join(map(str, value))
    if isinstance(value, dict):
        raise ValueError("found a mapping, expected a value or a list of values")
    return str(value)


def label_of(name: str, text: str | None) -> str:
    """What a value is called in tables: two spellings of one number or switch are called alike. ValueError where it is no value."""
    if text is None:
        return "default"
    value = INFO[name].convert(text)
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def _translated(path: Path, content: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The originals' form in ours, and what is to be said about it; keys of ours may stand beside theirs."""
    mine = {key: value for key, value in content.items() if key not in ORIGINALS_KEYS}
    clash = next((key for key in ("grid", "flags") if key in mine), None)
    if clash is not None:
        raise UserError(f"{path}: {clash} beside {ORIGINALS_KEYS[0]}; one of the two forms would work")
    both = []
    for key in ORIGINALS_KEYS:
        if not isinstance(content.get(key) or {}, dict):
            raise UserError(f"{path}: {key} is not a mapping; flag: value (or a list of them) would work")
        both.append(dict(content.get(key) or {}))
    varied, fixed = both
    varied = {name: values if isinstance(values, list) else [values] for name, values in varied.items()}
    notes = [f"{path}: {' and '.join(ORIGINALS_KEYS)} are read as grid and flags"]
    switched_off = [name for name, values in [*fixed.items(), *((name, one) for name, list_ in varied.items() for one in list_)]
                    if name in INFO and INFO[name].is_bool and _is_false(values)]
    if switched_off:
        notes.append(f"{path}: false means false here ({', '.join(dict.fromkeys(switched_off))}); the originals' script made it true")
    if "current_run_id" in fixed or "current_run_id" in varied:
        notes.append(f"{path}: current_run_id is left out: runs are called after what varies")
        fixed.pop("current_run_id", None)
        varied.pop("current_run_id", None)
    found = {"name": fixed.pop("job_name", path.stem), "output_dir": fixed.pop("output_dir", None), "config": fixed.pop("config", None)}
    seeds = varied.pop("seed", [fixed["seed"]] if "seed" in fixed else None)
    fixed.pop("seed", None)
    return {**found, "seeds": seeds, "flags": fixed, "grid": varied, **mine}, tuple(notes)


def _is_false(value: Any) -> bool:
    try:
        return not parse_bool(str(value))
    except ValueError:
        return False


class _Reader:
    """Turns the mapping of one file into a Recipe; every complaint begins with the file and the key."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def fail(self, text: str) -> UserError:
        return UserError(f"{self.path}: {text}")

    def recipe(self, content: dict[str, Any], notes: tuple[str, ...]) -> Recipe:
        name = self.text(content, "name") or self.path.stem
        if not NAME.fullmatch(name):
            raise self.fail(f"name {name!r} becomes a folder; letters, digits, `_`, `.`, `+` and `-` would work")
        output_dir = self.text(content, "output_dir")
        if not output_dir:
            raise self.fail("no output_dir; runs go to OUTPUT_DIR/NAME/POINT/seed_N")
        flags = self.words(self.mapping(content, "flags"), "flags")
        grid = {axis: self.axis(axis, values) for axis, values in self.mapping(content, "grid").items()}
        twice = next(((axis, flag) for axis, values in grid.items() for value in values for flag in value.words if flag in flags), None)
        if twice is not None:
            raise self.fail(f"{twice[1]} is in flags and in the grid ({twice[0]}); one of the two would work")
        score = None
        if "score" in content:
            score = {str(flag): self.value(value, f"score: {flag}") for flag, value in self.mapping(content, "score").items()}
            ours = next((flag for flag in score if flag in SCORES_OURS), None)
            if ours is not None:
                hint = "; the key `baselines` says it" if ours == "baseline" else "; a sweep sets it for each run"
                raise self.fail(f"score: {ours}{hint}")
        baselines = {str(key): Path(str(value)).expanduser() for key, value in self.mapping(content, "baselines").items()}
        return Recipe(
            self.path, name, Path(output_dir), self.text(content, "launcher"), self.text(content, "config"), flags, grid,
            self.excluded(content, grid), self.seeds(content), self.budget(content), score, baselines, notes)

    def text(self, content: dict[str, Any], key: str) -> str | None:
        value = content.get(key)
        if value is not None and not isinstance(value, str):
            raise self.fail(f"{key} is a {type(value).__name__}; text would work")
        return value

    def mapping(self, content: dict[str, Any], key: str) -> dict[str, Any]:
        value = content.get(key, {})
        if not isinstance(value, dict):
            raise self.fail(f"{key} is {value!r}; a mapping would work")
        return value

    def value(self, value: Any, where: str) -> str | None:
        try:
            return None if value is None else word(value)
        except ValueError as error:
            raise self.fail(f"{where}: {error}") from None

    def words(self, content: dict[str, Any], where: str) -> Words:
        for name in content:
            if name in OURS:
                raise self.fail(f"{where}: {name}: a sweep sets it itself; its key {OURS[name]!r} says it")
            if name in ONE_SHOT:
                raise self.fail(f"{where}: {name} belongs to one call of the trainer and not to a run; leave it out")
            if name not in INFO:
                raise self.fail(f"{where}: unknown flag {name!r}{nearest(str(name), INFO)}")
        found = {name: self.value(value, f"{where}: {name}") for name, value in content.items()}
        for name, text in found.items():
            self.label(name, text, where)
        return found

    def label(self, name: str, text: str | None, where: str) -> str:
        try:
            return label_of(name, text)
        except (ValueError, OverflowError) as error:
            raise self.fail(f"{where}: {name}: {error}") from None

    def axis(self, axis: str, values: Any) -> tuple[Value, ...]:
        where = f"grid: {axis}"
        if not NAME.fullmatch(axis):
            raise self.fail(f"{where}: the name becomes a part of folders; letters, digits and `_` would work")
        if not isinstance(values, list) or not values:
            raise self.fail(f"{where}: {values!r} is no list; a list of values would work")
        found = [self.axis_value(axis, value, where) for value in values]
        labels = [value.label for value in found]
        twice = next((label for label in labels if labels.count(label) > 1), None)
        if twice is not None:
            raise self.fail(f"{where}: {twice} is there twice; give every value once, and mappings names of their own")
        return tuple(found)

    def axis_value(self, axis: str, value: Any, where: str) -> Value:
        if isinstance(value, dict):
            name = value.get("name")
            if not isinstance(name, str) or not name:
                raise self.fail(f"{where}: a mapping without a name; {{name: NAME, flag: value, ...}} would work")
            words = self.words({flag: one for flag, one in value.items() if flag != "name"}, f"{where}: {name}")
            return Value(name, words)
        words = self.words({axis: value}, "grid")
        return Value(self.label(axis, words[axis], "grid"), words)

    def excluded(self, content: dict[str, Any], grid: dict[str, tuple[Value, ...]]) -> tuple[dict[str, str], ...]:
        points = content.get("exclude", [])
        if not isinstance(points, list) or any(not isinstance(point, dict) or not point for point in points):
            raise self.fail("exclude: a list of partial points such as {method: att_mse, init: first} would work")
        found = []
        for point in points:
            labels = {}
            for axis, value in point.items():
                if axis not in grid:
                    raise self.fail(f"exclude: {axis!r} is no axis of the grid{nearest(str(axis), grid)}; its axes are {', '.join(grid)}")
                known = [one.label for one in grid[axis]]
                text = self.value(value, f"exclude: {axis}")
                label = text if text in known or axis not in INFO else self.label(axis, text, "exclude")
                if label not in known:
                    raise self.fail(f"exclude: {axis}: {text} is no value of the grid; its values are {', '.join(known)}")
                labels[axis] = label
            found.append(labels)
        return tuple(found)

    def seeds(self, content: dict[str, Any]) -> tuple[int, ...]:
        texts = content.get("seeds", [])
        good = isinstance(texts, list) and all(isinstance(text, str) and text.isascii() and text.isdigit() for text in texts)
        numbers = tuple(int(text) for text in texts) if good else ()
        if not good or len(set(numbers)) != len(numbers) or (not numbers and "seeds" in content):
            raise self.fail(f"seeds: {texts}; a list of different whole numbers from 0 on would work, such as [1, 2, 3]")
        return numbers

    def budget(self, content: dict[str, Any]) -> float | None:
        if "budget_hours" not in content:
            return None
        try:
            hours = float(content["budget_hours"])
        except (TypeError, ValueError):
            hours = math.nan
        if not (math.isfinite(hours) and hours > 0):
            raise self.fail(f"budget_hours: {content['budget_hours']}; a number of hours above 0 would work")
        return hours
