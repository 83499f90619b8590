"""TFRecords of masked samples become shards row for row, without TensorFlow; what is cut, damaged or mixed up is named."""

import gzip
import json
import struct
from pathlib import Path

import h5py
import numpy as np
import pytest
from tensorboard.summary.writer.record_writer import RecordWriter

from dataset.convert_samples import main
from dataset.errors import UserError
from dataset.shard_format import check_ids, read_info
from tests.tiny_corpus import SPECIAL, write_vocabulary

LENGTH, PREDICTIONS = 16, 3
PAD, UNK, CLS, SEP, MASK = range(len(SPECIAL))


def varint(number: int) -> bytes:
    number &= 2**64 - 1
    parts = []
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])


def tagged(field: int, content: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(content)) + content


def example(features: dict[str, np.ndarray], packed: bool = True) -> bytes:
    """A tf.train.Example on the wire; lists of numbers packed, as TensorFlow writes them, or not."""
    entries = []
    for name, values in features.items():
        is_float = values.dtype.kind == "f"
        coded = [struct.pack("<f", value) if is_float else varint(int(value)) for value in values]
        numbers = tagged(1, b"".join(coded)) if packed else b"".join(varint(1 << 3 | (5 if is_float else 0)) + one for one in coded)
        entries.append(tagged(1, tagged(1, name.encode()) + tagged(2, tagged(2 if is_float else 3, numbers))))
    return tagged(1, b"".join(entries))


def make_samples(count: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    samples = []
    for number in range(count):
        size, used = int(rng.integers(6, LENGTH + 1)), int(rng.integers(1, PREDICTIONS + 1))
        ids, mask = np.zeros(LENGTH, dtype=int), np.zeros(LENGTH, dtype=int)
        ids[:size], mask[:size] = rng.integers(7, 30, size), 1
        ids[0], ids[size - 1] = CLS, SEP
        places = np.sort(rng.choice(np.arange(1, size - 1), used, replace=False))
        padded = np.zeros(PREDICTIONS, dtype=int)
        positions, labels, weights = padded.copy(), padded.copy(), padded.astype(float)
        positions[:used], labels[:used], weights[:used] = places, ids[places], 1
        ids[places] = MASK
        samples.append(
            {
                "input_ids": ids, "input_mask": mask, "segment_ids": mask * (np.arange(LENGTH) > 3), "masked_lm_positions": positions,
                "masked_lm_ids": labels, "masked_lm_weights": weights, "next_sentence_labels": np.array([number % 2]),
            }
        )  # fmt: skip
    return samples


def write_records(path: Path, samples: list[dict[str, np.ndarray]], **options) -> Path:
    """The frames are TensorBoard's, so that the checksums are not of our own making."""
    with path.open("wb") as file:
        writer = RecordWriter(file)
        for sample in samples:
            writer.write(example(sample, **options))
        writer.flush()
    return path


def convert(*flags) -> None:
    main(["--format", "tfrecord", "--n_processes", "2", *map(str, flags)])


def assert_holds(path: Path, samples: list[dict[str, np.ndarray]]) -> None:
    with h5py.File(path) as file:
        assert len(file) == 6
        for key in file:
            expected = [sample[key].tolist() for sample in samples]
            assert file[key][:].tolist() == ([one[0] for one in expected] if key == "next_sentence_labels" else expected)


def test_every_record_is_a_row_of_its_files_shard(tmp_path, capsys):
    records, output = tmp_path / "records", tmp_path / "samples"
    records.mkdir()
    parts = [make_samples(5000, 1), make_samples(7, 2), make_samples(3, 3)]
    teacher = {"top_k_indices": np.arange(30), "truncated_masked_lm_probs": np.ones(30)}
    write_records(records / "wiki_train_2.tfrecord", parts[0])
    write_records(records / "wiki_train_10.tfrecord", [{**sample, **teacher} for sample in parts[1]], packed=False)
    plain = write_records(records / "wiki_test_0.tfrecord", parts[2])
    (records / "wiki_test_0.tfrecord.gz").write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()
    vocabulary = write_vocabulary(tmp_path)
    convert("--input", records, "-o", output, "--vocab_file", vocabulary)
    printed = capsys.readouterr().out
    assert "left out: top_k_indices, truncated_masked_lm_probs" in printed and "3 shards written with 5010 samples" in printed
    names = ["train_shard_0.hdf5", "train_shard_1.hdf5", "test_shard_0.hdf5"]
    assert sorted(path.name for path in output.iterdir()) == sorted(names)
    for name, part in zip(names, parts, strict=True):
        assert_holds(output / name, part)
        info = read_info(output / name)
        assert info.split == name.split("_")[0] and info.has_nsp and info.masking == "static"
        assert info.attributes["mask_token_id"] == MASK and info.attributes["max_seq_length"] == LENGTH
        check_ids(info.path, info.attributes["vocab_size"])

    before = {name: (output / name).stat().st_mtime_ns for name in names}
    (output / names[1]).unlink()
    convert("--input", records, "-o", output, "--vocab_file", vocabulary)
    assert "1 shards written with 7 samples, 2 were there" in capsys.readouterr().out
    assert [before[name] == (output / name).stat().st_mtime_ns for name in names] == [True, False, True]
    with pytest.raises(UserError, match=r"shard_0\.hdf5 was made with cls_token_id 2, now it is None"):
        convert("--input", records, "-o", output)
    convert("--input", records / "wiki_train_2.tfrecord", "-o", output, "--overwrite")
    assert [path.name for path in output.iterdir()] == ["train_shard_0.hdf5"]
    assert "tokenizer_sha256" not in read_info(output / "train_shard_0.hdf5").attributes


def test_splits_are_of_whole_files_and_the_same_for_a_seed(tmp_path):
    records = tmp_path / "records"
    records.mkdir()
    for number in range(10):
        write_records(records / f"wiki_{number}.tfrecord", make_samples(2, number))
    chosen = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2), ("d", 3)):
        convert("--input", records, "-o", tmp_path / name, "--frac_test", "0.3", "--seed", seed)
        infos = [read_info(path) for path in (tmp_path / name).iterdir()]
        assert sorted(info.attributes["source"] for info in infos) == [f"wiki_{number}.tfrecord" for number in range(10)]
        chosen.append(sorted(info.attributes["source"] for info in infos if info.split == "test"))
        assert len(chosen[-1]) == 3
    assert chosen[0] == chosen[1] and len({tuple(names) for names in chosen}) > 1
    convert("--input", records, "-o", tmp_path / "all", "--split", "train")
    assert len(list((tmp_path / "all").glob("train_shard_*.hdf5"))) == 10
    train = write_records(tmp_path / "train.tfrecord", make_samples(2))
    for flags, message in (
        (["--input", records], "neither 'train' nor 'test' in its name"),
        (["--input", train, "--split", "test"], "is a train file by its name"),
        (["--input", train, "--frac_test", "0.5"], "is a train file by its name"),
        (["--input", records / "wiki_0.tfrecord", "--frac_test", "0.5"], "leaves none for training"),
        (["--input", train, train], "given twice"),
        (["--input", tmp_path / "none"], "no file or folder"),
        (["--input", tmp_path / "all"], r"holds no \*\.tfrecord"),
        (["--input", train, "--split", "train", "--frac_test", "0.5"], "both decide"),
        (["--input", train, "--min_length", "5"], "no flag of --format tfrecord"),
    ):
        with pytest.raises(UserError, match=message):
            convert(*flags, "-o", tmp_path / "x")
        assert not (tmp_path / "x").exists()


