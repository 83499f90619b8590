"""One HTML page about a run, or a comparison of several: losses and speed over hours, scores against hours, cost, flags.

    python -m evaluation.report runs/job/1
    python -m evaluation.report runs/job/a runs/job/b --output_dir comparison --scores baselines
    python -m evaluation.report sweeps/objectives         all runs of a sweep, or students of a recipe, that ended
    python -m evaluation.report scores                    what run_glue.py --models A B wrote

Writes report.html, which needs no network and no other file, and the charts as PNGs in report_charts/ beside it. Scores are those in each
run's glue.json, which run_glue.py writes, and in the folders of --scores. A run that is still going can be reported on as well.
"""

import argparse
from pathlib import Path

from dataset.errors import OneLineParser, UserError, run_command

DEFAULT_NAME = "report"


def _parser() -> OneLineParser:
    parser = OneLineParser(prog="python -m evaluation.report", description=__doc__, allow_abbrev=False,
                           formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="FOLDER",
                        help="folder of a run, OUTPUT_DIR/JOB_NAME/CURRENT_RUN_ID, of a sweep or a task's recipe, or of scores (glue.json)")
    parser.add_argument("--output_dir", type=Path, help=f"where the page goes; default for one folder: FOLDER/{DEFAULT_NAME}")
    parser.add_argument("--scores", nargs="+", type=Path, action="extend", default=[], metavar="FOLDER",
                        help="folders with a glue.json of more models, or of these runs' markers")
    return parser


def main(arguments: list[str] | None = None) -> None:
    flags = _parser().parse_args(arguments)
    runs = [run.expanduser() for run in flags.runs]
    if flags.output_dir is None and len(runs) > 1:
        raise UserError(f"{len(runs)} folders: --output_dir FOLDER says where their comparison goes")
    from evaluation.report.page import CHARTS_NAME, write_report
    from evaluation.scoring.panels import counted

    page = write_report(runs, (flags.output_dir or runs[0] / DEFAULT_NAME).expanduser(), [folder.expanduser() for folder in flags.scores])
    charts = page.parent / CHARTS_NAME
    print(f"{page}\n{charts}: {counted(len(list(charts.glob('*.png'))), 'chart')} as PNG")


if __name__ == "__main__":
    run_command(main)
