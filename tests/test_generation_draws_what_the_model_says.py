"""A language model's texts have the probabilities that the model gives them: its loss, its prefixes, every choice and every stop."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
import torch
from generation_case import EOS, VOCABULARY, language_model, word_tokenizer
from transformers import TopKLogitsWarper, TopPLogitsWarper

from dataset.errors import UserError
from evaluation.fine_tuning.batching import collate
from evaluation.tasks.task import Examples
from pretraining.precision import Precision
from task_distillation.generation.fine_tuning import Place, next_token_loss, perplexity
from task_distillation.generation.flags import SamplingSettings, TrainingSettings
from task_distillation.generation.language_model import train_tokenizer
from task_distillation.generation.lm_folder import check_positions
from task_distillation.generation.prefixes import DRAW_BITS, Prefixes
from task_distillation.generation.sampling import Reader, _finished, choose, draw_chunk
from task_distillation.generation.text import Codec, text_rows

CPU = Place(torch.device("cpu"), Precision("fp32"))
END = VOCABULARY[EOS]
TEXTS = ["good film", "good good the film was was bad", "bad", "good"]
PREFIXES = Prefixes(np.array([0, 1, 4]), np.array([3, 2, 3]))


def naive_loss(lm, rows: list[list[int]]) -> tuple[float, int]:
    """Sum and count of -log p over every token but the first, each row alone and in float64."""
    model = lm.model.double()
    total, count = 0.0, 0
    for row in rows:
        logits = model(input_ids=torch.tensor([row])).logits[0]
        for at in range(1, len(row)):
            total -= math.log(math.exp(logits[at - 1, row[at]]) / sum(math.exp(value) for value in logits[at - 1].tolist()))
            count += 1
    lm.model.float()
    return total, count


def test_the_loss_is_that_of_every_row_alone_and_padding_is_no_token():
    lm = language_model()
    tokens, cut = lm.codec.rows([TEXTS], 32)
    rows = [[VOCABULARY[word] for word in text.split()] + [END] for text in TEXTS]
    assert cut == 0
    assert [tokens.ids[start:end].tolist() for start, end in itertools.pairwise(tokens.starts)] == rows
    with torch.no_grad():
        total, count = naive_loss(lm, rows)
        for pad in (END, 0):  # both are tokens of the texts
            batch = collate(tokens, np.arange(4), pad, CPU.device)
            assert "attention_mask" in batch
            ours, tokens_counted = next_token_loss(lm.model, batch)
            assert tokens_counted == count == sum(map(len, rows)) - 4
            assert float(ours) == pytest.approx(total, rel=1e-5)
        assert perplexity(lm, tokens, 3, CPU) == pytest.approx(math.exp(total / count), rel=1e-5)


def test_prefixes_are_the_first_tokens_as_often_as_they_occur(tmp_path):
    counted = Prefixes.of([VOCABULARY[text.split()[0]] for text in TEXTS])
    assert dict(zip(counted.tokens.tolist(), counted.counts.tolist(), strict=True)) == {VOCABULARY["good"]: 3, VOCABULARY["bad"]: 1}
    PREFIXES.write(tmp_path / "prefixes.json")
    read = Prefixes.read(tmp_path / "prefixes.json")
    even = np.arange(8192, dtype=np.int64) * (1 << DRAW_BITS) // 8192  # a uniform variable at every 8192th of its range
    assert Counter(read.choose(even).tolist()) == {0: 3072, 1: 2048, 4: 3072}
    assert read.choose(np.array([0, (1 << DRAW_BITS) - 1])).tolist() == [0, 4]


@pytest.mark.parametrize("settings", [
    SamplingSettings(), SamplingSettings(temperature=0.7), SamplingSettings(top_k=3), SamplingSettings(top_p=0.8),
    SamplingSettings(temperature=1.5, top_k=5, top_p=0.6),
], ids=lambda settings: f"T{settings.temperature}-k{settings.top_k}-p{settings.top_p}")
def test_tokens_are_chosen_by_the_softmax(settings):
    logits = torch.randn(2, 11, generator=torch.Generator().manual_seed(1)) * 2
    scores = logits.double() / settings.temperature
    if settings.top_k:
        scores = TopKLogitsWarper(settings.top_k)(None, scores)
    if settings.top_p < 1:
        scores = TopPLogitsWarper(settings.top_p)(None, scores)
    expected = scores.softmax(-1)
    count = 20_000
    even = torch.arange(count) * (1 << DRAW_BITS) // count
    for row in range(2):
        chosen = choose(logits[row].expand(count, -1), even, settings)
        frequencies = torch.bincount(chosen, minlength=11).double() / count
        assert torch.allclose(frequencies, expected[row], atol=2 / count, rtol=0)
        assert bool((frequencies[expected[row] == 0] == 0).all())
    last = torch.full((2,), (1 << DRAW_BITS) - 1)
    assert bool((expected[torch.arange(2), choose(logits, last, settings)] > 0).all())


def every_text(lm, ends: int, most: int) -> dict[tuple[int, ...], float]:
    """The probability of every text that ends within `most` tokens after its prefix, from the model's softmax in float64."""
    open_texts = {(int(token),): count / 8 for token, count in zip(PREFIXES.tokens, PREFIXES.counts, strict=True)}
    finished: dict[tuple[int, ...], float] = {}
    model = lm.model.double()
    for _ in range(most):
        contexts = list(open_texts)
        with torch.no_grad():
            inputs = torch.tensor([[*lm.codec.start, *text] for text in contexts])
            found = model(input_ids=inputs).logits[:, -1].softmax(-1)
        longer = {}
        for text, probabilities in zip(contexts, found.tolist(), strict=True):
            for token, probability in enumerate(probabilities):
                other = (*text, token)
                (finished if other.count(END) == ends else longer)[other] = open_texts[text] * probability
        open_texts = longer
    lm.model.float()
    return finished


