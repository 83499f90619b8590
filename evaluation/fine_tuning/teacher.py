"""What a teacher says about the training examples: a model that was fine-tuned on the same task, run once over what will be trained on.

It is in evaluation mode and gives the same in every epoch, so its logits are computed before the training, in large batches sorted by
length, and each example costs the teacher one forward pass however many epochs there are. What it said last is remembered in the process,
for the next seed or student asks it the same.
"""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from dataset.errors import UserError
from evaluation.fine_tuning.batching import gather
from evaluation.fine_tuning.heads import load_with_own_head
from evaluation.fine_tuning.inputs import Inputs, prepare
from evaluation.fine_tuning.losses import MASKED
from evaluation.fine_tuning.model_folder import fingerprint, read_head
from evaluation.fine_tuning.network import Network
from evaluation.fine_tuning.settings import SCORING_SETTINGS
from evaluation.fine_tuning.tokens import Tokenizer
from evaluation.tasks.task import Examples, Questions, Task

REMEMBERED = 2
"""Sets of logits: SQuAD's are a quarter of a gigabyte."""
_remembered: OrderedDict[str, np.ndarray] = OrderedDict()


class TeacherLogits:
    """The teacher's logits of the training rows, on the device."""

    def __init__(self, values: np.ndarray, inputs: Inputs, device: torch.device) -> None:
        self.values = torch.from_numpy(values).to(device)
        self.inputs, self.device = inputs, device

    def of(self, chosen: np.ndarray, length: int) -> torch.Tensor:
        """fp32, of the shape of the student's for these rows: (B, 1, outputs), or (B, 2, `length`) with `MASKED` padding."""
        if self.inputs.windows is None:
            return self.values[torch.from_numpy(chosen).to(self.device)].unsqueeze(1)
        positions, mask = (torch.from_numpy(array).to(self.device) for array in gather(self.inputs.tokens.starts, chosen, length))
        return self.values[positions].transpose(1, 2).masked_fill(~mask[:, None, :], MASKED)


def ask_teacher(
    folder: Path, task: Task, part: Examples | Questions, inputs: Inputs, steps: Sequence[np.ndarray], student: Network,
    say: Callable[[str], None],
) -> TeacherLogits:
    """The logits of the teacher in `folder` for every row that is in one of `steps`; its classes in the task's order.

    A teacher with another tokenizer reads the same texts through its own. UserError for a folder without the task's head, and where
    spans would be of other tokens than the student's.
    """
    order, note = read_head(folder, task)
    if note is not None:
        say(note)
    rows = np.unique(np.concatenate(steps))
    key = _key(folder, task, part, rows, student)
    if key not in _remembered:
        _remembered[key] = _compute(folder, task, part, rows, student, order)
        while len(_remembered) > REMEMBERED:
            _remembered.popitem(last=False)
    _remembered.move_to_end(key)
    return TeacherLogits(_remembered[key], inputs, student.device)


def _key(folder: Path, task: Task, part: Examples | Questions, rows: np.ndarray, student: Network) -> str:
    """Equal where the teacher's logits must be, to the bit: weights, texts, rows, and whatever cuts, batches and computes them."""
    texts = [part.questions, part.contexts] if isinstance(part, Questions) else list(part.texts)
    settings = {name: getattr(student.settings, name) for name in SCORING_SETTINGS}
    content = [fingerprint(folder), task.kind, task.label_names, texts, rows.tolist(), settings, student.precision.name,
               str(student.device), student.tokenizer.identity]
    return hashlib.sha256(json.dumps(content).encode("utf-8", "surrogatepass")).hexdigest()


def _compute(
    folder: Path, task: Task, part: Examples | Questions, rows: np.ndarray, student: Network, order: list[int],
) -> np.ndarray:
    """The teacher's logits as `Network.predict` gives them, those of other rows 0; UserError as of `ask_teacher`."""
    model, inner = load_with_own_head(folder, task)
    tokenizer = Tokenizer(inner, model, str(folder))
    if task.kind == "span" and tokenizer.identity != student.tokenizer.identity:
        raise UserError(f"the teacher {folder}: its tokenizer is not that of {student.tokenizer.name}, so its start and end are of "
                        f"other tokens; a teacher with the student's tokenizer would work")
    teacher = Network(model, tokenizer, task.kind, student.settings, student.device, student.precision, order)
    tokens = prepare(tokenizer, part, task.kind, student.settings, labelled=False).tokens
    rows = rows[np.argsort(-tokens.lengths[rows], kind="stable")]
    size = student.settings.per_device_eval_batch_size
    values = teacher.predict(tokens, [rows[at : at + size] for at in range(0, len(rows), size)])
    if not np.isfinite(values).all():
        raise UserError(f"the teacher {folder}: gives numbers that are not finite in {teacher.precision.name}; --precision fp32 may work")
    return values
