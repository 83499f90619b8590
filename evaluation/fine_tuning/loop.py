"""The training loop, short enough to read.

A plain loop instead of transformers.Trainer: it writes nothing, and its step, order and padding are ours to test. fp32 master weights with
autocast for the rest. The loss of an update is the mean over all its examples, so neither accumulation nor a short last batch changes it.
The course of the learning rate is transformers' own (`get_scheduler`), so that a recipe means here what it means there.
"""

from collections.abc import Sequence

import numpy as np
import torch
from transformers import PreTrainedModel, get_scheduler

from dataset.progress import progress
from evaluation.fine_tuning.inputs import Inputs
from evaluation.fine_tuning.losses import label_loss, teacher_loss
from evaluation.fine_tuning.network import Network
from evaluation.fine_tuning.scorer import Watch
from evaluation.fine_tuning.settings import FineTuningSettings
from evaluation.fine_tuning.teacher import TeacherLogits


def parameter_groups(model: PreTrainedModel, weight_decay: float) -> list[dict]:
    """AdamW's groups: decay for matrices only; biases and normalisation weights are the parameters of one dimension."""
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [weight for weight in weights if weight.ndim > 1], "weight_decay": weight_decay},
        {"params": [weight for weight in weights if weight.ndim <= 1], "weight_decay": 0.0},
    ]


def warmup_steps(settings: FineTuningSettings, steps: int) -> int:
    """Updates with rising learning rate, of `steps`: as many as asked for, or the share rounded down, as BERT's own script did."""
    return settings.warmup_steps or int(settings.warmup_ratio * steps)


def train(network: Network, inputs: Inputs, plan: Sequence[np.ndarray], teacher: TeacherLogits | None, watch: Watch) -> list[float]:
    """One update for each of `plan`, the rows of `inputs` that it is of; the mean loss of every update that was made.

    `watch` may look at the model between updates and end the training.
    """
    settings, model, device = network.settings, network.model, network.device
    micro = settings.per_device_train_batch_size
    labels = torch.from_numpy(inputs.labels).to(device)
    optimizer = torch.optim.AdamW(
        parameter_groups(model, settings.weight_decay), lr=settings.learning_rate, betas=(settings.adam_beta1, settings.adam_beta2),
        eps=settings.adam_epsilon, fused=True,
    )
    schedule = get_scheduler(settings.lr_scheduler_type, optimizer, warmup_steps(settings, len(plan)), len(plan))
    scaler = torch.amp.GradScaler(device.type, enabled=network.precision.name == "fp16")
    losses = torch.zeros(len(plan), device=device)
    model.train()
    # The losses stay on the device until the end: reading one makes the device wait for the host.
    for step, chosen in enumerate(progress(plan, desc="fine-tuning", unit=" updates", leave=False)):
        for at in range(0, len(chosen), micro):
            rows = chosen[at : at + micro]
            logits = network.logits(inputs.tokens, rows)
            each = label_loss(network.kind, logits, labels[torch.from_numpy(rows).to(device)])
            if teacher is not None:
                taught = teacher_loss(network.kind, logits, teacher.of(rows, logits.shape[-1]), settings.temperature)
                each = (1 - settings.alpha) * each + settings.alpha * taught
            loss = each.sum() / len(chosen)
            scaler.scale(loss).backward()
            losses[step] += loss.detach()
        scaler.unscale_(optimizer)
        if settings.max_grad_norm > 0:
            torch.nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
        scaler.step(optimizer)
        scaler.update()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        if watch.is_due(step + 1) and watch.look(step + 1):
            break
    return losses[: step + 1].tolist()