@pytest.mark.parametrize(("ends", "most", "begins", "kind"), [
    (1, 3, False, "gpt2"), (2, 4, False, "gpt2"), (1, 3, True, "gpt2"), (1, 3, False, "mistral"),
    pytest.param(2, 5, False, "gpt2", marks=pytest.mark.slow),
])
def test_texts_come_as_often_as_the_model_says(ends, most, begins, kind):
    """Chi-square of the drawn texts against the probabilities of all texts there are, given that they end in time."""
    lm = language_model(kind, begins)
    count = 3000
    exact = every_text(lm, ends, most)
    in_time = sum(exact.values())
    chunk = draw_chunk(lm, PREFIXES, SamplingSettings(max_new_tokens=most, sample_batch_size=count, seed=5), ends, chunk=0)
    assert len(chunk.sequences) == count
    assert all(sequence.count(END) == ends and sequence[-1] == END and len(sequence) <= 1 + most for sequence in chunk.sequences)
    # The number of draws until `count` texts end in time is negative binomial.
    assert chunk.drawn == pytest.approx(count / in_time, abs=4 * math.sqrt(count * (1 - in_time)) / in_time)
    seen = Counter(map(tuple, chunk.sequences))
    expected = {text: count * probability / in_time for text, probability in exact.items()}
    likely = [text for text, number in expected.items() if number >= 5]
    rest = count - sum(expected[text] for text in likely)
    squares = [(seen[text] - expected[text]) ** 2 / expected[text] for text in likely]
    squares.append((count - sum(seen[text] for text in likely) - rest) ** 2 / rest)
    assert len(likely) > 20
    assert sum(squares) < len(likely) + 4 * math.sqrt(2 * len(likely))


@pytest.mark.parametrize("kind", ["gpt2", "mistral", "mamba"])
def test_rows_that_end_change_nothing_for_the_others(kind):
    """A text drawn beside others is the text that its draws give alone; texts of 2 to 13 tokens leave the batch at different times."""
    lm = language_model(kind)
    random = np.random.default_rng(3)
    settings = SamplingSettings()
    first, draws = random.choice(PREFIXES.tokens, 24), random.integers(0, 1 << DRAW_BITS, (24, 12))
    alone = [text for row in range(24) for text in _finished(lm, first[row : row + 1], draws[row : row + 1], 1, settings)]
    assert len({len(text) for text in alone}) > 5
    assert 0 < len(alone) < 24
    assert _finished(lm, first, draws, 1, settings) == alone


@pytest.mark.parametrize("kind", ["gpt2", "mistral", "mamba"])
def test_the_cache_says_what_reading_anew_says(kind):
    lm = language_model(kind)
    ids = torch.from_numpy(np.random.default_rng(0).integers(0, len(VOCABULARY), (4, 8)))
    reader = Reader(lm.model)
    with torch.inference_mode():
        for length in range(1, 9):
            if length == 5:
                ids = ids[[0, 2, 3]]
                reader.keep(torch.tensor([0, 2, 3]))
            found = reader.read(ids[:, :length])
            assert torch.allclose(found, lm.model(input_ids=ids[:, :length]).logits[:, -1], atol=1e-5)


