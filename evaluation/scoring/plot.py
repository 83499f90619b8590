"""Scores as pictures: a panel for each task, protocol and data set, a curve over hours for each run, other models as dashed lines.

A panel without markers of a run has a dot for each model instead. A dotted line shows what always giving the same answer scores, because
what is at or below it is noise. Around the mean of enough seeds lies its interval, and every seed is a faint dot. No pyplot: nothing global
changes in the calling process.
"""

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dataset.files import whole_file
from evaluation.scoring.panels import Entry, Panel, conditions, panels, seeds_text, titles
from evaluation.scoring.results import Row
from evaluation.scoring.statistics import Spread

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
LONGEST_TEXT, LONGEST_NAME = 64, 44
TITLE_WIDTH, NAME_WIDTH = 60, 22
"""Characters in one line of a title, and of a name beside a dot."""
LEAST_SEEDS = 3
"""For an interval to be drawn: that of 2 seeds is 12.7 standard errors to either side, which hides all else."""
DOT_INCHES = (0.42, 1.9)
"""Height for each model, and for what stands above and below."""
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
    """Draw `rows` to `path` and say whether there was anything to draw: a score, or a model of which every seed diverged.

    Each panel is 900 x 675 pixels, higher for many models, at most three side by side. Markers of one run are one curve; where there are
    none, each model is a dot. `title` stands above all panels; "" for none.
    """
    from matplotlib.figure import Figure

    runs = _runs(rows)
    shown = panels(rows, lambda row: runs.get(_run_of(row)))
    if not shown:
        return False
    across = min(len(shown), PANELS_IN_A_ROW)
    lines = [shown[first:first + across] for first in range(0, len(shown), across)]
    heights = [max(PANEL_INCHES[1], *map(dots_height, line)) for line in lines]
    figure = Figure((PANEL_INCHES[0] * across, sum(heights)), dpi=DOTS_PER_INCH, layout="constrained")
    axes = list(figure.subplots(len(lines), across, squeeze=False, height_ratios=heights).flat)
    look = looks(shown)
    for panel, place, name in zip(shown, axes, titles(shown, beside_protocol=True), strict=False):
        draw_panel(place, panel, look)
        heading = f"{name}, {panel.dev_size} dev examples, {seeds_text(panel)}"
        place.set_title(f"{wrapped(heading)}\n{wrapped(conditions(panel.protocol, panel.settings))}", fontsize="medium")
        place.legend(loc="best" if panel.curves else "lower right", fontsize="small")
    for place in axes[len(shown):]:
        place.set_visible(False)
    if title:
        figure.suptitle(plain(title))
    with whole_file(path) as partial:
        figure.savefig(partial, format="png")
    return True


def _runs(rows: Sequence[Row]) -> dict[Path, str]:
    """A name for each folder of markers: "student" for a single one, or what tells several runs apart."""
    folders = list(dict.fromkeys(folder for folder in map(_run_of, rows) if folder is not None))
    names = [folder.parent.name for folder in folders]
    if len(folders) == 1:
        return {folders[0]: "student"}
    return {folder: name if names.count(name) == 1 else str(folder.parent) for folder, name in zip(folders, names, strict=True)}


def _run_of(row: Row) -> Path | None:
    """The folder that holds the markers of its run; None for a model beside the runs, though it may be an export with hours."""
    return Path(row["folder"]).parent if row["role"] == "marker" else None


def draw_panel(axes, panel: Panel, look: dict[str, Look]) -> None:
    """One panel in percent without title and legend: curves over hours if it has any, else a dot for each model."""
    if panel.curves:
        _draw_curves(axes, panel, look)
    else:
        _draw_dots(axes, panel, look)
    tidy(axes)


def dots_height(panel: Panel) -> float:
    """Inches that the dots of a panel need; 0 for curves."""
    return 0.0 if panel.curves else DOT_INCHES[0] * len(panel.references) + DOT_INCHES[1]


def interval(spread: Spread) -> tuple[float, float] | None:
    """Of the mean in percent, where there are seeds enough for it to say something."""
    if spread.interval is None or len(spread.values) < LEAST_SEEDS:
        return None
    return 100 * spread.interval[0], 100 * spread.interval[1]


