"""A vocabulary of whole words, as a tokenizer of `tokenizers` that any program can load from its one file.

Texts are cut as BERT's basic tokenizer and so d-bert cut them: lower-cased, accents off, punctuation and Chinese characters apart. The
masks of an augmented set stay whole in any text; the other special words are made by us alone, and a text that spells them is text.
"""

from collections.abc import Iterable

from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from dataset.errors import UserError

PAD, UNK, SEP, MASK = SPECIAL = ("[PAD]", "[UNK]", "[SEP]", "[MASK]")
PAD_ID = 0


def make_vocabulary(texts: Iterable[str], vocab_size: int, min_count: int, max_length: int) -> Tokenizer:
    """The words of `texts` by falling frequency, those of one frequency in the order of their letters, behind the special ones.

    At most `vocab_size` rows, the special ones included, of words that occur `min_count` times or more. The tokenizer cuts to `max_length`
    and reads a pair as `a [SEP] b`. The same texts give the same vocabulary in any order. UserError where no word is left.
    """
    counter = _tokenizer(dict.fromkeys(SPECIAL, 0) | {word: row for row, word in enumerate(SPECIAL)}, max_length)
    trainer = trainers.WordLevelTrainer(vocab_size=vocab_size, min_frequency=min_count, special_tokens=list(SPECIAL),
                                        show_progress=False)
    # The trainer does not know of words that stay whole and would count `[`, `mask` and `]`.
    counter.train_from_iterator((text.replace(MASK, " ") for text in texts), trainer)
    words = counter.get_vocab()
    if len(words) == len(SPECIAL):
        raise UserError(f"the texts have no word that occurs {min_count} times; a smaller --min_count or more text would work")
    return _tokenizer(words, max_length)


def _tokenizer(words: dict[str, int], max_length: int) -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel(words, unk_token=UNK))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A", pair=f"$A {SEP} $B:1", special_tokens=[(SEP, words[SEP])])
    tokenizer.add_special_tokens([AddedToken(MASK, special=True, normalized=False)])
    tokenizer.enable_truncation(max_length, strategy="longest_first")
    return tokenizer
