"""A teacher that was run before: the signals of its stored outputs, in the place of `models.teacher.Teacher`."""

import torch

from pretraining.signals import Batch, ModelNeeds, Signals, SparseTargets


class StoredTeacher:
    """Gives what batches carry, in fp32. What is not stored was refused before (`teacher_cache.coverage`)."""

    layer_parameters = 0  # nothing of it is run, for the share of peak

    def __call__(self, batch: Batch, needs: ModelNeeds) -> Signals:
        stored = batch.stored
        targets = None
        if needs.logits:
            if stored.rest is None:  # weights of drawn ids
                targets = SparseTargets(stored.ids.long(), stored.values.float().log(), None)
            else:
                targets = SparseTargets(stored.ids.long(), stored.values.float(), stored.rest.float())
        return Signals(hidden={layer: _spread(stored.hidden[layer], batch) for layer in needs.hidden}, targets=targets)


def _spread(states_ND: torch.Tensor, batch: Batch) -> torch.Tensor:
    """(B, L, D) fp32, 0 at padding."""
    rows, length = batch.mask.shape
    spread = states_ND.new_zeros(rows * length, states_ND.shape[1], dtype=torch.float32)
    return spread.index_copy_(0, batch.token_index, states_ND.float()).view(rows, length, -1)
