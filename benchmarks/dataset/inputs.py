"""The text that the parts of `benchmarks.dataset` work on: articles, one a line, as they are or repeated to a size."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import cycle
from pathlib import Path

from benchmarks.dataset.commands import run, script
from dataset.errors import UserError

NO_TEST_SPLIT = ("--num_train_shards", 1, "--num_test_shards", 0, "--frac_test", 0)


@dataclass(frozen=True)
class Inputs:
    """`articles`: the text, one string each; `work`: a folder for whatever is made; `rounds`: turns that every timed thing has."""

    articles: list[str]
    vocab_file: Path
    work: Path
    rounds: int

    @cached_property
    def article_folder(self) -> Path:
        """A folder with all articles in one file, as process_data leaves them."""
        return write_articles(self.work / "articles", self.articles)

    @cached_property
    def shard_folder(self) -> Path:
        """A folder with all articles in one text shard, made by shard_data."""
        return make_shard(self.article_folder, self.work / "shards")


def read_articles(files: Sequence[Path]) -> list[str]:
    """Every line with text of `files`; UserError where a file is missing or none has text."""
    articles = []
    for path in files:
        if not path.is_file():
            raise UserError(f"--text {path} is no file; one with an article a line would work, such as process_data writes")
        articles += [line.strip() for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    if not articles:
        raise UserError(f"--text {files[0]} holds no text; one article a line would work")
    return articles


def write_articles(folder: Path, articles: Sequence[str], size: int | None = None) -> Path:
    """`articles` in one file of `folder`, one a line and a blank line after each; repeated until there are `size` bytes, if given."""
    folder.mkdir(parents=True)
    with (folder / "benchmark_one_article_per_line.txt").open("wb") as file:
        for article in articles if size is None else cycle(articles):
            file.write(f"{article}\n\n".encode())
            if size is not None and file.tell() >= size:
                break
    return folder


def make_shard(article_folder: Path, folder: Path) -> Path:
    """All articles in one text shard below `folder`."""
    run(script("shard_data", "--dir", article_folder, "-o", folder, *NO_TEST_SPLIT, "--n_processes", 1))
    return folder


def bytes_below(folder: Path) -> int:
    """Bytes of all files below `folder`."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
