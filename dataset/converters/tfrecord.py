"""Reading files of TFRecords with `tf.train.Example` inside, without TensorFlow.

A record is its length (8 bytes), a checksum of that, the content, a checksum of that (tensorflow/core/lib/io/record_writer.h); checksums
are CRC-32C, rotated and shifted. The message is TensorFlow's example.proto, of which the parts that hold numbers are declared here for
protobuf to parse. Feature lists are kept flat and handed over as NumPy arrays for many records at a time.
"""

import gzip
import struct
import zlib
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

import google_crc32c
import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message

from dataset.errors import UserError
from dataset.files import reason

HEADER = struct.Struct("<QI")
CHECKSUM = struct.Struct("<I")
LARGEST_RECORD = 2**30  # a length beyond this is damage that its checksum happens to fit
INTEGERS, FLOATS = "int64_list", "float_list"


def read_records(path: Path) -> Iterator[bytes]:
    """The records of a file, gzip-compressed where its name ends so; UserError names file and record (from 0) that is cut or damaged."""
    number = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            while header := file.read(HEADER.size):
                yield _read_record(file, header, path, number)
                number += 1
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: record {number} cannot be read ({reason(error)}); copy the file anew") from error


def _read_record(file: IO[bytes], header: bytes, path: Path, number: int) -> bytes:
    if len(header) < HEADER.size:
        raise _cut(path, number)
    length, checksum = HEADER.unpack(header)
    if checksum != masked_crc32c(header[:8]) or length > LARGEST_RECORD:
        raise UserError(f"{path}: record {number} has a wrong checksum of its length; is it a TFRecord file? Copy or make it anew")
    content, trailer = file.read(length), file.read(CHECKSUM.size)
    if len(content) < length or len(trailer) < CHECKSUM.size:
        raise _cut(path, number)
    if CHECKSUM.unpack(trailer)[0] != masked_crc32c(content):
        raise UserError(f"{path}: record {number} has a wrong checksum; copy or make the file anew")
    return content


def _cut(path: Path, number: int) -> UserError:
    return UserError(f"{path} was cut short in record {number}; copy or make it anew")


def masked_crc32c(content: bytes) -> int:
    """CRC-32C, rotated right by 15 bits, plus a constant: checksums of data that holds checksums stay good."""
    crc = google_crc32c.value(content)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


class FeatureReader:
    """Parses Examples into arrays of fixed width; all records must have the widths of the first.

    `kinds`: feature name -> INTEGERS or FLOATS. After `add` of some records, `take` gives name -> (n, width) int64 or float32.
    """

    def __init__(self, path: Path, kinds: Mapping[str, str]) -> None:
        self.widths: dict[str, int] = {}
        self.others: set[str] = set()  # features beyond `kinds`
        self.records = 0  # in all
        self._path, self._kinds = path, kinds
        self._start()

    def _start(self) -> None:
        self._values = {name: array("q" if kind == INTEGERS else "f") for name, kind in self._kinds.items()}

    def add(self, record: bytes) -> None:
        """UserError names the file, the record and the feature that is missing or does not fit."""
        number = self.records
        try:
            features = {entry.key: entry.value for entry in _EXAMPLE.FromString(record).features.feature}
        except DecodeError as error:
            raise UserError(f"{self._path}: record {number} is no tf.train.Example; other records cannot be converted") from error
        for name, kind in self._kinds.items():
            if name not in features or not features[name].HasField(kind):
                found = f"{name} holds no {kind}" if name in features else f"{name} is missing among {sorted(features)}"
                raise UserError(f"{self._path}: record {number}: {found}; files of multifile_create_pretraining_data would work")
            values = getattr(features[name], kind).value
            width = self.widths.setdefault(name, len(values))
            if len(values) != width:
                raise UserError(
                    f"{self._path}: record {number}: {name} holds {len(values)} numbers, record 0 {width}; one length in a file would work"
                )
            self._values[name].extend(values)
        self.others.update(features.keys() - self._kinds.keys())
        self.records += 1

    def take(self) -> dict[str, np.ndarray]:
        """What was added since the last time."""
        types = {INTEGERS: np.int64, FLOATS: np.float32}
        arrays = {
            name: np.frombuffer(values, dtype=types[self._kinds[name]]).reshape(-1, max(1, self.widths[name]))
            for name, values in self._values.items()
        }
        self._start()
        return arrays


def _example_class() -> type[Message]:
    """The class of tf.train.Example, its map of features declared as the list of entries that it is on the wire."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="example", syntax="proto3")
    messages = {
        "Int64List": [("value", 1, field.TYPE_INT64, True)],
        "FloatList": [("value", 1, field.TYPE_FLOAT, True)],
        "Feature": [(FLOATS, 2, ".example.FloatList", False), (INTEGERS, 3, ".example.Int64List", False)],
        "Entry": [("key", 1, field.TYPE_STRING, False), ("value", 2, ".example.Feature", False)],
        "Features": [("feature", 1, ".example.Entry", True)],
        "Example": [("features", 1, ".example.Features", False)],
    }
    for message, fields in messages.items():
        declared = file.message_type.add(name=message)
        for name, number, kind, repeated in fields:
            label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
            if isinstance(kind, str):
                declared.field.add(name=name, number=number, label=label, type=field.TYPE_MESSAGE, type_name=kind)
            else:
                declared.field.add(name=name, number=number, label=label, type=kind)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("example.Example"))


_EXAMPLE = _example_class()
