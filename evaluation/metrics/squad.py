"""SQuAD's exact match and F1, from the definitions of its official scorers (Rajpurkar et al. 2016, 2018). Fractions, not per cent.

An answer is normalised before it is compared: lower case, ASCII punctuation out, then the words a, an and the, then runs of white space
become one blank. Exact match is equality; F1 is that of the two bags of words, where a repeated word counts as often as both have it. Of
several right answers the best counts.

1.1 and 2.0 differ where nothing is left after normalising: F1 in 1.1 is then 0; in 2.0 it is 1 if both are empty and else 0, and answers
that are empty after normalising are taken out of the right ones, as long as others remain.
"""

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence

from evaluation.tasks.squad import SQUAD_2
from evaluation.tasks.task import Questions, Task

PUNCTUATION = str.maketrans("", "", string.punctuation)
ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalize(text: str) -> str:
    """`text` as the official scorers compare it."""
    return " ".join(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split())


def exact(prediction: str, answer: str) -> float:
    """1 if both are the same once normalised, else 0."""
    return float(normalize(prediction) == normalize(answer))


def f1(prediction: str, answer: str, both_empty: float) -> float:
    """2 * shared / (words of one + words of the other), of normalised words; `both_empty` if neither has any."""
    words, right = normalize(prediction).split(), normalize(answer).split()
    if not words and not right:
        return both_empty
    shared = sum((Counter(words) & Counter(right)).values())
    return 2.0 * shared / (len(words) + len(right))


def score_answers(
    task: Task, questions: Questions, answers: Mapping[str, str], no_answer_scores: Mapping[str, float] | None = None
) -> dict[str, float]:
    """`exact` and `f1`, means over all questions, of the answers by id; the text "" says that there is no answer.

    For 2.0 also `exact` and `f1` over the questions that have an answer (`/has_answer`) and that have none (`/no_answer`), where there are
    such. With `no_answer_scores` (higher: more likely without answer) also `best_exact` and `best_f1`: the most that any one threshold
    would give if answers with a higher score than it were withheld, and the lowest such threshold (`best_exact_threshold`,
    `best_f1_threshold`). That threshold is chosen on the very answers it scores, so it is a bound and no result; and it is one only if
    `answers` are not withheld yet.
    Raises ValueError for a question without answer in `answers` or without score: what is not there must not be scored as anything.
    """
    for name, given in (("answers", answers), ("no_answer_scores", no_answer_scores)):
        if given is not None and (missing := [one for one in questions.ids if one not in given]):
            raise ValueError(f"{name}: {len(missing)} of {len(questions)} questions are missing, {missing[0]!r} is the first")
    with_none = task.name == SQUAD_2.name
    each: dict[str, list[float]] = {"exact": [], "f1": []}
    for name, right in zip(questions.ids, questions.answers, strict=True):
        right = ([text for text in right if normalize(text)] or [""]) if with_none else right
        each["exact"].append(max(exact(answers[name], text) for text in right))
        each["f1"].append(max(f1(answers[name], text, both_empty=float(with_none)) for text in right))
    scores = {metric: _mean(values) for metric, values in each.items()}
    if with_none:
        has = [bool(right) for right in questions.answers]
        for part, wanted in (("has_answer", True), ("no_answer", False)):
            if wanted in has:
                scores |= {
                    f"{metric}/{part}": _mean([value for value, here in zip(values, has, strict=True) if here is wanted])
                    for metric, values in each.items()
                }
        if no_answer_scores is not None:
            withheld = [float(not right) for right in questions.answers]
            order = [no_answer_scores[name] for name in questions.ids]
            for metric, values in each.items():
                scores[f"best_{metric}"], scores[f"best_{metric}_threshold"] = best_threshold(values, withheld, order)
    return scores


def best_threshold(given: Sequence[float], withheld: Sequence[float], no_answer_scores: Sequence[float]) -> tuple[float, float]:
    """The best mean score over all thresholds, and the lowest threshold that gives it.

    A question scores `given[i]` if its no-answer score is at most the threshold, else `withheld[i]`. Candidates are the scores themselves
    and, for withholding everything, the lowest of them minus 1. Questions with equal scores go together, as one threshold cannot part them.
    """
    order = sorted(range(len(given)), key=no_answer_scores.__getitem__)
    total = sum(withheld)
    best, threshold = total, no_answer_scores[order[0]] - 1.0
    for position, index in enumerate(order):
        total += given[index] - withheld[index]
        last_of_equals = position + 1 == len(order) or no_answer_scores[order[position + 1]] > no_answer_scores[index]
        if last_of_equals and total > best:
            best, threshold = total, no_answer_scores[index]
    return best / len(order), float(threshold)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
