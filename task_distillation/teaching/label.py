"""The teacher's raw logits for every row of a transfer set of any size, in one file keyed by row and text (`logits_file.py`).

    python run_task_distillation.py label --teacher_path teacher --transfer_set augmented.tsv --task_name sst2 --output logits.parquet

Chunk by chunk, on as many devices as there are. Stopped or killed, the same command goes on with the chunks that are missing and gives the
same bytes; how many processes there were does not show. Memory holds a chunk or two for each process, however large the set.
"""

import argparse
import time
from collections import Counter
from pathlib import Path
from typing import Any

from dataset.errors import OneLineParser, UserError
from dataset.files import locked
from dataset.flags import parse
from dataset.progress import progress
from evaluation.fine_tuning.checks import check_scoring
from evaluation.fine_tuning.model_folder import fingerprint, read_head
from evaluation.fine_tuning.settings import PRECISIONS, FineTuningSettings
from evaluation.tasks.task import Task
from task_distillation.logits_file import check_logits_name
from task_distillation.task_flags import add_task_flags, check_output, select_task
from task_distillation.teaching.parts import MOST_CHUNK_ROWS, Labelling, Survey, chunks, survey, usual_chunk_rows

FORMAT_VERSION = 1


def make_parser() -> OneLineParser:
    """The parser of `label`."""
    usual = FineTuningSettings()
    parser = OneLineParser(prog="run_task_distillation.py label", description=__doc__, allow_abbrev=False,
                           formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher_path", type=Path, required=True, metavar="FOLDER",
                        help="a model fine-tuned for the task, as `teach` writes")
    parser.add_argument("--transfer_set", type=Path, required=True, metavar="TSV",
                        help="the texts, as `augment` and `generate` write them")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="OUT.parquet, or OUT.tsv")
    parser.add_argument("--per_device_eval_batch_size", type=int, default=usual.per_device_eval_batch_size, metavar="N",
                        help=f"rows in one forward pass (default {usual.per_device_eval_batch_size})")
    parser.add_argument("--max_seq_length", type=int, default=usual.max_seq_length, metavar="N",
                        help=f"word pieces kept of a row, special ones included (default {usual.max_seq_length})")
    parser.add_argument("--precision", choices=PRECISIONS, default=usual.precision,
                        help="of the forward pass; auto: bf16 where the hardware has it, else fp32")
    parser.add_argument("--chunk_rows", type=int, metavar="N",
                        help=f"rows that are computed and kept together (default {MOST_CHUNK_ROWS}, fewer for a small set)")
    parser.add_argument("--devices", default="auto", metavar="LIST",
                        help="cuda:0,cuda:1, or cpu,cpu: a process for each; auto: every GPU, or a process for every core")
    parser.add_argument("--overwrite", action="store_true", help="replace logits of another teacher, transfer set or setting")
    add_task_flags(parser)
    return parser


def label_settings(flags: argparse.Namespace) -> FineTuningSettings:
    """How the teacher reads and computes; UserError for a value that makes no sense."""
    return FineTuningSettings(per_device_eval_batch_size=flags.per_device_eval_batch_size, max_seq_length=flags.max_seq_length,
                              precision=flags.precision)


def main(arguments: list[str]) -> int | None:
    """Run `label`; UserError for anything that flags, files and the teacher's folder show to be wrong, before torch is imported."""
    flags = parse(make_parser(), arguments, {"chunk_rows": (1, None)})
    task = select_task(flags)
    check_logits_name(flags.output)
    check_output(flags, flags.output)
    if flags.output.exists() and flags.transfer_set.exists() and flags.output.samefile(flags.transfer_set):
        raise UserError(f"--output {flags.output}: the transfer set itself; another file would work")
    settings = label_settings(flags)
    check_scoring(flags.teacher_path, task, settings)
    order, note = read_head(flags.teacher_path, task)
    if note is not None:
        print(note)
    size = survey(flags.transfer_set, task)
    chunk_rows = flags.chunk_rows or usual_chunk_rows(size.rows)
    labelling = Labelling(flags.output, task, _identity(flags.teacher_path, task, order, size, settings, chunk_rows))
    with locked(flags.output.absolute().parent, flags.output.name):
        if labelling.is_done():
            print(f"{flags.output}: already done, {size.rows} rows")
            return None
        labelling.prepare(flags.overwrite)
        _label(flags, task, order, settings, size, chunk_rows, labelling)
    return None


def _identity(teacher: Path, task: Task, order: list[int], size: Survey, settings: FineTuningSettings, chunk_rows: int) -> dict[str, Any]:
    return {
        "format_version": FORMAT_VERSION, "task": task.name, "kind": task.kind, "label_names": list(task.label_names), "head_order": order,
        "teacher_sha256": fingerprint(teacher), "rows": size.rows, "texts": size.texts, "max_seq_length": settings.max_seq_length,
        "per_device_eval_batch_size": settings.per_device_eval_batch_size, "precision": settings.precision, "chunk_rows": chunk_rows,
    }


def _label(flags: argparse.Namespace, task: Task, order: list[int], settings: FineTuningSettings, size: Survey, chunk_rows: int,
           labelling: Labelling) -> None:
    import torch
    import transformers

    from pretraining.precision import select_precision
    from task_distillation.devices import devices_of
    from task_distillation.teaching.devices import label_chunks
    from task_distillation.teaching.teacher import Teacher

    lengths = {first: min(chunk_rows, size.rows - first) for first in range(0, size.rows, chunk_rows)}
    devices = devices_of(flags.devices, len(lengths))
    place = torch.device(devices[0])
    precision, note = select_precision(settings.precision, place)
    if note is not None:
        print(note)
    labelling.begin({"device": place.type, "precision": precision.name})
    missing = {first: count for first, count in lengths.items() if not labelling.has(first, count)}
    asked = sum(missing.values())
    teachers = [Teacher(flags.teacher_path, task, tuple(order), settings, device, precision.name) for device in devices[:len(missing)]]
    started = time.monotonic()
    if missing:
        wanted = (chunk for chunk in chunks(flags.transfer_set, task, chunk_rows) if chunk.first in missing)
        with progress(total=size.rows, initial=size.rows - asked, desc="label", unit=" rows", unit_scale=True) as bar:
            for count in label_chunks(teachers, wanted, labelling.part):
                bar.update(count)
    rate = asked / max(time.monotonic() - started, 1e-9)
    labelling.merge(flags.transfer_set, size, chunk_rows, {
        "teacher": str(flags.teacher_path), "transfer_set": str(flags.transfer_set), "device": place.type, "precision": precision.name,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__}})
    before = f", {size.rows - asked} of them before" if asked < size.rows else ""
    used = Counter(teacher.device for teacher in teachers)
    names = ", ".join(name if count == 1 else f"{count} x {name}" for name, count in used.items())
    where = f"; {rate:,.0f} rows/s on {names} in {precision.name}" if asked else ""
    print(f"{flags.output}: {size.rows} rows{before}{where}")
