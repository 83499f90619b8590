"""Which scores may stand beside each other: one Panel for each task, version, protocol and data set, never two of them mixed.

Inside a panel a curve is the markers of one run scored in one way; a model beside the runs is a reference. What `summarise` keeps
apart (weights, mode, teacher in fine-tuning, start) is drawn apart under names that say so.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from evaluation.scoring.jobs import AS_IT_IS
from evaluation.scoring.protocols import FLAGS
from evaluation.scoring.results import Row
from evaluation.scoring.statistics import Score, summarise


@dataclass(frozen=True)
class Entry:
    """A Score and whose it is."""

    owner: str | None
    """The run it is a marker of; None for a model beside the runs."""
    label: str
    """Of the model, different for different weights."""
    variant: str
    """What sets it apart from plain fine-tuning: "" or such as "with teacher 3fa2c1, from MNLI"."""
    score: Score

    @property
    def curve(self) -> str:
        """What its curve or line is called."""
        name = self.label if self.owner is None else self.owner
        return f"{name}, {self.variant}" if self.variant else name


@dataclass(frozen=True)
class Panel:
    """Scores taken under the same conditions, runs in the order in which they were given."""

    task: str
    task_version: int
    headline: str
    protocol: dict[str, Any]
    data_sha256: str
    dev_size: int
    floor: float
    """Of the headline: what always giving the same answer scores; a fraction like every score."""
    entries: tuple[Entry, ...]

    @cached_property
    def curves(self) -> dict[str, list[Entry]]:
        """Markers by the name of their curve, in order of hours."""
        found: dict[str, list[Entry]] = {}
        for entry in self.entries:
            if entry.owner is not None:
                found.setdefault(entry.curve, []).append(entry)
        return {name: sorted(entries, key=lambda entry: (entry.score.hours, entry.score.place["step"])) for name, entries in found.items()}

    @cached_property
    def references(self) -> list[Entry]:
        """Models beside the runs, teachers first."""
        return sorted((entry for entry in self.entries if entry.owner is None), key=lambda entry: entry.score.role != "teacher")

    @property
    def teacher(self) -> Entry | None:
        """The teacher, the first of several; plainly fine-tuned before any other way."""
        teachers = [entry for entry in self.references if entry.score.role == "teacher"]
        return min(teachers, key=lambda entry: bool(entry.variant), default=None)


def protocol_text(protocol: dict[str, Any]) -> str:
    """Such as "quick v1 (3fa2c1d0, changed)": name, version, the first 8 digits of the hash, whether flags changed it."""
    name = "settings from flags" if protocol["name"] == FLAGS else f"{protocol['name']} v{protocol['version']}"
    return f"{name} ({protocol['sha256'][:8]}{', changed' if protocol['changed'] else ''})"


def titles(shown: Sequence[Panel], beside_protocol: bool = False) -> list[str]:
    """A title for each panel: its task, and what tells it from others of that task; `beside_protocol`: the protocol is said already."""
    found = []
    for panel in shown:
        same = [other for other in shown if other.task == panel.task and (not beside_protocol or other.protocol == panel.protocol)]
        parts = [panel.task]
        if len({protocol_text(other.protocol) for other in same}) > 1:
            parts.append(protocol_text(panel.protocol))
        if len({other.data_sha256 for other in same}) > 1:
            parts.append(f"data {panel.data_sha256[:8]}")
        if len({other.task_version for other in same}) > 1:
            parts.append(f"task version {panel.task_version}")
        found.append(", ".join(parts))
    return found


def panels(rows: Sequence[Row], owner: Callable[[Row], str | None]) -> list[Panel]:
    """Complete `rows` by condition, tasks in the order in which the rows first name them; `owner` gives a row's run, or None."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(_text([row["task"], row["task_version"], row["protocol"], row["data_sha256"]]), []).append(row)
    order = list(dict.fromkeys(row["task"] for row in rows))
    return sorted((_panel(group, owner) for group in groups.values()), key=lambda panel: order.index(panel.task))


def _panel(rows: list[Row], owner: Callable[[Row], str | None]) -> Panel:
    first = rows[0]
    return Panel(first["task"], first["task_version"], first["headline"], first["protocol"], first["data_sha256"],
                 first["dev_size"], first["constant_metrics"][first["headline"]], _entries(rows, owner))


def _entries(rows: list[Row], owner: Callable[[Row], str | None]) -> tuple[Entry, ...]:
    owned: dict[str | None, list[Row]] = {}
    for row in rows:
        owned.setdefault(owner(row), []).append(row)
    entries = [Entry(name, score.model, _variant(score.rows[0]), score) for name, own in owned.items() for score in summarise(own)]
    weights: dict[tuple, set[str]] = {}
    for entry in entries:
        weights.setdefault((entry.owner, entry.label), set()).add(entry.score.rows[0]["weights_sha256"])
    return tuple(
        replace(entry, label=f"{entry.label} ({entry.score.rows[0]['weights_sha256'][:6]})")
        if len(weights[entry.owner, entry.label]) > 1 else entry for entry in entries)


def _variant(row: Row) -> str:
    parts = ["own head"] if row["mode"] == AS_IT_IS else []
    if row["teacher_sha256"]:
        parts.append(f"with teacher {row['teacher_sha256'][:6]}")
    if row["start"]:
        parts.append(f"from {row['start']['task']}")
    return ", ".join(parts)


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
