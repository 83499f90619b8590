"""Shards of others read as they are; one that does not fit is refused with file, key, found and expected."""

import subprocess
import sys

import h5py
import numpy as np
import pytest

from dataset.errors import UserError
from dataset.shard_format import (
    CHUNK_BYTES,
    DTYPES,
    check_ids,
    check_tokenizer,
    find_shards,
    read_info,
    shard_writer,
    write_shard,
)

ROWS, LENGTH, PREDICTIONS, VOCABULARY = 12, 16, 3, 100


def make_arrays(**changes) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    arrays = {
        "input_ids": rng.integers(5, VOCABULARY, (ROWS, LENGTH)),
        "input_mask": np.ones((ROWS, LENGTH), dtype=int),
        "segment_ids": np.zeros((ROWS, LENGTH), dtype=int),
        "masked_lm_positions": np.tile([1, 4, 0], (ROWS, 1)),
        "masked_lm_ids": np.tile([7, VOCABULARY - 1, 0], (ROWS, 1)),
    }
    arrays.update(changes)
    return {key: values for key, values in arrays.items() if values is not None}


def write_foreign(path, dtype="i8", **changes):
    """A shard as other scripts write it: no attributes, other integer types."""
    with h5py.File(path, "w") as file:
        for key, values in make_arrays(**changes).items():
            file.create_dataset(key, data=values.astype(dtype) if values.dtype.kind == "i" else values)
    return path


@pytest.mark.parametrize("dtype", ["i8", "i2", "u1"])
def test_a_shard_without_attributes_is_read_and_known_as_foreign(tmp_path, dtype):
    nsp = np.zeros(ROWS, dtype=int)
    info = read_info(write_foreign(tmp_path / "books_train_7.hdf5", dtype, next_sentence_labels=nsp))
    assert (info.split, info.rows, info.max_seq_length, info.predictions) == ("train", ROWS, LENGTH, PREDICTIONS)
    assert info.masking == "static" and info.has_nsp and not info.is_ours and info.attributes == {}
    check_ids(info.path, VOCABULARY)
    check_tokenizer(info, "any")


def test_what_is_written_is_read_back_in_the_contracts_types(tmp_path):
    path = tmp_path / "test_shard_0.hdf5"
    arrays = make_arrays(next_sentence_labels=np.arange(ROWS) % 2)
    attributes = {"format_version": 1, "split": "test", "masking": "static", "masked_lm_prob": 0.15, "seed": 5}
    write_shard(path, arrays, attributes)
    info = read_info(path)
    assert info.attributes == attributes and info.is_ours and info.has_nsp
    types = {"input_ids": "<i4", "masked_lm_positions": "<i4", "masked_lm_ids": "<i4"}
    with h5py.File(path) as file:
        assert set(file) == set(arrays)
        for key, values in arrays.items():
            assert file[key].dtype.str == types.get(key, "|i1") and file[key].compression == "gzip"
            assert file[key][:].tolist() == values.tolist()


def test_one_input_gives_one_sequence_of_bytes(tmp_path):
    for name in ("train_a.hdf5", "train_b.hdf5"):
        write_shard(tmp_path / name, make_arrays(), {"format_version": 1, "split": "train", "source": "é"})
    assert (tmp_path / "train_a.hdf5").read_bytes() == (tmp_path / "train_b.hdf5").read_bytes()


