"""The points of a grid: one value of every axis, with the flags that they set and a name for table and folder.

A point is called after what varies, as `method=hidden_mse,init=last`: stable when the grid grows, safe in shells and on file systems.
Two values that would be written alike are refused and not numbered, since a number would change with the grid.
"""

import itertools
import re
from dataclasses import dataclass

from dataset.errors import UserError
from evaluation.sweep.recipe import Recipe, Words

LONGEST_ID = 180
"""Characters; file systems take 255, and the trainer's temporary names need some."""
ALONE = "base"
"""The one point of a sweep without a grid."""


@dataclass(frozen=True)
class Point:
    """`labels`: axis -> name of its value, in the order of the grid; `words`: the flags that the values set."""

    id: str
    labels: dict[str, str]
    words: Words


def make_points(recipe: Recipe) -> list[Point]:
    """All points but the excluded ones, the last axis varying fastest; UserError where two would be called alike or set one flag twice."""
    points = []
    for values in itertools.product(*recipe.grid.values()):
        labels = {axis: value.label for axis, value in zip(recipe.grid, values, strict=True)}
        if not any(partial.items() <= labels.items() for partial in recipe.exclude):
            points.append(Point(_id(labels), labels, _words(recipe, labels, [value.words for value in values])))
    if not points:
        raise UserError(f"{recipe.path}: exclude leaves no point; take something out of it")
    _check_ids(recipe, points)
    return points


def _words(recipe: Recipe, labels: dict[str, str], parts: list[Words]) -> Words:
    words: Words = {}
    owners: dict[str, str] = {}
    for axis, part in zip(labels, parts, strict=True):
        for flag, text in part.items():
            if flag in words:
                raise UserError(f"{recipe.path}: grid: {flag} is set by {owners[flag]}={labels[owners[flag]]} and by "
                                f"{axis}={labels[axis]}; exclude the point, or set it in one of them")
            words[flag], owners[flag] = text, axis
    return words


def _id(labels: dict[str, str]) -> str:
    return ",".join(f"{axis}={_plain(label)}" for axis, label in labels.items()) or ALONE


def _plain(label: str) -> str:
    """`label` without what shells and file systems give a meaning."""
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", label).strip("-.") or "-"


def _check_ids(recipe: Recipe, points: list[Point]) -> None:
    seen: dict[str, Point] = {}
    for point in points:
        other = seen.setdefault(point.id.lower(), point)  # some file systems do not know capitals
        if other is not point:
            axis = next(axis for axis, label in point.labels.items() if label != other.labels[axis])
            raise UserError(f"{recipe.path}: grid: {axis}: {other.labels[axis]!r} and {point.labels[axis]!r} would share the folder "
                            f"{point.id}; name them: {{name: NAME, {axis}: VALUE}}")
        if len(point.id) > LONGEST_ID:
            longest = max(point.labels, key=lambda axis: len(point.labels[axis]))
            raise UserError(f"{recipe.path}: grid: {longest}: {point.labels[longest][:60]!r}... makes a folder's name of {len(point.id)} "
                            f"characters; name the value: {{name: NAME, {longest}: VALUE}}")
