"""d-lite is the paper's rule: equal to one written word by word, and with the shares and uniform choices that it promises."""

import random
from collections import Counter

import numpy as np
import pytest
from scipy.stats import binomtest, chisquare

from dataset.errors import UserError
from task_distillation.augmentation.corpus import MASK_WORD, Corpus, build_corpus
from task_distillation.augmentation.rule import Draws, Rule, draw, perturb
from task_distillation.augmentation.seen import Seen

UNLIKELY = 1e-4  # the draws have a fixed seed, so a test that passes does so always


def make_corpus(sentences: list[list[str]], sides: int = 1) -> Corpus:
    """A word's part of speech is its first letter."""
    half = len(sentences) // 2
    pieces = [sentences[:half], sentences[half:]]
    return build_corpus(((piece, [[word[0] for word in sentence] for sentence in piece]) for piece in pieces), sides)


def random_sentences(count: int, seed: int) -> list[list[str]]:
    source = random.Random(seed)
    return [[f"{source.choice('nnnvad')}{min(source.randrange(9), source.randrange(9))}" for _ in range(source.randint(1, 9))]
            for _ in range(count)]


def draw_all(corpus: Corpus, rule: Rule, seed: int = 0, iteration: int = 0) -> Draws:
    return draw(rule, seed, iteration, 0, len(corpus.ids), corpus.rows, corpus.sides)


def one_by_one(sentences: list[list[str]], sides: int, rule: Rule, draws: Draws) -> list[str]:
    """The rule, a word at a time."""
    of_tag: dict[str, list[str]] = {}
    for sentence in sentences:
        for word in sentence:
            of_tag.setdefault(word[0], []).append(word)
    texts, place = [], 0
    for row in range(0, len(sentences), sides):
        made, kept = [], 0
        for number in range(row, row + sides):
            new = []
            for word in sentences[number]:
                roll, pick = draws.roll[place], draws.pick[place]
                place += 1
                if not draws.changed[number] or roll >= rule.mask_prob + rule.random_prob:
                    new.append((word, True))
                elif roll < rule.mask_prob:
                    new.append((MASK_WORD, False))
                else:
                    choice = of_tag[word[0]]
                    new.append((choice[int(pick * len(choice))], False))
            width = int(draws.width[number])
            if draws.changed[number] and draws.window[number] < rule.window_prob and width <= len(new):
                start = int(draws.place[number] * (len(new) - width + 1))
                new = new[start : start + width]
            made.append(" ".join(word for word, _ in new))
            kept += sum(is_kept for _, is_kept in new)
        if sides == 2 or kept:
            texts.append("\t".join(made))
    return texts


@pytest.mark.parametrize("sides", [1, 2])
@pytest.mark.parametrize("rule", [Rule(), Rule(0.5, 0.5, 0.5), Rule(0.0, 0.9, 1.0, (2, 7), 0.2), Rule(0.3, 0.0, 0.0)])
def test_it_is_the_rule_written_word_by_word(sides, rule):
    sentences = random_sentences(600, seed=sides)
    corpus = make_corpus(sentences, sides)
    assert corpus.texts(0, corpus.rows) == one_by_one(sentences, sides, Rule(0, 0, 0), draw_all(corpus, rule))
    for iteration in range(3):
        draws = draw_all(corpus, rule, iteration=iteration)
        assert perturb(corpus, rule, 0, corpus.rows, draws) == one_by_one(sentences, sides, rule, draws)


def test_a_part_of_the_rows_is_what_they_are_among_all():
    sentences, sides = random_sentences(200, seed=3), 2
    corpus = make_corpus(sentences, sides)
    bounds = corpus.starts[40 * sides], corpus.starts[70 * sides]
    everything = draw_all(corpus, Rule())
    part = Draws(**{name: value[bounds[0] : bounds[1]] if name in ("roll", "pick") else value[40 * sides : 70 * sides]
                    for name, value in vars(everything).items()})
    assert perturb(corpus, Rule(), 40, 70, part) == perturb(corpus, Rule(), 0, corpus.rows, everything)[40:70]


def test_shares_of_masked_and_replaced_words():
    sentences = [[f"{tag}old{number}" for number, tag in enumerate("nvnannvdnd")] for _ in range(4000)]
    corpus = make_corpus(sentences)
    rule = Rule(0.1, 0.15, 0.0)
    words = [text.split() for text in perturb(corpus, rule, 0, corpus.rows, draw_all(corpus, rule))]
    assert len(words) == 4000  # of ten words one is kept
    verbs = Counter(one[1] for one in words)  # `vold1` was there, `vold6` is the other verb: half of the replacements
    assert set(verbs) == {"vold1", "vold6", MASK_WORD}
    assert chisquare([verbs["vold1"], verbs["vold6"], verbs[MASK_WORD]], np.array([0.825, 0.075, 0.1]) * 4000).pvalue > UNLIKELY
    masks = sum(one.count(MASK_WORD) for one in words)
    assert binomtest(masks, 40000, 0.1).pvalue > UNLIKELY


def test_a_replacement_has_the_part_of_speech_and_is_drawn_by_frequency():
    often = {"na": 6, "nb": 3, "nc": 1, "va": 5, "vb": 5}
    sentences = [[word for word, count in often.items() for _ in range(count)] for _ in range(1500)]
    corpus = make_corpus(sentences)
    rule = Rule(0.0, 0.99, 0.0)
    texts = perturb(corpus, rule, 0, corpus.rows, draw_all(corpus, rule))
    assert len(texts) > 200
    found = [Counter(), Counter()]
    for text in texts:
        for place, word in enumerate(text.split()):
            assert word[0] == ("n" if place < 10 else "v")
            found[place >= 10][word] += 1
    # A row is left out where no word was kept: what the others keep is a little more of what is often there, in proportion.
    for counts in found:
        expected = np.array([often[word] for word in counts], float)
        assert chisquare(list(counts.values()), expected / expected.sum() * counts.total()).pvalue > UNLIKELY


