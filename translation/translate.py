"""Old commands -> ours: reads shell text, looks scripts up in the table, converts flags, and says what it did.

Nothing is run, and no file is looked into but a configuration, where it is at hand (`rules.py`, `confs.py`).
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from dataset.errors import UserError, nearest
from translation.calls import Made, Translation
from translation.conversions import truth
from translation.launchers import KEYWORDS, Call, lacks_script, take_apart, without_horovod
from translation.own import OWN_MODULES, OWN_SCRIPTS
from translation.shell import Command, edit, is_flag, last_name, parse_shell, value, wrapped
from translation.systems import SCRIPTS
from translation.table import Flag, Script, Takes

PROGRAMS = frozenset(name for script in SCRIPTS for name in script.names if not name.endswith(".py") and "." not in name) | {
    name for script in SCRIPTS for name in script.names if name.endswith(".sh")}
_NAMES = re.compile("|".join(rf"(?<![\w.-]){re.escape(name)}(?!\w)" for script in SCRIPTS for name in script.names if "." in name))
_SILENT = ("for", "while", "if", "done", "fi", "export", "cd", "echo", "set", "true", "false", "mkdir")


@dataclass
class Result:
    """`text` to be pasted into a shell; `notes`, one line each."""

    text: str = ""
    notes: list[str] = field(default_factory=list)


def translate(text: str, memory: dict[str, str] | None = None) -> Result:
    """Our commands for the old ones in `text`; UserError for an unknown script or flag, and where there is nothing to translate.

    `memory` is what earlier commands told: folder of teacher outputs -> folder of samples.
    """
    commands, notes = parse_shell(text)
    commands = _with_scripts(commands, notes)
    result, memory, pieces = Result(notes=notes), {} if memory is None else memory, []
    known, told = 0, _Told()
    for index, command in enumerate(commands):
        call = take_apart(command.words, PROGRAMS)
        _refuse_swallowed(command, left=call is None)
        notes = told.of(command.line)
        if call is None:
            line = " ".join([*command.words, *command.redirects])
            if command.words[0] not in _SILENT:
                notes.append(f"left as it is: {line}")
            pieces.append(([line], command.operator))
            continue
        known += 1
        before = commands[index - 1].operator if index else "\n"
        lines = _translate(call, command, memory, notes)
        pieces.append((_grouped(lines, command, before), command.operator))
    if not known:
        what = f"{commands[0].words[0]!r}" if commands else "nothing"
        raise UserError(f"{what} is no command of the old systems{_nearest_script(commands[0].words[0]) if commands else ''}; "
                        "translate_command.py -- OLD COMMAND, or the commands on standard input")
    result.text = "\n".join(_joined(pieces))
    result.notes = [*dict.fromkeys(" ".join(note.split()) for note in result.notes), *told.lines(name_lines=len(commands) > 1)]
    return result


class _Told:
    """What is said of commands, by the line on which each begins."""

    def __init__(self) -> None:
        self._notes: list[tuple[int, list[str]]] = []

    def of(self, line: int) -> list[str]:
        """The list that takes what is said of the command there."""
        self._notes.append((line, []))
        return self._notes[-1][1]

    def lines(self, *, name_lines: bool) -> list[str]:
        """Every note once, in order, behind the lines of its commands."""
        lines_of: dict[str, list[str]] = {}
        for line, notes in self._notes:
            for note in dict.fromkeys(" ".join(note.split()) for note in notes):
                lines_of.setdefault(note, []).append(str(line))
        return [f"line {', '.join(dict.fromkeys(lines))}: {note}" if name_lines else note for note, lines in lines_of.items()]


def _refuse_swallowed(command: Command, *, left: bool) -> None:
    """UserError where a quote holds what is likelier commands than a value, as from one apostrophe of a page's text to the next."""
    for quote in command.quotes:
        script = _NAMES.search(quote.quoted)
        if ("\n" in quote.quoted and (left or script)) or (quote.behind_letter and script):
            held = script.group() if script else f"{quote.quoted.count(chr(10)) + 1} lines"
            raise UserError(f"line {quote.line}: a quote opens here and holds {held}, which would not be translated; give commands without "
                            "the text around them, whose apostrophes are quotes to a shell")


