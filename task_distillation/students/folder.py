"""A student's folder, written and read. No pickle.

An own student: config.json (`config.py`), model.safetensors (fp32), tokenizer.json of `tokenizers`. An encoder: what `transformers` writes,
so that `AutoModelForSequenceClassification` loads it without us, with the same facts under one more key of its config.json.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from dataset.errors import UserError, one_line
from dataset.files import write_json
from evaluation.fine_tuning.model_folder import check_model_folder
from task_distillation.students.build import encoder_tokenizer, make_module
from task_distillation.students.config import CONFIG, EXTRA, TOKENIZER, WEIGHTS, StudentConfig, read_student_config
from task_distillation.students.part import Student

if TYPE_CHECKING:
    from task_distillation.students.encoder import EncoderStudent


@dataclass(frozen=True)
class LoadedStudent:
    """`module` in evaluation mode, fp32 on the CPU."""

    module: Student
    tokenizer: Tokenizer
    config: StudentConfig


def save_student(partial: Path, student: Student, tokenizer: Tokenizer, weights: Mapping[str, torch.Tensor] | None = None) -> None:
    """Write the student to the folder `partial`, which is there; for a whole one call it inside `dataset.files.whole_folder`.

    `weights`: names and tensors as in `student.state_dict()`, on any device in any precision, in the place of the module's own;
    ValueError where one lacks or is too many.
    """
    if weights is not None and (wrong := weights.keys() ^ student.state_dict().keys()):
        raise ValueError(f"weights of a student lack or have too many: {', '.join(sorted(wrong))}")
    weights = {name: weight.detach().to("cpu", torch.float32).contiguous() for name, weight in (weights or student.state_dict()).items()}
    if student.config.row.has_words:
        write_json(partial / CONFIG, student.config.to_json())
        tokenizer.save(str(partial / TOKENIZER))
        save_file(weights, partial / WEIGHTS, metadata={"format": "pt"})
        return
    _save_encoder(partial, student, weights)


def _save_encoder(partial: Path, student: "EncoderStudent", weights: dict[str, torch.Tensor]) -> None:
    from evaluation.fine_tuning.heads import quiet_transformers
    from pretraining.export import load_hf_tokenizer

    config = copy.deepcopy(student.model.config)
    setattr(config, EXTRA, student.config.to_json())
    with torch.device("meta"):
        model = type(student.model)(config)
    model.load_state_dict({name.removeprefix("model."): weight for name, weight in weights.items()}, assign=True)
    model.tie_weights()
    with quiet_transformers():
        model.save_pretrained(partial)
        load_hf_tokenizer(str(student.source)).save_pretrained(partial)


def load_student(folder: Path) -> LoadedStudent:
    """The student that `save_student` wrote to `folder`; UserError, in one line, for a folder that is not whole or is damaged."""
    config = read_student_config(folder)
    if not config.row.has_words:
        return _load_encoder(folder, config)
    tokenizer = _read_tokenizer(folder / TOKENIZER)
    if (tokenizer.truncation or {}).get("max_length") != config.max_length:
        raise UserError(f"{folder}: {CONFIG} says max_length {config.max_length}, {TOKENIZER} cuts elsewhere; the files are of different "
                        f"students, copy the whole folder")
    expected = _expected(folder, config, tokenizer.get_vocab_size())
    path = folder / WEIGHTS
    try:
        weights = load_file(path)
    except FileNotFoundError:
        raise UserError(f"{folder}: no {WEIGHTS}; copy the whole folder") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({str(error).splitlines()[0]}); the folder is damaged, copy it again") from None
    for name in sorted(expected.keys() | weights.keys()):
        shapes = [tuple(found[name].shape) if name in found else "none" for found in (weights, expected)]
        if shapes[0] != shapes[1]:
            raise UserError(f"{path}: {name} is {shapes[0]}, {CONFIG} and {TOKENIZER} make it {shapes[1]}; the files are of different "
                            f"students, copy the whole folder")
    if any(not weight.isfinite().all() for weight in weights.values()):
        raise UserError(f"{path}: has numbers that are not finite; the training diverged, give an earlier folder")
    student = make_module(config, tokenizer.get_vocab_size())
    student.load_state_dict(weights)
    return LoadedStudent(student.eval(), tokenizer, config)


def _expected(folder: Path, config: StudentConfig, vocabulary: int) -> dict[str, torch.Tensor]:
    """Names and shapes of the student's weights, without the memory that damaged sizes would take."""
    try:
        with torch.device("meta"):
            return make_module(config, vocabulary).state_dict()
    except (RuntimeError, ValueError, TypeError, OverflowError) as error:
        raise UserError(f"{folder / CONFIG}: its sizes make no student ({one_line(error)[:160]}); the folder is damaged, copy it "
                        f"again") from None


def _read_tokenizer(path: Path) -> Tokenizer:
    if not path.is_file():
        raise UserError(f"{path.parent}: no {TOKENIZER}; copy the whole folder")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises a bare Exception
        raise UserError(f"{path}: not a tokenizer ({str(error).splitlines()[0][:160]}); copy the whole folder") from None


def _load_encoder(folder: Path, config: StudentConfig) -> LoadedStudent:
    from evaluation.fine_tuning.heads import load_with_own_head
    from task_distillation.students.encoder import EncoderStudent

    try:
        check_model_folder(folder, config.max_length)
        student = EncoderStudent(load_with_own_head(folder, config.task)[0], folder)
    except UserError:
        raise
    except Exception as error:  # a damaged config.json makes transformers raise errors of many kinds
        raise UserError(f"{folder}: transformers cannot load it ({type(error).__name__}: {one_line(error)[:160]}); the folder is damaged, "
                        f"copy it again") from None
    student.config = config
    return LoadedStudent(student.eval(), encoder_tokenizer(folder, config.max_length), config)
