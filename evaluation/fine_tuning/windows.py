"""Questions and their texts as windows of tokens, which start and end each should point at, and the answers that scores mean.

A text longer than a window is read in several, which share `doc_stride` tokens. A question that has no answer, or whose answer does not lie
whole in a window, points at the window's CLS. From scores to text it goes as in the official scripts and transformers' example: the
`n_best_size` best starts and ends of every window are combined, what is no span of the text or too long falls out, and the best span of all
windows wins, against "no answer" where the task knows that (SQuAD 2.0; Devlin et al. 2019, 4.3).
"""

from dataclasses import dataclass

import numpy as np

from dataset.errors import UserError
from evaluation.fine_tuning.settings import FineTuningSettings
from evaluation.fine_tuning.tokens import Tokenizer, Tokens, from_lists
from evaluation.tasks.task import Questions

OUTSIDE = -1


@dataclass(frozen=True)
class Windows:
    """W windows of Q questions, in the questions' order."""

    tokens: Tokens
    question: np.ndarray
    """int64 (W): which question a window is of."""
    spans: np.ndarray
    """int32 (tokens, 2), beside `tokens.ids`: first character in the text and the one after the last; OUTSIDE for other tokens."""
    null: np.ndarray
    """int64 (W): position of CLS."""


def make_windows(tokenizer: Tokenizer, questions: Questions, settings: FineTuningSettings) -> Windows:
    """Windows of at most `max_seq_length` tokens over every text; UserError for a tokenizer that does not say where its tokens were."""
    if not tokenizer.inner.is_fast:
        raise UserError(f"{tokenizer.name}: its tokenizer cannot tell where in the text a token is; one with tokenizer.json would work")
    shape = [settings.max_seq_length, settings.doc_stride, settings.max_query_length]
    windows = tokenizer.cached(["windows", shape, questions.questions, questions.contexts],
                               lambda: _windows(tokenizer, questions, settings))
    tokenizer.checked(windows.tokens)
    return windows


def _windows(tokenizer: Tokenizer, questions: Questions, settings: FineTuningSettings) -> Windows:
    inner = tokenizer.inner
    encoded = inner(
        _cut_questions(tokenizer, questions.questions, settings.max_query_length), questions.contexts, truncation="only_second",
        max_length=settings.max_seq_length, stride=settings.doc_stride, padding=False, return_overflowing_tokens=True,
        return_offsets_mapping=True, return_attention_mask=False, return_token_type_ids=tokenizer.segments,
    )
    tokens = from_lists(encoded["input_ids"], encoded["token_type_ids"] if tokenizer.segments else None)
    spans = np.concatenate([np.asarray(row, np.int32).reshape(-1, 2) for row in encoded["offset_mapping"]])
    in_text = np.fromiter((part == 1 for row in range(len(encoded["input_ids"])) for part in encoded.sequence_ids(row)), bool, len(spans))
    spans = np.where(in_text[:, None], spans, OUTSIDE)
    # A family without CLS is asked at its first token.
    cls = inner.cls_token_id
    null = [row.index(cls) if cls in row else 0 for row in encoded["input_ids"]]
    return Windows(tokens, np.asarray(encoded["overflow_to_sample_mapping"], np.int64), spans, np.asarray(null, np.int64))


def _cut_questions(tokenizer: Tokenizer, texts: list[str], most: int) -> list[str]:
    """Every question without spaces before it (some hold dozens), cut behind its token number `most`."""
    texts = [text.lstrip() for text in texts]
    encoded = tokenizer.inner(texts, add_special_tokens=False, truncation=False, padding=False, return_offsets_mapping=True)
    return [text if len(spans) <= most else text[: spans[most - 1][1]]
            for text, spans in zip(texts, encoded["offset_mapping"], strict=True)]


def targets(windows: Windows, questions: Questions) -> np.ndarray:
    """int64 (W, 2): positions in the window of the first and the last token of the question's first answer, or twice its CLS."""
    found = np.repeat(windows.null[:, None], 2, axis=1)
    starts = windows.tokens.starts
    for window, question in enumerate(windows.question):
        if not questions.answers[question]:
            continue
        first = questions.starts[question][0]
        last = first + len(questions.answers[question][0])
        spans = windows.spans[starts[window] : starts[window + 1]]
        inside = np.flatnonzero(spans[:, 0] != OUTSIDE)
        if len(inside) == 0 or spans[inside[0], 0] > first or spans[inside[-1], 1] < last:
            continue
        # The last token that begins at or before the answer, and the first one that ends at or behind its end.
        begin = inside[np.searchsorted(spans[inside, 0], first, side="right") - 1]
        end = inside[np.searchsorted(spans[inside, 1], last, side="left")]
        found[window] = begin, end
    return found


def extract_answers(
    windows: Windows, questions: Questions, scores: np.ndarray, settings: FineTuningSettings, *, may_be_empty: bool
) -> dict[str, str]:
    """Answer text by question id from `scores`, fp32 (tokens, 2), logits of start and end.

    With `may_be_empty` the answer is "" where "no answer", the least of the windows' scores of CLS, is more than
    `null_score_diff_threshold` above the best span; else "" only where no window has a span of text at all.
    """
    answers: dict[str, str] = {}
    bounds = np.searchsorted(windows.question, np.arange(len(questions) + 1))
    for number, name in enumerate(questions.ids):
        best_score, best, null_score = -np.inf, None, np.inf
        for window in range(bounds[number], bounds[number + 1]):
            rows = slice(windows.tokens.starts[window], windows.tokens.starts[window + 1])
            null_score = min(null_score, float(scores[rows][windows.null[window]].sum()))
            score, span = _best_span(scores[rows], windows.spans[rows], settings)
            if score > best_score:
                best_score, best = score, span
        text = "" if best is None else questions.contexts[number][best[0] : best[1]]
        withheld = may_be_empty and null_score - best_score > settings.null_score_diff_threshold
        answers[name] = "" if withheld else text
    return answers


def _best_span(scores: np.ndarray, spans: np.ndarray, settings: FineTuningSettings) -> tuple[float, tuple[int, int] | None]:
    """(score, characters) of the best pair of start and end in one window; (-inf, None) where no pair is a span of the text."""
    begins, ends = (np.argsort(-scores[:, side], kind="stable")[: settings.n_best_size] for side in (0, 1))
    totals = scores[begins, 0][:, None] + scores[ends, 1][None, :]
    tokens = ends[None, :] - begins[:, None] + 1
    in_text = (spans[begins, 0] != OUTSIDE)[:, None] & (spans[ends, 1][None, :] > spans[begins, 0][:, None])
    allowed = in_text & (tokens >= 1) & (tokens <= settings.max_answer_length) & np.isfinite(totals)
    if not allowed.any():
        return -np.inf, None
    at = np.unravel_index(np.argmax(np.where(allowed, totals, -np.inf)), totals.shape)
    return float(totals[at]), (int(spans[begins[at[0]], 0]), int(spans[ends[at[1]], 1]))
