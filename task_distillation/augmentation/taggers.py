"""Part-of-speech taggers: HanTa, whose English model comes with its package, or spaCy with a model that is installed.

Only the tag classes matter here, so each tagger keeps its own set of tags (HanTa: the BNC's C5, spaCy: the Penn Treebank's).
"""

import warnings
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from dataset.errors import UserError, one_line
from task_distillation.augmentation.words import tagged_parts

TAGGERS = ("hanta", "spacy")
HANTA_MODEL = "morphmodel_en.pgz"
SPACY_MODEL = "en_core_web_sm"
LONGEST_WORD = 32  # letters from its end that HanTa sees: its time grows with their square
LONGEST_SENTENCE = 1000  # words that HanTa sees at once: beyond some ten thousand its log probabilities leave its range
KNOWN_WORDS = 100_000  # unknown words whose analysis HanTa's processes remember


@lru_cache(maxsize=1)
def load_tagger(name: str, spacy_model: str = SPACY_MODEL) -> "HantaTagger | SpacyTagger":
    """The tagger `name`, one of TAGGERS; UserError where its package or model is not installed."""
    return HantaTagger() if name == "hanta" else SpacyTagger(spacy_model)


def tag_words(tagger: "HantaTagger | SpacyTagger", sentences: Sequence[Sequence[str]]) -> list[list[str]]:
    """One tag for each word of each sentence; that of a contraction names both of its parts, as in VDB+XX0."""
    parts = [[tagged_parts(word) for word in sentence] for sentence in sentences]
    shown = [[part for word in sentence for part in word] for sentence in parts]
    tagged = []
    for words, tags in zip(parts, tagger.tags(shown), strict=True):
        each = iter(tags)
        tagged.append(["+".join(next(each) for _ in word) for word in words])
    return tagged


class HantaTagger:
    """A hidden Markov model over words and morphemes (Wartena, KONVENS 2019)."""

    def __init__(self) -> None:
        try:
            from HanTa import HanoverTagger
        except ImportError:
            raise UserError("--tagger hanta: no package HanTa is installed; pip install HanTa, or --tagger spacy, would work") from None
        # By its full path: the package would take a file of that name in the working directory, and unpickle it.
        self._model = HanoverTagger.HanoverTagger(str(Path(HanoverTagger.__file__).with_name(HANTA_MODEL)))
        self._model.analyze_forward = lru_cache(KNOWN_WORDS)(self._model.analyze_forward)

    def tags(self, sentences: Sequence[Sequence[str]]) -> Iterator[list[str]]:
        """The tags of each sentence."""
        for sentence in sentences:
            words = [word[-LONGEST_WORD:] for word in sentence]
            pieces = (words[start : start + LONGEST_SENTENCE] for start in range(0, len(words), LONGEST_SENTENCE))
            yield [tag for piece in pieces for tag in self._model.tag_sent(piece, taglevel=0)]


class SpacyTagger:
    """The tagger of a spaCy model, shown the words as they are split here."""

    def __init__(self, model: str) -> None:
        try:
            import spacy
        except ImportError:
            raise UserError("--tagger spacy: no package spaCy is installed; pip install spacy, or --tagger hanta, would work") from None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of models of another version, which tag all the same
                self._model = spacy.load(model, exclude=["parser", "ner", "lemmatizer"])
        except (OSError, ValueError, ImportError) as error:
            raise UserError(f"--spacy_model {model}: cannot be loaded ({one_line(error)[:200]}); python -m spacy download {SPACY_MODEL}, "
                            "or --tagger hanta, would work") from None
        if not all(next(self.tags([["films", "are", "made"]]))):
            raise UserError(f"--spacy_model {model}: it gives words no part of speech; {SPACY_MODEL}, or --tagger hanta, would work")

    def tags(self, sentences: Sequence[Sequence[str]]) -> Iterator[list[str]]:
        """The tags of each sentence."""
        from spacy.tokens import Doc

        documents = (Doc(self._model.vocab, words=list(sentence)) for sentence in sentences)
        for document in self._model.pipe(documents):
            yield [token.tag_ or token.pos_ for token in document]
