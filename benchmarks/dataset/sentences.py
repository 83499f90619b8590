"""Quality and speed of the sentence splitter: sentences known one by one are joined, and the boundaries must be found again.

RTE's hypotheses serve, each of which an annotator wrote as one sentence (Bentivogli et al. 2009). Boundaries are counted between
sentences, in characters without white space, so that spaces do not matter; the end of a text is none. What a splitter scores here is
about short, edited English; the rule `[.!?]` before a capital is the measure of how much the text forgives.
"""

import csv
import re
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate
from pathlib import Path

from benchmarks.dataset.commands import Row, best_of, one_core
from benchmarks.dataset.inputs import Inputs
from benchmarks.dataset.sharding_reference import PUNKT, has_punkt, splitter
from dataset.articles import split_sentences
from dataset.errors import UserError

GROUP = 10
HYPOTHESIS = "sentence2"
CAPITAL_RULE = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
Split = Callable[[str], Sequence[str]]


def sentences_rows(inputs: Inputs, rte: Path) -> list[Row]:
    """Precision, recall, F1 and MB/s on one core of ours and of what it is compared with."""
    gold = read_hypotheses(rte)
    splitters: dict[str, Split] = {"ours": partial(split_sentences, language="en"), "rule [.!?] and capital": CAPITAL_RULE.split}
    if has_punkt():
        splitters["NLTK's Punkt, untrained"] = splitter(PUNKT)
    rows = []
    size = sum(len(article.encode()) for article in inputs.articles) / 1e6
    for name, split in splitters.items():
        precision, recall, f1 = boundary_scores(gold, split)
        with one_core():
            seconds = best_of(lambda split=split: [split(article) for article in inputs.articles], inputs.rounds)
        rows += [Row("sentences", f"{name}, F1 of boundaries", f1, "", note=f"precision {precision:.4f}, recall {recall:.4f}, {len(gold)} "
                     f"sentences in groups of {GROUP}"), Row("sentences", f"{name}, speed", size / seconds, "MB/s")]
    return rows


def read_hypotheses(path: Path) -> list[str]:
    """The hypotheses of an RTE file in GLUE's layout; UserError where it is none."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [row[HYPOTHESIS].strip() for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]
    except (OSError, KeyError) as error:
        raise UserError(f"--rte {path} cannot be used ({error}); RTE's dev.tsv in GLUE's layout would work") from error


def boundary_scores(gold: Sequence[str], split: Split) -> tuple[float, float, float]:
    """(precision, recall, F1) of the boundaries that `split` finds in the sentences of `gold`, joined GROUP at a time."""
    found = right = wanted = 0
    for start in range(0, len(gold), GROUP):
        group = gold[start : start + GROUP]
        true, split_at = _boundaries(group), _boundaries(split(" ".join(group)))
        found, right, wanted = found + len(split_at), right + len(split_at & true), wanted + len(true)
    precision, recall = right / max(1, found), right / max(1, wanted)
    return precision, recall, 2 * precision * recall / max(precision + recall, 1e-12)


def _boundaries(sentences: Sequence[str]) -> set[int]:
    """Characters but white space before each boundary between two sentences."""
    return set(list(accumulate(len("".join(sentence.split())) for sentence in sentences))[:-1])
