"""Fine-tune a causal language model on a task's texts; goes on after a kill from the last whole epoch, with the same weights to the bit.

Every epoch draws its own seed for dropout and for the cuts of --split_encode from (seed, epoch), so the state of an epoch's end is weights,
AdamW and schedule, and no state of a random generator. The weights of the epoch with the lowest dev perplexity are the result.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from transformers import PreTrainedModel, get_scheduler

from dataset.errors import UserError
from dataset.files import reason, whole_file, whole_folder
from dataset.progress import progress
from evaluation.fine_tuning.batching import collate, scoring_batches, steps_in_epoch, training_steps
from evaluation.fine_tuning.heads import quiet_transformers
from evaluation.fine_tuning.loop import parameter_groups
from evaluation.fine_tuning.tokens import Tokens
from pretraining.precision import Precision
from task_distillation.generation.flags import TrainingSettings
from task_distillation.generation.language_model import LanguageModel
from task_distillation.record import check_same

MAX_GRAD_NORM = 1.0
IGNORED = -100


@dataclass(frozen=True)
class Place:
    device: torch.device
    precision: Precision


def next_token_loss(model: PreTrainedModel, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """(sum, count) of -log p(token | the tokens before it in its row), over every token of the batch but the first of each row.

    `batch`: input_ids (B, L), and attention_mask (B, L) where rows are padded right: a padded place is no token, whatever id fills it.
    Both are scalars on the model's device, the sum fp32.
    """
    ids, mask = batch["input_ids"], batch.get("attention_mask")
    labels = ids[:, 1:]
    if mask is not None:
        labels = labels.masked_fill(mask[:, 1:] == 0, IGNORED)
    logits = model(**batch, use_cache=False).logits[:, :-1]
    total = functional.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum")
    return total, (labels != IGNORED).sum()


@torch.no_grad()
def perplexity(lm: LanguageModel, tokens: Tokens, batch_size: int, place: Place) -> float:
    """exp of the mean of `next_token_loss` over all of `tokens`; infinite where it is beyond a float, NaN where the model gives NaN."""
    lm.model.eval()
    total = torch.zeros((), dtype=torch.float64, device=place.device)
    count = torch.zeros((), dtype=torch.int64, device=place.device)
    for rows in scoring_batches(tokens.lengths, batch_size):
        with place.precision.autocast(place.device):
            part, tokens_of_part = next_token_loss(lm.model, collate(tokens, rows, lm.codec.eos, place.device))
        total, count = total + part.double(), count + tokens_of_part
    try:
        return math.exp(float(total) / int(count))
    except OverflowError:
        return math.inf


class FineTuning:
    """One training: `run` does what remains of it. `columns` are the training texts and `train` their sequences; `dev`: sequences of the
    dev set, None where it has none.

    `state_path` holds the last whole epoch until the caller removes it, `best_folder` the best epoch's weights.
    """

    def __init__(
        self, lm: LanguageModel, columns: tuple[list[str], ...], train: Tokens, dev: Tokens | None, settings: TrainingSettings,
        place: Place, identity: dict[str, Any], state_path: Path, best_folder: Path, say: Callable[[str], None] = print,
    ) -> None:
        self._lm, self._columns, self._tokens, self._dev, self._settings, self._place = lm, columns, train, dev, settings, place
        self._identity, self._state_path, self._best_folder, self._say = identity, state_path, best_folder, say
        per_epoch = steps_in_epoch(len(columns[0]), settings.train_batch_size)
        steps = per_epoch * settings.num_train_epochs
        plan = list(training_steps(self._tokens.lengths, settings.train_batch_size, steps, settings.seed))
        self._plan = [plan[at : at + per_epoch] for at in range(0, steps, per_epoch)]
        model = lm.model.to(place.device)
        self._optimizer = torch.optim.AdamW(parameter_groups(model, settings.weight_decay), lr=settings.learning_rate, fused=True)
        self._schedule = get_scheduler("linear", self._optimizer, int(settings.warmup_proportion * steps), steps)
        self.epochs: list[dict[str, float]] = []

    def run(self) -> int:
        """Train; the number (from 1) of the epoch that was kept, the last one where there is no dev set. `epochs` has one entry for each.

        UserError where a loss or perplexity is not a number, and for a state that was made by something else.
        """
        self._restore()
        for epoch in range(len(self.epochs), self._settings.num_train_epochs):
            started = time.perf_counter()
            loss = self._train(epoch)
            found = None if self._dev is None else perplexity(self._lm, self._dev, 2 * self._settings.train_batch_size, self._place)
            if not math.isfinite(loss) or (found is not None and math.isnan(found)):
                raise UserError(f"epoch {epoch + 1}: the loss is {loss}; a lower --learning_rate, or --precision fp32, would work")
            seconds = round(time.perf_counter() - started, 3)
            self.epochs.append({"epoch": epoch + 1, "train_loss": loss, "dev_perplexity": found, "seconds": seconds})
            self._say(f"epoch {epoch + 1}: training loss {loss:.3f}" + ("" if found is None else f", dev perplexity {found:.2f}"))
            if self.best() == epoch + 1:
                self._keep()
            self._store()
        return self.best()

    def best(self) -> int:
        """The epoch of the lowest dev perplexity, the first of equal ones."""
        if self._dev is None:
            return len(self.epochs)
        return min(self.epochs, key=lambda epoch: epoch["dev_perplexity"])["epoch"]

    def _train(self, epoch: int) -> float:
        """One pass; the mean loss of a token."""
        source = np.random.SeedSequence([self._settings.seed, epoch])
        torch.manual_seed(int(source.generate_state(1, np.uint64)[0] >> 1))
        tokens = self._tokens
        if self._settings.split_encode:
            tokens, _ = self._lm.codec.rows(self._columns, self._settings.max_length, np.random.default_rng(source))
        model, device = self._lm.model.train(), self._place.device
        total, count = torch.zeros((), device=device), torch.zeros((), dtype=torch.int64, device=device)
        for rows in progress(self._plan[epoch], desc=f"epoch {epoch + 1}", unit=" updates", leave=False):
            with self._place.precision.autocast(device):
                loss, tokens_of_batch = next_token_loss(model, collate(tokens, rows, self._lm.codec.eos, device))
            (loss / tokens_of_batch.clamp(min=1)).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_GRAD_NORM)
            self._optimizer.step()
            self._schedule.step()
            self._optimizer.zero_grad(set_to_none=True)
            total, count = total + loss.detach(), count + tokens_of_batch
        return float(total / count)

    def _keep(self) -> None:
        try:
            with whole_folder(self._best_folder) as partial, quiet_transformers():
                self._lm.model.save_pretrained(partial)
                self._lm.codec.tokenizer.save_pretrained(partial)
        except OSError as error:
            raise UserError(f"{self._best_folder}: cannot be written ({reason(error)}); the last whole epoch is kept, and the same command "
                            f"goes on from it") from None

    def _store(self) -> None:
        """After `_keep`: killed in between, the epoch is trained again and gives the same weights."""
        state = {"identity": self._identity, "epochs": self.epochs, "model": self._lm.model.state_dict(),
                 "optimizer": self._optimizer.state_dict(), "schedule": self._schedule.state_dict()}
        try:
            with whole_file(self._state_path) as partial:
                torch.save(state, partial)
        except (OSError, RuntimeError) as error:  # torch's own for a full disk
            raise UserError(f"{self._state_path}: cannot be written ({reason(error)}); the epoch before is kept, and the same command "
                            f"goes on from it") from None

    def _restore(self) -> None:
        if not self._state_path.is_file():
            return
        try:
            state = torch.load(self._state_path, map_location="cpu", weights_only=True)
            check_same(self._state_path, state["identity"], self._identity)
            self._lm.model.load_state_dict(state["model"])
            self._optimizer.load_state_dict(state["optimizer"])
            self._schedule.load_state_dict(state["schedule"])
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"{self._state_path}: cannot be read ({reason(error)}); remove it, and the training begins anew") from None
        self.epochs = state["epochs"]
        self._say(f"goes on after epoch {len(self.epochs)} of {self._settings.num_train_epochs}")
