"""Any data set that the `datasets` library reads: saved by `save_to_disk`, local files, or a name on the Hugging Face hub.

Local files and hub sets are streamed, so nothing is copied into a cache; what `save_to_disk` wrote is mapped into memory, which the system
takes back when it needs it. The library runs no code of a data set (it dropped loading scripts in version 4). With HF_HUB_OFFLINE=1 a name
is looked up in the library's own cache.
"""

import sys
from collections.abc import Iterator
from typing import Any

from dataset.errors import UserError, one_line
from dataset.hub import SHOWN, check_on_hub
from dataset.progress import progress
from dataset.readers.source import MAX_ARTICLE, SPLIT, Source

BUILDERS = {
    ".parquet": "parquet",
    ".jsonl": "json",
    ".json": "json",
    ".ndjson": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "text",
    ".arrow": "arrow",
}
ROWS = 256  # in memory at a time


def read_dataset(source: Source) -> Iterator[str]:
    """The field `source.field` of every row of the split, in the order of rows; a null is an empty article."""
    import datasets

    name = str(source.path)
    try:
        rows = _load(datasets, source)
    except UserError:
        raise
    except Exception as error:  # whatever the library's many readers raise
        raise UserError(f"datasets cannot open {name}: {one_line(error)[:SHOWN]}") from error
    number = 0
    with progress(total=getattr(rows, "num_rows", None), unit=" rows", unit_scale=True, desc=source.path.name) as bar:
        for batch in _batches(rows, name):
            count = len(next(iter(batch.values())))
            texts = batch.get(source.field)
            if texts is None:
                raise UserError(f"{name}: no field {source.field}; its fields are {', '.join(batch)}")
            for text in texts:
                number += 1
                yield _checked(name, number, text, source)
            bar.update(count)


def _checked(name: str, number: int, text: object, source: Source) -> str:
    if text is None:
        return ""
    if not isinstance(text, str):
        raise UserError(f"{name}, row {number}: the field {source.field} is of type {type(text).__name__}; a field of text would work")
    if len(text) > MAX_ARTICLE:
        raise UserError(f"{name}, row {number}: one article of more than {MAX_ARTICLE >> 20} MB; one article a row would work")
    return text


def _batches(rows: Any, name: str) -> Iterator[dict[str, list]]:
    try:
        yield from rows.iter(batch_size=ROWS)
    except Exception as error:
        raise UserError(f"datasets cannot read {name} to its end: {one_line(error)[:SHOWN]}") from error


def _load(datasets: Any, source: Source) -> Any:
    path, split = source.path, source.dataset_split
    if not path.exists():
        return _load_from_hub(datasets, source)
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # it would say before us, in its own words, what is wrong with a file
    if (path / "dataset_dict.json").exists():
        _say_no_config(source, "what save_to_disk wrote has no configurations")
        splits = datasets.load_from_disk(str(path))
        if split not in splits:
            raise UserError(f"{path} has no split {split}; --dataset_split {' or '.join(splits)} would work")
        return _project(splits[split], source)
    if (path / "state.json").exists():
        _say_no_config(source, "what save_to_disk wrote has no configurations")
        _say_no_split(source)
        return _project(datasets.load_from_disk(str(path)), source)
    if path.is_dir():
        return _project(datasets.load_dataset(str(path), source.dataset_config, split=split, streaming=True), source)
    suffixes = [suffix for suffix in path.suffixes if suffix in BUILDERS]
    if not suffixes:
        raise UserError(f"{path}: datasets reads a file by its name; one that ends in {', '.join(BUILDERS)} would work")
    _say_no_config(source, "a file has no configurations")
    _say_no_split(source)
    options = {"sep": "\t"} if suffixes[-1] == ".tsv" else {}
    files = {split: str(path)}
    return _project(datasets.load_dataset(BUILDERS[suffixes[-1]], data_files=files, split=split, streaming=True, **options), source)


def _load_from_hub(datasets: Any, source: Source) -> Any:
    """Streamed from the hub; from the library's cache where HF_HUB_OFFLINE is set."""
    name = str(source.path)
    check_on_hub("--file", name, "a path, a name such as wikimedia/wikipedia with network, or HF_HUB_OFFLINE=1 for a set in the cache")
    return _project(datasets.load_dataset(name, source.dataset_config, split=source.dataset_split, streaming=True), source)


def _project(rows: Any, source: Source) -> Any:
    """Only the field that is read, where the library knows the fields before the first row."""
    known = rows.column_names
    if known and source.field not in known:
        raise UserError(f"{source.path}: no field {source.field}; its fields are {', '.join(known)}")
    return rows.with_format(None).select_columns([source.field]) if known else rows


def _say_no_config(source: Source, why: str) -> None:
    if source.dataset_config is not None:
        print(f"no effect: --dataset_config: {why}", file=sys.stderr)


def _say_no_split(source: Source) -> None:
    if source.dataset_split != SPLIT:
        print(f"no effect: --dataset_split: {source.path} is one split", file=sys.stderr)
