"""Movie-review snippets with a sentiment score, brought into SST-2's official layout with a held-out split.

The score is the mean of about 20 raters on a scale from -4 to 4; its sign is the label. Snippets within 0.8 of 0 are left out: SST-2
leaves out the middle fifth of its scale too (0.4 to 0.6 of 0 to 1), and these are where the raters themselves disagree.

The split hashes the text, not a shuffled position: the same words are always on one side, whatever else is in the file. The hash is also
the order, because the source lists the positive snippets first and the first N of a file must be a fair sample. Most snippets are sentences
of SST itself, so a model trained on these must never be scored on SST-2.
"""

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

from dataset.errors import UserError
from dataset.files import whole_folder

NEUTRAL = 0.8
HELD_OUT_SHARE = 0.2
HEADER = "sentence\tlabel"


def read_snippets(path: Path) -> list[tuple[str, float]]:
    """(text, score) per line `id <tab> score <tab> text`, white space made single spaces; UserError names the first broken line."""
    snippets = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        columns = line.split("\t")
        try:
            _, score, text = columns
            snippets.append((" ".join(text.split()), float(score)))
        except ValueError:
            raise UserError(f"{path}, line {number}: expected id, score and text between tabs, found {len(columns)} columns") from None
    return snippets


def split_snippets(snippets: Iterable[tuple[str, float]]) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """(train, held out) as (text, label): 1 positive, 0 negative, neutral ones dropped, every wording once, in the order of its hash.

    Two texts that differ in case and punctuation alone are one wording; the first one counts.
    """
    by_hash: dict[bytes, tuple[str, int]] = {}
    for text, score in snippets:
        wording = re.sub(r"[\W_]+", " ", text.lower()).strip()
        if abs(score) >= NEUTRAL and wording:
            by_hash.setdefault(hashlib.sha256(wording.encode()).digest(), (text, int(score > 0)))
    border = int(HELD_OUT_SHARE * 2**64).to_bytes(8, "big")
    held_out = [example for digest, example in sorted(by_hash.items()) if digest < border]
    train = [example for digest, example in sorted(by_hash.items()) if digest >= border]
    return train, held_out


def write_sst2(source: Path, glue_dir: Path) -> tuple[int, int]:
    """`glue_dir`/SST-2/train.tsv and dev.tsv from the score file `source`, whole or not at all; returns their numbers of examples."""
    train, held_out = split_snippets(read_snippets(source))
    with whole_folder(glue_dir / "SST-2") as partial:
        for name, examples in (("train.tsv", train), ("dev.tsv", held_out)):
            lines = [HEADER, *(f"{text}\t{label}" for text, label in examples)]
            (partial / name).write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
    return len(train), len(held_out)
