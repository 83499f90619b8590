"""Shell text as people paste it -> simple commands, and words back to text.

Words stay as they are written: variables, `~`, globs and quotes are the user's, and nothing is expanded. What breaks pasted commands is
mended and said: a missing backslash at the end of a line (the shell would take the flags below for a command of their own), a space
behind one, no backslashes at all, prompts, typographic dashes, "(the output file)" and <THE_PORT> in the place of a value. What quotes
hold is told too, for the translator to refuse what the apostrophes of a page's text swallow.
No loop or function is understood beyond its words; a heredoc and a subshell are refused.
"""

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field

from dataset.errors import UserError

_PROMPT = re.compile(
    r"^\s*(?:\([\w.-]+\)\s*)?(?:[\w.-]+@[\w.-]+:\S*?[$#]|[$%❯]|>>>|Run|run|>(?=\s+(?:-|\w+=|[\w./]*python|torchrun|deepspeed)))\s+")
_FENCE = re.compile(r"\s*(?:```|~~~)")
_OPERATORS = ("&&", "||", "|&", ";;", ";", "|", "&")
_REDIRECT = re.compile(r"&>>?|\d*(?:>>|>&|<&|>\||>|<)")
_PLACEHOLDER = re.compile(r"<([A-Za-z][^<>\s]*)>")
_BLANK = " \t\u00a0\u3000"
_PLAIN = re.compile(r"[\w@%+=:,./~$*?\[\]{}<>!^-]+")
_DASHES = re.compile(r"^[–—]+|^-[–—]+")
_VARIABLE = re.compile(r"\$\{?(\w+)\}?")
_BLANK_IN_BRACES = re.compile(r"\$\{[^}]*\s")
_FLAG = re.compile(r"--?[A-Za-z]")


@dataclass
class Quote:
    """What is `quoted` from `line` on; `behind_letter`: as an apostrophe is."""

    line: int
    quoted: str
    behind_letter: bool


@dataclass
class Command:
    """A simple command: its `words`, its redirections, the `operator` behind it ("" at the end, "\\n" at the end of a line), its quotes."""

    line: int
    words: list[str] = field(default_factory=list)
    redirects: list[str] = field(default_factory=list)
    operator: str = ""
    quotes: list[Quote] = field(default_factory=list)


def is_flag(word: str) -> bool:
    """Whether a word is a flag's name, and no negative number."""
    return _FLAG.match(word) is not None


def parse_shell(text: str) -> tuple[list[Command], list[str]]:
    """The commands of `text` and a note for whatever was mended; UserError, which names the line, for what cannot be read."""
    return _Reader(text).read()


class _Reader:
    def __init__(self, text: str) -> None:
        lines = text.replace("\r\n", "\n").expandtabs().split("\n")
        self.text = "\n".join("" if _FENCE.match(line) else _PROMPT.sub("", line, count=1) for line in lines)
        self.at, self.line = 0, 1
        self.commands: list[Command] = []
        self.notes: list[str] = []
        self.mended: list[str] = []  # lines whose forerunner lacks its backslash
        self.command = Command(1)

    def read(self) -> tuple[list[Command], list[str]]:
        while self.at < len(self.text):
            self.step()
        self.close("")
        if self.mended:
            self.notes.append(f"flags at the beginning of line {', '.join(self.mended)} belong to the command above, whose line lacks a "
                              "backslash; the shell would run it without them")
        return self.commands, self.notes

    def step(self) -> None:
        text, at = self.text, self.at
        continued = re.compile(r"\\([^\S\n]*)\n").match(text, at)
        if continued:
            if continued.group(1):
                self.notes.append(f"line {self.line}: blanks behind the backslash are taken away; the shell would have ended the command")
            self.at, self.line = continued.end(), self.line + 1
        elif text[at] in _BLANK:
            self.at += 1
        elif text[at] == "\n":
            self.close("\n")
            self.at, self.line = at + 1, self.line + 1
        elif text[at] == "#":
            self.at = end if (end := text.find("\n", at)) >= 0 else len(text)
        elif redirect := _redirection(text, at):
            self.redirect(redirect)
        elif operator := next((one for one in _OPERATORS if text.startswith(one, at)), None):
            self.at += len(operator)
            self.close(operator)
        else:
            line = self.line
            self.take(self.word(), line)

    def redirect(self, operator: str) -> None:
        if operator.endswith("<") and self.text.startswith("<<", self.at):
            raise UserError(f"line {self.line}: a heredoc is not understood; give the command without it")
        self.at += len(operator)
        while self.text[self.at:self.at + 1] and self.text[self.at] in _BLANK:
            self.at += 1
        target = self.word() if self.at < len(self.text) and self.text[self.at] != "\n" else ""
        if not target:
            raise UserError(f"line {self.line}: no file behind {operator}; name one")
        blank = "" if operator.endswith("&") else " "
        self.command.redirects.append(f"{operator}{blank}{target}")

    def word(self) -> str:
        """The word that begins here, as it is written; with several kinds of quotes in it, in one kind."""
        start, line, words = self.at, self.line, ""
        if self.text[start] == "(":
            return self.placeholder()
        while self.at < len(self.text):
            letter = self.text[self.at]
            if letter in "'\"`":
                self.skip_quoted(letter, line)
            elif letter == "\\":
                if self.text.startswith("\n", self.at + 1):
                    break
                self.at += 2
            elif self.text.startswith(("$(", "${"), self.at):
                self.skip_nested(line)
            elif placeholder := _PLACEHOLDER.match(self.text, self.at):
                name = re.sub(r"\W+", "_", placeholder.group(1)).strip("_").upper()
                self.notes.append(f"line {line}: {placeholder.group()}: put yours in the place of {name}")
                words += self.text[start:self.at] + name
                start = self.at = placeholder.end()
            elif letter in _BLANK + "\n;|&<>()":
                if letter == "(" or (letter == ")" and self.at == start):
                    raise UserError(f"line {line}: {self.text[start:self.at + 1]!r} is not understood; give plain commands")
                break
            else:
                self.at += 1
        return words + self.text[start:self.at]

    def placeholder(self) -> str:
        """"(the output file)" stands for a value where a value may stand."""
        if not self.command.words and not self.command.redirects:
            raise UserError(f"line {self.line}: a subshell is not understood; give the commands in it without parentheses")
        depth, start = 0, self.at
        while self.at < len(self.text):
            depth += {"(": 1, ")": -1}.get(self.text[self.at], 0)
            self.at += 1
            if depth == 0:
                return shlex.quote(self.text[start:self.at])
        raise UserError(f"line {self.line}: ( without its ); close it")

    def skip_quoted(self, quote: str, line: int) -> None:
        end = self.at + 1
        while end < len(self.text) and self.text[end] != quote:
            end += 2 if self.text[end] == "\\" and quote != "'" else 1
        if end >= len(self.text):
            raise UserError(f"line {line}: {quote} is not closed; add the other one")
        self.command.quotes.append(Quote(self.line, self.text[self.at + 1:end], self.text[self.at - 1:self.at].isalnum()))
        self.line += self.text.count("\n", self.at, end)
        self.at = end + 1

    def skip_nested(self, line: int) -> None:
        pairs = {"(": ")", "{": "}"}
        stack: list[str] = []
        self.at += 1
        while self.at < len(self.text):
            letter = self.text[self.at]
            if letter in "'\"":
                self.skip_quoted(letter, line)
                continue
            if letter in pairs:
                stack.append(pairs[letter])
            elif stack and letter == stack[-1]:
                stack.pop()
            self.at += 1
            if not stack:
                return
        raise UserError(f"line {line}: $ with an open bracket; close it")

    def take(self, word: str, line: int) -> None:
        if word == "-":  # a bullet of the next paragraph, when a rendered page was copied
            return
        if _DASHES.match(word):
            mended = _DASHES.sub("--", word)
            self.notes.append(f"line {line}: {word} is read as {mended}")
            word = mended
        if not self.command.words and is_flag(word) and self.commands and self.commands[-1].operator == "\n":
            quotes, self.command = self.command.quotes, self.commands.pop()
            self.command.quotes += quotes
            self.mended.append(str(line))
        if not self.command.words:
            self.command.line = line
        self.command.words.append(word)

    def close(self, operator: str) -> None:
        if self.command.words:
            self.command.operator = operator
            self.commands.append(self.command)
        elif operator != "\n" and operator and self.commands:
            self.commands[-1].operator = operator
        self.command = Command(self.line)


