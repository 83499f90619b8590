"""What is trained: the student and the objective's projections in one module, whose forward pass is one micro-batch's loss."""

import torch
from torch import nn

from pretraining.models.encoder import Encoder
from pretraining.objectives.weighted import WeightedObjectives
from pretraining.signals import Batch, Signals, Unit

PROBE_SEQUENCES, PROBE_TOKENS = 2, 8


class TrainedModule(nn.Module):
    """`forward` gives (loss to call backward on, {term: share of the global mean}).

    The loss of a term is its sum over the global batch divided by its count over the global batch. Each micro-batch contributes
    its own sum over that global count, which `counts` brings; the trainer multiplies by what DeepSpeed will divide by.
    """

    def __init__(self, student: Encoder, objective: WeightedObjectives) -> None:
        super().__init__()
        self.student = student
        self.objective = objective

    def forward(
        self, batch: Batch, teacher: Signals | None, counts: dict[Unit, float],
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        signals = self.student(batch)
        total, shares = None, {}
        for name, (weight, term) in self.objective(signals, teacher, batch).items():
            share = term.sum / max(1.0, term.count(counts))
            shares[name] = share.detach()
            total = weight * share if total is None else total + weight * share
        return total, shares


def freeze_unreached(module: TrainedModule, teacher_width: int | None, vocab_size: int) -> list[str]:
    """Freeze the parameters that no loss term reaches and return their names.

    Left trainable they would get no gradient but weight decay would still shrink them. Found by one backward pass on a tiny made-up
    batch with made-up teacher signals, which is true for any objective and any architecture. Call before the module moves.
    """
    needs = module.objective.needs
    shape = (PROBE_SEQUENCES, PROBE_TOKENS)
    generator = torch.Generator().manual_seed(0)
    masked_index = torch.tensor([1, PROBE_TOKENS + 2])
    batch = Batch(
        input_ids=torch.randint(0, vocab_size, shape, generator=generator), token_type_ids=torch.zeros(shape, dtype=torch.int64),
        mask=torch.ones(shape, dtype=torch.bool), masked_index=masked_index, labels=torch.zeros(2, dtype=torch.int64),
        counts={Unit.TOKENS: shape[0] * shape[1], Unit.MASKED: 2, Unit.SEQUENCES: shape[0]}, has_padding=False, micro_index=0,
    )
    teacher = None
    if needs.teacher is not None:
        teacher = Signals(
            hidden={layer: torch.randn(*shape, teacher_width, generator=generator) for layer in needs.teacher.hidden},
            logits=torch.randn(len(masked_index), vocab_size, generator=generator) if needs.teacher.logits else None,
        )
    # eval mode: dropout would draw random numbers, and what is reached does not depend on it.
    module.eval()
    loss, _ = module(batch, teacher, {unit: float(count) for unit, count in batch.counts.items()})
    loss.backward()
    frozen = []
    for name, parameter in module.named_parameters():
        if parameter.grad is None:
            parameter.requires_grad_(False)
            frozen.append(name)
        parameter.grad = None
    module.train()
    return frozen
