"""Training checkpoints: saved whole, verified before they are trusted, found again.

`checkpoints/step_N/` holds DeepSpeed's files below `deepspeed/`, our `state.json`, and `manifest.json` with the size and hash of
every file. It is written as `.partial_step_N` and renamed when all of it is on the disk; `latest` names the newest complete one.
DeepSpeed's own `latest` is written in place and is not used. Loading unpickles: checkpoints are trusted input, exports are not pickles.
"""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import xxhash

from dataset.errors import UserError
from dataset.files import PARTIAL_PREFIX, fsync_directory, fsync_tree, write_text
from pretraining.control import Control
from pretraining.engine import Engine

KEPT = 2  # the newest, and the one before it in case the newest is damaged
_BLOCK = 1 << 22


def file_hash(path: Path) -> str:
    """xxh3-128 of a file: finds damage at the speed of the disk; it is no protection against malice."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def save_checkpoint(folder: Path, step: int, engine: Engine, state: dict[str, Any], control: Control) -> Path:
    """Save `checkpoints/step_N`. All ranks call it together; `state` is rank 0's and must be JSON. Returns the folder."""
    final, partial = folder / f"step_{step}", folder / f"{PARTIAL_PREFIX}step_{step}"
    if control.rank == 0:
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(f"{PARTIAL_PREFIX}*"):
            shutil.rmtree(leftover)
        partial.mkdir()
    control.barrier()
    engine.save(partial)
    control.barrier()
    if control.rank == 0:
        (partial / "state.json").write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")
        manifest = {str(path.relative_to(partial)): {"bytes": path.stat().st_size, "xxh3_128": file_hash(path)}
                    for path in sorted(partial.rglob("*")) if path.is_file()}
        (partial / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        fsync_tree(partial)
        if final.exists():
            shutil.rmtree(final)
        os.replace(partial, final)
        fsync_directory(folder)
        write_text(folder / "latest", final.name + "\n")
        for old in complete_checkpoints(folder)[KEPT:]:
            shutil.rmtree(old)
    control.barrier()
    return final


def complete_checkpoints(folder: Path) -> list[Path]:
    """`step_N` folders, newest first."""
    found = [path for path in folder.glob("step_*") if path.name.removeprefix("step_").isdigit()] if folder.is_dir() else []
    return sorted(found, key=lambda path: int(path.name.removeprefix("step_")), reverse=True)


def damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint, or None where every file is there with the size and hash it was written with."""
    try:
        manifest = json.loads((checkpoint / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError, UnicodeDecodeError):
        return "manifest.json is missing or broken"
    for name, expected in manifest.items():
        path = checkpoint / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != expected["bytes"]:
            return f"{name} has {path.stat().st_size} bytes, expected {expected['bytes']}"
        if file_hash(path) != expected["xxh3_128"]:
            return f"{name} is not what was written"
    return None


def find_checkpoint(folder: Path) -> tuple[Path | None, list[str]]:
    """(newest undamaged checkpoint or None, a line for every damaged one that was passed over).

    UserError where there are checkpoints and all of them are damaged: starting afresh would lose them.
    """
    warnings = []
    _adopt_unrenamed(folder)
    candidates = complete_checkpoints(folder)
    for checkpoint in candidates:
        problem = damage(checkpoint)
        if problem is None:
            return checkpoint, warnings
        warnings.append(f"checkpoint {checkpoint} is damaged ({problem}); going back to the one before")
    if candidates:
        raise UserError(f"{folder}: every checkpoint is damaged ({problem}); --overwrite moves the run aside and starts afresh")
    return None, warnings


def _adopt_unrenamed(folder: Path) -> None:
    """Finish the rename of a checkpoint whose run was killed just before it; its manifest, written last, vouches for it."""
    for partial in folder.glob(f"{PARTIAL_PREFIX}step_*"):
        final = folder / partial.name.removeprefix(PARTIAL_PREFIX)
        if not final.exists() and damage(partial) is None:
            os.replace(partial, final)


def read_state(checkpoint: Path) -> dict[str, Any]:
    return json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))


# Flags that may differ between the pieces of one run: they change where, how fast and how loudly it runs, and not what is computed.
FREE_FLAGS = frozenset({
    "output_dir", "print_steps", "log_throughput_every", "report_to", "project_name", "num_workers", "async_worker",
    "data_loader_type", "num_epochs_between_checkpoints", "finetune_checkpoint_at_end", "validation_micro_batch", "steps_per_print",
    "wall_clock_breakdown", "deepspeed", "gradient_accumulation_steps", "tokenizer_name", "early_exit_time_marker",
    "dataset_path", "teacher_path",  # moved folders are welcome; `data_identity` notices other content
})


def changed_flags(saved: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """`name: old -> new` for every flag that changes the mathematics and differs."""
    for name, value in now.items():
        if name not in FREE_FLAGS and saved.get(name) != value:
            yield f"{name}: {saved.get(name)} -> {value}"
