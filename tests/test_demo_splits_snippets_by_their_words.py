"""Snippets become SST-2's files: labels from the sign, neutral ones out, no wording on both sides, the same split whatever the order."""

from pathlib import Path

import pytest

from dataset.errors import UserError
from demo.snippets import NEUTRAL, read_snippets, split_snippets, write_sst2
from evaluation.tasks.table import load_task, select_tasks

MANY = [(f"Snippet number {number} is a film.", 2.0 if number % 3 else -2.0) for number in range(2000)]


def test_labels_are_the_sign_and_neutral_ones_are_left_out() -> None:
    snippets = [("good", 2.0), ("bad", -2.0), ("so", 0.0), ("just in", NEUTRAL), ("just out", NEUTRAL - 0.01), ("minus", -NEUTRAL)]
    train, held_out = split_snippets(snippets)
    assert dict(train + held_out) == {"good": 1, "bad": 0, "just in": 1, "minus": 0}


def test_a_wording_is_used_once_and_on_one_side() -> None:
    copies = [(text.upper().replace(".", "!"), -score) for text, score in MANY]
    assert split_snippets(MANY + copies) == split_snippets(MANY)


def test_the_side_depends_on_the_words_alone() -> None:
    train, held_out = split_snippets(MANY)
    turned = split_snippets(MANY[::-2])
    assert set(turned[0]) <= set(train) and set(turned[1]) <= set(held_out)
    assert len(train) + len(held_out) == len(MANY)
    assert 0.16 < len(held_out) / len(MANY) < 0.24


def test_the_first_of_a_file_are_a_fair_sample_of_a_sorted_source() -> None:
    for part in split_snippets(sorted(MANY, key=lambda snippet: snippet[1])):
        share = sum(label for _, label in part) / len(part)
        assert abs(sum(label for _, label in part[: len(part) // 2]) / (len(part) // 2) - share) < 0.1


def test_the_files_are_read_back_as_sst2(tmp_path: Path) -> None:
    source = tmp_path / "scores.txt"
    lines = [f"{number}\t{score}\t{text}   with  space" for number, (text, score) in enumerate(MANY)]
    source.write_bytes("\r\n".join(lines).encode() + b"\r\n")
    sizes = write_sst2(source, tmp_path / "glue")
    data = load_task(select_tasks(["sst2"])[0], tmp_path / "glue")
    assert (len(data.train), len(data.dev["dev"])) == sizes and sum(sizes) == len(MANY)
    expected = {f"{text} with space": int(score > 0) for text, score in MANY}
    found = {text: label for part in (data.train, data.dev["dev"]) for text, label in zip(part.texts[0], part.labels, strict=True)}
    assert found == expected


@pytest.mark.parametrize("line", ["7\t1.5", "7\tmuch\tA film.", "7\t1.5\tA film.\tmore", ""])
def test_a_broken_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "scores.txt"
    path.write_text(f"1\t2.0\tFine.\n{line}\n2\t2.0\tAlso fine.\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"scores\.txt, line 2: expected id, score and text"):
        read_snippets(path)
