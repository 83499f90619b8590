"""Which scores may stand beside each other: one Panel for each task, version, protocol and data set, never two of them mixed.

Inside a panel a curve is the markers of one run scored in one way; a model beside the runs is a reference. What `summarise` keeps
apart (weights, mode, teacher in fine-tuning, start) is drawn apart under names that say so.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from evaluation.scoring.jobs import AS_IT_IS
from evaluation.scoring.protocols import DEFAULTS, FLAGS, OWN_HEAD
from evaluation.scoring.results import Row
from evaluation.scoring.statistics import Score, canonical, has_score, summarise


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

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What all of its scores were taken with; a grid's settings are in it only where every score chose the same."""
        first, *others = (entry.score.settings for entry in self.entries)
        return {name: value for name, value in first.items() if all(name in other and other[name] == value for other in others)}

    @property
    def teacher(self) -> Entry | None:
        """The teacher, the first of several; plainly fine-tuned before any other way."""
        teachers = [entry for entry in self.references if entry.score.role == "teacher"]
        return min(teachers, key=lambda entry: bool(entry.variant), default=None)


def protocol_text(protocol: dict[str, Any]) -> str:
    """Such as "quick v1 (3fa2c1d0, changed)": name, version, the first 8 digits of the hash, whether flags changed it."""
    return f"{_protocol_name(protocol)} ({protocol['sha256'][:8]}{', changed' if protocol['changed'] else ''})"


def _protocol_name(protocol: dict[str, Any]) -> str:
    return {FLAGS: "settings from flags", OWN_HEAD: OWN_HEAD}.get(protocol["name"], f"{protocol['name']} v{protocol['version']}")


def changed_settings(protocol: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Those of `settings` that flags changed in a protocol; without a protocol those that differ from the defaults."""
    if protocol["name"] in (FLAGS, OWN_HEAD):
        return {name: value for name, value in settings.items() if value != DEFAULTS.get(name, value)}
    return {name: settings[name] for name in protocol["changed"] if name in settings}


def changes_text(protocol: dict[str, Any], settings: dict[str, Any]) -> str:
    """Such as "max_train_samples 200, max_seq_length 64, other start_from"; "" where nothing was changed."""
    said = changed_settings(protocol, settings)
    return ", ".join([*_with_values(said, said), *(f"other {name}" for name in protocol["changed"] if name not in said)])


def conditions(protocol: dict[str, Any], settings: dict[str, Any]) -> str:
    """Such as "quick v1 (3fa2c1d0), max_train_samples 200": a protocol with the values of what flags changed in it."""
    changes = changes_text(protocol, settings)
    return f"{_protocol_name(protocol)} ({protocol['sha256'][:8]}){f', {changes}' if changes else ''}"


def told_apart(panel: Panel, others: Sequence[Panel]) -> str:
    """The protocol of `panel`, with the values in which it differs from those of the same name among `others`."""
    kin = [other for other in others if other.protocol["name"] == panel.protocol["name"]]
    names = dict.fromkeys(name for one in (panel, *kin) for name in changed_settings(one.protocol, one.settings))
    differing = [name for name in names if any(other.settings.get(name) != panel.settings.get(name) for other in kin)]
    return ", ".join([protocol_text(panel.protocol), *_with_values(panel.settings, differing)])


def _with_values(settings: dict[str, Any], names: Iterable[str]) -> list[str]:
    return [f"{name} {'all' if settings[name] is None else settings[name]}" for name in names if name in settings]


def seeds_text(panel: Panel) -> str:
    """How many seeds its scores are of, and that two say too little for an interval."""
    if panel.protocol["name"] == OWN_HEAD:
        return "nothing trained"
    counts = sorted({len(entry.score.seeds) for entry in panel.entries})
    said = counted(counts[0], "seed") if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"
    finite = {len(spread.values) for entry in panel.entries for spread in entry.score.metrics.values()}
    return f"{said} (n=2: no useful interval)" if 2 in finite else said


def counted(number: int, what: str) -> str:
    """Such as "1 seed", "2 seeds"."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def titles(shown: Sequence[Panel], beside_protocol: bool = False) -> list[str]:
    """A title for each panel: its task, and what tells it from others of that task; `beside_protocol`: the protocol is said already."""
    found = []
    for panel in shown:
        same = [other for other in shown if other.task == panel.task and (not beside_protocol or other.protocol == panel.protocol)]
        parts = [panel.task]
        if len({protocol_text(other.protocol) for other in same}) > 1:
            parts.append(told_apart(panel, same))
        if len({other.data_sha256 for other in same}) > 1:
            parts.append(f"data {panel.data_sha256[:8]}")
        if len({other.task_version for other in same}) > 1:
            parts.append(f"task version {panel.task_version}")
        found.append(", ".join(parts))
    return found


def panels(rows: Sequence[Row], owner: Callable[[Row], str | None]) -> list[Panel]:
    """Complete `rows` by condition, tasks in the order in which the rows first name them; `owner` gives a row's run, or None."""
    groups: dict[str, list[Row]] = {}
    for row in has_score(rows):
        groups.setdefault(canonical([row["task"], row["task_version"], row["protocol"], row["data_sha256"]]), []).append(row)
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
    parts = [OWN_HEAD] if row["mode"] == AS_IT_IS and row["protocol"]["name"] != OWN_HEAD else []
    if row["teacher_sha256"]:
        parts.append(f"with teacher {row['teacher_sha256'][:6]}")
    if row["start"]:
        parts.append(f"from {row['start']['task']}")
    return ", ".join(parts)
