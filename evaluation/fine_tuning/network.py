"""One model as a function from rows of tokens to logits, on its device and in its precision: what students and teachers share."""

from collections.abc import Iterable

import numpy as np
import torch
from transformers import PreTrainedModel

from evaluation.fine_tuning.batching import collate, gather, scoring_batches
from evaluation.fine_tuning.losses import MASKED
from evaluation.fine_tuning.settings import FineTuningSettings
from evaluation.fine_tuning.tokens import Tokenizer, Tokens
from pretraining.precision import Precision

CUDA_MULTIPLE = 8
"""Half-precision matrix units and fused attention want lengths in eights; a processor does not care."""


class Network:
    """A model with its tokenizer. `order[c]` is the model's output for class c of the task; None: as they are."""

    def __init__(self, model: PreTrainedModel, tokenizer: Tokenizer, kind: str, settings: FineTuningSettings, device: torch.device,
                 precision: Precision, order: list[int] | None = None) -> None:
        self.model, self.tokenizer, self.kind, self.settings = model.to(device), tokenizer, kind, settings
        self.device, self.precision = device, precision
        in_order = order is None or order == sorted(order)
        self.order = None if in_order else torch.tensor(order, device=device)
        self.multiple = CUDA_MULTIPLE if device.type == "cuda" and precision.name != "fp32" else 1

    def logits(self, tokens: Tokens, chosen: np.ndarray) -> torch.Tensor:
        """fp32 (B, 1, outputs), or of spans (B, 2, L): start and end of every position, `MASKED` where it is padding."""
        longest = int((tokens.starts[chosen + 1] - tokens.starts[chosen]).max())
        most = self.settings.max_seq_length
        length = most if self.settings.pad_to_max_length else max(longest, min(most, -(-longest // self.multiple) * self.multiple))
        batch = collate(tokens, chosen, self.tokenizer.pad_token_id, self.device, length)
        with self.precision.autocast(self.device):
            output = self.model(**batch)
        if self.kind == "span":
            logits = torch.stack([output.start_logits, output.end_logits], dim=1).float()
            padded = batch.get("attention_mask")
            return logits if padded is None else logits.masked_fill(padded[:, None, :] == 0, MASKED)
        logits = output.logits.float()
        return (logits if self.order is None else logits[:, self.order]).unsqueeze(1)

    @torch.no_grad()
    def predict(self, tokens: Tokens, batches: Iterable[np.ndarray] | None = None) -> np.ndarray:
        """fp32 (N, outputs) for every row, or of spans (tokens, 2) beside `tokens.ids`; rows that no batch holds are 0.

        In evaluation mode, without a draw from the random state; the model is left in the mode it was in.
        """
        if batches is None:
            batches = scoring_batches(tokens.lengths, self.settings.per_device_eval_batch_size)
        batches = list(batches)
        training = self.model.training
        self.model.eval()
        # Results stay on the device until the last batch is under way: reading one makes the device wait for the host.
        parts = [self.logits(tokens, chosen) for chosen in batches]
        self.model.train(training)
        if self.kind == "span":
            found = np.zeros((len(tokens.ids), 2), np.float32)
            for chosen, part in zip(batches, parts, strict=True):
                positions, mask = gather(tokens.starts, chosen, part.shape[-1])
                found[positions[mask]] = part.transpose(1, 2).cpu().numpy()[mask]
            return found
        found = np.zeros((len(tokens.starts) - 1, self.outputs), np.float32)
        if batches:
            found[np.concatenate(batches)] = torch.cat(parts)[:, 0].cpu().numpy()
        return found

    @property
    def outputs(self) -> int:
        """Outputs of the head: classes, 1 or 2."""
        return self.model.config.num_labels
