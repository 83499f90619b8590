"""`export`: a student as programs that need none of our code, with its vocabulary, each checked against the student before it is kept."""

import argparse
import importlib.util
import json
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataset.errors import OneLineParser, UserError, nearest, one_line
from dataset.files import reason, whole_folder, write_json, write_text
from evaluation.fine_tuning.model_folder import fingerprint
from task_distillation.serving.formats import FORMATS, README, RECORD, TOKENIZER, input_names
from task_distillation.students.config import read_student_config

if TYPE_CHECKING:
    from task_distillation.students.folder import LoadedStudent

FORMAT_VERSION = 1
VERSIONS = ("torch", "tokenizers", "numpy", "onnx", "onnxruntime")


def parse_flags(arguments: Sequence[str]) -> argparse.Namespace:
    """The flags of `export`; UserError for what flags alone show."""
    parser = OneLineParser(prog="run_task_distillation.py export", allow_abbrev=False, description=__doc__)
    parser.add_argument("student", type=Path, metavar="STUDENT_FOLDER", help="what distil wrote: finetune/progress_...")
    parser.add_argument("--formats", default=",".join(FORMATS), help="of torch_export, torchscript and onnx; default: all of them")
    parser.add_argument("--output_dir", type=Path, required=True, metavar="DIR", help="the folder to write, whole or not at all")
    parser.add_argument("--overwrite", action="store_true", help="replace what an earlier export wrote there")
    flags = parser.parse_args(arguments)
    flags.formats = list(dict.fromkeys(flags.formats.replace(",", " ").split()))
    for name in flags.formats or ["of none"]:
        if name not in FORMATS:
            raise UserError(f"--formats {name}: no such format{nearest(name, FORMATS)}; one or more of {', '.join(FORMATS)} would work")
    return flags


def main(arguments: list[str]) -> int | None:
    """Write the programs; 0, or 1 where one of them could not be made, which is told in a line and kept in serving.json."""
    flags = parse_flags(arguments)
    read_student_config(flags.student)
    identity = fingerprint(flags.student)
    if _is_done(flags, identity):
        print(f"{flags.output_dir}: was exported before from the same student; nothing to do")
        return 0
    from task_distillation.students.folder import load_student

    loaded = load_student(flags.student)
    try:
        flags.output_dir.parent.mkdir(parents=True, exist_ok=True)
        with whole_folder(flags.output_dir) as partial:
            record = _write(partial, loaded, flags.formats, identity)
    except OSError as error:
        raise UserError(f"{flags.output_dir}: cannot be written ({reason(error)}); choose another place") from None
    for name, found in record["formats"].items():
        print(f"{flags.output_dir / found['file']}: {name}, {found['bytes']} bytes, greatest difference {found['max_difference']:.1e}")
    for name, why in record["failed"].items():
        print(f"{name} could not be made: {why}", file=sys.stderr)
    return 1 if record["failed"] else 0


def _is_done(flags: argparse.Namespace, identity: str) -> bool:
    """Whether --output_dir holds all that is asked for; UserError where it holds what would be lost and nobody said to replace."""
    folder = flags.output_dir
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        made = {name: folder / found["file"] for name, found in record["formats"].items()}
        same = record["student"] == identity
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"--output_dir {folder}: is there and no export of ours; a new folder would work") from None
    if flags.overwrite:
        return False
    if same and all(name in made and made[name].is_file() for name in flags.formats):
        return True
    if not same or not set(made) <= set(flags.formats):
        raise UserError(f"--output_dir {folder}: has an export of another student or in other formats; --overwrite replaces it")
    return False


def _write(folder: Path, loaded: "LoadedStudent", formats: list[str], identity: str) -> dict[str, Any]:
    """Everything into `folder`; what serving.json says. UserError where a program says another thing than the student, or none was made."""
    from task_distillation.serving.check import BATCHES, TOLERANCE, check_rows, greatest_difference, student_logits
    from task_distillation.serving.programs import open_program, write_program
    from task_distillation.serving.readme import readme

    config = loaded.config
    batches = check_rows(loaded)
    expected = student_logits(loaded, batches)
    made, failed = {}, {}
    for name in formats:
        missing = [package for package in FORMATS[name].packages if importlib.util.find_spec(package) is None]
        if missing:
            failed[name] = f"it needs {' and '.join(missing)}: pip install {' '.join(missing)}"
            continue
        path = folder / FORMATS[name].file
        try:
            write_program(name, loaded, path)
            program = open_program(name, path)
            difference = greatest_difference(name, program, batches, expected)
        except (UserError, OSError):
            raise
        except Exception as error:  # every exporter has errors of its own kinds
            failed[name] = f"{type(error).__name__}: {one_line(error)[:300]}"
            path.unlink(missing_ok=True)
            continue
        made[name] = {"file": path.name, "bytes": path.stat().st_size, "max_difference": difference}
    if not made:
        raise UserError("; ".join(f"{name} could not be made: {why}" for name, why in failed.items()))
    _save_tokenizer(loaded, folder / TOKENIZER)
    counts = loaded.module.parameter_counts()
    record = {
        "format_version": FORMAT_VERSION, "student": identity, "config": config.to_json(), "parameters": asdict(counts),
        "inputs": input_names(config.parts, config.segments), "outputs": list(config.task.label_names) or ["score"], "formats": made,
        "failed": failed,
        "checked": {"batches": list(BATCHES), "widths": [batch[0].shape[1] for batch in batches], "tolerance": TOLERANCE},
        "versions": {"python": platform.python_version()} | {name: version(name) for name in VERSIONS if importlib.util.find_spec(name)},
    }
    write_json(folder / RECORD, record)
    write_text(folder / README, readme(config, counts, made))
    return record


def _save_tokenizer(loaded: "LoadedStudent", path: Path) -> None:
    """The student's tokenizer, which cuts, and here pads as well."""
    tokenizer, padding = loaded.tokenizer, loaded.module.pad_token_id
    tokenizer.enable_padding(pad_id=padding, pad_token=tokenizer.id_to_token(padding) or "")
    tokenizer.save(str(path))
