"""Fine-tune one encoder on one GLUE task and score it, in a loop that can be read.

A plain loop instead of transformers.Trainer: it is short, writes nothing, and its step, order and padding are ours to
test. fp32 master weights with autocast for the rest. The score is that of the last step; choosing the best of several
evaluations on the dev set would report the dev set back. Loss of a step is the mean over all its examples, so neither
accumulation nor a short last batch changes an update.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from transformers import PreTrainedModel

from dataset.files import whole_folder
from evaluation.fine_tuning.batching import collate, count_steps, training_steps
from evaluation.fine_tuning.classifier import encode, load_classifier, quiet_transformers
from evaluation.fine_tuning.repeatable import repeatable
from evaluation.fine_tuning.settings import FineTuningSettings
from evaluation.metrics.glue import score, score_of_constant
from evaluation.tasks.table import Examples, TaskData
from pretraining.precision import Precision, select_precision


@dataclass(frozen=True)
class Outcome:
    """One fine-tuning: `metrics` and `predictions` (int64, one class for each dev example) of the last step."""

    metrics: dict[str, float]
    constant_metrics: dict[str, float]
    """The same metrics for always predicting the most frequent class of the dev examples."""
    predictions: np.ndarray
    losses: list[float]
    """Mean training loss of each optimizer step."""
    train_seconds: float
    train_size: int
    precision: str
    device: str
    new_weights: list[str]
    """Parameters that the model's folder did not give."""
    diverged: bool
    """True where the final logits are not all finite; the metrics then mean nothing."""


def fine_tune(
    folder: Path, data: TaskData, settings: FineTuningSettings, save_to: Path | None = None,
    say: Callable[[str], None] = print,
) -> Outcome:
    """Train the model in `folder` on `data.train`, score it on `data.dev`; with `save_to` keep the result there.

    `say` gets a line about the precision where the settings leave it to the device.

    The same arguments on the same machine give the same predictions. UserError for a folder that does not load, a
    tokenizer of another model, and a precision that the device does not have.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precision, note = select_precision(settings.precision, device)
    if note is not None:
        say(note)
    train, dev = data.train.first(settings.max_train_samples), data.dev.first(settings.max_eval_samples)
    with repeatable(settings.seed, device):
        model, tokenizer, new_weights = load_classifier(folder, data.task, settings.seed)
        model.to(device)
        run = _Run(model, tokenizer, settings, device, precision)
        started = time.perf_counter()
        losses = run.train(train)
        train_seconds = time.perf_counter() - started
        logits = run.predict(dev)
    if save_to is not None:
        save_to.parent.mkdir(parents=True, exist_ok=True)
        with quiet_transformers(), whole_folder(save_to) as partial:
            model.save_pretrained(partial)
            tokenizer.save_pretrained(partial)
    predictions = logits.argmax(axis=1)
    return Outcome(
        metrics=score(data.task.metrics, dev.labels, predictions),
        constant_metrics=score_of_constant(data.task.metrics, dev.labels),
        predictions=predictions, losses=losses, train_seconds=train_seconds, train_size=len(train.labels),
        precision=precision.name, device=device.type, new_weights=new_weights,
        diverged=not np.isfinite(logits).all(),
    )


def learning_rate_factor(step: int, steps: int, warmup: int) -> float:
    """Linear rise over the first `warmup` of `steps` steps, then linear fall; never 0, so that no step is wasted."""
    if step < warmup:
        return (step + 1) / warmup
    return (steps - step) / (steps - warmup)


def parameter_groups(model: PreTrainedModel, weight_decay: float) -> list[dict]:
    """AdamW's groups: decay for matrices only; biases and normalisation weights are the parameters of one dimension."""
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [weight for weight in weights if weight.ndim > 1], "weight_decay": weight_decay},
        {"params": [weight for weight in weights if weight.ndim <= 1], "weight_decay": 0.0},
    ]


class _Run:
    """What training and prediction share: model, tokenizer, settings, device, precision."""

    def __init__(self, model, tokenizer, settings: FineTuningSettings, device: torch.device, precision: Precision) -> None:
        self.model, self.tokenizer, self.settings, self.device = model, tokenizer, settings, device
        self.precision = precision
        self.pad_token_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0

    def logits(self, encoded: dict[str, list[list[int]]], chosen: np.ndarray) -> torch.Tensor:
        """Logits (B, classes) in fp32 of the examples numbered `chosen`."""
        batch = collate(encoded, chosen, self.pad_token_id, self.device)
        with self.precision.autocast(self.device):
            return self.model(**batch).logits.float()

    def train(self, examples: Examples) -> list[float]:
        """Train in place; the mean loss of every step."""
        settings, model = self.settings, self.model
        encoded, lengths = encode(model, self.tokenizer, examples, settings.max_seq_length)
        labels = torch.tensor(examples.labels, device=self.device)
        micro = settings.per_device_train_batch_size
        step_size = micro * settings.gradient_accumulation_steps
        steps = count_steps(len(labels), step_size, settings.num_train_epochs)
        warmup = int(settings.warmup_ratio * steps)
        optimizer = torch.optim.AdamW(
            parameter_groups(model, settings.weight_decay), lr=settings.learning_rate, fused=True
        )
        scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision.name == "fp16")
        losses = torch.zeros(steps, device=self.device)
        model.train()
        order = training_steps(lengths, step_size, steps, settings.seed)
        # The losses stay on the device until the end: reading one makes the device wait for the host.
        for step, chosen in enumerate(tqdm(order, total=steps, desc="fine-tuning", leave=False, disable=None)):
            for at in range(0, len(chosen), micro):
                part = chosen[at : at + micro]
                targets = labels[torch.from_numpy(part).to(self.device)]
                loss = cross_entropy(self.logits(encoded, part), targets, reduction="sum") / len(chosen)
                scaler.scale(loss).backward()
                losses[step] += loss.detach()
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * learning_rate_factor(step, steps, warmup)
            scaler.unscale_(optimizer)
            if settings.max_grad_norm > 0:
                torch.nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad(set_to_none=True)
        return losses.tolist()

    @torch.no_grad()
    def predict(self, examples: Examples) -> np.ndarray:
        """Logits (N, classes) fp32 in the order of `examples`; batches go by length, which saves padding."""
        encoded, lengths = encode(self.model, self.tokenizer, examples, self.settings.max_seq_length)
        order = np.argsort(-lengths, kind="stable")
        size = self.settings.per_device_eval_batch_size
        self.model.eval()
        parts = [self.logits(encoded, order[at : at + size]) for at in range(0, len(order), size)]
        logits = np.empty((len(order), parts[0].shape[1]), dtype=np.float32)
        logits[order] = torch.cat(parts).cpu().numpy()
        return logits
