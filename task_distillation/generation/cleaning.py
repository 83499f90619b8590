"""From drawn texts to a transfer set: what is empty, an original or a repetition is left out, and counted."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import xxhash

from evaluation.tasks.task import TaskData
from task_distillation.generation.parts import part_path, read_part
from task_distillation.transfer_set import plain_text, text_columns, transfer_writer


@dataclass
class Counts:
    """`drawn` = `unfinished` + `unused` + `empty` + `equal_to_original` + `repeated` + `kept`; `rows` = `originals` + `kept`.

    `unused`: finished texts of the last chunk beyond those asked for. `empty`: rows with an empty side. `originals`: training rows that
    were written, `empty_originals` those that have an empty side.
    """

    drawn: int = 0
    unfinished: int = 0
    unused: int = 0
    empty: int = 0
    equal_to_original: int = 0
    repeated: int = 0
    kept: int = 0
    originals: int = 0
    empty_originals: int = 0
    rows: int = 0

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


def write_transfer_set(path: Path, data: TaskData, folder: Path, chunks: int, num_samples: int, keep_originals: bool) -> Counts:
    """Write the first `num_samples` finished texts of the chunks in `folder` to `path`, without those that are no new rows.

    With `keep_originals` the training texts come first, with their labels, each as often as it occurs.
    """
    counts, train = Counts(), data.train
    originals, seen = set(), set()
    with transfer_writer(path, data.task) as writer:
        for number, row in enumerate(zip(*train.texts, strict=True)):
            texts = [plain_text(text) for text in row]
            if not all(texts):
                counts.empty_originals += 1
                continue
            originals.add(_key(texts))
            if keep_originals:
                writer.write(texts, train.labels[number])
                counts.originals += 1
        sides = len(text_columns(data.task))
        for texts in islice(_texts(folder, chunks, counts), num_samples):
            key = _key(texts)
            if len(texts) != sides or not all(texts):
                counts.empty += 1
            elif key in originals:
                counts.equal_to_original += 1
            elif key in seen:
                counts.repeated += 1
            else:
                seen.add(key)
                writer.write(texts)
                counts.kept += 1
        counts.rows = writer.rows
    counts.unused = counts.drawn - counts.unfinished - num_samples
    return counts


def _texts(folder: Path, chunks: int, counts: Counts) -> Iterator[list[str]]:
    parts: Iterable[Path] = (part_path(folder, number) for number in range(chunks))
    for path in parts:
        part = read_part(path)
        counts.drawn += part["drawn"]
        counts.unfinished += part["unfinished"]
        yield from part["texts"]


def _key(texts: Sequence[str]) -> bytes:
    return xxhash.xxh3_128_digest("\t".join(texts).encode("utf-8", "surrogatepass"))