def changed(**features) -> dict[str, np.ndarray]:
    sample = make_samples(1)[0]
    sample.update({name: np.array(values) for name, values in features.items() if values is not None})
    return {name: values for name, values in sample.items() if features.get(name, 0) is not None}


ONES, SOME = [1] * LENGTH, [CLS, *[9] * (LENGTH - 2), SEP]
PREDICTED = {"masked_lm_positions": [2, 5, 7], "masked_lm_ids": [8, 8, 8], "masked_lm_weights": [1.0, 1, 1]}
FULL = {"input_ids": SOME, "input_mask": ONES, **PREDICTED}


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (changed(masked_lm_weights=None), "masked_lm_weights is missing among"),
        (changed(input_ids=[1.0] * LENGTH), "input_ids holds no int64_list"),
        (changed(segment_ids=[0] * 9), "segment_ids holds 9 numbers, record 0 16"),
        (changed(input_mask=[1, 0] * 8), "input_mask is not a run of 1"),
        (changed(input_mask=[0] * LENGTH), "input_mask has no 1"),
        (changed(**FULL | {"input_ids": [CLS, *[999] * 14, SEP]}), "input_ids has an id outside 0 to 61; is it another"),
        (changed(**FULL | {"input_ids": [9] * LENGTH}), "input_ids does not begin with the tokenizer's start token 2"),
        (changed(**FULL | {"input_ids": [CLS, *[9] * 15]}), "input_ids does not end with the tokenizer's separator 3"),
        (changed(**FULL | {"input_ids": [CLS, *[9] * 12, SEP, 7, 7], "input_mask": [1] * 14 + [0, 0]}), "padding is not id 0"),
        (changed(**FULL | {"segment_ids": [2] * LENGTH}), "segment_ids has a number"),
        (changed(**FULL | {"masked_lm_weights": [1.0, 0.5, 0]}), "masked_lm_weights has a number that is neither"),
        (changed(**FULL | {"masked_lm_weights": [1.0, 0, 1]}), "masked_lm_weights has a 1 after a 0"),
        (changed(**FULL | {"masked_lm_positions": [2, 5, 16]}), "masked_lm_positions has one outside"),
        (changed(**FULL | {"masked_lm_positions": [0, 5, 7]}), "masked_lm_positions has one outside"),
        (changed(**FULL | {"masked_lm_positions": [5, 5, 7]}), "masked_lm_positions is not ascending"),
        (changed(**FULL | {"masked_lm_ids": [8, -1, 8]}), "masked_lm_ids has an id outside"),
        (changed(**FULL | {"next_sentence_labels": [2]}), "next_sentence_labels is neither"),
    ],
)
def test_a_record_that_breaks_a_rule_is_named(tmp_path, monkeypatch, sample, message):
    monkeypatch.setattr("dataset.converters.examples.RECORDS_AT_A_TIME", 4)
    from dataset.converters.examples import convert_file, shard_attributes
    from dataset.sampling.attributes import tokenizer_attributes
    from dataset.tokenizer import load_tokenizer

    path = write_records(tmp_path / "train.tfrecord", [*make_samples(6), sample, *make_samples(5)])
    known = tokenizer_attributes(load_tokenizer(write_vocabulary(tmp_path)))
    target = tmp_path / "train_shard_0.hdf5"
    with pytest.raises(UserError, match=rf"train\.tfrecord: record 6: {message}"):
        convert_file(str(path), str(target), shard_attributes(path, "train", known, None))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["train.tfrecord", "vocab.txt"]


