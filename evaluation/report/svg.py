"""A matplotlib figure as a PNG and as SVG to set into an HTML page: the page's colours and font, ids of its own, text that can be selected.

Light and dark are one drawing: every colour of the figure becomes a CSS variable.
"""

import io
import re
import warnings
from pathlib import Path

from markupsafe import Markup, escape

from evaluation.scoring.plot import COLOURS, GRID, INK, QUIET

VARIABLES = {**{colour: f"var(--c{number})" for number, colour in enumerate(COLOURS)},
             "#ffffff": "var(--paper)", INK: "var(--ink)", QUIET: "var(--quiet)", GRID: "var(--grid)"}
DRAWING = {"svg.fonttype": "none", "text.color": INK, "axes.labelcolor": INK, "axes.titlecolor": INK, "font.size": 10,
           "axes.formatter.useoffset": False, "legend.frameon": False, "legend.fontsize": 9,
           "axes.titlesize": 10.5, "axes.titleweight": "bold", "axes.titlelocation": "left"}


def save(figure, name: str, png: Path, title: str, description: str) -> Markup:
    """Write `figure` to `png` and give it as an SVG element whose ids begin with `name`; the same figure gives the same bytes."""
    import matplotlib

    with warnings.catch_warnings(), matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a name in a script that the PNG's font lacks
        figure.savefig(png, format="png", metadata={"Software": None})
        figure.set_layout_engine(None)  # it is laid out; a second time would cost as much as drawing
        text = io.StringIO()
        figure.savefig(text, format="svg", facecolor="none", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return inline(text.getvalue(), name, title, description)


def inline(svg: str, name: str, title: str, description: str) -> Markup:
    """An SVG file of matplotlib's as an element of an HTML page."""
    body = svg[svg.index("<svg"):]
    box = re.search(r'viewBox="([^"]*)"', body).group(1)
    body = body[body.index(">") + 1:]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'<style type="text/css">.*?</style>', "", body, flags=re.DOTALL)  # it would hold for the whole page, which says the same
    body = re.sub(r'\b(id=")([^"]+)"', rf'\1{name}-\2"', body)
    body = re.sub(r'(xlink:href="#|url\(#)', rf"\1{name}-", body)
    body = re.sub(r"font: ([^;\"]*?)(\d+(?:\.\d+)?px)[^;\"]*", r"font: \1\2 var(--sans)", body)
    body = re.sub(r"font-family: [^;\"]*", "font-family: var(--sans)", body)
    body = re.sub(r"#[0-9a-f]{6}\b", lambda found: VARIABLES.get(found.group(), found.group()), body)
    body = re.sub(r"\n\s*", "\n", body)
    head = (f'<svg class="chart" viewBox="{box}" role="img" aria-labelledby="{name}-title {name}-words">'
            f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-words">{escape(description)}</desc>')
    return Markup(head + body.strip())
