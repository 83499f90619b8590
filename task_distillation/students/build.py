"""A planned student made real: its tokenizer from texts, its weights from a seed, and texts as it reads them."""

from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import Tokenizer

from dataset.errors import UserError
from evaluation.tasks.task import Task
from task_distillation.students.config import StudentConfig
from task_distillation.students.plan import StudentPlan

if TYPE_CHECKING:
    from evaluation.fine_tuning.tokens import Tokens
    from task_distillation.students.part import Student

TEXTS_AT_ONCE = 4096


def make_tokenizer(plan: StudentPlan, texts: Iterable[str]) -> Tokenizer:
    """The student's tokenizer, which cuts to its length: a vocabulary of the words of `texts`, or the encoder's own, which reads none.

    UserError where the texts have no words, and for a tokenizer that does not load.
    """
    if plan.student_path is not None:
        return encoder_tokenizer(plan.student_path, plan.config.max_length)
    from task_distillation.students.vocabulary import make_vocabulary

    return make_vocabulary(texts, plan.vocab_size, plan.min_count, plan.config.max_length)


def encoder_tokenizer(folder: Path, max_length: int) -> Tokenizer:
    """The tokenizer of a Hugging Face folder; UserError for one that does not load or that `tokenizers` has no form of."""
    from pretraining.export import load_hf_tokenizer

    try:
        tokenizer = getattr(load_hf_tokenizer(str(folder)), "backend_tokenizer", None)
    except UserError as error:
        raise UserError(str(error).replace("--tokenizer_name", "--student_path")) from None
    if tokenizer is None:
        raise UserError(f"{folder}: its tokenizer is written in Python alone; a folder with tokenizer.json would work")
    tokenizer.enable_truncation(max_length, strategy="longest_first")
    return tokenizer


def build_student(plan: StudentPlan, tokenizer: Tokenizer, task: Task, seed: int,
                  say: Callable[[str], None] = lambda line: None) -> "Student":
    """The student with its first weights, fp32 on the CPU, a function of plan, tokenizer and seed; the random state is left as it was.

    `say` is told how many words have a vector. UserError for word vectors that cannot be read and an encoder that does not load whole.
    """
    if plan.student_path is not None:
        student = _new_encoder(plan.student_path, tokenizer, task, seed)
        student.config = plan.config
        return student
    import torch

    from task_distillation.students.embedding import start_vectors

    words = tokenizer.get_vocab()
    # The file first: it is where a mistake may be.
    vectors, found = start_vectors(words, plan.config.sizes["embedding_size"], seed, plan.word_vectors)
    if plan.word_vectors is not None:
        say(f"{plan.word_vectors}: vectors of {found} of the {len(words)} words of the vocabulary")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        student = make_module(plan.config, len(words))
    student.embeddings().start_from(vectors)
    return student


def make_module(config: StudentConfig, vocabulary: int) -> "Student":
    """The module of an own student with weights that nobody has set yet."""
    module = getattr(import_module(config.row.module), config.row.class_name)(
        vocabulary=vocabulary, outputs=config.task.outputs, **config.sizes)
    module.config = config
    return module


def _new_encoder(folder: Path, tokenizer: Tokenizer, task: Task, seed: int) -> "Student":
    from task_distillation.students.encoder import new_encoder

    student = new_encoder(folder, task, seed)
    rows, largest = student.embeddings().num_embeddings, max(tokenizer.get_vocab().values())
    if largest >= rows:
        raise UserError(f"--student_path {folder}: its tokenizer gives id {largest}, its model has {rows} embeddings; "
                        f"put the tokenizer beside the model that was trained with it")
    return student


def encode(config: StudentConfig, tokenizer: Tokenizer, columns: Sequence[list[str]]) -> "list[Tokens]":
    """Texts, one list for each of `config.columns`, as the student reads them: flat ids of every part (`config.parts`), cut to its length.

    A text without a single token is one of padding, so that every row has a length.
    """
    from evaluation.fine_tuning.tokens import from_lists

    inputs = list(columns) if config.parts == 2 or len(columns) == 1 else [list(zip(*columns, strict=True))]
    rows = []
    for texts in inputs:
        ids: list[list[int]] = []
        segments: list[list[int]] = []
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            for one in tokenizer.encode_batch_fast(texts[start : start + TEXTS_AT_ONCE]):
                ids.append(one.ids or [0])
                if config.segments:
                    segments.append(one.type_ids or [0])
        rows.append(from_lists(ids, segments if config.segments else None))
    return rows