def _with_scripts(commands: list[Command], notes: list[str]) -> list[Command]:
    """Launchers together with the script of the next line, where the backslash between them is missing."""
    found: list[Command] = []
    for command in commands:
        before = found[-1] if found else None
        if before and before.operator == "\n" and lacks_script(before.words) and take_apart(before.words, PROGRAMS) is None and take_apart(
                command.words, PROGRAMS) is not None:
            notes.append(f"line {command.line} belongs to the launcher above, whose line lacks a backslash")
            found[-1] = Command(before.line, before.words + command.words, before.redirects + command.redirects, command.operator,
                                before.quotes + command.quotes)
        else:
            found.append(command)
    return found


def _joined(pieces: Iterable[tuple[list[str], str]]) -> list[str]:
    lines = []
    for group, operator in pieces:
        *first, last = group
        lines += [*first, f"{last} {operator}" if operator not in ("", "\n", ";") else last]
    return lines


def _grouped(lines: list[str], command: Command, before: str) -> list[str]:
    """Lines that take the place of one command: redirections and operators count for all of them."""
    redirects = "".join(f" {word}" for word in command.redirects)
    if all(line.startswith("#") for line in lines):
        return lines + [":"] * (command.operator not in ("", "\n", ";"))
    if len(lines) == 1:
        return [lines[0] + redirects]
    plain = ("", "\n", ";", "&&")
    if not redirects and before in plain and command.operator in plain:
        chained = "&&" in (before, command.operator)
        return [f"{line} &&" if chained and line is not lines[-1] else line for line in lines]
    return ["{ " + " &&\n".join(lines) + "; }" + redirects]


def _translate(call: Call, command: Command, memory: dict[str, str], notes: list[str]) -> list[str]:
    if _is_own(call):
        notes.append(f"{_shown(call)} is ours already: it stays as it is")
        return [wrapped([*call.environment, *call.launcher, *call.python, *["-m"] * call.module, call.script, *call.arguments])]
    candidates = [script for script in SCRIPTS if _is_called(script, call)]
    if not candidates:
        raise UserError(f"line {command.line}: {call.name} is no script of the old systems{_nearest_script(call.name)}")
    script = min(candidates, key=lambda one: _strangeness(one, call))
    made = Translation(script, call, memory, notes, command.redirects)
    for flag, words in _arguments(script, candidates, call, command.line, notes):
        made.give(flag, words)
    made.finish()
    if not script.steps:
        return [f"# {_shown(call)}: {script.instead}"]
    if any(step.step.launched for step in made.steps.values()):
        notes += without_horovod(call)
    lines = [_line(call, step, is_first=index == 0) for index, step in enumerate(made.steps.values())]
    return ["# " + line.replace("\n", "\n# ") for line in lines] if made.inert else lines


def _line(call: Call, step: Made, *, is_first: bool) -> str:
    python = call.python or ["python"]
    environment = [word for word in call.environment if last_name(word) not in ("bash", "sh") and (is_first or word not in KEYWORDS)]
    if last_name(python[0]) not in ("python", "python3"):  # python3.6 would be another installation
        python = ["python", *python[1:]]
    launcher = step.launcher if step.launcher is not None else call.launcher
    if step.step.launched and launcher:
        needs_python = call.kind in ("mpi", "srun") or bool(call.python)
        words = [*environment, *launcher, *(python if needs_python else [])]
    else:
        words = [*environment, *([] if step.is_program else python)]
    return wrapped([*words, *step.words()])


def _is_own(call: Call) -> bool:
    text = value(call.script)
    return text in OWN_MODULES if call.module else text.removeprefix("./") in OWN_SCRIPTS or any(
        text.endswith(f"/{path}") for path in OWN_SCRIPTS if "/" in path and "split_text" not in path and not text.startswith("dataset/"))


def _shown(call: Call) -> str:
    return f"-m {call.name}" if call.module else value(call.script)


