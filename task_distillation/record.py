"""The JSON beside a result that says what decided it: nothing is made twice, and nothing of another making is taken or replaced."""

import json
from pathlib import Path
from typing import Any

from dataset.errors import UserError
from dataset.files import file_hash, reason, write_json

WORDS = {"data_sha256": "other data", "source_sha256": "another language model", "language_model_sha256": "another language model",
         "prefixes_sha256": "other first tokens", "teacher_sha256": "another teacher", "texts": "another transfer set",
         "rows": "another transfer set"}
"""What another value of a part of an identity is, where the value itself would say nothing."""


def record_path(output: Path) -> Path:
    """Where the record of one file lies."""
    return output.with_name(f"{output.name}.json")


def read_record(path: Path) -> dict[str, Any] | None:
    """The record in `path`, with its "identity", a JSON object; None where there is no such file. UserError where it is something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path}: {reason(error)}; a file that can be read would work") from None
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or not isinstance(content.get("identity"), dict):
        raise UserError(f"{path}: not what this command writes; remove it, or give another place")
    return content


def write_record(output: Path, content: dict[str, Any]) -> None:
    """Write the record of `output`; UserError where that cannot be."""
    path = record_path(output)
    try:
        write_json(path, content)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({reason(error)}); the same command goes on when it can") from None


def first_difference(there: dict[str, Any], wanted: dict[str, Any]) -> str | None:
    """What decided `there` where it is not what is wanted, in words; None where both are the same."""
    name = next((name for name in {**wanted, **there} if there.get(name) != wanted.get(name)), None)
    if name is None:
        return None
    return WORDS.get(name, f"another {name} ({str(there.get(name))[:60]}, not {str(wanted.get(name))[:60]})")


def other_making(output: Path, identity: dict[str, Any]) -> str | None:
    """How the file `output` was made, where it is not as `identity` says; None where it is, and whole."""
    record = read_record(record_path(output))
    if record is None:
        return "and nothing beside it says from what"
    other = first_difference(record["identity"], identity)
    if other is not None:
        return f"made with {other}"
    return None if record.get("xxh3") == file_hash(output) else "changed since it was made"


def check_same(path: Path, there: dict[str, Any], wanted: dict[str, Any]) -> None:
    """UserError where what `path` records, in an --output_dir, was decided by something else than `wanted`."""
    what = first_difference(there, wanted)
    if what is not None:
        raise UserError(f"--output_dir {path.parent}: {path.name} there is of {what}; give another folder, or remove this one")
