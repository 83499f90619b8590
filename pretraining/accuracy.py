"""How often a model is right where the text knows the answer: masked tokens and next sentences, as sums and counts.

What the run has computed anyway is looked at, so that measuring costs an argmax. So a teacher is measured at masked positions, where its
logits are taken or its likeliest tokens were stored; its next-sentence head, which no objective listens to, is not loaded.
"""

import torch

from pretraining.signals import Batch, Signals, Term, Unit


def right_answers(signals: Signals, batch: Batch) -> dict[str, Term]:
    """{"mlm": masked positions whose likeliest token is the original one, "nsp": sequences whose likelier label is the true one}.

    Only what `signals` has logits (or stored targets) for is there, and only where the batch knows the answer.
    """
    found: dict[str, Term] = {}
    stored = signals.targets
    if stored is not None and stored.rest is not None:  # without the rest they are drawn, and not ordered
        found["mlm"] = Term((stored.ids[:, 0] == batch.labels).sum(), Unit.MASKED)
    elif len(batch.labels) and (signals.logits is not None or signals.token_logits is not None):
        logits_MV = signals.logits if signals.logits is not None else signals.token_logits.index_select(0, batch.masked_in_tokens)
        found["mlm"] = Term(_hits(logits_MV, batch.labels), Unit.MASKED)
    if signals.next_sentence is not None and batch.next_sentence_labels is not None:
        found["nsp"] = Term(_hits(signals.next_sentence, batch.next_sentence_labels), Unit.SEQUENCES)
    return found


def _hits(logits_RC: torch.Tensor, labels_R: torch.Tensor) -> torch.Tensor:
    """In how many rows the largest of C logits is the label's; of equal ones the first counts."""
    return (logits_RC.argmax(dim=-1) == labels_R).sum()