def _is_called(script: Script, call: Call) -> bool:
    last = call.name.removesuffix(".py").rsplit(".", 1)[-1]
    for name in script.names:
        if name == call.name or (call.module and (call.name.endswith(f".{name}") or name.removesuffix(".py") == last)):
            return True
        if "." in name.removesuffix(".py") and not name.endswith(".sh") and last == name.rsplit(".", 1)[-1]:
            return True
    return False


def _strangeness(script: Script, call: Call) -> int:
    """How badly a call fits a script: flags that it does not know, and ones that it needs and lacks."""
    names = [value(word).partition("=")[0].lstrip("-") for word in call.arguments if is_flag(value(word))]
    own = script.own() if script.own else frozenset()
    unknown = [name for name in names if script.flag(name) is None and name not in own]
    return 2 * len(unknown) + sum(name not in names for name in script.required)


def _nearest_script(name: str) -> str:
    names = [one for script in SCRIPTS for one in script.names]
    tails = [name.rsplit(".", 1)[-1] for name in names if not name.endswith((".py", ".sh"))]
    return nearest(last_name(name), [*names, *tails])


def _arguments(script: Script, candidates: list[Script], call: Call, line: int,
               notes: list[str]) -> list[tuple[tuple[str, Flag | None], list[str]]]:
    """((flag as written, its row), its values) in order; UserError for a flag that is not known, with the nearest one of all `candidates`,
    and for words without a flag."""
    own = script.own() if script.own else frozenset()
    found: list[tuple[tuple[str, Flag | None], list[str]]] = []
    words, at, positional = call.arguments, 0, False
    while at < len(words):
        word, text = words[at], value(words[at])
        name, equals, _ = text.partition("=")
        row = script.flag(name.lstrip("-")) if is_flag(text) else None
        at += 1
        if row is None and not equals and (negated := _negated(script, name)) is not None:
            found.append(((f"--{negated.names[0]}", negated), ["false"]))
            continue
        if row is None and script.stray and text.startswith("-") and "/" in name:
            notes.append(f"{text} is a path without its flag: read as --{script.stray} {text.lstrip('-')}")
            found.append(((f"--{script.stray}", script.flag(script.stray)), [edit(word, lambda one: one.lstrip("-"))]))
        elif not is_flag(text):
            if not script.positional or positional:
                raise UserError(f"line {line}: {text!r} stands behind no flag of {call.name}; every value follows its flag")
            positional = True
            found.append(((script.positional, script.flag(script.positional)), [word]))
        elif row is None and name.lstrip("-") not in own:
            known = [f"--{one}" for script in candidates for flag in script.flags for one in flag.names] + [f"--{one}" for one in own]
            raise UserError(f"line {line}: unknown flag {name} of {call.name}{nearest(name, known)}")
        else:
            values = [edit(word, lambda one: one.partition("=")[2])] if equals else []
            while not equals and at < len(words) and _takes(row, values, value(words[at])):
                values.append(words[at])
                at += 1
            if row is not None and row.takes is Takes.BOOLEAN and values and truth(value(values[0])) is None:
                raise UserError(f"line {line}: {text} of {call.name}: true or false is needed")
            if row is not None and row.takes is Takes.WORD and not values:
                raise UserError(f"line {line}: {name} of {call.name} has no value; give one")
            found.append(((name, row), values))
    return found


def _negated(script: Script, name: str) -> Flag | None:
    """The boolean that `--noNAME` switches off, as absl has it."""
    row = script.flag(name.lstrip("-").removeprefix("no")) if name.startswith(("-no", "--no")) else None
    return row if row is not None and row.takes is Takes.BOOLEAN else None


def _takes(row: Flag | None, values: list[str], word: str) -> bool:
    """Whether a flag that has `values` takes a further word."""
    if is_flag(word):
        return False
    if row is None or row.takes is Takes.LIST:
        return True
    if values or row.takes is Takes.SWITCH:
        return False
    return row.takes is not Takes.BOOLEAN or truth(word) is not None