def rows_of(count: int, length: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(count)
    shapes = {"input_ids": (count, length), "input_mask": (count, length), "segment_ids": (count, length)}
    shapes |= {"masked_lm_positions": (count, 5), "masked_lm_ids": (count, 5), "next_sentence_labels": (count,)}
    limits = {"input_ids": 2**31, "masked_lm_ids": 2**16, "masked_lm_positions": length}
    return {key: rng.integers(0, limits.get(key, 2), shape) for key, shape in shapes.items()}


@pytest.mark.parametrize("length", [16, 512])
def test_rows_written_in_any_parts_are_the_same_file_and_any_reader_has_them_all(tmp_path, length):
    """A chunk of input ids holds 128 rows of 512 numbers; around it and its multiples nothing may be lost."""
    chunk = CHUNK_BYTES // (4 * length)
    for count in (1, chunk - 1, chunk, chunk + 1, 4 * chunk + 7):
        arrays = rows_of(count, length)
        contents = set()
        for parts in ([count], [1] * min(count, 9) + [count - min(count, 9)], [chunk // 3] * (3 * count // chunk) + [count], [0, count, 0]):
            path = tmp_path / "train_0.hdf5"
            with shard_writer(path, {"format_version": 1, "split": "train"}) as writer:
                start = 0
                for size in parts:
                    writer.append({key: values[start : min(start + size, count)] for key, values in arrays.items()})
                    start = min(start + size, count)
                assert writer.rows == count
            contents.add(path.read_bytes())
        assert len(contents) == 1, "the bytes are those of the rows"
        with h5py.File(tmp_path / "train_0.hdf5") as file:
            for key, values in arrays.items():
                assert file[key].shape == values.shape and (file[key][:] == values).all()
                assert file[key].shuffle and file[key].compression == "gzip", "filters that every h5py has"
        check = "import h5py, sys; print(sum(int(h5py.File(sys.argv[1])[key][:].sum()) for key in h5py.File(sys.argv[1])))"
    done = subprocess.run([sys.executable, "-c", check, str(tmp_path / "train_0.hdf5")], capture_output=True, text=True, timeout=60)
    assert int(done.stdout) == sum(int(values.sum()) for values in arrays.values()), done.stderr


def test_numbers_at_the_edges_of_their_types(tmp_path):
    edges = {"<i4": [-(2**31), -1, 0, 2**31 - 1], "|i1": [-128, -1, 0, 127]}
    for key, values in make_arrays().items():
        dtype = DTYPES[key].str
        numbers = np.resize(np.array(edges[dtype]), values.shape)
        write_shard(tmp_path / "train_0.hdf5", make_arrays(**{key: numbers}), {})
        with h5py.File(tmp_path / "train_0.hdf5") as file:
            assert file[key][:].tolist() == numbers.tolist()
        for beyond in (max(edges[dtype]) + 1, min(edges[dtype]) - 1):
            numbers = values.astype(np.int64)
            numbers[-1, -1] = beyond
            with pytest.raises(ValueError, match=f"{key} of shape .* does not fit"):
                write_shard(tmp_path / "train_1.hdf5", make_arrays(**{key: numbers}), {})
    assert [path.name for path in tmp_path.iterdir()] == ["train_0.hdf5"]


def test_other_keys_in_the_middle_leave_no_file(tmp_path):
    with pytest.raises(ValueError, match="keys"), shard_writer(tmp_path / "train_0.hdf5", {}) as writer:
        writer.append(make_arrays())
        writer.append(make_arrays(masked_lm_ids=None, masked_lm_positions=None))
    assert list(tmp_path.iterdir()) == []


def test_a_value_that_does_not_fit_leaves_no_file(tmp_path):
    with pytest.raises(ValueError, match="segment_ids"):
        write_shard(tmp_path / "train_0.hdf5", make_arrays(segment_ids=np.full((ROWS, LENGTH), 200)), {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input_mask": None}, "key input_mask not found.*expected input_ids, input_mask"),
        ({"masked_lm_ids": None}, "key masked_lm_ids not found"),
        ({"input_ids": np.ones((ROWS, LENGTH))}, "input_ids holds float64, expected integers"),
        ({"segment_ids": np.zeros((ROWS, 9), int)}, r"segment_ids has shape \(12, 9\), expected \(12, 16\)"),
        ({"masked_lm_positions": np.zeros((3, 3), int)}, r"positions has shape \(3, 3\), expected \(12, P\)"),
        ({"masked_lm_ids": np.zeros((ROWS, 4), int)}, r"masked_lm_ids has shape \(12, 4\), expected \(12, 3\)"),
        ({"next_sentence_labels": np.zeros((ROWS, 1), int)}, r"labels has shape \(12, 1\), expected \(12\)"),
        ({"input_ids": np.zeros(5, int)}, r"input_ids has shape \(5,\), expected \(N, L\)"),
    ],
)
def test_a_wrong_key_type_or_shape_is_named(tmp_path, changes, message):
    path = write_foreign(tmp_path / "train_0.hdf5", **changes)
    with pytest.raises(UserError, match=rf"train_0\.hdf5: .*{message}"):
        read_info(path)


def test_an_empty_shard_is_refused(tmp_path):
    empty = {key: values[:0] for key, values in make_arrays().items()}
    with pytest.raises(UserError, match=r"train_0\.hdf5: input_ids has no rows"):
        read_info(write_foreign(tmp_path / "train_0.hdf5", **empty))


@pytest.mark.parametrize(
    ("name", "attributes", "message"),
    [
        ("train_0.hdf5", {"format_version": 99}, "format_version is 99, expected 1"),
        ("train_0.hdf5", {"format_version": 1, "split": "test"}, "attribute split is 'test', expected 'train'"),
        ("train_0.hdf5", {"format_version": 1, "masking": "none"}, "masking is 'none', expected 'static'"),
        ("shard_0.hdf5", {}, "neither file name nor attribute says train or test"),
        ("train_latest.hdf5", {}, "both 'train' and 'test'"),
    ],
)
def test_attributes_that_contradict_the_file_are_named(tmp_path, name, attributes, message):
    write_shard(tmp_path / name, make_arrays(), attributes)
    with pytest.raises(UserError, match=message):
        read_info(tmp_path / name)


def test_a_file_cut_short_or_of_another_kind_is_named(tmp_path):
    whole = write_foreign(tmp_path / "train_0.hdf5").read_bytes()
    for name, content, message in (
        ("train_1.hdf5", whole[: len(whole) // 2], "train_1.hdf5 was cut short"),
        ("train_2.hdf5", b"no HDF5 at all", "train_2.hdf5 is no HDF5 file"),
        ("train_3.hdf5", b"", "train_3.hdf5 is no HDF5 file"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=message):
            read_info(tmp_path / name)
    with pytest.raises(UserError, match=r"no shard .*train_4\.hdf5"):
        read_info(tmp_path / "train_4.hdf5")


def test_damage_inside_a_file_is_found_when_ids_are_read(tmp_path):
    write_shard(tmp_path / "train_0.hdf5", make_arrays(), {})
    with h5py.File(tmp_path / "train_0.hdf5") as file:
        chunk = file["input_ids"].id.get_chunk_info(0)
    content = bytearray((tmp_path / "train_0.hdf5").read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
    (tmp_path / "train_0.hdf5").write_bytes(content)
    with pytest.raises(UserError, match=r"train_0\.hdf5: /input_ids cannot be read"):
        check_ids(tmp_path / "train_0.hdf5", VOCABULARY)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("input_ids", VOCABULARY, "input_ids holds 100, expected numbers below 100"),
        ("input_ids", -1, "input_ids holds -1, expected no negative"),
        ("masked_lm_ids", 30000, "masked_lm_ids holds 30000, expected numbers below 100"),
        ("masked_lm_positions", LENGTH, "masked_lm_positions holds 16, expected numbers below 16"),
    ],
)
def test_an_id_beyond_the_vocabulary_is_found_in_any_row(tmp_path, monkeypatch, key, value, message):
    monkeypatch.setattr("dataset.shard_format.ROWS_AT_A_TIME", 5)
    arrays = make_arrays()
    arrays[key][ROWS - 1, 1] = value
    path = write_foreign(tmp_path / "train_0.hdf5", **arrays)
    read_info(path)
    with pytest.raises(UserError, match=rf"train_0\.hdf5: {message}"):
        check_ids(path, VOCABULARY)


def test_another_tokenizers_shard_is_refused(tmp_path):
    write_shard(tmp_path / "train_0.hdf5", make_arrays(), {"format_version": 1, "tokenizer_sha256": "aaa"})
    info = read_info(tmp_path / "train_0.hdf5")
    check_tokenizer(info, "aaa")
    with pytest.raises(UserError, match=r"train_0\.hdf5: attribute tokenizer_sha256 is aaa, expected bbb"):
        check_tokenizer(info, "bbb")


def test_shards_are_found_in_natural_order_and_unfinished_ones_are_not(tmp_path):
    names = ["train_shard_10.hdf5", "train_shard_2.hdf5", "b_test.h5", "test_shard_0.hdf5"]
    for name in [*names, "notes_train.txt", "other.hdf5", ".partial_12_train_shard_3.hdf5"]:
        (tmp_path / name).touch()
    train, test = find_shards(tmp_path)
    assert [path.name for path in train] == ["train_shard_2.hdf5", "train_shard_10.hdf5"]
    assert [path.name for path in test] == ["b_test.h5", "test_shard_0.hdf5"]


def test_a_folder_without_train_shards_is_an_error(tmp_path):
    (tmp_path / "test_shard_0.hdf5").touch()
    with pytest.raises(UserError, match="no train shard among its 1 HDF5 files"):
        find_shards(tmp_path)
    with pytest.raises(UserError, match="no folder"):
        find_shards(tmp_path / "missing")
    (tmp_path / "train_test.hdf5").touch()
    with pytest.raises(UserError, match="both 'train' and 'test'"):
        find_shards(tmp_path)
