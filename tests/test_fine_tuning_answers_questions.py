"""Questions about a text are learned, cut into windows that lose nothing, and answered as the official procedure says."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_glue import make_model
from tiny_squad import make_questions, make_span_data

from dataset.errors import UserError
from evaluation.fine_tuning.heads import load_with_new_head
from evaluation.fine_tuning.settings import FineTuningSettings
from evaluation.fine_tuning.tokens import Tokenizer
from evaluation.fine_tuning.training import fine_tune, score_only
from evaluation.fine_tuning.windows import OUTSIDE, extract_answers, make_windows, targets
from evaluation.tasks.squad import SQUAD_1
from evaluation.tasks.task import Questions

SPAN = FineTuningSettings(learning_rate=2e-3, num_train_epochs=30, max_seq_length=20, max_query_length=6, doc_stride=4, precision="fp32",
                          max_answer_length=4, n_best_size=5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("span") / "student")


@pytest.fixture(scope="module")
def tokenizer(folder):
    model, inner, _ = load_with_new_head(folder, SQUAD_1, 0)
    return Tokenizer(inner, model, str(folder))


def test_answers_are_learned_and_withheld_where_there_are_none(folder, tmp_path):
    """Texts up to 24 words in windows of 20 tokens: most need two. 2.0 holds what 1.1 does, and questions without answer."""
    data = make_span_data(unanswerable=0.3)
    done = fine_tune(folder, data, SPAN, save_to=tmp_path / "kept")
    assert done.metrics["exact"] > 0.9 and done.metrics["f1"] > 0.9
    assert done.metrics["exact/no_answer"] > 0.8 and done.metrics["exact/has_answer"] > 0.8
    assert done.constant_metrics["exact"] == done.constant_metrics["f1"] < 0.5
    assert list(done.outputs["dev"]) == data.dev["dev"].ids and done.dev_size == 48 and done.train_size == 256
    again = score_only(tmp_path / "kept", data, SPAN)
    assert again.outputs == done.outputs and again.metrics == done.metrics
    never = score_only(tmp_path / "kept", data, replace(SPAN, null_score_diff_threshold=1e6))
    always = score_only(tmp_path / "kept", data, replace(SPAN, null_score_diff_threshold=-1e6))
    assert all(never.outputs["dev"].values()) and not any(always.outputs["dev"].values())
    config = json.loads((tmp_path / "kept" / "config.json").read_text())
    assert config["id2label"] == {"0": "start", "1": "end"} and config["architectures"] == ["BertForQuestionAnswering"]


def test_every_word_of_a_text_is_in_a_window_and_every_target_is_the_answer(tokenizer):
    questions = make_questions(60, 3, unanswerable=0.2, longest=40)
    windows = make_windows(tokenizer, questions, SPAN)
    starts, wanted = windows.tokens.starts, targets(windows, questions)
    pointed = 0
    seen = [set() for _ in questions.ids]
    for window, question in enumerate(windows.question):
        text, spans = questions.contexts[question], windows.spans[starts[window] : starts[window + 1]]
        ids = windows.tokens.ids[starts[window] : starts[window + 1]]
        assert len(ids) <= 20 and ids[0] == ids[windows.null[window]] == 2
        inside = [tuple(span) for span in spans if span[0] != OUTSIDE]
        seen[question] |= set(inside)
        first, last = wanted[window]
        whole = questions.answers[question] and any(begin == questions.starts[question][0] for begin, _ in inside)
        if whole:
            assert text[spans[first, 0] : spans[last, 1]] == questions.answers[question][0]
            pointed += 1
        else:
            assert (first, last) == (windows.null[window],) * 2
    assert len(windows.question) > 100 and pointed > 50
    for text, spans in zip(questions.contexts, seen, strict=True):
        assert sorted(text[begin:end] for begin, end in spans) == sorted(text.split())


def test_neighbouring_windows_share_the_stride_and_an_answer_cut_in_two_points_at_cls(tokenizer):
    text = " ".join(["the", "film"] * 12)
    questions = Questions(["long"], ["the " * 40 + "plot"], [text], [[text]], [[0]])
    windows = make_windows(tokenizer, questions, SPAN)
    starts = windows.tokens.starts
    parts = [windows.spans[starts[at] : starts[at + 1]] for at in range(len(starts) - 1)]
    parts = [[tuple(span) for span in part if span[0] != OUTSIDE] for part in parts]
    assert [len(part) for part in parts] == [11, 11, 10]  # 20 less 6 of the question, whose first 6 words are kept, and 3 special
    assert parts[0][-4:] == parts[1][:4] and parts[1][-4:] == parts[2][:4]
    assert (targets(windows, questions) == 0).all()


def naive_answer(question, windows, questions, scores, settings, may_be_empty):
    """The procedure of the official scripts as they say it: all pairs of the n best, sorted, then "no answer" against the best text."""
    found, null = [], None
    for window in np.flatnonzero(windows.question == question):
        first, last = windows.tokens.starts[window], windows.tokens.starts[window + 1]
        start, end, spans = scores[first:last, 0], scores[first:last, 1], windows.spans[first:last]
        here = start[0] + end[0]
        null = here if null is None else min(null, here)
        for begin in sorted(range(len(start)), key=lambda at: -start[at])[: settings.n_best_size]:
            for stop in sorted(range(len(end)), key=lambda at: -end[at])[: settings.n_best_size]:
                if spans[begin][0] == OUTSIDE or spans[stop][0] == OUTSIDE or stop < begin:
                    continue
                if stop - begin + 1 > settings.max_answer_length:
                    continue
                found.append((start[begin] + end[stop], questions.contexts[question][spans[begin][0] : spans[stop][1]]))
    if not found:
        return ""
    score, text = max(found)
    return "" if may_be_empty and null - score > settings.null_score_diff_threshold else text


@pytest.mark.parametrize("change", [{}, {"n_best_size": 1}, {"n_best_size": 20, "max_answer_length": 2},
                                    {"null_score_diff_threshold": -2.0}])
def test_answers_equal_the_naive_procedure(tokenizer, change):
    settings = replace(SPAN, **change)
    questions = make_questions(40, 5, longest=40)
    windows = make_windows(tokenizer, questions, settings)
    scores = np.random.default_rng(0).normal(size=(len(windows.tokens.ids), 2)).astype(np.float32) * 3
    for may_be_empty in (False, True):
        ours = extract_answers(windows, questions, scores, settings, may_be_empty=may_be_empty)
        naive = {name: naive_answer(at, windows, questions, scores, settings, may_be_empty) for at, name in enumerate(questions.ids)}
        assert ours == naive
        assert len(set(naive.values())) > 10


def test_windows_too_small_for_question_and_stride_are_one_line(folder):
    for change, told in (({"max_seq_length": 14}, "--max_seq_length 14: with --max_query_length 6 and --doc_stride 4 .* needs 15 or more"),
                         ({"doc_stride": 10}, "needs 21 or more")):
        with pytest.raises(UserError, match=told):
            fine_tune(folder, make_span_data(8, 4), replace(SPAN, **change))


@pytest.fixture(scope="module")
def still(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("still") / "student", dropout=0.0)


def test_more_padding_or_smaller_batches_change_no_update(still):
    data, short = make_span_data(64, 8), replace(SPAN, num_train_epochs=1, per_device_train_batch_size=16)
    one = fine_tune(still, data, short)
    for change in ({"pad_to_max_length": True}, {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4}):
        assert fine_tune(still, data, replace(short, **change)).losses == pytest.approx(one.losses, abs=1e-5), change


def test_the_loss_is_transformers_own(still):
    """Every window alone, where nothing is padded, through BertForQuestionAnswering's own loss."""
    data = make_span_data(32, 8)
    done = fine_tune(still, data, replace(SPAN, max_steps=1, per_device_train_batch_size=512, seed=1))
    model, inner, _ = load_with_new_head(still, SQUAD_1, 1)
    windows = make_windows(Tokenizer(inner, model, "model"), data.train, SPAN)
    losses = []
    for window, (first, last) in enumerate(targets(windows, data.train)):
        rows = slice(windows.tokens.starts[window], windows.tokens.starts[window + 1])
        ids, kinds = (torch.from_numpy(array[rows]).long()[None] for array in (windows.tokens.ids, windows.tokens.segments))
        with torch.no_grad():
            losses.append(model(input_ids=ids, token_type_ids=kinds, start_positions=torch.tensor([first]),
                                end_positions=torch.tensor([last])).loss.item())
    assert done.losses[0] == pytest.approx(np.mean(losses), rel=1e-5)
