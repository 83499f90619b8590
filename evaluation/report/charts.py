"""The charts of a report, each as SVG for the page and as a PNG: a run or a model has one colour and one marker in all of them."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup

from evaluation.report.curves import Chart, Line
from evaluation.report.svg import DRAWING, save
from evaluation.scoring.panels import Panel, conditions, seeds_text
from evaluation.scoring.plot import LEAST_SEEDS, Look, dots_height, draw_panel, plain, tidy, wrapped
from evaluation.scoring.statistics import CONFIDENCE

INCHES = (5.2, 3.1)
LEGEND_LINE_INCHES = 0.2
DOTS_PER_INCH = 160
TITLE_WIDTH = 54


@dataclass(frozen=True)
class Drawing:
    """A chart on the page: its element, its PNG's name, its title and what stands below it."""

    svg: Markup
    png: str
    title: str
    caption: str


class Studio:
    """Draws into `folder` (PNGs) and gives every chart a name of its own."""

    def __init__(self, folder: Path, look: dict[str, Look]) -> None:
        self.folder, self.look = folder, look
        self._names: set[str] = set()

    def draw_chart(self, chart: Chart) -> Drawing:
        """Curves over hours."""
        figure, axes = self._new(len({line.run for line in chart.lines}) + 1)
        for line in chart.lines:
            self._draw_line(axes, line, chart)
        axes.set_xlabel("training time (hours)")
        axes.set_ylabel(plain(chart.axis))
        axes.set_xlim(left=0)
        if chart.is_logarithmic:
            axes.set_yscale("log")
            self._plain_ticks(axes)
        elif not chart.key.startswith("loss"):
            axes.set_ylim(bottom=0)
        tidy(axes)
        return self._finish(figure, axes, chart.title, self._words(chart), f"{chart.title} over hours; {_ends(chart.lines)}")

    def draw_scores(self, panel: Panel, title: str) -> Drawing:
        """Score against hours, or by model where there are no markers of a run."""
        figure, axes = self._new(len(panel.curves) + len(panel.references) + 1 if panel.curves else 1, dots_height(panel))
        draw_panel(axes, panel, self.look)
        caption = (f"{panel.headline} on {panel.dev_size} dev examples, {panel.protocol['aggregate']} of {seeds_text(panel)}, protocol "
                   f"{conditions(panel.protocol, panel.settings)}, data {panel.data_sha256[:8]}.")
        ends = "; ".join(f"{name} ends at {_percent(entries[-1].score.value)}" for name, entries in panel.curves.items())
        lines = "; ".join(f"{entry.curve} {_percent(entry.score.value)}" for entry in panel.references)
        words = (f"{panel.headline} on {panel.task} over hours: {ends}{f'; lines: {lines}' if lines else ''}" if panel.curves
                 else f"{panel.headline} on {panel.task} by model: {lines}")
        return self._finish(figure, axes, title, caption, words)

    def _new(self, names: int, height: float = 0.0):
        """(figure, axes) with room for a legend of `names` entries below; `height` in inches above it, 0 for what all have."""
        import matplotlib
        from matplotlib.figure import Figure

        with matplotlib.rc_context(DRAWING):
            figure = Figure((INCHES[0], (height or INCHES[1]) + LEGEND_LINE_INCHES * names), dpi=DOTS_PER_INCH, layout="constrained")
            return figure, figure.add_subplot()

    def _draw_line(self, axes, line: Line, chart: Chart) -> None:
        look = self.look[line.run]
        has_both = any(other.held_out != line.held_out for other in chart.lines if other.run == line.run)
        label = f"{line.run}, held-out" if line.held_out else f"{line.run}, training" if has_both else line.run
        if line.held_out:
            axes.plot(line.hours, line.values, color=look.colour, marker=look.marker, markersize=4.5, linewidth=1.5, label=plain(label),
                      zorder=3, clip_on=False)  # the limits hold every value, and a point at 0 hours stays whole
        else:
            lone = "." if np.isfinite(line.values).sum() < 3 else ""
            axes.plot(line.hours, line.values, color=look.colour, linewidth=1.0 if has_both else 1.4, alpha=0.6 if has_both else 1,
                      marker=lone, label=plain(label), zorder=2)

    @staticmethod
    def _plain_ticks(axes) -> None:
        """0.02 and not a power of ten, which would need a formula."""
        from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=9))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_minor_formatter(NullFormatter())

    @staticmethod
    def _words(chart: Chart) -> str:
        parts = [f"{chart.axis[0].upper()}{chart.axis[1:]}{', logarithmic' if chart.is_logarithmic else ''}."]
        if any(line.held_out for line in chart.lines):
            parts.append("Thin: training, mean of each logged interval; markers: held-out.")
        thinned = [line for line in chart.lines if line.is_thinned]
        if thinned:
            parts.append(f"Thinned out for drawing, with every interval's extremes: {sum(len(line.hours) for line in thinned):,} of "
                         f"{sum(line.logged for line in thinned):,} points.")
        if any(np.isnan(line.values).any() for line in chart.lines):
            parts.append("Gaps: values that were not finite.")
        return " ".join(parts)

    def _finish(self, figure, axes, title: str, caption: str, words: str) -> Drawing:
        import matplotlib

        with matplotlib.rc_context(DRAWING):
            axes.set_title(wrapped(title, TITLE_WIDTH))
            handles, labels = axes.get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside lower left", ncols=1 if max(map(len, labels), default=0) > 30 else 2)
            name = self._name(title)
            svg = save(figure, name, self.folder / f"{name}.png", title, words)
        return Drawing(svg, f"{name}.png", title, caption)

    def _name(self, title: str) -> str:
        """A file name and prefix of ids, from the title: letters, digits and underscores."""
        stem = name = re.sub(r"[^a-z0-9]+", "_", title.lower()).strip("_")[:60] or "chart"
        number = 2
        while name in self._names:
            name, number = f"{stem}_{number}", number + 1
        self._names.add(name)
        return name


def _ends(lines: Iterable[Line]) -> str:
    """The last finite value of every line, for readers who see no chart."""
    found = []
    for line in lines:
        values = line.values[np.isfinite(line.values)]
        found.append(f"{line.run}{' held-out' if line.held_out else ''} ends at {values[-1]:.4g}")
    return "; ".join(found)


def _percent(value: float | None) -> str:
    return "no finite score" if value is None else f"{100 * value:.1f} percent"


def reading(shown: Sequence[Panel]) -> str:
    """How the charts of scores are read."""
    has_curves, has_dots = (any(bool(panel.curves) == wanted for panel in shown) for wanted in (True, False))
    parts = ["Percent against hours of training." if has_curves else "Percent by model.",
             "A point is the mean or the median of its seeds, as its protocol says; faint dots are single seeds; the band, or bar, is the "
             f"{CONFIDENCE:.0%} interval of their mean by Student's t, cut where it leaves the chart; fewer than {LEAST_SEEDS} seeds have "
             "none."]
    if has_curves:
        parts.append("Dashed: models beside the runs. Without markers of a run there is a dot for each model." if has_dots
                     else "Dashed: models beside the runs.")
    return " ".join([*parts, "Dotted: what always giving the same answer scores; what is at or below it has learnt nothing."])
