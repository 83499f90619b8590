"""How the tests of process_data's readers write their inputs and read what it wrote."""

import bz2
import gzip
from pathlib import Path

import zstandard

from dataset import process_data

COMPRESS = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".zst": zstandard.ZstdCompressor(write_checksum=True).compress}


def write(path: Path, content: str | bytes) -> Path:
    """Write `content` to `path`, compressed as its suffix says; makes its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(COMPRESS.get(path.suffix, bytes)(data))
    return path


def articles(kind: str, file: Path, output: Path, *flags: str) -> list[str]:
    """Run process_data in this process; the articles it wrote, each on its line with a blank line after it."""
    process_data.main(["-f", str(file), "-o", str(output), "--type", kind, *flags])
    text = (output / f"{kind}_one_article_per_line.txt").read_bytes().decode()
    assert text.endswith("\n\n")
    return text[:-2].split("\n\n")