def test_windows_have_uniform_lengths_and_places_up_to_the_last():
    words = [f"n{number}" for number in range(6)]
    corpus = make_corpus([words] * 20000)
    rule = Rule(0.0, 0.0, 0.4)
    texts = perturb(corpus, rule, 0, corpus.rows, draw_all(corpus, rule))
    counts = Counter(texts)
    assert binomtest(counts.pop(" ".join(words)), 20000, 0.6).pvalue > UNLIKELY
    places = {" ".join(words[start : start + width]): 1 / 5 / (6 - width + 1) for width in range(1, 6) for start in range(6 - width + 1)}
    assert set(counts) == set(places)
    assert chisquare([counts[text] for text in places], np.array(list(places.values())) * counts.total()).pvalue > UNLIKELY


def test_a_sentence_shorter_than_its_window_stays_whole_and_goes_on():
    sentences = [["n1", "v1"]] * 2000
    corpus = make_corpus(sentences)
    rule = Rule(0.0, 0.0, 1.0, (1, 2, 3, 5))
    counts = Counter(perturb(corpus, rule, 0, corpus.rows, draw_all(corpus, rule)))
    assert counts.total() == 2000
    assert chisquare([counts["n1 v1"], counts["n1"], counts["v1"]], [1500, 250, 250]).pvalue > UNLIKELY


def test_a_single_sentence_keeps_a_word_and_a_pair_need_not():
    sentences = random_sentences(400, seed=5)
    assert perturb(make_corpus(sentences), Rule(1, 0), 0, 400, draw_all(make_corpus(sentences), Rule(1, 0))) == []
    assert perturb(make_corpus(sentences), Rule(0, 1), 0, 400, draw_all(make_corpus(sentences), Rule(0, 1))) == []
    rule = Rule(0.6, 0.2, 0.5)
    for text in perturb(make_corpus(sentences), rule, 0, 400, draw_all(make_corpus(sentences), rule)):
        assert set(text.split()) != {MASK_WORD}
    pairs, rule = make_corpus(sentences, 2), Rule(1, 0, 0, single_only_prob=0)
    texts = perturb(pairs, rule, 0, 200, draw_all(pairs, rule))
    assert len(texts) == 200 and set(" ".join(texts).split()) == {MASK_WORD}


@pytest.mark.parametrize("single_only, expected", [(2 / 3, (1 / 3, 1 / 3, 1 / 3)), (1.0, (0.5, 0.5, 0)), (0.0, (0, 0, 1))])
def test_sides_of_a_pair(single_only, expected):
    corpus = make_corpus([["n1", "v1"], ["n2", "v2", "n3"]] * 6000, 2)
    rule = Rule(1, 0, 0, single_only_prob=single_only)
    counts = Counter(perturb(corpus, rule, 0, corpus.rows, draw_all(corpus, rule)))
    masks = {2: "[MASK] [MASK]", 3: "[MASK] [MASK] [MASK]"}
    cases = [f"{masks[2]}\tn2 v2 n3", f"n1 v1\t{masks[3]}", f"{masks[2]}\t{masks[3]}"]
    assert set(counts) <= set(cases)
    for case, share in zip(cases, expected, strict=True):
        assert binomtest(counts[case], 6000, share).pvalue > UNLIKELY


def test_draws_differ_by_seed_iteration_and_block_and_by_nothing_else():
    def rolls(*numbers: int) -> bytes:
        return draw(Rule(), *numbers, 50, 10, 2).roll.tobytes()

    assert rolls(1, 2, 3) == rolls(1, 2, 3)
    assert len({rolls(*numbers) for numbers in ((1, 2, 3), (2, 2, 3), (1, 3, 3), (1, 2, 4), (2, 1, 3), (2**64 - 1, 2, 3))}) == 6
    draws = draw(Rule(), 0, 0, 0, 50, 10, 2)
    assert not np.array_equal(draws.roll, draws.pick) and not np.array_equal(draws.window, draws.place)


@pytest.mark.parametrize("values, told", [
    ({"mask_prob": -0.1}, "--mask_prob -0.1; 0 to 1"), ({"random_prob": 1.1}, "--random_prob 1.1"),
    ({"window_prob": float("nan")}, "--window_prob nan"), ({"single_only_prob": 2}, "--single_only_prob 2"),
    ({"mask_prob": 0.6, "random_prob": 0.5}, "--mask_prob 0.6 and --random_prob 0.5 are more than 1"),
    ({"window_lengths": (1, 0)}, "--window_lengths 1,0"), ({"window_lengths": ()}, "--window_lengths ;"),
])
def test_values_that_are_no_rule(values, told):
    with pytest.raises(UserError, match=told):
        Rule(**values)


def test_hashes_that_have_been_are_known():
    source, seen, known = np.random.default_rng(0), Seen(), set()
    for size in (1, 0, 700, 3, 1, 5000, 40, 40, 1, 900):
        batch = source.integers(0, 4000, size, dtype=np.uint64) + np.uint64(2**63)
        expected = []
        for value in batch.tolist():
            expected.append(value not in known)
            known.add(value)
        assert seen.add(batch).tolist() == expected
    assert seen.add(np.array([0, 2**64 - 1, 0], np.uint64)).tolist() == [True, True, False]
