"""A small Hugging Face encoder as a student: the folder's encoder under a new head, its classes in the task's order and named."""

from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel

from evaluation.fine_tuning.heads import load_with_new_head
from evaluation.tasks.task import Task
from task_distillation.students.part import Part, Student


class EncoderStudent(Student):
    """`source`: the folder that its tokenizer is in."""

    def __init__(self, model: PreTrainedModel, source: Path) -> None:
        super().__init__()
        self.model, self.source = model, source
        self.pad_token_id = model.config.pad_token_id or 0

    def embeddings(self) -> nn.Module:
        return self.model.get_input_embeddings()

    def forward(self, parts: tuple[Part, ...]) -> torch.Tensor:
        (part,) = parts
        mask = torch.arange(part.ids.shape[1], device=part.ids.device) < part.lengths.unsqueeze(1)
        segments = {} if part.segments is None else {"token_type_ids": part.segments}
        return self.model(input_ids=part.ids, attention_mask=mask.long(), **segments).logits.float()


def new_encoder(folder: Path, task: Task, seed: int) -> EncoderStudent:
    """The encoder in `folder` with a new head, drawn from `seed`; UserError where it does not load whole."""
    return EncoderStudent(load_with_new_head(folder, task, seed)[0], folder)
