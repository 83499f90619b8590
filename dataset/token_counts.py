"""The file of token counts: how often each token of a vocabulary stands in a corpus, special tokens included.

JSON, because it is small (a number for each token of the vocabulary) and people look into it. `count_tokens` and `convert_samples` write
it, the trainer reads it to mask rare tokens more often.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataset.errors import UserError, one_line
from dataset.files import reason, write_text

FORMAT_VERSION = 1
ADVICE = "count_tokens makes such a file"


@dataclass(frozen=True)
class TokenCounts:
    """`counts` (vocab_size,) int64; `tokenizer_sha256` None and `samples` None where what was counted did not tell."""

    counts: np.ndarray
    tokenizer_sha256: str | None
    samples: int | None
    source: tuple[str, ...]

    @property
    def vocab_size(self) -> int:
        return len(self.counts)


def write_token_counts(
    path: str | Path,
    counts: np.ndarray | Sequence[int],
    *,
    tokenizer_sha256: str | None = None,
    samples: int | None = None,
    source: Sequence[str] = (),
) -> None:
    """Write `counts` (vocab_size,), integers of 0 or more, whole or not at all; `source` names the files that were counted."""
    numbers = [int(count) for count in counts]
    fields = {
        "format_version": FORMAT_VERSION,
        "tokenizer_sha256": tokenizer_sha256,
        "vocab_size": len(numbers),
        "samples": samples,
        "tokens": sum(numbers),
        "source": list(source),
        "counts": numbers,
    }
    path = Path(path)
    try:
        write_text(path, "{\n" + ",\n".join(f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in fields.items()) + "\n}\n")
    except OSError as error:
        raise UserError(f"{path} cannot be written ({reason(error)}); a folder that exists and has room would work") from error


def read_token_counts(path: str | Path) -> TokenCounts:
    """The counts in `path`; UserError says in one line what is wrong with it."""
    path = Path(path).expanduser()
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise UserError(f"no file of token counts {path}; {ADVICE}") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({reason(error)}); {ADVICE}") from error
    except ValueError as error:  # no JSON, or no UTF-8
        raise UserError(f"{path} is no JSON ({one_line(error)[:200]}); {ADVICE}, convert_samples one of a pickle") from error
    if not isinstance(value, dict) or not isinstance(value.get("counts"), list):
        raise UserError(f"{path} has no list 'counts'; {ADVICE}")
    if value.get("format_version") != FORMAT_VERSION:
        raise UserError(f"{path}: format_version is {value.get('format_version')!r}, expected {FORMAT_VERSION}; {ADVICE}")
    counts, sha256, samples, source = (value.get(name) for name in ("counts", "tokenizer_sha256", "samples", "source"))
    if not counts or value.get("vocab_size") != len(counts):
        raise UserError(f"{path}: vocab_size is {value.get('vocab_size')!r} and counts holds {len(counts)} numbers; {ADVICE}")
    for token_id, count in enumerate(counts):
        if type(count) is not int or not 0 <= count < 2**63:
            raise UserError(f"{path}: the count of token {token_id} is {str(count)[:40]!r}, expected a whole number of 0 or more; {ADVICE}")
    for name, found, kind in (("tokenizer_sha256", sha256, str), ("samples", samples, int)):
        if not isinstance(found, kind | None):
            raise UserError(f"{path}: {name} is {str(found)[:40]!r}, expected {kind.__name__} or null; {ADVICE}")
    if not isinstance(source, list) or not all(isinstance(name, str) for name in source):
        raise UserError(f"{path}: source is {str(source)[:40]!r}, expected a list of names; {ADVICE}")
    return TokenCounts(np.array(counts, dtype=np.int64), sha256, samples, tuple(source))
