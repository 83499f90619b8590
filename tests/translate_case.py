"""What the tests of the translator share: its answer as a real shell reads it, and our own parsers to say whether a command is one."""

import os
import re
import subprocess
from argparse import Namespace
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

from dataset import count_tokens, generate_samples, merge_shards, process_data, shard_data, split_text
from evaluation.scoring import flags as scoring
from pretraining import extract_student
from pretraining.args.flag_set import parse_flags
from pretraining.args.parser import parse
from pretraining.args.resolve import resolve
from pretraining.launch import Launch
from pretraining.teacher_cache.extraction_plan import make_parser
from task_distillation.augmentation import command as augmentation
from task_distillation.distilling.flags import TaskArgs
from task_distillation.distilling.resolve import resolve as resolve_task
from task_distillation.generation.flags import parse_flags as generation_flags
from task_distillation.students.plan import plan_student
from task_distillation.task_flags import select_task
from task_distillation.teaching import label, teach
from translation.translate import translate

# What a user puts in the place of the translator's words in capitals.
YOURS = {"HOURS": "90", "SAMPLES": "samples", "CACHE": "cache", "SHAPE_FOLDER": "student", "VOCABULARY": "30522", "LAYERS": "6",
         "WIDTH": "768", "HEADS": "12", "INNER_WIDTH": "3072", "FOLDER": "glue", "MODEL": "model", "GLUE": "glue", "SCORES": "scores",
         "PRODUCT": "1000", "RATE": "1e-4", "WARMUP": "0.1", "SHARE": "0.5", "TASK": "qqp", "TRANSFER_SET": "set.tsv",
         "LOGITS": "logits.parquet", "VECTORS": "vectors.txt", "TEACHER": "teacher", "RUNS": "runs", "TEXT": "text",
         "EXTRACTED": "extracted",
         "SHARDS": "shards", "PARTS": "4", "STUDENT": "student", "VOCABULARY_FILE": "vocab.txt", "DUMP": "dump.bz2",
         "RECIPE": "sweep.yaml"}
_PROGRAMS = ("python", "python3", "torchrun", "deepspeed", "mpirun", "srun", "horovodrun", "nohup", "pkill", "hf")
_LAUNCHERS = {"torchrun", "deepspeed", "mpirun", "srun", "horovodrun", "-m torch.distributed.launch"}


def ours(text: str, **variables: str) -> list[list[str]]:
    """The commands that bash runs when the translation of `text` is pasted into it, each as its words."""
    return run_by_bash(translate(text).text, **variables)


def run_by_bash(text: str, **variables: str) -> list[list[str]]:
    """Words of every program that bash starts for `text`; none is really started. A program may not exist under `os.defpath`."""
    stubs = "".join(f"{name}() {{ printf '%s\\x1f' {name} \"$@\" >&3; printf '\\x1e' >&3; }}\n" for name in _PROGRAMS)
    read, write = os.pipe()
    try:
        done = subprocess.run(
            ["bash", "-c", f"exec 3>&{write}\n{stubs}set -f\n{text}\n"], capture_output=True, text=True, timeout=20, pass_fds=[write],
            env={"PATH": os.defpath, "HOME": "/home/user", **variables}, cwd="/")
    finally:
        os.close(write)
    with os.fdopen(read, encoding="utf-8") as pipe:
        said = pipe.read()
    assert not done.stderr, done.stderr
    return [call.split("\x1f")[:-1] for call in said.split("\x1e")[:-1]]


def flags_of(words: list[str]) -> dict[str, str | None]:
    """Flag (without dashes) -> its value, None for a bare one, of a command's words."""
    found: dict[str, str | None] = {}
    for word, following in zip(words, [*words[1:], "--"], strict=True):
        if re.match(r"--?[A-Za-z]", word):
            found[word.lstrip("-")] = None if following.startswith("-") else following
    return found


