"""Words and punctuation of an English text, and what a tagger sees of a contraction.

The rule is that of the Penn Treebank, which GLUE's tokenised tasks and the taggers' models follow, but for two things: quotes and brackets
stay as they are written, and a word with "n't" stays whole in the text. BERT's word pieces of "do n't" are not those of "don't", so that
a student of split texts would hardly ever meet the negations of the texts it is used on; splits at other ASCII marks leave them alike.
"""

import re

CLITICS = "(?:s|re|ve|ll|d|m)\\b"
WORD = re.compile(
    rf"""
      (?:[^\W\d_]\.){{2,}}                        # U.S.
    | ['’]{CLITICS}                               # 's, 're
    | n['’]t\b                                    # as tokenised texts have it
    | \d+(?:[.,]\d+)+\b                           # 1,000.5
    | [\w\u0300-\u036f]+                          # words; accents may be letters of their own
      (?:(?:-|['’](?!{CLITICS}))[\w\u0300-\u036f]+)*  # well-made, O'Brien, don't
    | \.{{2,}} | -{{2,}} | `{{2}} | '{{2}}
    | \S
    """,
    re.VERBOSE | re.IGNORECASE,
)
NEGATED = re.compile(r"(.+)n['’]t", re.IGNORECASE)


def split_words(text: str) -> list[str]:
    """The words and punctuation of `text` in their order; everything but white space is in one of them."""
    return WORD.findall(text)


def tagged_parts(word: str) -> tuple[str, ...]:
    """What a tagger is shown in place of `word`: don't as do and n't."""
    negated = NEGATED.fullmatch(word)
    return (negated[1], "n't") if negated else (word.replace("’", "'"),)
