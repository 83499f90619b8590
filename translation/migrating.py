"""docs/migrating.md from the table: `python -m translation.migrating` writes it, and a test compares.

What people wrote is in migrating.md.jinja; commands side by side are what the translator answers to the table's examples, and flags are
the table's rows. Nothing on the page is said twice in the code.
"""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from dataset.errors import run_command
from dataset.files import write_text
from translation.conversions import same
from translation.shell import parse_shell, wrapped
from translation.systems import SYSTEMS
from translation.table import Flag, Script, System, Takes
from translation.translate import translate

PAGE = Path(__file__).resolve().parents[1] / "docs" / "migrating.md"


def page() -> str:
    """The text of docs/migrating.md."""
    templates = Environment(loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
                            keep_trailing_newline=True, autoescape=False)
    sections = {system.key: "\n".join(_section(system)).rstrip() + "\n" for system in SYSTEMS}
    return templates.get_template("migrating.md.jinja").render(sections)


def _section(system: System) -> Iterator[str]:
    """Commands in their order beside ours, then the flags of each script."""
    memory: dict[str, str] = {}
    for script in system.scripts:
        (command,), _ = parse_shell(script.example)
        old = wrapped([*command.words, *command.redirects], 100)
        result = translate(script.example, memory)
        yield f"### `{script.names[0]}`: {script.title}\n"
        yield f"```bash\n# theirs\n{old}\n# ours\n{result.text}\n```\n"
        rules = [rule.__doc__.replace("\n    ", " ") for rule in script.rules if rule.__doc__]
        for line in dict.fromkeys([*rules, *(f"{note[0].upper()}{note[1:]}." for note in script.notes)]):
            yield f"- {line}"
        if rules or script.notes:
            yield ""
        if len(script.names) > 1:
            yield f"Of one kind with it: {', '.join(f'`{name}`' for name in script.names[1:])}.\n"
        if script.flags:
            yield "\n".join(_flags(script)) + "\n"


def _flags(script: Script) -> Iterator[str]:
    """The table of a script's flags; those that only keep their name share a row, and so do those with the same reason."""
    groups: dict[tuple[str, str], list[Flag]] = defaultdict(list)
    for flag in script.flags:
        groups[_becomes(flag), flag.default or ""].append(flag)
    defaults = any(default for _, default in groups)
    yield "| their flag | here |" + " their default, said |" * defaults + "\n|---|---|" + "---|" * defaults
    for (text, default), flags in groups.items():
        cells = [", ".join(_name(flag, script) for flag in flags), text, *([default] if defaults else [])]
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _name(flag: Flag, script: Script) -> str:
    return f"`{flag.names[0]}`" if flag.names[0] == script.positional else ", ".join(
        f"`{'--' if len(name) > 1 else '-'}{name}`" for name in flag.names)


def _becomes(flag: Flag) -> str:
    """What the page says of a flag."""
    parts = []
    if flag.page:
        parts.append(flag.page)
    elif flag.no_effect:
        parts.append(f"no effect here: {flag.no_effect}")
    elif flag.unsupported:
        only = f"{' and '.join(flag.fine)} as here, else not" if flag.fine and flag.takes is not Takes.SWITCH else "not"
        parts.append(f"{only} supported: {flag.unsupported}")
    elif flag.to:
        parts.append("; ".join(_target(flag, to.flag, to.convert) for to in flag.to))
    if flag.note:
        parts.append(flag.note)
    return "; ".join(parts)


def _target(flag: Flag, ours: str, convert) -> str:
    if ours.lstrip("-") in flag.names and convert is same:
        return "the same"
    return f"`{ours}`" + (f": {convert.__doc__}" if convert is not same and convert.__doc__ else "")


def main() -> None:
    write_text(PAGE, page())
    print(PAGE)


if __name__ == "__main__":
    run_command(main)
