"""Word vectors of both text formats in Kim's four modes; a file that is none is one line with its line's number."""

import numpy as np
import pytest
import torch
from task_students_case import SST2, make_student

from dataset.errors import UserError
from task_distillation.students.build import build_student, make_tokenizer
from task_distillation.students.flags import StudentFlags
from task_distillation.students.plan import plan_student

SIZE = 3
VECTORS = {"film": [0.5, -1.25, 3.0], "good": [1e-3, 2.0, -7.5], "absent": [9.0, 9.0, 9.0], "Good": [8.0, 8.0, 8.0]}
LINES = [f"{word} {' '.join(map(str, numbers))}\n" for word, numbers in VECTORS.items()]


def write(folder, lines, name="vectors.txt"):
    path = folder / name
    path.write_bytes("".join(lines).encode())
    return path


def build(path, seed=0):
    """A student with the vectors of `path`, or random ones."""
    flags = {} if path is None else {"word_vectors": str(path), "embedding": "non_static"}
    plan = plan_student(StudentFlags(embedding_size=SIZE, **flags), SST2)
    tokenizer = make_tokenizer(plan, ["good film . . .", "other words"])
    lines = []
    return build_student(plan, tokenizer, SST2, seed, lines.append), tokenizer, lines


@pytest.mark.parametrize("header", [[], ["4 3\n"]], ids=["GloVe", "word2vec"])
def test_words_have_their_vectors_and_others_are_uniform_from_the_seed(tmp_path, header):
    student, tokenizer, lines = build(write(tmp_path, header + LINES))
    weight = student.embedding.trained.weight.detach().numpy()
    for word in ("film", "good"):
        assert np.array_equal(weight[tokenizer.token_to_id(word)], np.float32(VECTORS[word]))
    assert not weight[0].any() and lines == [f"{tmp_path / 'vectors.txt'}: vectors of 2 of the {len(weight)} words of the vocabulary"]
    others = [row for word, row in tokenizer.get_vocab().items() if row and word not in VECTORS]
    plain, other_seed = (build(None, seed)[0].embedding.trained.weight.detach().numpy() for seed in (0, 1))
    assert np.array_equal(weight[others], plain[others]), "a file changes the words it has and no other"
    assert not np.isin(weight[others], other_seed).any()


def test_words_without_a_vector_spread_as_kim_says(tmp_path):
    student, _ = make_student(tmp_path, embedding_size=500)
    weight = student.embedding.trained.weight[1:]
    assert weight.abs().max() < 0.25 and weight.abs().max() > 0.249
    assert abs(weight.var().item() - 0.25**2 / 3) < 5e-4


@pytest.mark.parametrize(("mode", "moves", "stays"), [("static", 0, 1), ("non_static", 1, 0), ("multichannel", 1, 1), ("random", 1, 0)])
def test_each_mode_trains_what_it_should(tmp_path, mode, moves, stays):
    path = None if mode == "random" else write(tmp_path, LINES)
    flags = {} if path is None else {"word_vectors": str(path)}
    student, _ = make_student(tmp_path, embedding=mode, embedding_size=SIZE, **flags)
    embedding = student.embedding
    assert embedding.width == SIZE * (moves + stays)
    channels = [channel for channel in (embedding.static, embedding.trained) if channel is not None]
    before = [channel.weight.clone() for channel in channels]
    ids = torch.tensor([[4, 5, 6]])
    assert torch.equal(embedding(ids), torch.cat([weight[ids] for weight in before], dim=-1))
    if len(before) == 2:
        assert torch.equal(*before), "both channels start from the file"
    optimizer = torch.optim.SGD([weight for weight in student.parameters() if weight.requires_grad], lr=1.0)
    embedding(ids).sum().backward() if moves else None
    optimizer.step()
    moved = [not torch.equal(old, channel.weight) for old, channel in zip(before, channels, strict=True)]
    assert moved == [False] * stays + [True] * moves