def _redirection(text: str, at: int) -> str | None:
    found = _REDIRECT.match(text, at)
    return None if found is None or _PLACEHOLDER.match(text, at) else found.group()


def last_name(text: str) -> str:
    """What stands behind the last slash."""
    return text.rpartition("/")[2]


def value(word: str) -> str:
    """What a word says without its quotes; variables stay."""
    if _PLAIN.fullmatch(word) or _is_computed(word) or _BLANK_IN_BRACES.search(_outside(word, "'\"")):
        return word
    try:
        return "".join(shlex.split(word, comments=False))
    except ValueError:
        return word


def _is_computed(word: str) -> bool:
    """Whether a command's output is part of a word."""
    return "`" in _outside(word) or "$(" in _outside(word)


def _outside(word: str, quotes: str = "'") -> str:
    """A word without what is in single quotes, where nothing is expanded, or without what is in any of `quotes`."""
    kept, quote, at = [], "", 0
    while at < len(word):
        letter = word[at]
        if letter == quote:
            quote = ""
        elif not quote and letter in ("'", '"'):
            quote = letter
        elif quote != "'" and letter == "\\":
            at += 1
        elif not quote or quote not in quotes:
            kept.append(letter)
        at += 1
    return "".join(kept)


def edit(word: str, change: Callable[[str], str]) -> str:
    """`change` done to what a word says, in the quotes that it had, or in ones that it needs."""
    if word[:1] == word[-1:] == "'" and "'" not in word[1:-1] and len(word) > 1:
        return shlex.quote(change(word[1:-1]))
    if word[:1] == word[-1:] == '"' and len(word) > 1 and '"' not in word[1:-1].replace('\\"', ""):
        return f'"{change(word[1:-1])}"'
    if _PLAIN.fullmatch(word):
        changed = change(word)
        return changed if _PLAIN.fullmatch(changed) else f'"{changed}"'
    inner = value(word)
    if inner == word and any(letter in word for letter in "'\"\\"):  # its quotes are among what the shell has still to read
        return change(word)
    return f'"{change(inner)}"' if "$" in _outside(word) or "`" in _outside(word) else shlex.quote(change(inner))


def variable(text: str) -> str | None:
    """The name of the variable that a text consists of, or None."""
    found = _VARIABLE.fullmatch(text)
    return found.group(1) if found else None


def wrapped(words: list[str], width: int = 120) -> str:
    """Words as one command, over several lines with backslashes where it is longer than `width`; a flag stays beside its values."""
    whole = " ".join(words)
    if len(whole) <= width:
        return whole
    pieces: list[str] = []
    for index, word in enumerate(words):
        if pieces and not (is_flag(word) and index > 1):
            pieces[-1] += f" {word}"
        else:
            pieces.append(word)
    lines = [pieces[0]]
    for piece in pieces[1:]:
        if len(lines[-1]) + len(piece) + 3 <= width:
            lines[-1] += f" {piece}"
        else:
            lines.append(f"    {piece}")
    return " \\\n".join(lines)
