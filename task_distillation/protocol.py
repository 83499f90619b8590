"""The protocol under which teacher and students of one task stand beside one another: the whole dev sets, every model with its own head and
reading texts as it was made to, so that no setting of theirs is part of it."""

from evaluation.scoring.protocols import Protocol

PROTOCOL = Protocol("task distillation", 1, (0,), "mean")
