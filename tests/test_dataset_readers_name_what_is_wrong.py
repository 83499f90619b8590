"""A source that cannot be read is one line that names the file, the line and what would work, and nothing is left half written."""

import resource
import subprocess
import sys

import pytest
from reader_case import COMPRESS, articles, write
from tiny_corpus import ROOT

from dataset import process_data
from dataset.errors import UserError
from dataset.readers import READERS, source

GOOD = '{"text": "fine"}\n'
MISTAKES = [
    ("lines", "a.txt", b"fine\ncaf\xe9 \n", r"a\.txt, line 2: not UTF-8 \(byte 0xe9 at column 4\); --errors replace"),
    ("text", "a.txt", b"\xff\xfea\x00", r"line 1: not UTF-8"),
    ("wikitext", "a.txt", b"= A =\n\xe9", r"line 2: not UTF-8"),
    ("wikitext", "a.txt", b"one\n== A ==\n", r"none of its 2 lines is a title .* --type text or lines would work"),
    ("jsonl", "a.jsonl", GOOD.encode() + b'{"text": "\xed\xa0\x80"}', r"line 2: not UTF-8"),
    ("jsonl", "a.jsonl", GOOD + '{"text": "\\udc00"}', r"line 2: half a character .* --errors replace"),
    ("jsonl", "a.jsonl", GOOD + '{"text": "cut', r"a\.jsonl, line 2: no JSON"),
    ("jsonl", "a.jsonl", "\n" + "[" * 100_000, r"line 2: no JSON"),
    ("jsonl", "a.jsonl", '[{"text": "a"},\n', r"line 1: no JSON .* --type datasets"),
    ("jsonl", "a.jsonl", '["a"]\n', r"line 1: a JSON list, not an object"),
    ("jsonl", "a.jsonl", GOOD + '{"body": "a", "id": 1}', r"line 2: no field text; its fields are body, id"),
    ("jsonl", "a.jsonl", GOOD + "{}", r"line 2: no field text; its fields are none"),
    ("jsonl", "a.jsonl", GOOD + '{"text": 7}', r"line 2: the field text is of type int"),
    ("wikiextractor", "wiki_00", "just text\n", r"line 1: neither <doc id= nor a JSON object"),
    ("wikiextractor", "wiki_00", "\n<doc id=1>\nT\n\nEnd\n", r"line 2: cut short: no </doc>"),
    ("wikiextractor", "wiki_00", "<doc id=1>\nT\n<doc id=2>\n", r"line 3: an article opens inside the one of line 1"),
    ("wikiextractor", "wiki_00", '{"title": "a"}', r"line 1: no field text"),
    ("lines", "a.txt", "", r"no article found in .*a\.txt; text with one article a line would work"),
    ("lines", "a.txt", " \n\n", r"no article found .*2 empty left out"),
    ("lines", "a.gz", b"", r"a\.gz is no gz file"),
    ("datasets", "a.bin", "a", r"one that ends in \.parquet"),
]


def fail(kind, file, output, *flags) -> str:
    """What process_data says of `file`; its output folder must stay empty."""
    with pytest.raises(UserError) as error:
        articles(kind, file, output, *flags)
    assert not output.exists() or not list(output.iterdir())
    return str(error.value)


