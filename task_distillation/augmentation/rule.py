"""d-lite: new texts from old ones by masks, words of the same part of speech and n-grams.

The rule is that of "Distilling Task-Specific Knowledge from BERT into Simple Neural Networks" (Tang et al., arXiv 1903.12136, section 3.3):
each word is masked with one probability, replaced by a word of its part of speech, drawn by frequency, with another; then, with a third, an
n-gram of the text is all that stays. Of a pair one sentence is changed, or both.

What is drawn depends on the seed, the iteration and the block of rows alone, so on no number of processes; each is one call of numpy for
all words of a block.
"""

import math
from dataclasses import dataclass

import numpy as np

from dataset.errors import UserError
from task_distillation.augmentation.corpus import MASK, Corpus

BLOCK = 4096  # rows; part of what a seed means


@dataclass(frozen=True)
class Rule:
    """Probabilities of the rule; UserError for values that are none. `single_only_prob`: of a pair, that one sentence stays as it is."""

    mask_prob: float = 0.1
    random_prob: float = 0.1
    window_prob: float = 0.25
    window_lengths: tuple[int, ...] = (1, 2, 3, 4, 5)
    single_only_prob: float = 2 / 3

    def __post_init__(self) -> None:
        for name in ("mask_prob", "random_prob", "window_prob", "single_only_prob"):
            value = getattr(self, name)
            if not (math.isfinite(value) and 0 <= value <= 1):
                raise UserError(f"--{name} {value:g}; 0 to 1 would work")
        if self.mask_prob + self.random_prob > 1:
            raise UserError(f"--mask_prob {self.mask_prob:g} and --random_prob {self.random_prob:g} are more than 1 together; a word is "
                            "masked, replaced or kept")
        if not self.window_lengths or min(self.window_lengths) < 1:
            raise UserError(f"--window_lengths {','.join(map(str, self.window_lengths))}; numbers of words from 1, such as 1,2,3, "
                            "would work")


@dataclass(frozen=True)
class Draws:
    """The random numbers of one iteration over a block, uniform from [0, 1) but for `width` and `changed`."""

    roll: np.ndarray
    """(tokens,): masked, replaced or kept."""
    pick: np.ndarray
    """(tokens,): which word of its part of speech."""
    window: np.ndarray
    """(sentences,): whether an n-gram is all that stays."""
    width: np.ndarray
    """(sentences,) int64: words of that n-gram."""
    place: np.ndarray
    """(sentences,): where it begins."""
    changed: np.ndarray
    """(sentences,) bool: whether anything happens to the sentence."""


def draw(rule: Rule, seed: int, iteration: int, block: int, tokens: int, rows: int, sides: int) -> Draws:
    """The draws of one iteration over block number `block`, which holds `rows` rows and `tokens` words."""
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, iteration, block])))
    roll, pick = generator.random(tokens), generator.random(tokens)
    window = generator.random(rows * sides)
    width = generator.choice(np.array(rule.window_lengths, np.int64), rows * sides)
    place = generator.random(rows * sides)
    changed = np.ones((rows, sides), bool)
    if sides == 2:
        both = generator.random(rows) >= rule.single_only_prob
        first = generator.random(rows) < 0.5
        changed = np.stack([both | first, both | ~first], axis=1)
    return Draws(roll, pick, window, width, place, changed.reshape(-1))


def perturb(corpus: Corpus, rule: Rule, first: int, stop: int, draws: Draws) -> list[str]:
    """The texts that `draws` make of rows `first` to `stop`, in their order; the two sentences of a pair are joined by a tab.

    A single sentence of which no word was kept is left out: it tells nothing of its row. One that is shorter than its window stays whole.
    """
    bounds = corpus.starts[first * corpus.sides : stop * corpus.sides + 1]
    starts, stops = bounds[:-1] - bounds[0], bounds[1:] - bounds[0]
    lengths = stops - starts
    ids = corpus.ids[bounds[0] : bounds[-1]].copy()
    touched = np.repeat(draws.changed, lengths) & (draws.roll < rule.mask_prob + rule.random_prob)
    masked = touched & (draws.roll < rule.mask_prob)
    replaced = touched & ~masked
    ids[masked] = MASK
    tags = corpus.tags[bounds[0] : bounds[-1]][replaced]
    ids[replaced] = corpus.by_tag[_at(draws.pick[replaced], corpus.tag_starts[tags], corpus.tag_starts[tags + 1])]
    cut = draws.changed & (draws.window < rule.window_prob) & (draws.width <= lengths)
    starts[cut] = _at(draws.place[cut], starts[cut], stops[cut] - draws.width[cut] + 1)
    stops[cut] = starts[cut] + draws.width[cut]
    if corpus.sides == 1:
        kept = np.concatenate([[0], np.cumsum(~touched)])
        some = kept[stops] > kept[starts]
        starts, stops = starts[some], stops[some]
    return corpus.join(ids, starts, stops)


def _at(uniform: np.ndarray, first: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """Whole numbers from `first` up to but not including `stop`, of equal probability."""
    return first + (uniform * (stop - first)).astype(np.int64)
