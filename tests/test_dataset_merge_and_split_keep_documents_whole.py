"""merge_shards never mixes train and test and loses no article; split_text makes exactly N texts of whole documents."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_corpus import folder_bytes, make_articles, read_text_shard, run_script, write_text_shard

from dataset import merge_shards, split_text
from dataset.errors import UserError


@pytest.fixture
def shards(tmp_path):
    for name, seed in [(f"training{index}.txt", index) for index in range(12)] + [(f"test{index}.txt", 50 + index) for index in range(3)]:
        write_text_shard(tmp_path / "in" / name, make_articles(3, seed))
    (tmp_path / "in" / "notes.md").write_text("mine")
    return tmp_path / "in"


def merge(folder, output, *flags):
    merge_shards.main(["--data", str(folder), "--output_dir", str(output), *flags])


def split(path, folder, number, *flags, name="training"):
    split_text.main(["--read_file", str(path), "--split_number", str(number), "--folder", str(folder), "--name_base", name, *flags])


def test_shards_are_merged_within_their_split_in_natural_order(shards, tmp_path, capsys):
    out = tmp_path / "out"
    merge(shards, out, "--ratio", "5")
    assert set(folder_bytes(out)) == {"training0.txt", "training1.txt", "training2.txt", "test0.txt"}
    groups = {"training0": range(5), "training1": range(5, 10), "training2": (10, 11), "test0": range(50, 53)}
    for name, seeds in groups.items():
        assert read_text_shard(out / f"{name}.txt") == [article for seed in seeds for article in make_articles(3, seed)]
    printed = capsys.readouterr()
    assert "3 train shards and 1 test shards from 15" in printed.out
    assert "training2.txt is smaller, from 2 shards instead of 5" in printed.err and "test0.txt is smaller, from 3" in printed.err


def test_grep_takes_one_split_and_any_names_of_it(shards, tmp_path):
    (shards / "my_train_20.txt").write_text("Last one.\n")
    merge(shards, tmp_path / "train", "--ratio", "13", "--grep", "train")
    assert list(folder_bytes(tmp_path / "train")) == ["training0.txt"]
    assert ["Last one."] in read_text_shard(tmp_path / "train" / "training0.txt")
    merge(shards, tmp_path / "test", "--grep", "test")
    assert folder_bytes(tmp_path / "test") == {f"test{index}.txt": (shards / f"test{index}.txt").read_bytes() for index in range(3)}


def test_seams_have_a_blank_line_whatever_the_files_end_with(tmp_path):
    (tmp_path / "in").mkdir()
    contents = [b"A.", b"", b"\xef\xbb\xbfB.\n", b"C.\r\n\r\n", b"D.\n\n", b"E.\n\n\n"]
    for index, content in enumerate(contents):
        (tmp_path / "in" / f"train{index}.txt").write_bytes(content)
    merge(tmp_path / "in", tmp_path / "out", "--ratio", "6")
    assert (tmp_path / "out" / "training0.txt").read_bytes() == b"A.\n\nB.\n\nC.\r\n\r\nD.\n\nE.\n\n\n"


def test_mistakes_of_merging_are_named(shards, tmp_path):
    with pytest.raises(UserError, match="is also --data"):
        merge(shards, shards)
    with pytest.raises(UserError, match="--ratio 0; 1 or more would work"):
        merge(shards, tmp_path / "out", "--ratio", "0")
    merge(shards, tmp_path / "out")
    before = folder_bytes(tmp_path / "out")
    with pytest.raises(UserError, match=r"holds test0.txt and its like already; another folder or --overwrite would work"):
        merge(shards, tmp_path / "out")
    (shards / "shard_1.txt").write_text("Whose?")
    with pytest.raises(UserError, match=r"shard_1.txt has neither 'train' nor 'test'"):
        merge(shards, tmp_path / "out", "--overwrite")
    assert folder_bytes(tmp_path / "out") == before
    (shards / "shard_1.txt").unlink()
    merge(shards, tmp_path / "out", "--overwrite", "--ratio", "3")
    assert set(folder_bytes(tmp_path / "out")) == {*(f"training{index}.txt" for index in range(4)), "test0.txt"}


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=30), pick=st.integers(0, 60), line_end=st.sampled_from(["\n", "\r\n"]),
    gaps=st.integers(1, 3), mark=st.booleans(),
)  # fmt: skip
def test_texts_are_exactly_n_of_whole_documents_in_order(sizes, pick, line_end, gaps, mark, tmp_path_factory):
    number = 1 + pick % (len(sizes) + 1)
    folder = tmp_path_factory.mktemp("split")
    documents = [line_end.join(f"line {index} {line}" for line in range(size)) for index, size in enumerate(sizes)]
    text = ("\ufeff" if mark else "") + line_end * gaps + (line_end * (gaps + 1)).join(documents)
    (folder / "dump.txt").write_bytes(text.encode())
    if number > len(sizes):
        with pytest.raises(UserError, match=f"has {len(sizes)} documents .* --split_number {len(sizes)} would work"):
            split(folder / "dump.txt", folder / "out", number)
        return
    split(folder / "dump.txt", folder / "out", number)
    names = [f"training_{index}.txt" for index in range(number)]
    assert sorted(folder_bytes(folder / "out")) == sorted(names)
    read = [(folder / "out" / name).read_bytes().decode().replace("\r\n", "\n") for name in names]
    pieces = [[document.strip("\n") for document in text.split("\n\n") if document.strip("\n")] for text in read]
    assert all(pieces) and all(text.endswith("\n\n") for text in read)
    assert [document for piece in pieces for document in piece] == [document.replace("\r\n", "\n") for document in documents]
    if len(set(sizes)) == 1 and len(sizes) % number == 0:
        share = len(sizes) // number
        assert all(abs(len(piece) - share) <= 1 for piece in pieces)


def test_texts_are_balanced_as_well_as_documents_allow(tmp_path):
    write_text_shard(tmp_path / "dump.txt", make_articles(2000))
    split(tmp_path / "dump.txt", tmp_path / "out", 7)
    sizes = [len(content) for content in folder_bytes(tmp_path / "out").values()]
    largest = max(len("\n".join(article)) + 2 for article in make_articles(2000))
    assert max(sizes) - min(sizes) <= 2 * largest


def test_mistakes_of_splitting_are_named_and_old_texts_are_safe(tmp_path, capsys):
    write_text_shard(tmp_path / "dump.txt", make_articles(9))
    split(tmp_path / "dump.txt", tmp_path / "out", 4, name="wiki_")
    assert "--name_base training would" in capsys.readouterr().err
    before = folder_bytes(tmp_path / "out")
    assert set(before) == {f"wiki_{index}.txt" for index in range(4)}
    with pytest.raises(UserError, match=r"holds wiki_0.txt and its like already"):
        split(tmp_path / "dump.txt", tmp_path / "out", 2, name="wiki")
    with pytest.raises(UserError, match="has the name of an output"):
        split(tmp_path / "out" / "wiki_0.txt", tmp_path / "out", 2, "--overwrite", name="wiki")
    with pytest.raises(UserError, match="begins no file name"):
        split(tmp_path / "dump.txt", tmp_path / "out", 2, name="a/b")
    with pytest.raises(UserError, match=r"10: .* has 9 documents"):
        split(tmp_path / "dump.txt", tmp_path / "out", 10, "--overwrite", name="wiki")
    assert folder_bytes(tmp_path / "out") == before
    split(tmp_path / "dump.txt", tmp_path / "out", 2, "--overwrite", name="wiki")
    assert set(folder_bytes(tmp_path / "out")) == {"wiki_0.txt", "wiki_1.txt"}
    (tmp_path / "empty.txt").write_text("\n\n")
    done = run_script("split_text", "--read_file", tmp_path / "empty.txt", "--split_number", 1, "--folder", tmp_path, "--name_base", "test")
    assert done.returncode == 2 and "has 0 documents" in done.stderr and done.stderr.count("\n") == 1
