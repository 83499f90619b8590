"""What stands beside the results: JSON that says what decided them, so that a run goes on only with what is its own."""

import json
from pathlib import Path
from typing import Any

from dataset.errors import UserError
from dataset.files import reason

WORDS = {"data_sha256": "other data", "source_sha256": "another language model", "language_model_sha256": "another language model",
         "prefixes_sha256": "other first tokens"}


def read_record(path: Path) -> dict[str, Any] | None:
    """The JSON object in `path`, None where there is no such file; UserError where it is something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path}: {reason(error)}; a folder that can be read would work") from None
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or not isinstance(content.get("identity"), dict):
        raise UserError(f"{path}: not what this command wrote; give another --output_dir")
    return content


def check_same(path: Path, there: dict[str, Any], wanted: dict[str, Any]) -> None:
    """UserError where what `path` records was decided by something else than `wanted`."""
    name = next((name for name in {**wanted, **there} if there.get(name) != wanted.get(name)), None)
    if name is not None:
        what = WORDS.get(name, f"another {name} ({str(there.get(name))[:60]}, not {str(wanted.get(name))[:60]})")
        raise UserError(f"--output_dir {path.parent}: {path.name} there is of {what}; give another folder, or remove this one")
