"""Protocols: how a model is fine-tuned and its scores are put together, as versioned data in configs/glue/.

Two scores may be compared where protocol name, version and hash agree. The hash is of what the file says (comments aside), with whatever
flags changed in it, so that an edited copy under the old name is seen. Every result also carries all its resolved settings.
"""

import hashlib
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml

from dataset.errors import UserError, nearest, one_line
from evaluation.fine_tuning.settings import SCORING_SETTINGS, FineTuningSettings
from evaluation.scoring.statistics import AGGREGATES
from evaluation.tasks.table import TASKS, plain_name

FOLDER = Path(__file__).resolve().parents[2] / "configs" / "glue"
KEYS = ("name", "version", "seeds", "aggregate", "settings", "grid", "tasks", "start_from")
NEEDED = ("name", "version", "seeds", "aggregate", "settings")
FLAGS, OWN_HEAD = "flags", "own head"
"""Names of what is no protocol: flags alone, and nothing trained."""
DEFAULTS = {item.name: item.default for item in fields(FineTuningSettings)}
MNLI_STARTS = {"RTE": "MNLI", "MRPC": "MNLI", "STS-B": "MNLI"}
"""What --start_from_mnli means: the three tasks that published tables start from an MNLI model."""


@dataclass(frozen=True)
class Protocol:
    """`settings` of FineTuningSettings, over them those of `tasks` by task name; `grid` of settings to try; `start_from` task -> task."""

    name: str
    version: int
    seeds: tuple[int, ...]
    aggregate: str
    settings: dict[str, Any] = field(default_factory=dict)
    grid: dict[str, tuple] = field(default_factory=dict)
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)
    start_from: dict[str, str] = field(default_factory=dict)
    changed: tuple[str, ...] = ()
    """Settings, or `start_from`, that flags changed."""

    @property
    def sha256(self) -> str:
        """Of everything that decides a fine-tuning and how several are put together; the seeds, which every result lists, are left out,
        so that more of them may join."""
        content = {name: getattr(self, name) for name in KEYS if name != "seeds"}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def describe(self) -> dict[str, Any]:
        """What a result says about its protocol."""
        said = {"name": self.name, "version": self.version, "sha256": self.sha256}
        return said | {"changed": list(self.changed), "aggregate": self.aggregate}

    def points(self, task_name: str) -> list[FineTuningSettings]:
        """Settings of every grid point and seed for a task, grid points first."""
        base = {**self.settings, **self.tasks.get(task_name, {})}
        grid = [dict(zip(self.grid, values, strict=True)) for values in itertools.product(*self.grid.values())]
        return [FineTuningSettings(**base | point | {"seed": seed}) for point in grid for seed in self.seeds]

    def with_flags(self, settings: Mapping[str, Any], seeds: Sequence[int] | None, start_from: Mapping[str, str] | None) -> "Protocol":
        """This protocol with what the command line says; a setting given there holds for every task and takes the place of its grid."""
        own = [name for task in self.tasks.values() for name in task]
        changes = {name: value for name, value in settings.items()
                   if name in self.grid or name in own or self.settings.get(name, DEFAULTS[name]) != value}
        kept = {task: {name: value for name, value in said.items() if name not in changes} for task, said in self.tasks.items()}
        new = replace(
            self, settings=self.settings | changes, tasks={task: said for task, said in kept.items() if said},
            grid={name: values for name, values in self.grid.items() if name not in changes},
            seeds=self.seeds if seeds is None else tuple(seeds), start_from=self.start_from if start_from is None else dict(start_from))
        other = ["start_from"] if new.start_from != self.start_from else []
        return replace(new, changed=(*sorted(changes), *other))


def own_head_protocol(protocol: Protocol) -> Protocol:
    """For models that are scored as they are: what of `protocol` still matters, without a seed."""
    def scoring(said: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in said.items() if name in SCORING_SETTINGS}

    tasks = {task: scoring(said) for task, said in protocol.tasks.items()}
    return Protocol(OWN_HEAD, 1, (0,), "mean", scoring(protocol.settings), tasks=tasks)


def flags_only(settings: FineTuningSettings, seeds: Sequence[int]) -> Protocol:
    """What flags alone say, as a protocol without a name of its own."""
    values = {item.name: getattr(settings, item.name) for item in fields(settings) if item.name != "seed"}
    return Protocol(FLAGS, 0, tuple(seeds), "mean", values)


def known_protocols() -> list[str]:
    """Names of the protocols that come with the project."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read_protocol(name: str) -> Protocol:
    """The protocol of the project called `name`, or of the YAML file `name`; UserError for what is wrong with it, with file and key."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"
    if not path.is_file():
        if path.parent != FOLDER:
            raise UserError(f"--protocol {name}: no such file; a YAML file or one of {', '.join(known_protocols())} would work")
        close = nearest(name, known_protocols())
        raise UserError(f"--protocol {name}: no such protocol{close}; {', '.join(known_protocols())} or the path of a YAML file would work")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not YAML ({one_line(error)}); configs/glue/quick.yaml shows the form") from None
    return _checked(path, content)


