"""Flag groups as one command: parser, recipe file and values, for any set of groups. What a program trains decides which groups it has.

Nothing heavy is imported here: a wrong flag is answered in a few hundredths of a second.
"""

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import yaml

from dataset.errors import OneLineParser, UserError, nearest
from pretraining.args.flags import UNLIMITED_STEPS, FlagInfo, flags_of

# They belong to one call and not to the run, so a recipe written from a run must not hold them.
ONE_SHOT = ("print_config", "dry_run", "resume", "overwrite", "local_rank", "load_training_checkpoint", "load_checkpoint_id",
            "allow_changes", "deadline")
_STATUSES = """exit status:
  0   the run has ended, or had ended before
  75  it was asked to stop, or a deadline came: --resume goes on (under torchrun 0)
  1   a rank was lost: --resume goes on
  2   a mistake, or an end that could not be saved"""


class FlagSet:
    """The flags of one program by group, in the order of its manual. `example` is a recipe that its users know.

    `info` and `group_of` are by a flag's name. `free`: flags beside those of every run (`run_changes`) that may differ between the pieces
    of a run, because the content of what they name is compared instead.
    """

    def __init__(self, groups: dict[str, type], prog: str, description: str, example: str, free: frozenset[str] = frozenset()) -> None:
        self.groups, self.prog, self.description, self.example, self.free = groups, prog, description, example, free
        self.info: dict[str, FlagInfo] = {info.name: info for group in groups.values() for info in flags_of(group)}
        self.group_of: dict[str, str] = {info.name: name for name, group in groups.items() for info in flags_of(group)}


@dataclass
class FlagValues:
    """Every flag's value, by group; a subclass has a field for each group of its `flags`.

    `given` are the names that command line or recipe set, `commanded` those of the command line.
    """

    flags: ClassVar[FlagSet]
    given: set[str] = field(default_factory=set, kw_only=True)
    commanded: set[str] = field(default_factory=set, kw_only=True)

    def set(self, name: str, value: Any) -> None:
        setattr(getattr(self, self.flags.group_of[name]), name, value)

    def get(self, name: str) -> Any:
        return getattr(getattr(self, self.flags.group_of[name]), name)

    def as_dict(self) -> dict[str, Any]:
        """Flag name -> value, in the order of the manual, as JSON has it; what args.yaml and --print_config hold."""
        values = {name: self.get(name) for name in self.flags.info if name not in ONE_SHOT}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


Values = TypeVar("Values", bound=FlagValues)

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


def _build_parser(flags: FlagSet, prog: str) -> argparse.ArgumentParser:
    parser = OneLineParser(prog=prog, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter,
                           epilog=_STATUSES, description=flags.description)
    parser.add_argument("--config", metavar="RECIPE", help="YAML of flags; the command line overrides it")
    for group_name, group in flags.groups.items():
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


def _read_recipe(path: str, flags: FlagSet) -> dict[str, Any]:
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"--config {path}: no such file; give a YAML file of flags such as {flags.example}")
    try:
        recipe = yaml.load(file.read_text(encoding="utf-8"), Loader=RecipeLoader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, OSError) as error:
        raise UserError(f"--config {path}: not a recipe ({error}); write one `flag: value` per line") from None
    if recipe is None:
        return {}
    if not isinstance(recipe, dict):
        raise UserError(f"--config {path}: found a {type(recipe).__name__}, expected one `flag: value` per line")
    for name in recipe:
        if name not in flags.info:
            raise UserError(f"--config {path}: unknown key {name!r}{nearest(str(name), list(flags.info))}")
    return recipe


def _convert(info: FlagInfo, word: object, source: str) -> Any:
    try:
        return info.convert(word)
    except (ValueError, OverflowError) as error:
        raise UserError(f"{source}: {error}; {info.help}") from None


def parse_flags(kind: type[Values], argv: list[str], prog: str | None = None) -> Values:
    """Values from a command line (without the program's name) and its --config. UserError for anything not understood."""
    flags = kind.flags
    namespace, unknown = _build_parser(flags, prog or flags.prog).parse_known_args(argv)
    if unknown:
        word = unknown[0].split("=")[0]
        known = [f"--{name}" for name in flags.info] + ["--config"]
        what = f"unknown flag {word}{nearest(word, known)}" if word.startswith("-") else (
            f"{word!r} is not a flag; every value follows its --flag")
        raise UserError(what)
    values = kind()
    if namespace.config is not None:
        for name, word in _read_recipe(namespace.config, flags).items():
            if word is not None:
                values.set(name, _convert(flags.info[name], word, f"--config {namespace.config}: {name}"))
                values.given.add(name)
    for name, info in flags.info.items():
        word = getattr(namespace, name)
        if word is not None:
            values.set(name, _convert(info, word, f"--{name}"))
            values.given.add(name)
            values.commanded.add(name)
    return values