def accept(words: list[str], place: Path, ranks: int = 1) -> None:
    """Raises where our parser of that command does not take its words; files and folders that it wants are made below `place`."""
    words = [YOURS.get(word, word) for word in words]
    at = next(index for index, word in enumerate(words) if word.endswith(".py") or (
        word == "-m" and words[index + 1] != "torch.distributed.launch"))
    script, rest = (words[at + 1], words[at + 2:]) if words[at] == "-m" else (words[at], words[at + 1:])
    here = Path.cwd()
    os.chdir(place)
    try:
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            _PARSERS[script](rest, ranks)
    finally:
        os.chdir(here)


def _make(rest: list[str]) -> list[str]:
    """Make what dataset scripts look for; they check that their input is there."""
    for flag, word in flags_of(rest).items():
        if flag in ("dir", "data", "folder") or (flag in ("file", "f") and flags_of(rest).get("type") in ("wikiextractor", "bookcorpus")):
            Path(word).mkdir(parents=True, exist_ok=True)
        elif flag in ("file", "f", "vocab_file", "read_file"):
            Path(word).parent.mkdir(parents=True, exist_ok=True)
            Path(word).write_text("text\n", encoding="utf-8")
    return rest


def _trainer(rest: list[str], ranks: int) -> None:
    args = parse(rest)
    resolve(args, Launch(rank=0, world_size=ranks, local_rank=0, launched=ranks > 1))


def _scorer(rest: list[str], _: int) -> None:
    flags = scoring.make_parser("").parse_args(rest)
    scoring.check_flags(flags)
    scoring.select_protocol(flags)
    if flags.train_file is None:  # else it reads the file
        scoring.selected_tasks(flags)


def _wikiextractor(rest: list[str], _: int) -> None:
    import importlib.util

    source = Path(importlib.util.find_spec("wikiextractor").origin).with_name("WikiExtractor.py").read_text(encoding="utf-8")
    missing = [f"--{flag}" for flag in flags_of(rest) if f'"--{flag}"' not in source]
    assert not missing, missing


def _extraction(rest: list[str], _: int) -> None:
    make_parser().parse_args(rest)


def _sweep(rest: list[str], _: int) -> None:
    from evaluation.sweep.__main__ import _parser

    _parser().parse_args(rest)


def _distil(rest: list[str], ranks: int) -> None:
    flags = flags_of(rest)
    if flags.get("word_vectors"):
        Path(flags["word_vectors"]).parent.mkdir(parents=True, exist_ok=True)
        width = int(flags.get("embedding_size", 300))
        Path(flags["word_vectors"]).write_text(f"1 {width}\nword {'0.5 ' * width}\n", encoding="utf-8")
    args = parse_flags(TaskArgs, [*rest, *([] if "logits" in flags else ["--logits", "logits.tsv"])])
    resolve_task(args, Launch(rank=0, world_size=ranks, local_rank=0, launched=ranks > 1))
    plan_student(args.student, select_task(Namespace(task_name=args.data.task_name, task_file=None)))


def _task_distillation(rest: list[str], ranks: int) -> None:
    command, *rest = rest
    parse_command = {"augment": augmentation.make_parser().parse_args, "generate": generation_flags,
                     "teach": teach.make_parser().parse_args, "label": label.make_parser().parse_args}
    if command == "distil":
        _distil(rest, ranks)
    else:
        select_task(parse_command[command](rest))


def _dataset(script):
    return lambda rest, _: script.parse_flags(_make(rest))


_PARSERS = {
    "run_pretraining.py": _trainer, "run_glue.py": _scorer, "wikiextractor.WikiExtractor": _wikiextractor,
    "extract_teacher_outputs.py": _extraction, "run_task_distillation.py": _task_distillation,
    "pretraining.extract_student": lambda rest, _: extract_student.parse_flags(rest),
    "evaluation.sweep": _sweep,
    **{f"dataset/{script.__name__.rpartition('.')[2]}.py": _dataset(script) for script in (
        count_tokens, generate_samples, merge_shards, process_data, shard_data, split_text)},
}
