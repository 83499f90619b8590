"""Files of masked samples as TFRecords (Google BERT's create_pretraining_data and its descendants) -> static shards, one for each file.

The rows are taken as they are: masked ids, positions, labels, NSP labels (1: the second text is a random one). Teacher outputs that were
stored beside them are left out: a teacher cache of this project holds the same for any student.
"""

from dataclasses import dataclass
from hashlib import file_digest
from itertools import islice
from pathlib import Path

import numpy as np

from dataset import shard_format as shards
from dataset.converters.tfrecord import FLOATS, INTEGERS, FeatureReader, read_records
from dataset.errors import UserError

WEIGHTS = "masked_lm_weights"
KINDS = {**dict.fromkeys(shards.SHAPES, INTEGERS), WEIGHTS: FLOATS}
TEACHER_OUTPUTS = ("truncated_masked_lm_probs", "top_k_indices", "masked_lm_probs")
RECORDS_AT_A_TIME = 4096
SUFFIXES = (".tfrecord", ".tfrecord.gz")
Attributes = dict[str, int | float | str]


@dataclass(frozen=True)
class Converted:
    """What became of a file."""

    samples: int
    left_out: tuple[str, ...]


def find_files(paths: list[Path]) -> list[Path]:
    """Files as given, and the *.tfrecord and *.tfrecord.gz directly in folders, in natural order."""
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            found = [file for file in path.iterdir() if file.name.endswith(SUFFIXES) and not file.name.startswith(".")]
            if not found:
                raise UserError(f"{path} holds no *.tfrecord and no *.tfrecord.gz; the files themselves can be named as well")
            files += sorted(found, key=shards.natural_key)
        elif path.is_file():
            files.append(path)
        else:
            raise UserError(f"no file or folder {path}")
    twice = next((file for file in files if sum(file.resolve() == other.resolve() for other in files) > 1), None)
    if twice:
        raise UserError(f"{twice} is given twice; once would work")
    return files


def assign_splits(files: list[Path], split: str | None, frac_test: float | None, seed: int) -> list[str]:
    """The split of each file, as its name says, or `split` for all, or a random share of the files for test.

    Never a share of the records: the copies of one text that dupe_factor made lie in one file, and would come to stand in both splits.
    """
    named = [shards.split_of(file.name) for file in files]
    for file, name in zip(files, named, strict=True):
        if split and name and name != split:
            raise UserError(f"{file} is a {name} file by its name, --split is {split}; another name or --split would work")
        if frac_test is not None and name:
            raise UserError(f"{file} is a {name} file by its name; without --frac_test names decide")
        if split is None and frac_test is None and name is None:
            raise UserError(f"{file} has neither 'train' nor 'test' in its name; --split train, --split test or --frac_test would work")
    if split:
        return [split] * len(files)
    if frac_test is None:
        return [str(name) for name in named]
    tests = max(1, round(frac_test * len(files))) if frac_test else 0
    if tests >= len(files):
        raise UserError(f"--frac_test {frac_test} of {len(files)} files leaves none for training; more files or --split would work")
    chosen = set(np.random.Generator(np.random.Philox(seed)).permutation(len(files))[:tests].tolist())
    return [shards.TEST if number in chosen else shards.TRAIN for number in range(len(files))]


def shard_attributes(file: Path, split: str, tokenizer: Attributes, seed: int | None) -> Attributes:
    """All that is known of the shard that a file becomes; `tokenizer` from `tokenizer_attributes` or empty."""
    widths = _read_widths(file)
    with file.open("rb") as content:
        sha256 = file_digest(content, "sha256").hexdigest()
    return {
        shards.ATTRIBUTE_VERSION: shards.FORMAT_VERSION,
        shards.ATTRIBUTE_SPLIT: split,
        shards.ATTRIBUTE_MASKING: shards.STATIC,
        **tokenizer,
        "max_seq_length": widths[shards.INPUT_IDS],
        "max_predictions_per_seq": widths[shards.POSITIONS],
        **({} if seed is None else {"seed": seed}),
        "source": file.name,
        "source_sha256": sha256,
    }


