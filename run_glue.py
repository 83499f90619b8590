"""Fine-tune and score models on GLUE, SQuAD or tasks of your own: one checkpoint, several, or every marker of a run.

    python run_glue.py --run_dir runs/job/1 --task_name sst2,rte --glue_dir glue --protocol quick --with_teacher
    python run_glue.py --run_dir runs/job/1 --task_name sst2 --glue_dir glue --protocol quick --watch --devices cpu
    python run_glue.py --models student teacher --task_name glue --glue_dir glue --protocol sane --output_dir scores

Writes glue.json (every fine-tuning there ever was, with all that decided it), glue.csv (what the seeds say together) and glue.png of what
this call scored. A second call scores only what is new. `python -m evaluation.report RUN` makes a page of it.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from dataset.errors import UserError, run_command
from evaluation.scoring.candidates import Candidate, find_markers, is_export, model_candidate, named_candidate, run_teacher
from evaluation.scoring.card import update_card
from evaluation.scoring.flags import check_flags, make_parser, scores_as_is, select_protocol, selected_tasks
from evaluation.scoring.jobs import AS_IT_IS, FINE_TUNING, Source
from evaluation.scoring.plan import Wanted
from evaluation.scoring.plot import FILE_NAME as PLOT_NAME
from evaluation.scoring.plot import draw_curve
from evaluation.scoring.results import FILE_NAME as RESULTS_NAME
from evaluation.scoring.results import Row, is_complete, read_results
from evaluation.scoring.score import Scorer
from evaluation.scoring.statistics import summarise
from evaluation.scoring.tables import CSV_NAME, table, write_csv
from evaluation.scoring.watch import watch
from evaluation.tasks.task import Task


def _beside(flags: argparse.Namespace) -> list[Candidate]:
    """What markers and models are compared with: the run's teacher first, then baselines."""
    baselines = [named_candidate(text) for text in flags.baseline]
    if not flags.with_teacher:
        return baselines
    teacher = run_teacher(flags.run_dir)
    if teacher is None:
        path = flags.run_dir / "args.yaml"
        raise UserError(f"--with_teacher: {path} names no teacher whose folder is here; --baseline teacher=FOLDER would work")
    return [teacher, *baselines]


class _Output:
    """Keeps what a call scored in cards, picture and table; called again as markers appear."""

    def __init__(self, folder: Path, tasks: Sequence[Task], title: str) -> None:
        self.folder, self.tasks, self.title = folder, tasks, title
        self.rows: list[Row] = []
        self.has_picture = False

    def add(self, rows: list[Row]) -> None:
        """Rows of models, in place of what there was of models of these names; markers that are gone by now go."""
        names = {row["model"] for row in rows}
        self.rows = [row for row in self.rows if row["model"] not in names and (row["role"] != "marker" or Path(row["folder"]).is_dir())]
        self.rows += rows
        everything = [row for row in read_results(self.folder) if is_complete(row)]
        for folder, weights in dict.fromkeys((row["folder"], row["weights_sha256"]) for row in rows):
            if is_export(Path(folder)):
                try:
                    update_card(Path(folder), [row for row in everything if row["weights_sha256"] == weights], self.tasks)
                except UserError as error:  # a card is worth a line, not the scores
                    print(f"note: {error}")
        self.has_picture = draw_curve(self.rows, self.folder / PLOT_NAME, self.title)
        write_csv(summarise(everything), self.folder / CSV_NAME)

    def show(self) -> None:
        print(f"\n{table(summarise(self.rows))}\n\n{self.folder / RESULTS_NAME}\n{self.folder / CSV_NAME}")
        if self.has_picture:
            print(self.folder / PLOT_NAME)


def main(arguments: Sequence[str] | None = None) -> None:
    flags = make_parser(__doc__).parse_args(arguments)
    for line in check_flags(flags):
        print(line)
    protocol, tasks, beside = select_protocol(flags), selected_tasks(flags), _beside(flags)
    wanted = Wanted(
        flags.output_dir or flags.run_dir, Source(flags.glue_dir, flags.dataset_name, flags.do_predict),
        AS_IT_IS if scores_as_is(flags) else FINE_TUNING, flags.teacher_path, flags.devices, flags.do_predict, flags.save_models,
        flags.overwrite,
    )
    if flags.run_dir is None:
        models = [model_candidate(folder) for folder in flags.models or [flags.model_name_or_path]]
    else:
        models = [] if flags.watch else find_markers(flags.run_dir)
    if flags.watch and not flags.run_dir.is_dir():
        raise UserError(f"--run_dir {flags.run_dir}: no such folder; start the run first, or give the folder of one")
    scorer = Scorer(tasks, protocol, wanted)
    title = f"score against training time: {flags.run_dir.resolve().name}" if flags.run_dir else ""
    output = _Output(wanted.output_dir, tasks, title)
    output.add(scorer.score([*models, *beside]))
    if flags.watch:
        watch(flags.run_dir, lambda markers: output.add(scorer.score(markers)), flags.watch_seconds)
    output.show()
    if scorer.failures:
        more = f" (and {len(scorer.failures) - 1} more)" if len(scorer.failures) > 1 else ""
        raise UserError(f"{len(scorer.failures)} of {scorer.done} fine-tunings failed, the others are kept and a second call does what is "
                        f"missing: {scorer.failures[0]}{more}")


if __name__ == "__main__":
    run_command(main)