def _draw_dots(axes, panel: Panel, look: dict[str, Look]) -> None:
    """Models from the top in their order: the score with its interval and seeds; its number stands at the right."""
    drawn: list[float] = []
    bands: list[float] = []
    entries = panel.references
    for place, entry in enumerate(entries):
        own, score = look[entry.curve], entry.score
        said = "diverged"
        if score.value is not None:
            spread = score.metrics[score.headline]
            values = [100 * value for value in spread.values]
            said = f"{100 * score.value:.1f}" + ("" if spread.deviation is None else f" ± {100 * spread.deviation:.1f}")
            axes.plot([100 * score.value], [place], marker=own.marker, markersize=7, linestyle="", color=own.colour, zorder=3)
            drawn.append(100 * score.value)
            if len(values) > 1:
                axes.scatter(values, [place] * len(values), s=12, color=own.colour, alpha=0.45, linewidths=0, zorder=2.5)
                drawn.extend(values)
            if ends := interval(spread):
                axes.plot(ends, [place, place], color=own.colour, linewidth=1.4, marker="|", markersize=8, zorder=2)
                bands.extend(ends)
        axes.text(1.02, place, said, transform=axes.get_yaxis_transform(), va="center", fontsize="small")
    _draw_floor(axes, 100 * panel.floor, drawn, bands, is_vertical=True)
    axes.set_yticks(range(len(entries)), [wrapped(shortened(entry.curve, LONGEST_NAME), NAME_WIDTH) for entry in entries])
    axes.set_ylim(len(entries) + 0.3, -0.6)  # room for a legend below the last
    axes.set_xlabel(plain(f"{panel.headline} (%)"))


def _draw_curves(axes, panel: Panel, look: dict[str, Look]) -> None:
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


def _draw_markers(axes, name: str, entries: list[Entry], look: Look, drawn: list[float], bands: list[float]) -> None:
    hours = [entry.score.hours for entry in entries]
    values = [100 * entry.score.value for entry in entries]
    spreads = [entry.score.metrics[entry.score.headline] for entry in entries]
    # Not clipped, so that a point at 0 hours is whole; the limits hold every value.
    axes.plot(hours, values, marker=look.marker, markersize=4.5, linewidth=1.6, color=look.colour, label=plain(name), zorder=3,
              clip_on=False)
    seeds = [(hour, 100 * value) for hour, spread in zip(hours, spreads, strict=True) if len(spread.values) > 1 for value in spread.values]
    if seeds:
        axes.scatter(*zip(*seeds, strict=True), s=10, color=look.colour, alpha=0.45, linewidths=0, zorder=2.5)
    known = [(hour, *ends) for hour, spread in zip(hours, spreads, strict=True) if (ends := interval(spread))]
    if len(known) == len(hours) > 1:
        axes.fill_between(*zip(*known, strict=True), color=look.colour, alpha=0.13, linewidth=0, zorder=2)
    else:
        for hour, low, high in known:
            axes.plot([hour, hour], [low, high], color=look.colour, linewidth=1, marker="_", markersize=6, zorder=2)
    drawn.extend([*values, *(value for _, value in seeds)])
    bands.extend(end for _, *ends in known for end in ends)


def _draw_floor(axes, floor: float, drawn: list[float], bands: list[float], is_vertical: bool = False) -> None:
    """The floor as a line, or as words where a line would squeeze everything else into a corner; and the limits of the scores' axis, which
    is x where the line `is_vertical`."""
    low, high = (min(drawn), max(drawn)) if drawn else (floor, floor)
    span = max(high - low, LEAST_SPAN)
    label = plain(f"{FLOOR_LABEL} ({floor:.1f})")
    if low - floor <= 3 * span:
        line = axes.axvline if is_vertical else axes.axhline
        line(floor, linestyle=":", color=QUIET, linewidth=1.4, label=label, zorder=1.5)
        low, high = min(low, floor), max(high, floor)
    else:
        if not is_vertical:
            axes.text(0.985, 0.02, f"↓ {label}", transform=axes.transAxes, ha="right", va="bottom", color=QUIET, fontsize="small")
        axes.plot([], [], linestyle=":", color=QUIET, label=f"{label}, below")
    low, high = max(min([low, *bands]), low - span), min(max([high, *bands]), high + span)
    edge = max(0.07 * (high - low), (LEAST_SPAN - (high - low)) / 2)
    (axes.set_xlim if is_vertical else axes.set_ylim)(low - edge, high + edge)


def tidy(axes) -> None:
    """The same quiet frame and grid for every chart, and few enough hours below it to be read."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.grid(color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(QUIET)
    axes.tick_params(colors=QUIET, labelcolor=INK)


def shortened(text: str, longest: int) -> str:
    """`text` without its middle where it is longer than `longest` characters."""
    end = longest * 3 // 8
    return text if len(text) <= longest else f"{text[:longest - end - 1]}…{text[-end:]}"


def wrapped(text: str, width: int = TITLE_WIDTH) -> str:
    """`text` for a chart in lines of at most `width` characters."""
    return "\n".join(map(plain, textwrap.wrap(text, width)))


def plain(text: str) -> str:
    """`text` for a chart: no formula between dollar signs, no leading underscore, which hides from a legend, no middle if it is long."""
    text = " ".join(shortened(text, LONGEST_TEXT).split()).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text