def _read_widths(file: Path) -> dict[str, int]:
    reader = FeatureReader(file, KINDS)
    for record in islice(read_records(file), 1):
        reader.add(record)
    if not reader.records:
        raise UserError(f"{file} holds no record; leave it out")
    length, predictions = reader.widths[shards.INPUT_IDS], reader.widths[shards.POSITIONS]
    expected = {"N": 1, "L": length, "P": predictions}
    for name, width in reader.widths.items():
        wanted = expected[shards.SHAPES.get(name, ("N", "P"))[-1]]
        if width != wanted or not width:
            raise UserError(f"{file}: record 0: {name} holds {width} numbers, expected {max(1, wanted)}")
    return reader.widths


def convert_file(source: str, target: str, attributes: Attributes) -> Converted:
    """Write the shard of one file, whole or not at all. Runs in a process of its own."""
    file = Path(source)
    reader = FeatureReader(file, KINDS)
    records = read_records(file)
    with shards.shard_writer(Path(target), attributes) as writer:
        while block := list(islice(records, RECORDS_AT_A_TIME)):
            start = reader.records
            for record in block:
                reader.add(record)
            writer.append(_checked(file, start, reader.take(), attributes))
    return Converted(reader.records, tuple(sorted(reader.others)))


def _checked(file: Path, start: int, arrays: dict[str, np.ndarray], attributes: Attributes) -> dict[str, np.ndarray]:
    """The columns of a shard; UserError names the first record that breaks a rule."""
    ids, mask, segments = (arrays[key] for key in shards.REQUIRED)
    weights, nsp = arrays.pop(WEIGHTS), arrays[shards.NSP_LABELS][:, 0]
    width = ids.shape[1]
    lengths = mask.sum(axis=1)
    is_used = weights == 1
    positions = np.where(is_used, arrays[shards.POSITIONS], 0)
    labels = np.where(is_used, arrays[shards.LABELS], 0)
    vocab_size = int(attributes.get(shards.ATTRIBUTE_VOCAB_SIZE, 2**31))
    is_real = np.arange(width) < lengths[:, None]
    pad, cls, sep = (attributes.get(f"{role}_token_id") for role in ("pad", "cls", "sep"))
    ends = ids[np.arange(len(ids)), np.clip(lengths - 1, 0, width - 1)]
    rules = (
        (mask == is_real, "input_mask is not a run of 1 and then 0"),
        (lengths > 0, "input_mask has no 1"),
        ((ids >= 0) & (ids < vocab_size), f"input_ids has an id outside 0 to {vocab_size - 1}; is it another tokenizer?"),
        (is_real | (ids == (pad or 0)), f"padding is not id {pad or 0}; is it another tokenizer?"),
        (ids[:, 0] == cls if cls is not None else lengths > 0, f"input_ids does not begin with the tokenizer's start token {cls}"),
        (ends == sep if sep is not None else lengths > 0, f"input_ids does not end with the tokenizer's separator {sep}"),
        ((segments == 0) | (segments == 1), "segment_ids has a number that is neither 0 nor 1"),
        (is_used | (weights == 0), f"{WEIGHTS} has a number that is neither 0 nor 1"),
        (is_used[:, 1:] <= is_used[:, :-1], f"{WEIGHTS} has a 1 after a 0"),
        (~is_used | ((positions > 0) & (positions < lengths[:, None])), "masked_lm_positions has one outside the tokens after the first"),
        (~is_used[:, 1:] | (positions[:, 1:] > positions[:, :-1]), "masked_lm_positions is not ascending"),
        (~is_used | ((labels >= 0) & (labels < vocab_size)), f"masked_lm_ids has an id outside 0 to {vocab_size - 1}"),
        ((nsp == 0) | (nsp == 1), "next_sentence_labels is neither 0 nor 1"),
    )
    broken = [(int(np.argmin(good.reshape(len(ids), -1).all(axis=1))), text) for good, text in rules if not good.all()]
    if broken:
        row, text = min(broken, key=lambda one: one[0])
        raise UserError(f"{file}: record {start + row}: {text}")
    return {**arrays, shards.POSITIONS: positions, shards.LABELS: labels, shards.NSP_LABELS: nsp}
