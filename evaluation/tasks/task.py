"""What a task is and what its data look like once read: the vocabulary that reading, fine-tuning and scoring share. Imports no torch.

A task has one training set and one or more sets that are scored (MNLI has two); of several the first is the one its headline is of.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

KINDS = ("classification", "regression", "span")


@dataclass(frozen=True)
class Task:
    """What is predicted and how it is scored. Where its files are and how they are read is known to its reader."""

    name: str
    kind: str
    """One of KINDS; `span` is extractive question answering."""
    metrics: tuple[str, ...]
    headline: str
    """The metric that stands for the task in tables and plots."""
    label_names: tuple[str, ...] = ()
    """Of a classification; the position is the class number, and the order is stored in every checkpoint."""
    version: int = 1
    """Goes up when reading or scoring of the task changes; kept with every result."""

    @property
    def outputs(self) -> int:
        """Numbers that a head gives: classes, 1 for a regression, 2 (start and end) for each token of a span."""
        return {"classification": len(self.label_names), "regression": 1, "span": 2}[self.kind]


@dataclass(frozen=True)
class Examples:
    """Texts of a classification or regression: one list for each text column (1 or 2)."""

    texts: tuple[list[str], ...]
    labels: list[int] | list[float] | None
    """Class numbers or scores; None where the set has none (a test set)."""
    ids: list[str] = field(default_factory=list)
    """As the file names its rows, for submissions; empty where rows have only a position."""

    def __len__(self) -> int:
        return len(self.texts[0])

    def first(self, count: int | None) -> "Examples":
        """The first `count` examples in file order (all of them for None)."""
        labels = None if self.labels is None else self.labels[:count]
        return Examples(tuple(column[:count] for column in self.texts), labels, self.ids[:count])


@dataclass(frozen=True)
class Questions:
    """SQuAD's questions in file order. `answers[i]` are the texts that count as right and `starts[i]` where they begin in `contexts[i]`
    (characters); both empty where the question has no answer in its text, None where the set has no answers (a test set)."""

    ids: list[str]
    questions: list[str]
    contexts: list[str]
    answers: list[list[str]] | None
    starts: list[list[int]] | None

    def __len__(self) -> int:
        return len(self.ids)

    def first(self, count: int | None) -> "Questions":
        """The first `count` questions in file order (all of them for None)."""
        return Questions(self.ids[:count], self.questions[:count], self.contexts[:count],
                         None if self.answers is None else self.answers[:count], None if self.starts is None else self.starts[:count])


@dataclass(frozen=True)
class TaskData:
    """A task with its sets. `dev` by the name of the set, the headline's first: ("dev",), or MNLI's ("matched", "mismatched").

    `test`: sets to predict for a submission, {} where their files are not there or were not asked for. `sha256` is of the content of
    `train` and `dev`, so that changed data is never mistaken; a task without training data (GLUE's diagnostic set) has an empty `train`.
    """

    task: Task
    train: Examples | Questions
    dev: dict[str, Examples | Questions]
    sha256: str
    test: dict[str, Examples | Questions] = field(default_factory=dict)


def metric_name(metric: str, split: str, splits: Sequence[str]) -> str:
    """The key of `metric` on `split` in a result: bare for the first of `splits`, `accuracy/mismatched` for any other."""
    return metric if split == splits[0] else f"{metric}/{split}"