def test_what_stands_at_padded_predictions_does_not_count(tmp_path):
    path = write_records(tmp_path / "train.tfrecord", [changed(**FULL | {"masked_lm_weights": [1.0, 1, 0]})])
    convert("--input", path, "-o", tmp_path / "samples")
    with h5py.File(tmp_path / "samples" / "train_shard_0.hdf5") as file:
        assert file["masked_lm_positions"][0].tolist() == [2, 5, 0] and file["masked_lm_ids"][0].tolist() == [8, 8, 0]


def test_a_cut_or_damaged_file_is_named_with_its_record_and_costs_no_other(tmp_path):
    records, output = tmp_path / "records", tmp_path / "samples"
    records.mkdir()
    whole = write_records(records / "train_0.tfrecord", make_samples(4)).read_bytes()
    size = len(whole) // 4
    header = 2 * size + 3
    for name, content, message in (
        ("cut", whole[: 2 * size + 40], "was cut short in record 2"),
        ("cut_header", whole[: 2 * size + 5], "was cut short in record 2"),
        ("content", whole[: size + 100] + bytes([whole[size + 100] ^ 1]) + whole[size + 101 :], "record 1 has a wrong checksum;"),
        ("length", whole[:header] + bytes([whole[header] ^ 1]) + whole[header + 1 :], "record 2 has a wrong checksum of its length"),
        ("other", whole + _frame(b"\xff\xff\xff"), "record 4 is no tf.train.Example"),
    ):
        (records / f"train_{name}.tfrecord").write_bytes(content)
        with pytest.raises(UserError, match=message) as caught:
            convert("--input", records, "-o", output)
        assert f"train_{name}.tfrecord" in str(caught.value) and "\n" not in str(caught.value)
        assert [path.name for path in output.iterdir()] == ["train_shard_0.hdf5"]
        (records / f"train_{name}.tfrecord").unlink()
    for name, content, message in (
        ("train_1.tfrecord", b"", "holds no record"),
        ("train_1.tfrecord", b"plain text, no records in it", "record 0 has a wrong checksum of its length"),
        ("train_1.tfrecord.gz", gzip.compress(whole)[:200], "record 0 cannot be read"),
        ("train_1.tfrecord.gz", whole, "record 0 cannot be read"),
        ("train_1.tfrecord", _frame(example(changed(input_mask=[1] * 9))), "input_mask holds 9 numbers, expected 16"),
    ):
        (records / name).write_bytes(content)
        with pytest.raises(UserError, match=message):
            convert("--input", records, "-o", output)
        (records / name).unlink()
    short = [{key: values[: LENGTH // 2] if len(values) == LENGTH else values for key, values in one.items()} for one in make_samples(2)]
    write_records(records / "train_1.tfrecord", short)
    with pytest.raises(UserError, match=r"train_1\.tfrecord has samples of max_seq_length 8, .*train_0\.tfrecord of 16"):
        convert("--input", records, "-o", output)


def _frame(content: bytes) -> bytes:
    from io import BytesIO

    file = BytesIO()
    RecordWriter(file).write(content)
    return file.getvalue()


def test_the_checksum_is_the_published_one():
    from dataset.converters.tfrecord import masked_crc32c

    crc = 0xE3069283  # CRC-32C of "123456789", RFC 3720's check value
    assert masked_crc32c(b"123456789") == ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32


def test_masks_can_be_undone_after_conversion(tmp_path):
    from dataset.count_tokens import main as count

    samples = make_samples(50)
    write_records(tmp_path / "train.tfrecord", samples)
    convert("--input", tmp_path / "train.tfrecord", "-o", tmp_path / "samples", "--vocab_file", write_vocabulary(tmp_path))
    count(["--dir", str(tmp_path / "samples"), "-o", str(tmp_path / "counts.json")])
    counts = json.loads((tmp_path / "counts.json").read_text())["counts"]
    assert counts[MASK] == counts[PAD] == 0 and sum(counts) == sum(int(sample["input_mask"].sum()) for sample in samples)
