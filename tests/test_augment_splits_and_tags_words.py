"""Texts are split so that no letter is lost and BERT reads the same pieces, and every word has a part of speech, however odd it is."""

import random
import sys

import pytest
from tokenizers.pre_tokenizers import BertPreTokenizer

from dataset.errors import UserError
from task_distillation.augmentation.taggers import HantaTagger, load_tagger, tag_words
from task_distillation.augmentation.words import split_words

SPLIT = {
    "It's a well-made film, isn't it?": "It 's|a|well-made|film|,|isn't|it|?",
    "the film 's plot does n't work ...": "the|film|'s|plot|does|n't|work|...",
    "They'll say \"no\" -- we'd've gone": "They|'ll|say|\"|no|\"|--|we|'d|'ve|gone",
    "O'Brien paid $1,000.50 in the U.S. (1990s), 20%.": "O'Brien|paid|$|1,000.50|in|the|U.S.|(|1990s|)|,|20|%|.",
    "don’t stop, it’s fine": "don’t|stop|,|it|’s|fine",
    "``quoted'' and/or -lrb-": "``|quoted|''|and|/|or|-|lrb|-",
    "cafe\u0301 naïve 日本": "cafe\u0301|naïve|日本",
    "end.Next a,b 1,2": "end|.|Next|a|,|b|1,2",
    "": "",
    " \t\n": "",
}


@pytest.mark.parametrize("text", SPLIT)
def test_words_and_punctuation(text):
    assert split_words(text) == [word for part in SPLIT[text].replace("It 's", "It|'s").split("|") if (word := part)]


def test_no_letter_is_lost_and_bert_reads_the_same_pieces():
    source, bert = random.Random(0), BertPreTokenizer()
    alphabet = "aaabbcdenstrvlm  ''.,-\"()[]`’“”…!?0123_/&éA"
    for _ in range(3000):
        text = "".join(source.choices(alphabet, k=source.randrange(30)))
        words = split_words(text)
        assert "".join(words) == "".join(text.split()) and all(words)
        assert not any(word.split() != [word] for word in words)
        # don't may have been split before: a text of its own words is its own
        assert [piece for piece, _ in bert.pre_tokenize_str(" ".join(words))] == [piece for piece, _ in bert.pre_tokenize_str(text)]


def test_hanta_gives_every_word_its_part_of_speech():
    sentences = [split_words(text) for text in ("The films were good.", "It isn't bad, they don’t say", "can't", "", "[MASK] é \u0301")]
    tags = tag_words(load_tagger("hanta"), sentences)
    assert [len(one) for one in tags] == [len(one) for one in sentences] and all(all(one) for one in tags)
    assert tags[0] == ["AT0", "NN2", "VBD", "AJ0", "PUN"]
    assert tags[1] == ["PNP", "VBZ+XX0", "AJ0", "PUN", "PNP", "VDB+XX0", "VVI"]
    assert tags[2] == ["VM0+XX0"]


def test_texts_and_words_without_end_are_tagged():
    tagger = HantaTagger()
    long_word, long_text = ["x" * 5000], ["xqzzzvkjwqqxzjkv" * 2] * 26000
    (one,), (many,) = tag_words(tagger, [long_word]), tag_words(tagger, [long_text])
    assert len(one) == 1 and len(many) == len(long_text)


def test_a_file_of_the_models_name_in_the_working_directory_is_not_unpickled(tmp_path, monkeypatch):
    (tmp_path / "morphmodel_en.pgz").write_bytes(b"no model")
    monkeypatch.chdir(tmp_path)
    assert tag_words(HantaTagger(), [["films"]]) == [["NN2"]]


@pytest.mark.parametrize("name, package", [("hanta", "HanTa"), ("spacy", "spacy")])
def test_a_package_that_is_not_installed_is_one_line(name, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=f"--tagger {name}: no package .* is installed; .* would work") as caught:
        load_tagger.__wrapped__(name)
    assert "\n" not in str(caught.value)
