"""The form of the one table: an old script with its flags -> our commands. Translator, tests and `docs/migrating.md` all read it.

A row says what becomes of a flag: ours (renamed, or with its value converted), "no effect here: why", or "not supported: what would
work". An old default that is not ours is said out loud. What follows from several flags together is a rule, a function with a line for
the page; rules see the whole call and nothing else does.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from translation.conversions import Convert, same

YOURS = {
    "CACHE": "the folder of teacher outputs", "DUMP": "the file of Wikipedia's dump", "EXTRACTED": "the folder that WikiExtractor wrote",
    "GLUE": "the folder of all tasks' data", "MODEL": "the model's folder", "PARTS": "how many parts",
    "RECIPE": "the YAML file of the sweep", "RUNS": "the folder of runs", "SAMPLES": "the folder of samples",
    "SCORES": "a folder for the scores", "SHARDS": "the folder of text shards", "STUDENT": "a folder for the student's first weights",
    "TASK": "the task's name", "TEACHER": "the teacher's folder", "TEXT": "the folder of texts",
    "VOCABULARY_FILE": "the tokenizer's vocab.txt",
}
"""Words in the place of what an old command leaves out, and what belongs there."""


class Takes(Enum):
    """What stands behind a flag. BOOLEAN: nothing, or true or false in any spelling (absl, HfArgumentParser)."""

    WORD = "word"
    SWITCH = "switch"
    BOOLEAN = "boolean"
    OPTIONAL = "optional word"
    LIST = "words"


@dataclass(frozen=True)
class To:
    """Our flag, and the conversion of the value; `step` is the name of one of our commands ("": the last of them)."""

    flag: str
    convert: Convert = same
    step: str = ""


@dataclass(frozen=True)
class Flag:
    """`old`: names without dashes, several with blanks between. `default`: the old one, said where ours differs (`said`: it is ours in
    old words). `no_effect`, `unsupported`: why, and what would work; with `fine` the values for which `unsupported` does not matter.
    `page`: what the page says in place of what the fields say.
    """

    old: str
    to: tuple[To, ...] = ()
    takes: Takes = Takes.WORD
    default: str | None = None
    no_effect: str = ""
    unsupported: str = ""
    fine: tuple[str, ...] = ()
    note: str = ""
    page: str = ""

    @property
    def names(self) -> list[str]:
        return self.old.split()


@dataclass(frozen=True)
class Step:
    """One of our commands. `words` begin with the script or `-m module`; `launched`: the old launcher stays in front of it. `needs`:
    flags of ours that it does not run without, `--flag=WORD` with blanks between; the WORD of `YOURS` stands where nothing gave one.
    """

    name: str
    words: str
    launched: bool = False
    needs: str = ""


@dataclass(frozen=True)
class Script:
    """An old script. `names`: file names and modules. `rules` run in order when the flags are converted. `example` is a command line of
    ours for the page and the tests. `required`: flags without which the old script does not run, which tells scripts of one name apart.
    `stray`: the flag to which a path without a flag belongs. `own`: flags of our script of that name, which stay as they are.
    `instead`: of one without a command of ours, what does its work; printed as a comment.
    """

    names: tuple[str, ...]
    steps: tuple[Step, ...]
    flags: tuple[Flag, ...]
    example: str
    title: str = ""
    rules: tuple[Callable, ...] = ()
    notes: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    stray: str = ""
    own: Callable[[], frozenset[str]] | None = None
    positional: str = ""
    instead: str = ""
    same: bool = False

    def flag(self, name: str) -> Flag | None:
        return next((flag for flag in self.flags if name in flag.names), None)


@dataclass(frozen=True)
class System:
    """The scripts of one README, in its order."""

    key: str
    title: str
    scripts: tuple[Script, ...] = field(default_factory=tuple)


def renamed(pairs: str, **kwargs) -> tuple[Flag, ...]:
    """Rows from words `old` (the same name), `old>ours`, `old=default` or `old>ours=default`."""
    rows = []
    for word in pairs.split():
        names, _, default = word.partition("=")
        old, _, ours = names.partition(">")
        rows.append(Flag(old, (To(f"--{ours or old}"),), default=default or None, **kwargs))
    return tuple(rows)


def without_effect(names: str, why: str, takes: Takes = Takes.WORD) -> tuple[Flag, ...]:
    """Rows of flags that all have no effect for one reason."""
    return tuple(Flag(name, takes=takes, no_effect=why) for name in names.split())
