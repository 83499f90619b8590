"""A small made-up corpus for the data tests: a WordPiece vocabulary, articles of known sentences, a MediaWiki dump."""

import random
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
UNUSED = ["[unused0]", "[unused1]"]
STEMS = [first + second for first in ("ba", "do", "ki", "lu", "me") for second in ("ra", "so", "ti", "nu", "pe")]
WORDS = [*STEMS, *(stem.capitalize() for stem in STEMS), "##s", "##ed", ".", "!", ","]


def write_vocabulary(folder: Path, words: list[str] = WORDS) -> Path:
    """A cased WordPiece `vocab.txt` in `folder`; returns the file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "vocab.txt"
    path.write_text("\n".join([*SPECIAL, *UNUSED, *words]) + "\n", encoding="utf-8")
    return path


def make_sentences(count: int, rng: random.Random) -> list[str]:
    """Sentences of two to twelve words that a sentence splitter takes apart again."""
    sentences = []
    for _ in range(count):
        words = [rng.choice(STEMS) + rng.choice(["", "", "s", "ed"]) for _ in range(rng.randint(2, 12))]
        sentences.append(" ".join(words).capitalize() + rng.choice([".", "!"]))
    return sentences


def make_articles(count: int, seed: int = 0) -> list[list[str]]:
    """Articles of 1 to 25 sentences; the first sentence names the article ("Bara no 7."), so it can be recognised."""
    rng = random.Random(seed)
    return [[f"Bara no {number}.", *make_sentences(rng.randint(0, 24), rng)] for number in range(count)]


def write_articles(path: Path, articles: list[list[str]]) -> None:
    """One article a line with a blank line after each, as process_data writes them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(" ".join(sentences) + "\n\n" for sentences in articles), encoding="utf-8")


def write_text_shard(path: Path, articles: list[list[str]]) -> None:
    """One sentence a line with a blank line after each article, as shard_data writes them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join("\n".join(sentences) + "\n\n" for sentences in articles), encoding="utf-8")


def read_text_shard(path: Path) -> list[list[str]]:
    """Articles of a text shard as lists of sentences."""
    return [article.split("\n") for article in path.read_text(encoding="utf-8").split("\n\n") if article]


def wait_and_return(seconds: float, value: object) -> object:
    """A job for another process."""
    time.sleep(seconds)
    return value


def run_script(name: str, *flags: object, **options) -> subprocess.CompletedProcess:
    """Run `dataset/{name}.py` by path with `flags`; returns the finished process with its output as text."""
    command = [sys.executable, str(ROOT / "dataset" / f"{name}.py"), *map(str, flags)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


def folder_bytes(folder: Path) -> dict[str, bytes]:
    """File name -> content of every file in `folder`, hidden ones too."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