def test_a_word_of_several_is_one_word(tmp_path):
    """GloVe's 840B file has some, and one of them must not hide that a line is too wide."""
    student, tokenizer, _ = build(write(tmp_path, [". . 0.5 0.5 0.5\n", "at me@home 1 2 3\n", ". 1 2 3\n"]))
    assert student.embedding.trained.weight[tokenizer.token_to_id(".")].tolist() == [1, 2, 3]


def test_spaces_and_a_byte_order_mark_lose_no_word(tmp_path):
    student, tokenizer, _ = build(write(tmp_path, ["\ufeffgood  1 2 3\n", " film 4  5 6\n", " 7 8 9\n"]))  # the last word is empty
    found = {word: student.embedding.trained.weight[tokenizer.token_to_id(word)].tolist() for word in ("good", "film")}
    assert found == {"good": [1, 2, 3], "film": [4, 5, 6]}
    student, tokenizer, _ = build(write(tmp_path, ["\ufeff1 3\n", "good 1 2 3\n"]))
    assert student.embedding.trained.weight[tokenizer.token_to_id("good")].tolist() == [1, 2, 3]


def test_what_is_not_text_is_a_word_like_any_other(tmp_path):
    path = tmp_path / "vectors.txt"
    path.write_bytes(b"\xff\xfe\x00 1 2 3\r\ngood 4 5 6 \r\n\r\n")
    student, tokenizer, _ = build(path)
    assert student.embedding.trained.weight[tokenizer.token_to_id("good")].tolist() == [4, 5, 6]


WRONG = [
    (["good 1 2\n"], "line 1: 'good' has 2 numbers, --embedding_size is 3; --embedding_size 2 would work"),
    ([*LINES, "other 1 2 3 4\n"], "line 5: 'other' has 4 numbers, --embedding_size is 3"),
    ([*LINES, "never 1 2\n"], "line 5: 'never' has 2 numbers"),
    (["7 300\n", *LINES], "line 1: vectors of 300 numbers, --embedding_size is 3; --embedding_size 300 would work"),
    (["good 1 x 3\n"], "line 1: 'good' has something among its numbers that is none"),
    (["4 3\n", *LINES, "other 1 nan 3\n"], "line 6: 'other' has a number that is not finite"),
    ([*LINES, "good 1 2 3\n"], "line 5: 'good' again, after line 2"),
    ([], "no word vectors in it"),
    (["4 3\n"], "line 1: promises 4 words, the file has 0"),
    (["300 3\n", LINES[1]], "line 1: promises 300 words, the file has 1; it is cut off"),
    (["2 3\n", *LINES], "line 1: promises 2 words, the file has 4"),
    ([*LINES, " good 1 2\n"], "line 5: 'good' has 2 numbers"),
    (["good   0.5\n"], "line 1: 'good' has 1 numbers, --embedding_size is 3"),
    (["good 1_0 2 3\n"], "line 1: 'good' has something among its numbers that is none"),
    (["good 1 2 -1e39\n"], "line 1: 'good' has a number that is not finite"),
]


@pytest.mark.parametrize(("lines", "message"), WRONG)
@pytest.mark.filterwarnings("error")
def test_a_file_that_is_wrong_is_one_line(tmp_path, lines, message):
    path = write(tmp_path, lines)
    with pytest.raises(UserError) as caught:
        build(path)
    assert str(caught.value).startswith(str(path)) and message in str(caught.value) and "\n" not in str(caught.value)


def test_flags_that_do_not_fit_are_told_before_anything_is_read(tmp_path):
    for flags, message in [({"embedding": "static"}, "--embedding static needs --word_vectors"),
                           ({"word_vectors": "x"}, "--embedding random does not read them"),
                           ({"embedding": "static", "word_vectors": str(tmp_path / "none")}, "No such file"),
                           ({"embedding": "static", "word_vectors": str(tmp_path)}, "Is a directory")]:
        with pytest.raises(UserError, match=message):
            plan_student(StudentFlags(**flags), SST2)
