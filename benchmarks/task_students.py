"""Latency and size on the CPU of task students and their exported programs against a teacher, as ratios from one process.

    python -m benchmarks.task_students TEACHER STUDENT_OR_EXPORT [STUDENT_OR_EXPORT ...] --length 32
    python -m benchmarks.task_students --shapes

TEACHER is a Hugging Face encoder; the others are such too, or what `distil` writes, or what `export` writes, whose programs are one line
each. `--shapes` needs no folder: BERT-base, MiniLM's shape, and d-bert's BiLSTM for SST-2 with its programs, with random weights, as fast
as trained ones.
Latency is of one forward pass from ids to logits on full rows, models in turns so that a machine that slows down favours none; a turn is
as many passes as fit into 50 ms and counts with their mean. The median is told, and the interquartile range as a share of it. A siamese
student reads two texts of half the length. Tokenising is in no number. `taskset -c 0` holds the process to one core.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import describe_processor
from benchmarks.size_latency import Measured, load
from dataset.errors import OneLineParser, UserError, one_line, run_command
from dataset.files import write_json
from task_distillation.serving.formats import RECORD
from task_distillation.students.config import CONFIG, TOKENIZER, WEIGHTS, StudentConfig, read_student_config

WORDS = 15_000
"""Of the BiLSTM's vocabulary in --shapes; SST-2 has about as many."""
TURN_SECONDS = 0.05
FIRST_WORD = 4
"""Ids below it are special in a student's vocabulary."""
Model = tuple[Measured, Callable[[np.ndarray], object]]
"""Sizes, and a forward pass on ids (B, L) int64."""


def parse_flags(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = OneLineParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("folders", type=Path, nargs="*", help="the teacher's folder, then students and their exports")
    parser.add_argument("--shapes", action="store_true", help="random models of published shapes in the place of folders")
    parser.add_argument("--length", type=int, default=32, help="tokens of a row; default: 32")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32], help="rows of a pass; default: 1 32")
    parser.add_argument("--rounds", type=int, default=9, help="timed turns of each model and batch; default: 9")
    parser.add_argument("--threads", type=int, default=1, help="of every model; default: 1")
    parser.add_argument("--json", type=Path, help="write every number there")
    flags = parser.parse_args(arguments)
    if flags.shapes == bool(flags.folders) or len(flags.folders) == 1:
        raise UserError("give a teacher's folder and a student's, or --shapes alone")
    if min(flags.length - 1, flags.rounds - 1, flags.threads, *flags.batches) < 1:
        raise UserError("--threads and --batches count from 1, --length and --rounds from 2")
    kinds = [kind_of(folder) for folder in flags.folders]
    if kinds and kinds[0] != "encoder":
        raise UserError(f"{flags.folders[0]}: no Hugging Face encoder; give the teacher's folder first")
    return flags


def kind_of(folder: Path) -> str:
    """`encoder`, `student` or `export`; UserError for a folder that is none of them."""
    if (folder / RECORD).is_file():
        read_record(folder)
        return "export"
    try:
        if "model_type" in json.loads((folder / CONFIG).read_text(encoding="utf-8")):
            return "encoder"
    except (OSError, ValueError):  # told by what follows
        pass
    read_student_config(folder)
    return "student"


