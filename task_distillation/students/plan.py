"""From flags to a student that can be built: everything that flags and files can show is checked here, before torch is imported."""

import math
from dataclasses import dataclass, fields
from pathlib import Path

from dataset.errors import UserError
from dataset.files import reason
from evaluation.fine_tuning.model_folder import check_model_folder, read_config
from evaluation.tasks.task import Task
from task_distillation.students.catalog import STUDENTS
from task_distillation.students.config import StudentConfig
from task_distillation.students.flags import StudentFlags
from task_distillation.students.vectors import check_start
from task_distillation.transfer_set import text_columns

MOST = 1_000_000
"""Of every size of a student: beyond any that a machine could hold."""
OF_WORDS = ("word_vectors", "vocab_size", "min_count")


@dataclass(frozen=True)
class StudentPlan:
    """`notes`: a line for every flag that was given and changes nothing, to be printed once."""

    config: StudentConfig
    word_vectors: Path | None
    student_path: Path | None
    """The encoder's folder; None for the other students."""
    vocab_size: int
    min_count: int
    notes: tuple[str, ...]


def plan_student(flags: StudentFlags, task: Task) -> StudentPlan:
    """The student that `flags` describe for `task`; UserError in one line for whatever cannot be."""
    columns = len(text_columns(task))
    row = STUDENTS[flags.student]
    if row.pairs == "separate" and columns == 1:
        raise UserError(f"--student {row.name} compares the two texts of a pair and {task.name} has one; --student bilstm would work")
    _check_sizes(flags)
    folder, vectors, segments = None, None, False
    if row.has_words:
        vectors = _word_vectors(flags)
        least = 3 if columns == 2 and row.pairs == "joined" else 1
    else:
        if not flags.student_path:
            raise UserError("--student encoder needs --student_path FOLDER, a small Hugging Face encoder with its tokenizer")
        folder, least = Path(flags.student_path).expanduser(), 5
        try:
            check_model_folder(folder, flags.max_length)
        except UserError as error:
            raise UserError(f"--student_path: {str(error).replace('--max_seq_length', '--max_length')}") from None
        segments = columns == 2 and _segments(folder) > 1
    if flags.max_length < least:
        raise UserError(f"--max_length {flags.max_length}: {row.name} needs {least} or more for {task.name}")
    sizes = {name: getattr(flags, name) for name in row.sizes}
    config = StudentConfig(row.name, task, columns, flags.max_length, sizes, segments)
    return StudentPlan(config, vectors, folder, flags.vocab_size, flags.min_count, _notes(flags, row.sizes))


def _segments(folder: Path) -> int:
    """Kinds of texts that the encoder in `folder` tells apart, 0 where it has no such embeddings."""
    config = read_config(folder)
    if "type_vocab_size" in config:
        return int(config["type_vocab_size"])
    import transformers  # what a family has where its config.json is silent

    return getattr(transformers.AutoConfig.from_pretrained(folder, local_files_only=True), "type_vocab_size", 0)


def _check_sizes(flags: StudentFlags) -> None:
    counts = ("max_length", "hidden_size", "fc_size", "feature_maps", "embedding_size", "min_count")
    for name in counts:
        if not 1 <= getattr(flags, name) <= MOST:
            raise UserError(f"--{name} {getattr(flags, name)}: a whole number from 1 to {MOST:,} is needed")
    if flags.vocab_size < 5:
        raise UserError(f"--vocab_size {flags.vocab_size}: 5 or more is needed, four of which are [PAD], [UNK], [SEP] and [MASK]")
    if not (math.isfinite(flags.dropout) and 0 <= flags.dropout < 1):
        raise UserError(f"--dropout {flags.dropout}: a number from 0 to below 1 is needed")
    widths = flags.filter_widths
    if not widths or min(widths) < 1 or len(set(widths)) < len(widths):
        raise UserError(f"--filter_widths {','.join(map(str, widths))}: different whole numbers above 0 are needed, as in 3,4,5")


def _word_vectors(flags: StudentFlags) -> Path | None:
    if flags.embedding == "random":
        if flags.word_vectors is not None:
            raise UserError(f"--word_vectors {flags.word_vectors}: --embedding random does not read them; "
                            "static, non_static and multichannel do")
        return None
    if not flags.word_vectors:
        raise UserError(f"--embedding {flags.embedding} needs --word_vectors FILE, in word2vec's or GloVe's text format")
    path = Path(flags.word_vectors).expanduser()
    try:
        check_start(path, flags.embedding_size)
    except OSError as error:
        raise UserError(f"--word_vectors {path}: {reason(error)}; a file of word vectors would work") from None
    return path


def _notes(flags: StudentFlags, sizes: tuple[str, ...]) -> tuple[str, ...]:
    """A line for every flag that differs from its default and that the architecture has no use for."""
    used = {"student", "max_length", *sizes, *(OF_WORDS if sizes else ("student_path",))}
    return tuple(f"--{item.name} {getattr(flags, item.name)}: no effect: --student {flags.student} has no such thing"
                 for item in fields(StudentFlags) if item.name not in used and getattr(flags, item.name) != item.default)
