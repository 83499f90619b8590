"""Fine-tune and score models on GLUE: one checkpoint, or every marker of a run as a curve of score against hours.

    python run_glue.py --run_dir runs/job/1 --task_name sst2,rte --glue_dir glue --baseline teacher=teacher_folder
    python run_glue.py --model_name_or_path student --task_name mrpc --glue_dir glue --output_dir scores

Writes glue.json (all scores with all settings) and, where hours are known, glue.png to the output folder. A second call
scores only what is new.
"""

import argparse
from pathlib import Path

from dataset.errors import OneLineParser, UserError, run_command
from evaluation.fine_tuning.settings import add_flags, from_flags
from evaluation.scoring.curve import Candidate, find_markers, read_marker, score_models
from evaluation.scoring.plot import FILE_NAME as PLOT_NAME
from evaluation.scoring.results import FILE_NAME as RESULTS_NAME
from evaluation.scoring.results import table


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(prog="run_glue.py", description=__doc__, allow_abbrev=False,
                           formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--model_name_or_path", type=Path, help="folder of one model, config and weights and tokenizer")
    what.add_argument("--run_dir", type=Path, help="a run; every marker in its finetune/ is scored")
    parser.add_argument("--baseline", action="append", default=[], metavar="NAME=FOLDER",
                        help="another model to score, a dashed line in the plot; may be repeated")
    parser.add_argument("--task_name", action="append", required=True,
                        help="sst2, rte, mrpc in any spelling; several with commas or by repeating the flag")
    parser.add_argument("--glue_dir", type=Path, required=True, help="holds SST-2/train.tsv, SST-2/dev.tsv, RTE/ ...")
    parser.add_argument("--output_dir", type=Path, help="where the scores go; for --run_dir the run by default")
    parser.add_argument("--overwrite", action="store_true", help="score again what is already scored")
    parser.add_argument("--save_models", action="store_true", help="keep each fine-tuned model in OUTPUT_DIR/models")
    add_flags(parser)
    return parser


def _models(flags: argparse.Namespace) -> list[Candidate]:
    """The models to score, in the order of the table: markers or the one checkpoint, then baselines."""
    if flags.run_dir is not None:
        models = find_markers(flags.run_dir)
    else:
        folder = flags.model_name_or_path
        marker = read_marker(folder) if (folder / "run_state.json").is_file() else None
        models = [Candidate(folder.resolve().name, folder, marker)]
    for text in flags.baseline:
        name, equals, folder = text.partition("=")
        if not (name and equals and folder):
            raise UserError(f"--baseline {text}: give NAME=FOLDER, such as teacher=models/teacher")
        if "/" in name:
            raise UserError(f"--baseline {text}: the name {name!r} holds a slash; NAME comes first, then the folder")
        models.append(Candidate(name, Path(folder)))
    return models


def main() -> None:
    flags = _parser().parse_args()
    settings = from_flags(flags)
    output_dir = flags.output_dir or flags.run_dir
    if output_dir is None:
        raise UserError("--output_dir is missing; with --model_name_or_path say where the scores go")
    title = f"GLUE score against training time: {flags.run_dir.resolve().name}" if flags.run_dir else "GLUE score"
    rows = score_models(
        _models(flags), flags.task_name, flags.glue_dir, output_dir, settings,
        title=title, overwrite=flags.overwrite, save_models=flags.save_models,
    )
    print(f"\n{table(rows)}\n\n{output_dir / RESULTS_NAME}")
    if any("hours" in row for row in rows):
        print(output_dir / PLOT_NAME)


if __name__ == "__main__":
    run_command(main)
