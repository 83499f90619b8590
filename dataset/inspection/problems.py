"""What is wrong with files, one line for a complaint however many files share it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dataset.shard_format import natural_key

FILES_NAMED = 3


@dataclass(frozen=True)
class Problem:
    """A broken rule: in `rows` rows of a file, the first of them `first`; 0 and None where it is about the file as a whole."""

    rule: str
    rows: int = 0
    first: int | None = None


def told(problems: Sequence[tuple[Path, Problem]]) -> list[str]:
    """A line for each rule with the first files that break it, in the order of the files."""
    by_rule: dict[str, list[tuple[Path, Problem]]] = {}
    for path, problem in sorted(problems, key=lambda one: natural_key(one[0])):
        by_rule.setdefault(problem.rule, []).append((path, problem))
    return [_line(rule, found) for rule, found in by_rule.items()]


def _line(rule: str, found: list[tuple[Path, Problem]]) -> str:
    path, problem = found[0]
    rows = sum(one.rows for _, one in found)
    if len(found) == 1:
        count = f" in row {problem.first}" if rows == 1 else f" in {rows} rows, first in row {problem.first}"
        return f"{path}: {rule}{count if rows else ''}"
    places = ", ".join(f"{one} row {problem.first}" if problem.rows else str(one) for one, problem in found[:FILES_NAMED])
    count = f"{rows:,} rows of {len(found):,} files" if rows else f"{len(found):,} files"
    return f"{rule} in {count}: {places}{', ...' if len(found) > FILES_NAMED else ''}"
