"""Score against hours: one panel for each task, protocol and data set, one curve for each run, other models as dashed lines.

A dotted line shows what always giving the same answer scores, because curves at or below it are noise. Around a curve of several seeds
lies the interval of the mean, and every seed is a faint dot. No pyplot: nothing global changes in the calling process.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dataset.files import whole_file
from evaluation.scoring.panels import Entry, Panel, panels, protocol_text
from evaluation.scoring.results import Row

FILE_NAME = "glue.png"
PANEL_INCHES = (6.0, 4.5)
DOTS_PER_INCH = 150
PANELS_IN_A_ROW = 3
# Okabe and Ito's colours that colour-blind readers tell apart, darkened to stand on white.
COLOURS = ("#0072b2", "#d55e00", "#00805c", "#b0518c", "#8c6a00", "#3d8fbf", "#7a4fbf", "#8a3b2a")
INK, QUIET, GRID = "#1b1f24", "#6a7079", "#d9dce0"
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")
TEACHER_DASHES = (0, (6, 2))
DASHES = ((0, (6, 2, 1.5, 2)), (0, (3, 1.5)), (0, (6, 1.5, 1.5, 1.5, 1.5, 1.5)))
LONGEST_TEXT = 64
LEAST_SPAN = 2.0  # points of a percent scale, so that equal scores do not look apart
FLOOR_LABEL = "always the same answer"


@dataclass(frozen=True)
class Look:
    """How one run or model is drawn in every chart."""

    colour: str
    marker: str
    dashes: tuple


def looks(shown: Sequence[Panel], runs: Iterable[str] = ()) -> dict[str, Look]:
    """A Look for each run, curve and model beside the runs; teachers are in ink. Colours and markers repeat after eight."""
    lines = {entry.curve: entry.score.role == "teacher" for panel in shown for entry in panel.references}
    coloured = [*runs, *(name for panel in shown for name in panel.curves), *(name for name, is_teacher in lines.items() if not is_teacher)]
    found = {name: Look(COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)], DASHES[number % len(DASHES)])
             for number, name in enumerate(dict.fromkeys(coloured))}
    return found | {name: Look(INK, MARKERS[0], TEACHER_DASHES) for name, is_teacher in lines.items() if is_teacher}


def draw_curve(rows: Sequence[Row], path: Path, title: str) -> bool:
    """Draw `rows` to `path` and say whether there was anything to draw (a row with hours).

    Each panel is 900 x 675 pixels, at most three side by side. Rows without hours are lines; exports of one run are one curve.
    """
    from matplotlib.figure import Figure

    runs = _runs(rows)
    shown = [panel for panel in panels(rows, lambda row: runs[Path(row["folder"]).parent] if "hours" in row else None) if panel.curves]
    if not shown:
        return False
    across = min(len(shown), PANELS_IN_A_ROW)
    down = math.ceil(len(shown) / across)
    figure = Figure((PANEL_INCHES[0] * across, PANEL_INCHES[1] * down), dpi=DOTS_PER_INCH, layout="constrained")
    axes = list(figure.subplots(down, across, squeeze=False).flat)
    look = looks(shown)
    for panel, place in zip(shown, axes, strict=False):
        draw_panel(place, panel, look)
        place.set_title(f"{panel.task}, {panel.dev_size} dev examples, {protocol_text(panel.protocol)}", fontsize="medium")
        place.legend(loc="best", fontsize="small")
    for place in axes[len(shown):]:
        place.set_visible(False)
    figure.suptitle(plain(title))
    with whole_file(path) as partial:
        figure.savefig(partial, format="png")
    return True


def _runs(rows: Sequence[Row]) -> dict[Path, str]:
    """A name for each folder of markers: "student" for a single one, or what tells several runs apart."""
    folders = list(dict.fromkeys(Path(row["folder"]).parent for row in rows if "hours" in row))
    names = [folder.parent.name for folder in folders]
    if len(folders) == 1:
        return {folders[0]: "student"}
    return {folder: name if names.count(name) == 1 else str(folder.parent) for folder, name in zip(folders, names, strict=True)}


def draw_panel(axes, panel: Panel, look: dict[str, Look]) -> None:
    """One panel in percent: curves with their intervals and seeds, lines of references, the floor; no title, no legend."""
    drawn: list[float] = []
    bands: list[float] = []
    for name, entries in panel.curves.items():
        _draw_markers(axes, name, [entry for entry in entries if entry.score.value is not None], look[name], drawn, bands)
    for entry in panel.references:
        if entry.score.value is not None:
            value = 100 * entry.score.value
            drawn.append(value)
            own = look[entry.curve]
            axes.axhline(value, color=own.colour, linewidth=1.4, linestyle=own.dashes, label=plain(f"{entry.curve} ({value:.1f})"),
                         zorder=1.5)
    _draw_floor(axes, 100 * panel.floor, drawn, bands)
    axes.set_xlabel("training time (hours)")
    axes.set_ylabel(plain(f"{panel.headline} (%)"))
    axes.set_xlim(left=0)
    tidy(axes)


def _draw_markers(axes, name: str, entries: list[Entry], look: Look, drawn: list[float], bands: list[float]) -> None:
    hours = [entry.score.hours for entry in entries]
    values = [100 * entry.score.value for entry in entries]
    spreads = [entry.score.metrics[entry.score.headline] for entry in entries]
    axes.plot(hours, values, marker=look.marker, markersize=4.5, linewidth=1.6, color=look.colour, label=plain(name), zorder=3)
    seeds = [(hour, 100 * value) for hour, spread in zip(hours, spreads, strict=True) if len(spread.values) > 1 for value in spread.values]
    if seeds:
        axes.scatter(*zip(*seeds, strict=True), s=7, color=look.colour, alpha=0.45, linewidths=0, zorder=2.5)
    known = [(hour, *(100 * end for end in spread.interval)) for hour, spread in zip(hours, spreads, strict=True) if spread.interval]
    if len(known) == len(hours) > 1:
        axes.fill_between(*zip(*known, strict=True), color=look.colour, alpha=0.13, linewidth=0, zorder=2)
    else:
        for hour, low, high in known:
            axes.plot([hour, hour], [low, high], color=look.colour, linewidth=1, marker="_", markersize=6, zorder=2)
    drawn.extend([*values, *(value for _, value in seeds)])
    bands.extend(end for _, *ends in known for end in ends)


def _draw_floor(axes, floor: float, drawn: list[float], bands: list[float]) -> None:
    """The floor as a line, or as words at the lower edge where a line would squeeze everything else into a corner; and the limits."""
    low, high = (min(drawn), max(drawn)) if drawn else (floor, floor)
    span = max(high - low, LEAST_SPAN)
    label = plain(f"{FLOOR_LABEL} ({floor:.1f})")
    if low - floor <= 3 * span:
        axes.axhline(floor, linestyle=":", color=QUIET, linewidth=1.4, label=label, zorder=1.5)
        low, high = min(low, floor), max(high, floor)
    else:
        axes.text(0.985, 0.02, f"↓ {label}", transform=axes.transAxes, ha="right", va="bottom", color=QUIET, fontsize="small")
        axes.plot([], [], linestyle=":", color=QUIET, label=f"{label}, below")
    low, high = max(min([low, *bands]), low - span), min(max([high, *bands]), high + span)
    edge = max(0.07 * (high - low), (LEAST_SPAN - (high - low)) / 2)
    axes.set_ylim(low - edge, high + edge)


def tidy(axes) -> None:
    """The same quiet frame and grid for every chart."""
    axes.grid(color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(QUIET)
    axes.tick_params(colors=QUIET, labelcolor=INK)


def plain(text: str) -> str:
    """`text` for a chart: no formula between dollar signs, no leading underscore, which hides from a legend, no middle if it is long."""
    text = text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT - 25]}…{text[-24:]}"
    text = " ".join(text.split()).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text
