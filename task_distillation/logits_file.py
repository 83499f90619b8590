"""A teacher's logits for every row of a transfer set, in a file of their own: Parquet, or TSV for people. A join cannot slip.

Columns: `row` (int64, from 0, in order), `text_hash` (`transfer_set.text_hash` of the row's texts), `logits_0`, `logits_1`, ... (fp32, in
the order of the task's classes; a regression has `logits_0` alone). The row's number shows a row that is missing or out of order, the hash
a text that was edited or belongs elsewhere; both files are read in chunks, so that neither has to fit into memory. A TSV's numbers have 9
significant digits, which read back as the same fp32.

Damage is noticed before a number is used: where `label`'s record lies beside the file (FILE.json) by the hash in it, elsewhere by the
checksums of Parquet's pages and by the line end that closes a TSV. A digit that changed in a TSV without its record shows nowhere.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dataset.errors import UserError, one_line
from dataset.files import file_hash, reason, whole_file
from evaluation.tasks.task import Task
from task_distillation.record import read_record, record_path
from task_distillation.transfer_set import LOGITS, SHOWN, TransferRow, text_hash

ROW, HASH = "row", "text_hash"
PARQUET, TSV = ".parquet", ".tsv"
CHUNK_ROWS = 65536
AGAIN = "label the transfer set again, or give the one that was labelled"


@dataclass(frozen=True)
class LogitsChunk:
    """Rows `first` to `first` + n - 1: their text hashes, n of them, and `values`, fp32 (n, outputs)."""

    first: int
    hashes: list[str]
    values: np.ndarray


def logits_columns(task: Task) -> list[str]:
    """The names of the columns of numbers, one for each output of `task`."""
    return [f"{LOGITS}{number}" for number in range(task.outputs)]


def check_logits_name(path: Path) -> None:
    """UserError unless the name of `path` tells one of the two formats."""
    if path.suffix.lower() not in (PARQUET, TSV):
        raise UserError(f"{path}: its name does not tell its format; {path.stem}{PARQUET} or {path.stem}{TSV} would work")


@contextmanager
def logits_writer(path: Path, task: Task) -> Iterator["LogitsWriter"]:
    """Write logits to `path`, which appears whole at the end or not at all; UserError where it cannot be written."""
    check_logits_name(path)
    try:
        with whole_file(path) as partial:
            if path.suffix.lower() == TSV:
                with partial.open("w", encoding="utf-8", newline="\n") as stream:
                    yield _TsvWriter(stream, task)
            else:
                with pq.ParquetWriter(partial, _schema(task), compression="zstd", write_page_checksum=True) as inner:
                    yield _ParquetWriter(inner)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({reason(error)}); choose another place") from None


class LogitsWriter(Protocol):
    """Takes chunks in the order of their rows."""

    def write(self, chunk: LogitsChunk) -> None: ...


class _TsvWriter:
    def __init__(self, stream: TextIO, task: Task) -> None:
        self._stream = stream
        stream.write("\t".join((ROW, HASH, *logits_columns(task))) + "\n")

    def write(self, chunk: LogitsChunk) -> None:
        rows = zip(chunk.hashes, chunk.values.tolist(), strict=True)
        self._stream.writelines("\t".join((str(number), text, *(f"{value:.9g}" for value in values))) + "\n"
                                for number, (text, values) in enumerate(rows, start=chunk.first))


class _ParquetWriter:
    """Every chunk becomes a row group."""

    def __init__(self, inner: pq.ParquetWriter) -> None:
        self._inner = inner

    def write(self, chunk: LogitsChunk) -> None:
        rows = np.arange(chunk.first, chunk.first + len(chunk.hashes), dtype=np.int64)
        columns = [rows, chunk.hashes, *np.ascontiguousarray(chunk.values.T, np.float32)]
        schema = self._inner.schema
        self._inner.write_table(pa.table([pa.array(column, kind) for column, kind in zip(columns, schema.types, strict=True)], schema))


def _schema(task: Task) -> pa.Schema:
    return pa.schema([(ROW, pa.int64()), (HASH, pa.string()), *((name, pa.float32()) for name in logits_columns(task))])


def read_logits(path: Path, task: Task) -> Iterator[LogitsChunk]:
    """Every row of the file in its order, in chunks.

    UserError with file and row for a file that cannot be read, lacks a column or has other outputs than the task, for row numbers that are
    not 0, 1, 2, ..., for a value that is missing or not a finite number and for a file that is not the one its record tells of.
    """
    check_logits_name(path)
    try:
        _check_unchanged(path)
        if not path.stat().st_size:
            raise UserError(f"{path}: the file is empty; a file that `label` wrote would work")
        yield from _read_tsv(path, task) if path.suffix.lower() == TSV else _read_parquet(path, task)
    except OSError as error:
        raise UserError(f"{path}: {reason(error)}; a file of logits that can be read would work") from None


def _check_unchanged(path: Path) -> None:
    record = record_path(path)
    if (found := read_record(record)) is not None and file_hash(path) != found.get("xxh3"):
        raise UserError(f"{path}: damaged or edited since {record.name} beside it was written; copy both again, or label the transfer set "
                        f"again")


def join(rows: Iterable[TransferRow], path: Path, task: Task) -> Iterator[TransferRow]:
    """`rows` with the logits that the file at `path` has for them; `rows` must be the whole transfer set, in its order.

    UserError with file and row where the file has another text, fewer rows or more, and as from `read_logits`.
    """
    logits = ((chunk.first + at, chunk.hashes[at], values) for chunk in read_logits(path, task)
              for at, values in enumerate(chunk.values.tolist()))
    number = -1
    for number, row in enumerate(rows):
        _, found, values = next(logits, (number, None, None))
        if found is None:
            raise UserError(f"{path}: ends before row {number}, which the transfer set has ({_shown(row)}); {AGAIN}")
        if found != text_hash(row.texts):
            raise UserError(f"{_at(path, number)}: logits of another text (hash {found}) than row {number} of the transfer set, "
                            f"{_shown(row)} (hash {text_hash(row.texts)}); {AGAIN}")
        yield replace(row, logits=tuple(values))
    if (more := next(logits, None)) is not None:
        raise UserError(f"{_at(path, more[0])}: the transfer set ends before this row, it has {number + 1}; {AGAIN}")


def _shown(row: TransferRow) -> str:
    return repr(" | ".join(row.texts)[:SHOWN])


def _at(path: Path, row: int) -> str:
    return f"{path}, row {row}" + (f" (line {row + 2})" if path.suffix.lower() == TSV else "")


def _check_columns(path: Path, found: list[str], task: Task) -> None:
    wanted = [ROW, HASH, *logits_columns(task)]
    if missing := [name for name in (ROW, HASH) if name not in found]:
        raise UserError(f"{path}: found columns {', '.join(found)[:SHOWN]!r} and no {missing[0]!r}; a file that `label` wrote would work")
    given = [name for name in found if name.startswith(LOGITS)]
    if sorted(given) != sorted(wanted[2:]):
        raise UserError(f"{path}: found {', '.join(given)[:SHOWN] or 'no logits'}; {task.name} has {task.outputs} outputs: "
                        f"{', '.join(wanted[2:])[:SHOWN]}")


def _checked(path: Path, first: int, rows: np.ndarray, hashes: list[str], values: np.ndarray) -> LogitsChunk:
    """The chunk that begins with row `first`; UserError for the first row that has another number or a value that is not finite."""
    expected = np.arange(first, first + len(rows))
    wrong = np.flatnonzero((rows != expected) | ~np.isfinite(values).all(axis=1))
    if len(wrong):
        at = int(wrong[0])
        if rows[at] != expected[at]:
            raise UserError(f"{_at(path, first + at)}: its number is {rows[at]}, so a row is missing, out of order or there twice; {AGAIN}")
        raise UserError(f"{_at(path, first + at)}: logits that are not all finite numbers ({', '.join(map(str, values[at]))[:SHOWN]}); "
                        f"label the transfer set again")
    return LogitsChunk(first, hashes, values)


def _read_parquet(path: Path, task: Task) -> Iterator[LogitsChunk]:
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            _check_columns(path, file.schema_arrow.names, task)
            first = 0
            for batch in file.iter_batches(CHUNK_ROWS, columns=[ROW, HASH, *logits_columns(task)]):
                if empty := next((name for name in batch.schema.names if batch[name].null_count), None):
                    at = batch[empty].is_null().to_pylist().index(True)
                    raise UserError(f"{_at(path, first + at)}: nothing under {empty!r}; label the transfer set again")
                rows = batch[ROW].cast(pa.int64()).to_numpy()
                values = np.stack([batch[name].cast(pa.float32()).to_numpy() for name in logits_columns(task)], axis=1)
                yield _checked(path, first, rows, batch[HASH].cast(pa.string()).to_pylist(), values)
                first += len(rows)
    except pa.ArrowException as error:
        raise UserError(f"{path}: not a Parquet file of logits ({one_line(error)[:SHOWN]}); it is damaged or another format") from None


def _read_tsv(path: Path, task: Task) -> Iterator[LogitsChunk]:
    names = [ROW, HASH, *logits_columns(task)]
    with path.open(encoding="utf-8-sig", errors="replace", newline="\n") as stream:
        columns = stream.readline().rstrip("\r\n").split("\t")
        _check_columns(path, columns, task)
        order = [columns.index(name) for name in names]
        first, lines = 0, []
        for line in stream:
            lines.append(line)
            if len(lines) == CHUNK_ROWS:
                yield _tsv_chunk(path, first, lines, len(columns), order)
                first, lines = first + len(lines), []
        if lines:
            yield _tsv_chunk(path, first, lines, len(columns), order)


def _tsv_chunk(path: Path, first: int, lines: list[str], width: int, order: list[int]) -> LogitsChunk:
    rows, hashes = np.zeros(len(lines), np.int64), []
    values = np.zeros((len(lines), len(order) - 2), np.float64)
    for at, line in enumerate(lines):
        if not line.endswith("\n"):
            raise UserError(f"{_at(path, first + at)}: no line end, so its end may be lost; label the transfer set again, or end the line "
                            f"if it is whole")
        cells = line.rstrip("\r\n").split("\t")
        if len(cells) != width:
            raise UserError(f"{_at(path, first + at)}: found {len(cells)} columns, expected {width}")
        number, text, *numbers = (cells[place] for place in order)
        try:
            if any("_" in word for word in (number, *numbers)):  # which Python reads as nothing
                raise ValueError
            rows[at], values[at] = int(number), [float(word) for word in numbers]
        except (ValueError, OverflowError):
            raise UserError(f"{_at(path, first + at)}: {line.strip()[:SHOWN]!r} holds what is no number") from None
        hashes.append(text)
    with np.errstate(over="ignore"):  # what is too large for fp32 is found to be infinite
        return _checked(path, first, rows, hashes, values.astype(np.float32))
