"""Score against hours as a PNG: one panel for each task, one point for each marker, baselines as dashed lines.

A dotted line shows what always predicting the most frequent class scores, because curves below or at it are noise."""

import math
from collections.abc import Sequence
from pathlib import Path

from dataset.files import whole_file
from evaluation.scoring.results import Row

FILE_NAME = "glue.png"
PANEL_INCHES = (6.0, 4.5)
DOTS_PER_INCH = 150
PANELS_IN_A_ROW = 3


def draw_curve(rows: Sequence[Row], path: Path, title: str) -> bool:
    """Draw `rows` to `path` and say whether there was anything to draw (a row with hours).

    Each panel is 900 x 675 pixels, at most three side by side. Rows without hours are drawn as dashed lines. Of several
    rows for one marker and task the last counts. No pyplot: nothing global changes in the calling process.
    """
    from matplotlib.figure import Figure

    tasks = list(dict.fromkeys(row["task"] for row in rows if "hours" in row))
    if not tasks:
        return False
    across = min(len(tasks), PANELS_IN_A_ROW)
    down = math.ceil(len(tasks) / across)
    figure = Figure((PANEL_INCHES[0] * across, PANEL_INCHES[1] * down), dpi=DOTS_PER_INCH, layout="constrained")
    panels = figure.subplots(down, across, squeeze=False).flat
    for task, panel in zip(tasks, panels, strict=False):
        _draw_panel(panel, list({row["model"]: row for row in rows if row["task"] == task}.values()), task)
    for panel in list(figure.axes)[len(tasks):]:
        panel.set_visible(False)
    figure.suptitle(title)
    with whole_file(path) as partial:
        figure.savefig(partial, format="png")
    return True


def _draw_panel(panel, rows: list[Row], task: str) -> None:
    """One task: markers in order of hours, then a dashed line in its own colour for each baseline."""
    scores = {row["model"]: 100 * row["metrics"][row["headline"]] for row in rows if not row["diverged"]}
    markers = sorted((row for row in rows if "hours" in row), key=lambda row: (row["hours"], row["step"]))
    points = [(row["hours"], scores[row["model"]]) for row in markers if row["model"] in scores]
    panel.plot([hours for hours, _ in points], [value for _, value in points], marker="o", color="C0", label="student")
    baselines = [row["model"] for row in rows if "hours" not in row and row["model"] in scores]
    for number, name in enumerate(baselines, start=1):
        panel.axhline(scores[name], linestyle="--", color=f"C{number}", label=f"{name} ({scores[name]:.1f})")
    floor = 100 * rows[0]["constant_metrics"][rows[0]["headline"]]
    panel.axhline(floor, linestyle=":", color="grey", label=f"always the most frequent class ({floor:.1f})")
    panel.set_title(f"{task}, {rows[0]['dev_size']} dev examples")
    panel.set_xlabel("training time (hours)")
    panel.set_ylabel(f"{rows[0]['headline']} (%)")
    panel.set_xlim(left=0)
    panel.margins(y=0.15)
    panel.grid(alpha=0.3)
    panel.legend(loc="best", fontsize="small")