@pytest.mark.parametrize(("kind", "name", "content", "message"), MISTAKES)
def test_a_bad_file_is_named_with_its_line(kind, name, content, message, tmp_path):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message):
        articles(kind, path, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("suffix", [suffix for suffix in COMPRESS if suffix])
def test_a_packed_file_is_whole_or_an_error_that_says_how_far_it_was_read(suffix, tmp_path):
    first, second = (COMPRESS[suffix]("".join(f"{part} {i * i}\n" for i in range(5000)).encode()) for part in "ab")
    path = tmp_path / f"a.txt{suffix}"
    for content in (first + second[:-3], first + second[:7], first + b"garbage" * 9, first + second[:2000] + b"?" * 99 + second[2099:]):
        path.write_bytes(content)
        said = fail("lines", path, tmp_path / "out")
        number = int(said.partition(f"{path}, line ")[2].partition(":")[0])
        assert 5001 <= number <= 10_001 and "damaged" in said, said
    path.write_bytes(b"plain text")
    assert f"a.txt{suffix} is no {suffix[1:]} file" in fail("lines", path, tmp_path / "out")
    plain = path.rename(tmp_path / "a.txt")
    plain.write_bytes(first)
    assert f"holds {suffix[1:]} data; the name a.txt{suffix} would work" in fail("lines", plain, tmp_path / "out")


@pytest.mark.parametrize(("kind", "advice"), [("bookcorpus", "--type text"), ("text", "--type lines"), ("wikitext", "--type text")])
def test_a_corpus_taken_for_one_article_says_which_type_would_work(kind, advice, tmp_path, monkeypatch):
    monkeypatch.setattr(source, "MAX_ARTICLE", 1000)
    path = write(tmp_path / "in" / "a.txt", "= A =\n" + "word\n" * 1000)
    said = fail(kind, path.parent if kind == "bookcorpus" else path, tmp_path / "out")
    assert "a.txt, line 20" in said and "seems to be a whole corpus" in said and advice in said


def test_a_line_that_never_ends_is_given_up_within_bounded_memory(tmp_path):
    path = tmp_path / "a.txt"
    with path.open("wb") as file:
        file.truncate(1 << 32)  # 4 GiB that take no space
    said = fail("lines", path, tmp_path / "out")
    assert "line 1: one article of more than 256 MB: it seems to be a whole corpus" in said


def test_folders_and_files_that_do_not_fit_the_type_are_named(tmp_path):
    folder, output = write(tmp_path / "in" / "a.md", "text").parent, tmp_path / "out"
    for kind, wanted in {"bookcorpus": "*.txt", "jsonl": "*.jsonl or *.json", "wikiextractor": "wiki_*"}.items():
        assert f"holds no {wanted}" in fail(kind, folder, output)
    assert "is a folder; --type wiki needs" in fail("wiki", folder, output)
    assert "is a folder; --type wikitext needs" in fail("wikitext", folder, output)
    assert "is a file; --type bookcorpus needs a folder" in fail("bookcorpus", folder / "a.md", output)
    assert "does not exist; text with one article a line would work" in fail("lines", folder / "b", output)
    articles("lines", write(tmp_path / "a.txt", "x"), output)
    written = output / "lines_one_article_per_line.txt"
    with pytest.raises(UserError, match="is what would be written"):
        articles("lines", written, output)
    assert written.read_text() == "x\n\n"


def test_an_error_keeps_the_old_output_and_a_full_disk_is_one_line(tmp_path):
    path = write(tmp_path / "a.txt", "word " * 400_000)
    old = write(tmp_path / "out" / "lines_one_article_per_line.txt", "before\n\n")
    command = [sys.executable, str(ROOT / "dataset" / "process_data.py"), "-f", str(path), "-o", str(old.parent), "--type", "lines"]
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))  # noqa: E731 a disk of one megabyte
    done = subprocess.run(command, preexec_fn=limit, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith(f"error: cannot write {old}: File too large; ")
    assert [path.name for path in old.parent.iterdir()] == [old.name] and old.read_text() == "before\n\n"


def test_a_flag_works_or_is_said_to_have_no_effect_on_the_type(tmp_path, capsys):
    values = {"errors": "replace", "field": "body", "dataset_split": "dev", "dataset_config": "c", "n_processes": "3"}
    for kind, reader in READERS.items():
        given = [f"--{name}={value}" for name, value in values.items()]
        flags = process_data.parse_flags(["-f", str(tmp_path), "-o", "out", "--type", "text", *given])
        flags.type = kind
        made = process_data.make_source(flags)
        said = capsys.readouterr().err.splitlines()
        unused = [name for name in values if name not in reader.flags]
        assert [line.partition(f": --type {kind} does not use it (")[0] for line in said] == [f"no effect: --{name}" for name in unused]
        assert [str(getattr(made, name)) for name in reader.flags] == [values[name] for name in reader.flags]
    process_data.make_source(process_data.parse_flags(["-f", str(tmp_path), "-o", "out", "--type", "text"]))
    assert capsys.readouterr().err == ""
