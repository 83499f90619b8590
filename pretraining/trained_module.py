"""What is trained: the student and the objective's projections in one module, whose forward pass is one micro-batch's loss."""

import torch
from torch import nn

from pretraining.models.encoder import Encoder
from pretraining.objectives.base import Shape
from pretraining.objectives.weighted import WeightedObjectives
from pretraining.signals import Attention, Batch, ModelNeeds, Signals, Unit

PROBE_SEQUENCES, PROBE_TOKENS = 3, 8


class TrainedModule(nn.Module):
    """`forward` gives (loss to call backward on, {term: share of the global mean}).

    The loss of a term is its sum over the global batch divided by its count over the global batch. Each micro-batch contributes
    its own sum over that global count, which `counts` brings; the trainer multiplies by what DeepSpeed will divide by.
    """

    def __init__(self, student: Encoder, objective: WeightedObjectives) -> None:
        super().__init__()
        self.student = student
        self.objective = objective
        self._idle: dict[float, list[nn.Parameter]] = {}

    def begin_step(self, progress: float) -> None:
        """Choose the parts of the objective that are learnt from at `progress`, a share of the budget."""
        self.objective.progress = progress

    def not_begun(self) -> list[str]:
        """Objectives whose stage of the budget has not come yet."""
        return [name for name, part in self.objective.parts.items() if part.since > self.objective.progress]

    @property
    def teacher_needs(self) -> ModelNeeds | None:
        """What the present step asks of the teacher; None where it needs none."""
        return self.objective.needs.teacher

    def idle_parameters(self) -> list[nn.Parameter]:
        """Trainable parameters that no term of the present stage reaches: an optimizer must leave them alone."""
        stage = max((since for since in self._idle if since <= self.objective.progress), default=0.0)
        return self._idle.get(stage, [])

    def terms(self, batch: Batch, teacher: Signals | None) -> tuple[dict, Signals]:
        """(term name -> (weight, term) of the present stage, the student's signals that they are made of)."""
        student = self.student(batch, self.objective.needs.student)
        return self.objective(student, teacher, batch), student

    def forward(
        self, batch: Batch, teacher: Signals | None, counts: dict[Unit, float],
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        total, shares = None, {}
        for name, (weight, term) in self.terms(batch, teacher)[0].items():
            share = term.sum / max(1.0, term.count(counts))
            shares[name] = share.detach()
            total = weight * share if total is None else total + weight * share
        return total, shares

    def freeze_unreached(self, teacher: Shape | None, vocab_size: int) -> list[str]:
        """Freeze the parameters that no loss term of any stage reaches and return their names.

        Left trainable they would get no gradient but weight decay would still shrink them. Found by one backward pass a stage on a
        tiny made-up batch with made-up teacher signals, which is true for any objective and any architecture. Call before the module
        moves.
        """
        batch = _probe_batch(vocab_size)
        reached: dict[float, set[str]] = {}
        # eval mode: dropout would draw random numbers, and what is reached does not depend on it.
        self.eval()
        for stage in self.objective.stages():
            self.begin_step(stage)
            needs = self.teacher_needs
            signals = None if needs is None else _made_up_signals(needs, teacher, vocab_size, batch)
            loss, _ = self(batch, signals, {unit: float(count) for unit, count in batch.counts.items()})
            loss.backward()
            reached[stage] = {name for name, parameter in self.named_parameters() if parameter.grad is not None}
            self.zero_grad(set_to_none=True)
        self.train()
        self.begin_step(0.0)
        frozen = [name for name, _ in self.named_parameters() if not any(name in names for names in reached.values())]
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name not in frozen)
        self._idle = {stage: [parameter for name, parameter in self.named_parameters() if parameter.requires_grad and name not in names]
                      for stage, names in reached.items()}
        return frozen


def _probe_batch(vocab_size: int) -> Batch:
    shape = (PROBE_SEQUENCES, PROBE_TOKENS)
    generator = torch.Generator().manual_seed(0)
    return Batch.make(
        input_ids=torch.randint(0, vocab_size, shape, generator=generator), token_type_ids=torch.zeros(shape, dtype=torch.int64),
        mask=torch.ones(shape, dtype=torch.bool), masked_index=torch.tensor([1, PROBE_TOKENS + 2]),
        labels=torch.zeros(2, dtype=torch.int64), next_sentence_labels=torch.zeros(PROBE_SEQUENCES, dtype=torch.int64))


def _made_up_signals(needs: ModelNeeds, shape: Shape, vocab_size: int, batch: Batch) -> Signals:
    generator = torch.Generator().manual_seed(0)

    def draw(*sizes: int) -> torch.Tensor:
        return torch.randn(*sizes, generator=generator)

    place, head = batch.mask.shape, (PROBE_SEQUENCES, shape.heads, PROBE_TOKENS, shape.width // shape.heads)
    return Signals(
        hidden={layer: draw(*place, shape.width) for layer in needs.hidden},
        attention={layer: Attention(draw(*head), draw(*head), draw(*head), scaling=head[-1] ** -0.5) for layer in needs.attention},
        embeddings=draw(*place, shape.width) if needs.embeddings else None,
        logits=draw(len(batch.labels), vocab_size) if needs.logits else None,
        token_logits=draw(len(batch.token_index), vocab_size) if needs.token_logits else None,
    )
