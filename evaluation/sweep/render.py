"""A sweep's table as text, Markdown, CSV and JSON: the first two for reading, in percent, the others for programs, as fractions."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from dataset.files import write_json, write_text
from evaluation.scoring.statistics import Spread
from evaluation.sweep.table import Line, Table, as_json

NO_VALUE = "-"
NAME = "table"


def write_table(table: Table, folder: Path) -> list[Path]:
    """Write table.txt, table.md, table.csv and table.json to `folder`; the paths."""
    paths = [folder / f"{NAME}.{ending}" for ending in ("txt", "md", "csv", "json")]
    folder.mkdir(parents=True, exist_ok=True)
    write_text(paths[0], as_text(table) + "\n")
    write_text(paths[1], as_markdown(table) + "\n")
    write_text(paths[2], as_csv(table))
    write_json(paths[3], as_json(table))
    return paths


def as_text(table: Table) -> str:
    """Columns in line, then what is missing and what the numbers are."""
    rows = [_head(table), *(_cells(table, line) for line in table.lines)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    names = max(1, len(table.axes))
    lines = ["  ".join(cell.ljust(width) if at < names else cell.rjust(width)
                       for at, (cell, width) in enumerate(zip(row, widths, strict=True))).rstrip() for row in rows]
    return "\n".join([*lines, *([""] if table.missing else []), *(f"missing: {text}" for text in table.missing), "", *table.notes])


def as_markdown(table: Table) -> str:
    """A heading, the table, and what is missing as a list."""
    names = max(1, len(table.axes))
    head = _head(table)
    rows = [head, [":--" if at < names else "--:" for at in range(len(head))], *(_cells(table, line) for line in table.lines)]
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    missing = ["", "Missing:", "", *(f"- {text}" for text in table.missing)] if table.missing else []
    return "\n".join([f"# {table.title}", "", *lines, *missing, "", *(f"{note[0].upper()}{note[1:]}." for note in table.notes)])


def as_csv(table: Table) -> str:
    """One line for each row: names, hours, then mean, deviation and number of values for each task and the average."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = [*table.tasks, *(["average"] if len(table.tasks) > 1 else [])]
    writer.writerow(["kind", "name", *table.axes, "marker", "hours", "hours_deviation",
                     *(f"{column}{ending}" for column in columns for ending in ("", "_deviation", "_n")), "retention"])
    for line in table.lines:
        found = [*line.values.values(), *([line.average] if len(table.tasks) > 1 else [])]
        numbers = [part for one in found for part in (("", "", 0) if one is None else
                                                      (getattr(one, line.aggregate), _or_empty(one.deviation), len(one.values)))]
        hours = ("", "") if line.hours is None else (line.hours.mean, _or_empty(line.hours.deviation))
        writer.writerow([line.kind, line.name, *(line.labels.get(axis, "") for axis in table.axes), line.marker, *hours, *numbers,
                         _or_empty(line.retention)])
    return text.getvalue()


def _or_empty(value: float | None) -> float | str:
    return "" if value is None else value


def _head(table: Table) -> list[str]:
    return [*(table.axes or ("point",)), "marker", "hours", *table.tasks, *(["average"] if len(table.tasks) > 1 else []), "kept of teacher"]


def _cells(table: Table, line: Line) -> list[str]:
    names = [line.labels.get(axis, "") for axis in table.axes] if line.labels else [line.name, *[""] * (len(table.axes) - 1)]
    hours = NO_VALUE if line.hours is None else f"{line.hours.mean:.3g}"
    scores = [_cell(one, line) for one in line.values.values()]
    if len(table.tasks) > 1:
        scores.append(_cell(line.average, line))
    return [*names, line.marker or NO_VALUE, hours, *scores, NO_VALUE if line.retention is None else f"{100 * line.retention:.1f}%"]


def _cell(found: Spread | None, line: Line) -> str:
    """85.3 ± 0.4, and `(2 of 3)` where seeds are missing."""
    if found is None:
        return NO_VALUE
    wave = "" if found.deviation is None else f" ± {100 * found.deviation:.1f}"
    part = f" ({len(found.values)} of {line.wanted})" if 0 < len(found.values) < line.wanted else ""
    return f"{100 * getattr(found, line.aggregate):.1f}{wave}{part}"


def plan_text(rows: Sequence[Sequence[str]]) -> str:
    """Rows of text in line, the first column to the left."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