def _checked(path: Path, content: Any) -> Protocol:
    if not isinstance(content, dict):
        raise UserError(f"{path}: not a mapping; the keys of a protocol are {', '.join(KEYS)}")
    unknown = [str(key) for key in content if key not in KEYS]
    if unknown:
        raise UserError(f"{path}: unknown key {unknown[0]}{nearest(unknown[0], KEYS)}; the keys of a protocol are {', '.join(KEYS)}")
    missing = [key for key in NEEDED if key not in content]
    if missing:
        raise UserError(f"{path}: no {missing[0]}; a protocol needs {', '.join(NEEDED)}")
    if not isinstance(content["version"], int) or isinstance(content["version"], bool) or content["version"] < 1:
        raise UserError(f"{path}: version {content['version']!r}; a whole number from 1 on would work")
    if content["aggregate"] not in AGGREGATES:
        raise UserError(f"{path}: aggregate {content['aggregate']!r}; {' or '.join(AGGREGATES)} would work")
    seeds = check_seeds(content["seeds"], f"{path}: seeds")
    settings = _settings(path, "settings", content["settings"])
    grid = {}
    for name, values in _mapping(path, "grid", content.get("grid")).items():
        typed = [_settings(path, "grid", {name: value})[name] for value in values] if isinstance(values, list) else []
        if not typed or len(set(typed)) != len(typed):
            raise UserError(f"{path}: grid of {name}: a list of different values would work")
        grid[name] = tuple(typed)
    tasks = {_task(task): _settings(path, f"tasks: {task}", own) for task, own in _mapping(path, "tasks", content.get("tasks")).items()}
    twice = next((name for own in (settings, *tasks.values()) for name in own if name in grid), None)
    if twice is not None:
        raise UserError(f"{path}: {twice} is set and in the grid; one of the two would work")
    starts = _starts(path, content.get("start_from"))
    protocol = Protocol(str(content["name"]), content["version"], seeds, content["aggregate"], settings, grid, tasks, starts)
    try:
        for task in ("", *tasks):
            protocol.points(task)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return protocol


def _task(name: Any) -> str:
    """The task's own spelling of its name, where it is one of ours."""
    return next((task.name for task in TASKS if plain_name(task.name) == plain_name(str(name))), str(name))


def _starts(path: Path, value: Any) -> dict[str, str]:
    said = _mapping(path, "start_from", value)
    if wrong := [name for pair in said.items() for name in pair if not isinstance(name, str)]:
        raise UserError(f"{path}: start_from: {wrong[0]!r} is no task; a mapping of names to names would work, such as RTE: MNLI")
    starts = {_task(task): _task(first) for task, first in said.items()}
    looped = next((task for task, first in starts.items() if first in starts or first == task), None)
    if looped is not None:
        raise UserError(f"{path}: start_from {looped}: {starts[looped]}, which starts from another task itself; one step would work")
    return starts


def check_seeds(values: Any, where: str) -> tuple[int, ...]:
    """Seeds as a tuple; UserError, which begins with `where`, unless they are different whole numbers from 0 on."""
    is_good = isinstance(values, list | tuple) and values and all(type(value) is int and value >= 0 for value in values)
    if not is_good or len(set(values)) != len(values):
        raise UserError(f"{where} {values}: different whole numbers from 0 on would work, such as 1,2,3")
    return tuple(sorted(values))


def _mapping(path: Path, key: str, value: Any) -> dict:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UserError(f"{path}: {key} is {value!r}; a mapping would work")
    return value


def _settings(path: Path, where: str, values: Any) -> dict[str, Any]:
    """Settings in their own types; UserError with file and key for an unknown name or a value of another type."""
    known = {item.name: item.metadata["type"] for item in fields(FineTuningSettings) if item.name != "seed"}
    checked = {}
    for name, value in _mapping(path, where, values).items():
        if name not in known:
            hint = "; seeds is a key of the protocol" if name == "seed" else nearest(str(name), known)
            raise UserError(f"{path}: {where}: unknown setting {name}{hint}")
        checked[name] = _typed(path, where, name, value, known[name])
    return checked


def _typed(path: Path, where: str, name: str, value: Any, kind: type) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    fits = {float: is_number, int: is_number and math.isfinite(value) and value == int(value), bool: isinstance(value, bool),
            str: isinstance(value, str)}
    if value is None or not fits.get(kind, True):
        hint = f"; {float(value):g} is text in YAML, write it with a dot: 4.0e-5" if _is_float_text(value) else ""
        raise UserError(f"{path}: {where}: {name} {value!r} is not {'an' if kind is int else 'a'} {kind.__name__}{hint}")
    return kind(value)


def _is_float_text(value: Any) -> bool:
    try:
        return isinstance(value, str) and math.isfinite(float(value))
    except ValueError:
        return False
