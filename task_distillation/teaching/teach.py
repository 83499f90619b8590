"""Fine-tune the teacher on the task, once: what run_glue.py does, with the model and its head as the result.

    python run_task_distillation.py teach --model encoder --task_name sst2 --glue_dir glue --output_dir teacher

OUTPUT_DIR becomes a Hugging Face folder (AutoModelForSequenceClassification) with teach.json, which holds the scores and all that decided
them. It appears whole or not at all. Given again, the command finds it done; a folder that other settings made is never replaced.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dataset.errors import OneLineParser, UserError
from dataset.files import PARTIAL_PREFIX, locked, reason, remove_path, replace_folder, write_json
from dataset.flags import parse
from evaluation.fine_tuning.checks import check_fine_tuning
from evaluation.fine_tuning.model_folder import fingerprint
from evaluation.fine_tuning.settings import FineTuningSettings, add_flags
from evaluation.scoring.flags import given_settings
from evaluation.scoring.protocols import read_protocol
from evaluation.tasks.task import TaskData
from task_distillation.task_flags import add_task_flags, read_task

RECORD = "teach.json"
FORMAT_VERSION = 1


def make_parser() -> OneLineParser:
    """The parser of `teach`. A fine-tuning setting that was not given is absent, so that a protocol can say it."""
    parser = OneLineParser(prog="run_task_distillation.py teach", description=__doc__, allow_abbrev=False,
                           formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, metavar="FOLDER", help="the encoder: a Hugging Face folder")
    parser.add_argument("--output_dir", type=Path, required=True, metavar="FOLDER", help="becomes the teacher's folder")
    parser.add_argument("--protocol", metavar="NAME", help="settings of configs/glue, or of a YAML file; flags below change them")
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda or cuda:1; default: the first GPU, else the CPU")
    add_task_flags(parser)
    add_flags(parser)
    return parser


def main(arguments: list[str]) -> int | None:
    """Run `teach`; UserError for anything that flags, data and model folder show to be wrong, before torch is imported."""
    flags = parse(make_parser(), arguments, {})
    data = read_task(flags)
    settings, notes = teach_settings(flags, data.task.name)
    print(*notes, sep="\n", end="\n" if notes else "")
    check_fine_tuning(flags.model, data.task, settings)
    wanted = _identity(flags.model, data, settings)
    folder = flags.output_dir
    with locked(folder.absolute().parent, folder.name):
        if _is_done(folder, wanted):
            print(f"{folder}: already done, {_scores(_read(folder)['metrics'])}")
        else:
            _teach(flags, data, settings, wanted, folder)
    return None


def teach_settings(flags: argparse.Namespace, task_name: str) -> tuple[FineTuningSettings, list[str]]:
    """(those of the flags alone, or of a protocol with what flags change; what to tell about it); UserError for a grid."""
    given, notes = given_settings(flags), []
    if flags.protocol is None:
        return FineTuningSettings(**given), notes
    seed = given.pop("seed", None)
    protocol = read_protocol(flags.protocol).with_flags(given, None if seed is None else (seed,), None)
    if protocol.grid:
        raise UserError(f"--protocol {flags.protocol}: a grid over {', '.join(protocol.grid)}, and one teacher is trained; values of them "
                        f"as flags would work")
    if task_name in protocol.start_from:
        notes.append(f"--protocol {flags.protocol}: no effect: {task_name} starts from the folder of --model, not from a model of "
                     f"{protocol.start_from[task_name]}")
    settings = protocol.points(task_name)[0]
    if len(protocol.seeds) > 1:
        notes.append(f"--protocol {flags.protocol}: one teacher is trained, with the first of its seeds, {settings.seed}; "
                     f"--seed says another")
    return settings, notes


def _identity(model: Path, data: TaskData, settings: FineTuningSettings) -> dict[str, Any]:
    """All that decides the teacher, besides the machine."""
    task = data.task
    return {
        "format_version": FORMAT_VERSION, "task": task.name, "task_version": task.version, "kind": task.kind,
        "label_names": list(task.label_names), "model_sha256": fingerprint(model), "data_sha256": data.sha256, "settings": asdict(settings),
    }


def _is_done(folder: Path, wanted: dict[str, Any]) -> bool:
    """Whether `folder` is the teacher that is `wanted`; UserError where something else has its name."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    if not (folder / RECORD).is_file():
        raise UserError(f"--output_dir {folder}: there already, and no teacher of this command ({RECORD} is missing); give another folder")
    there = _read(folder)
    if differing := [name for name in wanted if there.get(name) != wanted[name]]:
        raise UserError(f"--output_dir {folder}: a teacher of {_difference(there, wanted, differing[0])}; give another folder, or remove "
                        f"this one")
    if fingerprint(folder) != there.get("teacher_sha256"):
        raise UserError(f"--output_dir {folder}: its weights, config or tokenizer were changed since {RECORD} was written; give another "
                        f"folder, or remove this one")
    return True


def _difference(there: dict[str, Any], wanted: dict[str, Any], name: str) -> str:
    """What the teacher that is there was made from, where it is not what is wanted."""
    if name != "settings" or not isinstance(there.get("settings"), dict):
        words = {"model_sha256": "another --model", "data_sha256": f"other data of {wanted['task']}", "task": str(there.get("task"))}
        return words.get(name, f"another {name} ({there.get(name)})")
    setting = next(key for key in wanted["settings"] if there["settings"].get(key) != wanted["settings"][key])
    return f"other settings (--{setting} {there['settings'].get(setting)}, not {wanted['settings'][setting]})"


def _read(folder: Path) -> dict[str, Any]:
    path = folder / RECORD
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UserError(f"{path}: {reason(error)}; a folder that can be read would work") from None
    except (ValueError, TypeError):
        raise UserError(f"{path}: not what `teach` writes; give another --output_dir") from None


def _teach(flags: argparse.Namespace, data: TaskData, settings: FineTuningSettings, wanted: dict[str, Any], folder: Path) -> None:
    import torch
    import transformers

    from evaluation.fine_tuning.training import fine_tune

    # Beside its place until teach.json is in it: a folder without one would be taken for somebody else's.
    partial = folder.with_name(f"{PARTIAL_PREFIX}teach_{folder.name}")
    try:
        outcome = fine_tune(flags.model, data, settings, device=flags.device, save_to=partial)
        if outcome.diverged:
            raise UserError(f"the teacher's logits are not finite after {outcome.best_step} updates; a lower --learning_rate, or "
                            f"--precision fp32, would work")
        if not partial.is_dir():  # fine_tune said why
            raise UserError(f"{folder}: the teacher could not be written; give a place that has room")
        write_json(partial / RECORD, wanted | {
            "model": str(flags.model), "protocol": flags.protocol, "teacher_sha256": fingerprint(partial), "metrics": outcome.metrics,
            "constant_metrics": outcome.constant_metrics, "selected_on_dev": bool(outcome.selected_on_dev), "best_step": outcome.best_step,
            "history": outcome.history, "train_size": outcome.train_size, "dev_size": outcome.dev_size,
            "train_seconds": round(outcome.train_seconds, 3), "precision": outcome.precision, "device": outcome.device,
            "parameters": outcome.parameters, "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        })
        replace_folder(partial, folder)
    finally:
        remove_path(partial)
    print(f"{folder}: {_scores(outcome.metrics)} after {outcome.best_step} updates in {outcome.train_seconds:.0f} s on {outcome.device}, "
          f"{outcome.precision}")


def _scores(metrics: dict[str, float]) -> str:
    return ", ".join(f"{name} {100 * value:.1f}" for name, value in metrics.items())
