"""One old call on its way to ours: flags come in, our commands grow, rules see the whole."""

import re

from translation.conversions import number, truth
from translation.launchers import Call
from translation.shell import edit, value
from translation.table import YOURS, Flag, Script, Step, Takes


class Made:
    """One of our commands. `flags`: flag -> its words; `launcher` in the place of the old one, None: the old one."""

    def __init__(self, step: Step) -> None:
        self.step = step
        self.program, *self.fixed = step.words.split(" ")
        self.flags: dict[str, list[str]] = {}
        self.tail: list[str] | None = None  # words as they were, in the place of flags
        self.launcher: list[str] | None = None

    @property
    def is_program(self) -> bool:
        """Whether it is run without python."""
        return not (self.program == "-m" or self.program.endswith(".py"))

    def words(self) -> list[str]:
        tail = self.tail if self.tail is not None else [word for flag, words in self.flags.items()
                                                        for word in ([flag] if flag.startswith("-") else []) + words]
        return [self.program, *self.fixed, *tail]


_STDOUT = re.compile(r"1?(?:>>|>\||>)\s*(?!&)(.+)")


class Translation:
    """What rules work on. `given`: old flag (first of its names) -> its words; `memory` is shared by the commands of one input;
    `redirects` are the command's, of which a rule may take one."""

    def __init__(self, script: Script, call: Call, memory: dict[str, str], notes: list[str], redirects: list[str]) -> None:
        self.script, self.call, self.memory, self.redirects = script, call, memory, redirects
        self._notes = notes
        self.given: dict[str, list[str]] = {}
        self.steps = {step.name: Made(step) for step in script.steps}
        self.ranks = call.ranks
        self.inert = False  # whether our commands do what the old one did not, and are printed as comments

    @property
    def last(self) -> Made:
        return list(self.steps.values())[-1]

    def note(self, text: str) -> None:
        self._notes.append(text)

    def give(self, flag: tuple[str, Flag | None], words: list[str]) -> None:
        """Take one flag of the call in, as it was written there."""
        written, row = flag
        if row is None:  # ours, in a script of the same name
            self.last.flags[written] = words
            return
        self.given[row.names[0]] = words
        text = " ".join([written, *words])
        if row.no_effect:
            self.note(f"{text}: no effect here: {row.no_effect}")
        elif row.unsupported and not self._is_fine(row, words):
            self.note(f"{text}: not supported: {row.unsupported}")
        if row.note:
            self.note(f"{written}: {row.note}")
        self._convert(row, words)

    def _is_fine(self, row: Flag, words: list[str]) -> bool:
        said = value(words[0]) if words else ""
        return any(said == fine or (number(said) is not None and number(said) == number(fine)) or
                   (truth(said) is not None and truth(said) == truth(fine)) for fine in row.fine)

    def _convert(self, row: Flag, words: list[str]) -> None:
        for to in row.to:
            made = self.steps[to.step] if to.step else self.last
            if row.takes is Takes.SWITCH:
                made.flags[to.flag] = []
            elif row.takes is Takes.BOOLEAN and to.flag.startswith("--") and to.convert.__name__ == "same":
                if not words or truth(value(words[0])):
                    made.flags[to.flag] = []
            else:
                made.flags[to.flag] = [edit(word, to.convert) for word in words]

    def finish(self) -> None:
        """Say the old defaults that are not ours, and let the rules look at the whole."""
        if self.script.same:
            self.last.tail = list(self.call.arguments)
        for row in self.script.flags:
            if row.default is not None and row.names[0] not in self.given:
                self._convert(row, [row.default])
        for rule in self.script.rules:
            rule(self)
        for made in self.steps.values():
            self._ask(made)
        for text in self.script.notes:
            self.note(text)

    def _ask(self, made: Made) -> None:
        """A word in capitals for every flag that one of our commands needs and that nothing gave."""
        for need in made.step.needs.split():
            flag, _, word = need.partition("=")
            if flag not in made.flags:
                made.flags[flag] = [word]
                self.note(f"{f'{flag} ' * flag.startswith('-')}{word}: put in {YOURS[word]}; the old command does not say it")

    def word(self, name: str) -> str | None:
        """The value of an old flag, else its default; None where there is neither."""
        words = self.given.get(name)
        row = self.script.flag(name)
        if words:
            return value(words[0])
        return row.default if row else None

    def on(self, name: str, default: bool = False) -> bool:
        """Whether an old switch or boolean is on."""
        words = self.given.get(name)
        if words is None:
            return default
        return truth(value(words[0])) is not False if words else True

    def set(self, flag: str, *words: str, step: str = "") -> None:
        made = self.steps[step] if step else self.last
        made.flags[flag] = list(words)

    def take_stdout(self) -> str | None:
        """The file that standard output goes to, as it is written; the redirection is taken away, for a flag of ours names the file."""
        for at, redirect in enumerate(self.redirects):
            if found := _STDOUT.fullmatch(redirect):
                del self.redirects[at]
                return found.group(1)
        return None

    def drop(self, *flags: str) -> None:
        for flag in flags:
            self.last.flags.pop(flag, None)
