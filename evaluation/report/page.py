"""The page: everything read, drawn and tabled, set into one HTML file that needs nothing else, with its PNGs in a folder beside it.

Without a run it is a page of scores: what only runs have is not on it.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from dataset.errors import UserError
from dataset.files import reason, whole_folder, write_text
from evaluation.report import score_tables, tables
from evaluation.report.charts import Studio, reading
from evaluation.report.curves import loss_charts, measure_charts, objective
from evaluation.report.run import Run, read_runs
from evaluation.report.scores import Scores, read_scores
from evaluation.report.sources import find_sources
from evaluation.report.svg import VARIABLES
from evaluation.scoring.panels import counted, titles
from evaluation.scoring.plot import looks

PAGE_NAME = "report.html"
CHARTS_NAME = "report_charts"
TEMPLATES = Path(__file__).resolve().parent / "templates"


def write_report(folders: Sequence[Path], output_dir: Path, score_folders: Sequence[Path] = ()) -> Path:
    """Write report.html and report_charts/*.png for the runs, sweeps and scores in `folders` to `output_dir`; gives the page's path.

    UserError where a folder holds none of these, a glue.json is damaged, there is neither a run nor a score that can be shown, or the
    output cannot be written; nothing is half-written.
    """
    sources = find_sources(folders)
    runs = read_runs(sources.runs)
    scores = read_scores(runs, [*sources.scores, *score_folders])
    if not runs and not scores.panels:
        why = f" ({scores.notes[0]})" if scores.notes else ""
        raise UserError(f"{folders[0]}: no score in it can be shown{why}; give the folder of a run, or score models with run_glue.py")
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        with whole_folder(output_dir / CHARTS_NAME) as partial:
            text = render(runs, scores, partial, sources.notes)
        write_text(output_dir / PAGE_NAME, text)
    except OSError as error:
        raise UserError(f"--output_dir {output_dir}: cannot be written ({reason(error)}); give a folder that can") from None
    return output_dir / PAGE_NAME


def render(runs: Sequence[Run], scores: Scores, charts: Path, notes: Sequence[str] = ()) -> str:
    """The page's text, with `notes` among its warnings; its charts are drawn to the existing folder `charts` as well."""
    look = looks(scores.panels, [run.name for run in runs])
    studio = Studio(charts, look)
    several = len(runs) > 1
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
                              lstrip_blocks=True)
    return environment.get_template("page.html").render(
        title=_title(runs, scores),
        style=_file("style.css"), script=_file("script.js"), charts_folder=CHARTS_NAME,
        runs=runs, several=several, facts=tables.facts, purpose=tables.purpose, flag_lines=tables.flag_lines,
        colours={name: VARIABLES[found.colour] for name, found in look.items()},
        run_table=tables.run_table(runs) if several else None,
        notes=notes, counted=counted,
        score_notes=[*scores.notes, *score_tables.learnt_nothing(scores.panels)],
        overviews=score_tables.overview(scores.panels, several),
        score_charts=[studio.draw_scores(panel, name) for panel, name in zip(scores.panels, titles(scores.panels), strict=True)],
        reading=reading(scores.panels),
        all_scores=score_tables.all_scores(scores.panels) if scores.panels else None,
        unscored=[(run, _command(run)) for run in runs if run.name not in scores.scored],
        loss_charts=[studio.draw_chart(chart) for chart in loss_charts(runs)],
        objectives=list(dict.fromkeys(filter(None, map(objective, runs)))),
        measure_charts=[studio.draw_chart(chart) for chart in measure_charts(runs)],
        no_peak=[run.name for run in runs if run.of("train") and not any("mfu" in event for event in run.of("train"))],
        cost=tables.cost_table(runs, scores.seconds),
        differing=tables.differing_flags(runs) if several else None,
    )


def _title(runs: Sequence[Run], scores: Scores) -> str:
    if not runs:
        return f"Scores of {counted(len({entry.curve for panel in scores.panels for entry in panel.entries}), 'model')}"
    return runs[0].name if len(runs) == 1 else f"Comparison of {len(runs)} runs"


def _command(run: Run) -> str:
    """What scores the markers of a run."""
    return f"python run_glue.py --run_dir {shlex.quote(str(run.folder))} --task_name sst2,rte,mrpc --glue_dir GLUE"


def _file(name: str) -> Markup:
    return Markup((TEMPLATES / name).read_text(encoding="utf-8"))