def test_a_model_that_ends_no_text_is_given_up():
    lm = language_model()
    with torch.no_grad():
        lm.model.transformer.wte.weight[END] = 0
        lm.model.transformer.ln_f.weight.mul_(20)
    with pytest.raises(UserError, match=r"of 80 texts were not ended after --max_new_tokens 2;"):
        draw_chunk(lm, PREFIXES, SamplingSettings(max_new_tokens=2, sample_batch_size=4), 1, 0)
    with torch.no_grad():
        lm.model.transformer.ln_f.weight.fill_(math.nan)
    with pytest.raises(UserError, match="logits are not finite"):
        draw_chunk(lm, PREFIXES, SamplingSettings(), 1, 0)


def test_chunks_differ_and_repeat():
    lm = language_model()
    settings = SamplingSettings(sample_batch_size=8, max_new_tokens=20)
    one, again, other = (draw_chunk(lm, PREFIXES, settings, 1, chunk).sequences for chunk in (0, 0, 1))
    assert one == again != other
    assert one != draw_chunk(lm, PREFIXES, SamplingSettings(sample_batch_size=8, max_new_tokens=20, seed=1), 1, 0).sequences


def test_rows_become_sequences_and_come_back():
    codec = Codec(train_tokenizer(["good film", "bad plot"] * 4, 270), "bpe")
    pairs = [["good  film\tnow", "<|endoftext|> é"], ["bad plot", "x"]]
    columns, kept = text_rows(Examples((pairs[0] + [" "], pairs[1] + ["y"]), None))
    assert kept == [0, 1]
    tokens, _ = codec.rows(columns, 100)
    rows = [tokens.ids[start:end].tolist() for start, end in itertools.pairwise(tokens.starts)]
    assert [row.count(codec.eos) for row in rows] == [2, 2]  # what looks like a special token is text
    assert [codec.sides(row) for row in rows] == [["good film now", "bad plot"], ["<|endoftext|> é", "x"]]
    shorter, cut = codec.rows(columns, 6)
    assert cut == 2
    assert shorter.lengths.tolist() == [6, 6]
    assert codec.sides([*codec.encode([" a\n b"])[0], codec.eos, codec.eos, *codec.encode(["c"])[0]]) == ["a b", ""]


def test_a_tokenizer_that_begins_texts_with_a_token_keeps_it():
    codec = Codec(word_tokenizer(begins=True), "tiny")
    assert codec.start == [END]
    assert codec.rows([["good film"]], 9)[0].ids.tolist() == [END, 0, 2, END]
    assert Codec(word_tokenizer(), "tiny").start == []


def test_a_text_may_fill_every_position():
    """The GPT-2 has 64: a prefix and 64 new tokens fit, for the last of them is not read; where a token begins texts, one less does."""
    for begins, most in ((False, 64), (True, 63)):
        lm = language_model(begins=begins)
        training, settings = TrainingSettings(max_length=64), SamplingSettings(max_new_tokens=most, sample_batch_size=1)
        check_positions(lm.where, {"n_positions": 64}, training, settings, len(lm.codec.start))
        more = SamplingSettings(max_new_tokens=most + 1)
        with pytest.raises(UserError, match=f"--max_new_tokens {most + 1}: .* has 64 positions; --max_new_tokens {most} would work"):
            check_positions(lm.where, {"n_positions": 64}, training, more, len(lm.codec.start))
        assert _finished(lm, np.array([0]), np.zeros((1, most), np.int64), 2, settings) == []  # 0 is always the first word


def test_texts_encoded_in_parts_are_the_same_texts():
    texts = ["the film was very good", "a", "poor plot"] * 10
    codec = Codec(train_tokenizer(texts, 320), "bpe")
    parts = codec.encode_in_parts(texts, np.random.default_rng(0))
    assert [codec.decode(ids) for ids in parts] == texts
    assert sum(ids != whole for ids, whole in zip(parts, codec.encode(texts), strict=True)) > 10
    assert parts != codec.encode_in_parts(texts, np.random.default_rng(1))
    codec.check_parts()
    with pytest.raises(UserError, match="--split_encode"):
        Codec(word_tokenizer(), "tiny").check_parts()
