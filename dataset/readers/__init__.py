"""Sources of text: a table from the name of a `--type` to its reader, all with one interface (see `dataset.readers.source`)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dataset.readers.extracted import read_extracted
from dataset.readers.hub_datasets import read_dataset
from dataset.readers.json_lines import read_json_lines
from dataset.readers.plain import read_books, read_one_a_line, read_paragraphs, read_wikitext
from dataset.readers.source import Source
from dataset.readers.wiki_dump import read_dump

FILE, FOLDER, NAME = "file", "folder", "name"


@dataclass(frozen=True)
class Reader:
    """One kind of source."""

    read: Callable[[Source], Iterator[str]]
    takes: tuple[str, ...]  # what --file may be
    wants: str  # what it should hold, for help and messages
    flags: tuple[str, ...]  # the flags beyond --file, --output_dir and --type that it reads


READERS = {
    "wiki": Reader(read_dump, (FILE,), "a MediaWiki dump (.xml, .xml.bz2, .xml.gz, .xml.zst)", ("errors", "n_processes")),
    "wikiextractor": Reader(read_extracted, (FILE, FOLDER), "the output folder of wikiextractor, with or without --json", ("errors",)),
    "bookcorpus": Reader(read_books, (FOLDER,), "a folder of *.txt, one article each", ("errors",)),
    "text": Reader(read_paragraphs, (FILE, FOLDER), "text with blank lines between articles", ("errors",)),
    "lines": Reader(read_one_a_line, (FILE, FOLDER), "text with one article a line", ("errors",)),
    "wikitext": Reader(read_wikitext, (FILE,), "a file of WikiText, = Title = above each article", ("errors",)),
    "jsonl": Reader(read_json_lines, (FILE, FOLDER), "JSON lines with the text in --field", ("errors", "field")),
    "datasets": Reader(
        read_dataset,
        (FILE, FOLDER, NAME),
        "a data set of the datasets library: a saved folder, files, or a name on the hub",
        ("field", "dataset_split", "dataset_config"),
    ),
}
