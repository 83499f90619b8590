"""The dev sets, whole, by the student of now: its loss against their labels, and the task's scores.

Nothing is chosen by them: the scores of a marker are those of the weights at that share of the budget.
"""

from dataclasses import dataclass

import numpy as np
import torch

from evaluation.fine_tuning.batching import scoring_batches
from evaluation.fine_tuning.losses import label_loss
from evaluation.fine_tuning.scorer import metrics_of
from evaluation.tasks.task import TaskData
from pretraining.control import Control
from pretraining.precision import Precision
from task_distillation.distilling.batches import ChosenRows, Collate, TextRows
from task_distillation.distilling.module import TaskModule

SCORE = "score/"
"""What the names of scores begin with, beside the losses."""


@dataclass(frozen=True)
class DevSet:
    """`rows` as the student reads them, with their labels."""

    name: str
    rows: TextRows


class TaskValidator:
    """Measures on every rank's share of the micro-batches, the longest first; the numbers do not depend on how many ranks there are."""

    def __init__(
        self, sets: list[DevSet], data: TaskData, micro_batch: int, collate: Collate, control: Control, precision: Precision,
        device: torch.device,
    ) -> None:
        self.sets, self.data, self.micro_batch, self.collate = sets, data, micro_batch, collate
        self.control, self.precision, self.device = control, precision, device

    @torch.no_grad()
    def measure(self, module: TaskModule, teacher: None, limit: int | None = None) -> dict[str, float]:
        """{"loss": mean over the headline's dev set, "score/METRIC": as `metrics_of` names them}. All ranks call it together.

        `limit` bounds each rank's micro-batches (--dry_run): there are no scores then.
        """
        module.eval()
        outputs, losses = {}, {}
        for dev in self.sets:
            outputs[dev.name], losses[dev.name] = self._run(module, dev, limit)
        module.train()
        loss = {"loss": losses[self.sets[0].name]}
        if limit is not None:
            return loss
        scores = metrics_of(self.data.task, self.data.dev, outputs)
        return loss | {f"{SCORE}{name}": value for name, value in scores.items()}

    def _run(self, module: TaskModule, dev: DevSet, limit: int | None) -> tuple[np.ndarray, float]:
        """(logits (N, C) fp32 of all rows, mean loss)."""
        kind, rows = self.data.task.kind, dev.rows
        batches = scoring_batches(rows.widths(), self.micro_batch)[self.control.rank :: self.control.world_size][:limit]
        found = []
        for chosen in batches:
            batch = self.collate(ChosenRows(rows, chosen), 0).to(self.device)
            with self.precision.autocast(self.device):
                logits = module.student(batch.parts).float()
            loss = label_loss(kind, logits.unsqueeze(1), batch.labels.unsqueeze(1)).double()
            found.append((chosen, logits.cpu().numpy(), loss.cpu().numpy()))
        outputs, losses = np.zeros((len(rows), self.data.task.outputs), np.float32), np.zeros(len(rows))
        seen = 0
        for part in self.control.gather(found):
            for chosen, logits, loss in part:
                outputs[chosen], losses[chosen] = logits, loss
                seen += len(chosen)
        return outputs, float(losses.sum() / max(1, seen))