def read_record(folder: Path) -> tuple[StudentConfig, dict[str, Any]]:
    """(the student's config, all) of an export's serving.json."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return StudentConfig.from_json(record["config"]), record
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{folder / RECORD}: not an export's record ({one_line(error)}); export the student again") from None


def make_shapes(place: Path) -> list[Path]:
    """Folders of random models: BERT-base, MiniLM's shape, d-bert's BiLSTM and its programs."""
    import transformers

    from evaluation.tasks.table import select_tasks
    from task_distillation.serving.command import main as export
    from task_distillation.students.build import build_student, make_tokenizer
    from task_distillation.students.flags import StudentFlags
    from task_distillation.students.folder import save_student
    from task_distillation.students.plan import plan_student

    minilm = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
    for name, shape in (("bert-base", {}), ("minilm-6-384", minilm)):
        transformers.AutoModelForSequenceClassification.from_config(transformers.BertConfig(**shape)).save_pretrained(place / name)
    (task,) = select_tasks(["sst2"])
    plan = plan_student(StudentFlags(), task)
    tokenizer = make_tokenizer(plan, (f"w{number}" for number in range(WORDS)))
    (place / "bilstm").mkdir()
    save_student(place / "bilstm", build_student(plan, tokenizer, task, 0), tokenizer)
    export([str(place / "bilstm"), "--output_dir", str(place / "bilstm_export")])
    return [place / name for name in ("bert-base", "minilm-6-384", "bilstm", "bilstm_export")]


def load_encoder(folder: Path, length: int) -> Model:
    import torch

    measured, run = load(folder, length, "cpu")
    return measured, lambda ids: run(torch.from_numpy(ids))


def load_models(folder: Path, length: int) -> list[Model]:
    """The models of one folder: an encoder, a student, or all programs of an export."""
    kind = kind_of(folder)
    if kind == "export":
        return _programs(folder)
    if kind == "encoder":
        return [load_encoder(folder, length)]
    import torch

    from task_distillation.serving.programs import FlatStudent
    from task_distillation.students.folder import load_student

    loaded = load_student(folder)
    flat = FlatStudent(loaded).eval()

    @torch.inference_mode()
    def run(ids: np.ndarray) -> None:
        flat(*map(torch.from_numpy, _inputs(loaded.config, ids)))

    counts = loaded.module.parameter_counts()
    return [(Measured(folder.name, counts.total, (folder / WEIGHTS).stat().st_size, loaded.tokenizer.get_vocab_size()), run)]


def _programs(folder: Path) -> list[Model]:
    from tokenizers import Tokenizer

    from task_distillation.serving.programs import Program, open_program

    config, record = read_record(folder)
    vocabulary = Tokenizer.from_file(str(folder / TOKENIZER)).get_vocab_size()

    def runner(program: Program) -> Callable[[np.ndarray], np.ndarray]:
        return lambda ids: program(_inputs(config, ids))

    return [(Measured(f"{folder.name} {name}", record["parameters"]["total"], found["bytes"], vocabulary),
             runner(open_program(name, folder / found["file"]))) for name, found in record["formats"].items()]


def _inputs(config: StudentConfig, ids: np.ndarray) -> list[np.ndarray]:
    """Inputs of a program of full rows."""
    parts = np.split(ids[:, : ids.shape[1] // config.parts * config.parts], config.parts, axis=1)
    inputs = []
    for part in parts:
        inputs += [np.ascontiguousarray(part), np.full(len(part), part.shape[1])]
    return [*inputs, np.zeros_like(ids)] if config.segments else inputs


def measure(models: list[Model], length: int, batches: list[int], rounds: int) -> None:
    """Fill every model's `seconds`, in turns; the first turn of each is a warm-up and not counted."""
    random = np.random.default_rng(0)
    for batch in batches:
        for turn in range(rounds + 1):
            for measured, run in models:
                ids = random.integers(FIRST_WORD, measured.vocabulary, (batch, length))
                passes, started = 0, time.perf_counter()
                while passes == 0 or time.perf_counter() - started < TURN_SECONDS:
                    run(ids)
                    passes += 1
                if turn:
                    measured.seconds.setdefault(batch, []).append((time.perf_counter() - started) / passes)


def table(found: list[Measured], batches: list[int]) -> list[str]:
    """One line a model; `smaller` and `faster` are the first one's numbers by the model's."""
    teacher, width = found[0], max(len(one.name) for one in found)
    lines = [f"{'model':<{width}}  {'M params':>8}  {'smaller':>7}  {'MB':>7}  {'smaller':>7}"
             + "".join(f"  {f'ms at {batch}':>9}  {'spread':>6}  {'faster':>6}" for batch in batches)]
    for one in found:
        line = (f"{one.name:<{width}}  {one.parameters / 1e6:8.2f}  {teacher.parameters / one.parameters:7.1f}  "
                f"{one.file_bytes / 1e6:7.2f}  {teacher.file_bytes / one.file_bytes:7.1f}")
        for batch in batches:
            line += f"  {1e3 * one.latency(batch):9.3f}  {one.spread(batch):6.0%}  {teacher.latency(batch) / one.latency(batch):6.1f}"
        lines.append(line)
    return [*lines, "", f"smaller, faster: {teacher.name}'s number by the model's"]


def main(arguments: list[str] | None = None) -> None:
    flags = parse_flags(arguments)
    import torch
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(flags.threads)
    with tempfile.TemporaryDirectory() as temporary:
        teacher, *others = make_shapes(Path(temporary)) if flags.shapes else flags.folders
        models = [load_encoder(teacher, flags.length), *(model for folder in others for model in load_models(folder, flags.length))]
        measure(models, flags.length, flags.batches, flags.rounds)
    found = [measured for measured, _ in models]
    print(f"{describe_processor()}, {flags.threads} used; fp32, rows of {flags.length} tokens, medians of {flags.rounds} turns\n")
    print("\n".join(table(found, flags.batches)))
    if flags.json is not None:
        write_json(flags.json, {"machine": describe_processor(), "threads": flags.threads, "length": flags.length,
                                "models": [asdict(one) for one in found]})


if __name__ == "__main__":
    run_command(main)
