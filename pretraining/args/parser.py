"""Command line and recipe -> one dataclass per flag group, with what was said explicitly remembered.

Nothing heavy is imported here: a wrong flag is answered in a few hundredths of a second.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import yaml

from dataset.errors import OneLineParser, UserError, nearest
from pretraining.args.budget import BudgetFlags, ValidationFlags
from pretraining.args.checkpoints import CheckpointFlags
from pretraining.args.data import DataFlags
from pretraining.args.distillation import DistillationFlags
from pretraining.args.engine import EngineFlags
from pretraining.args.flags import UNLIMITED_STEPS, FlagInfo, flags_of
from pretraining.args.model import ModelFlags
from pretraining.args.optimization import OptimizationFlags
from pretraining.args.run import RunFlags

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


@dataclass
class Args:
    """Every flag of a run, by group. `given` are the names that command line or recipe set, `commanded` those of the command line."""

    run: RunFlags = field(default_factory=RunFlags)
    data: DataFlags = field(default_factory=DataFlags)
    model: ModelFlags = field(default_factory=ModelFlags)
    distillation: DistillationFlags = field(default_factory=DistillationFlags)
    optimization: OptimizationFlags = field(default_factory=OptimizationFlags)
    budget: BudgetFlags = field(default_factory=BudgetFlags)
    checkpoints: CheckpointFlags = field(default_factory=CheckpointFlags)
    validation: ValidationFlags = field(default_factory=ValidationFlags)
    engine: EngineFlags = field(default_factory=EngineFlags)
    given: set[str] = field(default_factory=set)
    commanded: set[str] = field(default_factory=set)

    def set(self, name: str, value: Any) -> None:
        setattr(getattr(self, GROUP_OF[name]), name, value)

    def get(self, name: str) -> Any:
        return getattr(getattr(self, GROUP_OF[name]), name)

    def as_dict(self) -> dict[str, Any]:
        """Flag name -> value, in the order of the manual; what args.yaml and --print_config hold."""
        return {info.name: self.get(info.name) for _, info in all_flags() if info.name not in ONE_SHOT}


def all_flags() -> Iterator[tuple[str, FlagInfo]]:
    """(group name, flag) for every flag there is."""
    for group_name, group in GROUPS.items():
        for info in flags_of(group):
            yield group_name, info


INFO: dict[str, FlagInfo] = {info.name: info for _, info in all_flags()}
GROUP_OF: dict[str, str] = {info.name: group for group, info in all_flags()}
# They belong to one call and not to the run, so a recipe written from a run must not hold them.
ONE_SHOT = ("print_config", "dry_run", "resume", "overwrite", "local_rank", "load_training_checkpoint", "load_checkpoint_id",
            "allow_changes", "deadline")


_STATUSES = """exit status:
  0   the run has ended, or had ended before
  75  it was asked to stop, or a deadline came: --resume goes on (under torchrun 0)
  1   a rank was lost: --resume goes on
  2   a mistake, or an end that could not be saved"""


class RecipeLoader(yaml.SafeLoader):
    """Scalars stay text and mean what they mean on the command line: YAML itself reads `010` as 8 and `1:30` as 90.

    Only null stays null. A key that is written twice is an error.
    """

    yaml_implicit_resolvers: ClassVar = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag.endswith(":null")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [str(key.value) for key, _ in node.value]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(problem=f"{twice!r} is written twice")
        return super().construct_mapping(node, deep)


def _build_parser(prog: str) -> argparse.ArgumentParser:
    parser = OneLineParser(prog=prog, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter,
                           epilog=_STATUSES,
                           description="Distil or pre-train a BERT-family encoder under a wall-clock budget.")
    parser.add_argument("--config", metavar="RECIPE", help="YAML of flags; the command line overrides it")
    for group_name, group in GROUPS.items():
        section = parser.add_argument_group(group_name)
        for info in flags_of(group):
            names = [f"--{info.name}"] + (["--local-rank"] if info.name == "local_rank" else [])
            text = info.help + (f" [no effect: {info.no_effect}]" if info.no_effect else "")
            if info.choices:
                text += f" ({', '.join(info.choices)})"
            if info.default not in (None, "", UNLIMITED_STEPS, False):
                text += f" [default: {info.default}]"
            if info.is_bool and info.default is True:
                text += f"; --no_{info.name} switches it off"
            optional = {"nargs": "?", "const": "true"} if info.bare is not None else {}
            section.add_argument(*names, default=None, metavar=info.placeholder, help=text.replace("%", "%%"), **optional)
            if info.is_bool and info.default is True:
                section.add_argument(f"--no_{info.name}", dest=info.name, action="store_const", const="false",
                                     help=argparse.SUPPRESS)
    return parser


def _read_recipe(path: str) -> dict[str, Any]:
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"--config {path}: no such file; give a YAML file of flags such as configs/hidden_mse_6layer.yaml")
    try:
        recipe = yaml.load(file.read_text(encoding="utf-8"), Loader=RecipeLoader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, OSError) as error:
        raise UserError(f"--config {path}: not a recipe ({error}); write one `flag: value` per line") from None
    if recipe is None:
        return {}
    if not isinstance(recipe, dict):
        raise UserError(f"--config {path}: found a {type(recipe).__name__}, expected one `flag: value` per line")
    for name in recipe:
        if name not in INFO:
            raise UserError(f"--config {path}: unknown key {name!r}{nearest(str(name), list(INFO))}")
    return recipe


def _convert(info: FlagInfo, word: object, source: str) -> Any:
    try:
        return info.convert(word)
    except (ValueError, OverflowError) as error:
        raise UserError(f"{source}: {error}; {info.help}") from None


def parse(argv: list[str], prog: str = "run_pretraining.py") -> Args:
    """Args from a command line (without the program's name) and its --config. UserError for anything not understood."""
    parser = _build_parser(prog)
    namespace, unknown = parser.parse_known_args(argv)
    if unknown:
        word = unknown[0].split("=")[0]
        known = [f"--{name}" for name in INFO] + ["--config"]
        what = f"unknown flag {word}{nearest(word, known)}" if word.startswith("-") else (
            f"{word!r} is not a flag; every value follows its --flag")
        raise UserError(what)
    args = Args()
    if namespace.config is not None:
        for name, word in _read_recipe(namespace.config).items():
            if word is not None:
                args.set(name, _convert(INFO[name], word, f"--config {namespace.config}: {name}"))
                args.given.add(name)
    for name, info in INFO.items():
        word = getattr(namespace, name)
        if word is not None:
            args.set(name, _convert(info, word, f"--{name}"))
            args.given.add(name)
            args.commanded.add(name)
    return args
