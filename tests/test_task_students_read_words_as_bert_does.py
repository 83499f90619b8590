"""The vocabulary of whole words: which words, in which order, and how texts are cut into them."""

import random
from collections import Counter

import numpy as np
import pytest
from task_students_case import MNLI, SST2, STSB

from dataset.errors import UserError
from task_distillation.students.build import encode, make_tokenizer
from task_distillation.students.flags import StudentFlags
from task_distillation.students.plan import plan_student
from task_distillation.students.vocabulary import MASK, SPECIAL

TEXTS = ["The film, the plot!", "a naïve FILM [MASK] don't", "It's 3.5% of 北京; [SEP] (well)...",
         "the [MASK][MASK] film\u00a0ends", "zoo ape"]
WORDS = [["the", "film", ",", "the", "plot", "!"], ["a", "naive", "film", "[MASK]", "don", "'", "t"],
         ["it", "'", "s", "3", ".", "5", "%", "of", "北", "京", ";", "[", "sep", "]", "(", "well", ")", ".", ".", "."],
         ["the", "[MASK]", "[MASK]", "film", "ends"], ["zoo", "ape"]]


def planned(task=SST2, **flags):
    return plan_student(StudentFlags(**flags), task)


def test_texts_are_cut_into_lower_cased_words_and_punctuation_and_masks_stay_whole():
    plan = planned()
    tokenizer = make_tokenizer(plan, TEXTS)
    assert [tokenizer.encode(text).tokens for text in TEXTS] == WORDS
    (rows,) = encode(plan.config, tokenizer, [TEXTS])
    assert [rows.ids[start:stop].tolist() for start, stop in zip(rows.starts, rows.starts[1:], strict=False)] == [
        [tokenizer.token_to_id(word) for word in words] for words in WORDS]


def test_words_are_cut_as_berts_own_tokenizer_cuts_them():
    """transformers' BERT, all of whose pieces are these words."""
    from transformers import BertTokenizerFast

    words = sorted({word for text in WORDS for word in text})
    tokenizer = make_tokenizer(planned(), TEXTS)
    names = [*SPECIAL, "[CLS]", *(word for word in words if word not in SPECIAL)]
    bert = BertTokenizerFast(vocab={name: number for number, name in enumerate(names)})
    plain = [text.replace("[SEP]", "") for text in TEXTS]
    assert [tokenizer.encode(text).tokens for text in plain] == [bert.tokenize(text) for text in plain]


def test_the_vocabulary_is_ordered_by_frequency_then_word_whatever_the_order_of_texts():
    counts = Counter(word for text in WORDS for word in text if word != MASK)
    expected = [*SPECIAL, *sorted(counts, key=lambda word: (-counts[word], word))]
    for seed in range(3):
        shuffled = random.Random(seed).sample(TEXTS, len(TEXTS))
        found = make_tokenizer(planned(), iter(shuffled)).get_vocab()
        assert sorted(found, key=found.get) == expected
        assert sorted(found.values()) == list(range(len(expected)))


def test_the_limits_keep_the_most_frequent_words():
    whole = make_tokenizer(planned(), TEXTS).get_vocab()
    few = make_tokenizer(planned(vocab_size=7), TEXTS)
    assert sorted(few.get_vocab(), key=few.get_vocab().get) == sorted(whole, key=whole.get)[:7]
    assert few.encode("the zoo").tokens == ["the", "[UNK]"]
    often = make_tokenizer(planned(min_count=3), TEXTS).get_vocab()
    assert set(often) == {*SPECIAL, "the", "film", "."}
    with pytest.raises(UserError, match="no word that occurs 9 times"):
        make_tokenizer(planned(min_count=9), TEXTS)


def test_a_pair_is_one_sequence_or_two_and_the_longer_text_is_cut_first():
    texts = [["a b c d e f", "a", "a b"], ["x y", "u v w x y z", ""]]
    words = [text for column in texts for text in column]
    joined, separate = planned(STSB, max_length=6), planned(MNLI, student="siamese_bilstm", max_length=4)
    tokenizer = make_tokenizer(joined, words)
    (rows,) = encode(joined.config, tokenizer, texts)
    assert tokenizer.decode_batch([row.tolist() for row in np.split(rows.ids, rows.starts[1:-1])], skip_special_tokens=False) == [
        "a b c [SEP] x y", "a [SEP] u v w x", "a b [SEP]"]
    tokenizer = make_tokenizer(separate, words)
    first, second = encode(separate.config, tokenizer, texts)
    assert first.lengths.tolist() == [4, 1, 2] and second.lengths.tolist() == [2, 4, 1]
    assert second.ids[-1] == 0, "a text without a token is one of padding"


def test_the_same_rows_come_out_however_many_are_read_at_once(monkeypatch):
    plan = planned()
    tokenizer = make_tokenizer(plan, TEXTS)
    whole = encode(plan.config, tokenizer, [TEXTS])[0]
    monkeypatch.setattr("task_distillation.students.build.TEXTS_AT_ONCE", 2)
    parts = encode(plan.config, tokenizer, [TEXTS])[0]
    assert np.array_equal(whole.ids, parts.ids) and np.array_equal(whole.starts, parts.starts)
    assert whole.ids.dtype == np.int32 and whole.starts.dtype == np.int64
