"""Training checkpoints: saved whole or not at all, verified before they are trusted, found again.

`checkpoints/step_N/` holds DeepSpeed's files below `deepspeed/`, our `state.json`, and `manifest.json` with the size and hash of
every file. It is written as `.partial_step_N` and renamed when all of it is on the disk; `latest` names the newest complete one.
`superseded/` holds what was newer than a checkpoint that a run went on from; nothing reads it. In state.json
`marker` is the share of the budget of a fine-tune marker's checkpoint and null for all others.
DeepSpeed's own `latest` is written in place and is not used. Loading unpickles: checkpoints are trusted input, exports are not pickles.
"""

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from dataset.errors import UserError
from dataset.files import (
    PARTIAL_PREFIX,
    REPLACED_PREFIX,
    file_hash,
    fsync_path,
    fsync_tree,
    reason,
    remove_folder,
    remove_path,
    replace_folder,
    whole_file,
    write_text,
)
from pretraining.console import say
from pretraining.control import Control
from pretraining.engine import TAG, Engine, Written

FORMAT_VERSION = 1  # of state.json
NEWEST = ("latest", "latest_checkpoint")  # the second is the tag that academic-budget-bert gives its newest
_MARGIN = 1.02  # names, alignment and state.json beside the tensors
_SPARE = 8 << 20
_SHOWN = 5
_FOREIGN = ("mp_rank_*_model_states.pt", "*/mp_rank_*_model_states.pt")
_RUN_FILES = re.compile(re.escape(PARTIAL_PREFIX) + r"[0-9]+_(args\.yaml|deepspeed_config\.json|environment\.json|summary\.json)")


class SaveError(Exception):
    """A checkpoint could not be saved; the run and its older checkpoints are as they were. Raised on all ranks alike; one line."""


@dataclass(frozen=True)
class Keep:
    """Which checkpoints stay when one is saved: the `newest` so many, and with `markers` those of fine-tune markers besides."""

    newest: int
    markers: bool


def save_checkpoint(folder: Path, step: int, engine: Engine, state: dict[str, Any], control: Control, keep: Keep) -> Path:
    """Save `checkpoints/step_N` and remove what `keep` does not ask for. Returns the folder.

    All ranks call it together; `state` is rank 0's and must be JSON. SaveError on all of them where one could not write.
    """
    final, partial = folder / f"step_{step}", folder / f"{PARTIAL_PREFIX}step_{step}"
    needed = control.sum([float(engine.checkpoint_bytes())])[0]
    _on_first(control, final, partial, lambda: _begin(partial, needed))
    outcomes = control.gather(engine.save(partial))
    _on_first(control, final, partial, lambda: _finish(partial, final, outcomes, state))
    if control.rank == 0:
        _remove_older(folder, step, keep)
    return final


def _on_first(control: Control, final: Path, partial: Path, work: Callable[[], None]) -> None:
    """Run `work` on rank 0; where it fails the partial folder goes and every rank raises."""
    def attempt() -> str | None:
        try:
            work()
        except (OSError, SaveError) as error:
            remove_path(partial)
            if isinstance(error, SaveError):
                return str(error)
            return reason(error) if control.world_size == 1 else f"rank 0: {reason(error)}"
        return None

    problem = control.on_first(attempt)
    if problem is not None:
        raise SaveError(f"checkpoint {final.name} was not saved in {final.parent} ({problem})")


def _begin(partial: Path, needed: float) -> None:
    """Make the empty folder, where there is space for `needed` bytes of tensors."""
    folder = partial.parent
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(f"{PARTIAL_PREFIX}*"):
        remove_path(leftover)
    needed, free = _MARGIN * needed + _SPARE, shutil.disk_usage(folder).free
    if free < needed:
        raise SaveError(f"{needed / 1e9:.3f} GB are needed there, {free / 1e9:.3f} GB are free")
    (partial / TAG).mkdir(parents=True)


def _finish(partial: Path, final: Path, outcomes: list[Written], state: dict[str, Any]) -> None:
    """Add state and manifest to what the ranks wrote, and give the folder its name."""
    failed = [f"rank {rank}: {outcome.error}" if len(outcomes) > 1 else outcome.error
              for rank, outcome in enumerate(outcomes) if outcome.error is not None]
    if failed:
        raise SaveError(failed[0] if len(failed) == 1 else f"{failed[0]}, and {len(failed) - 1} more rank(s)")
    written = {str(Path(path).relative_to(partial)): record for outcome in outcomes for path, record in outcome.files.items()}
    content = _json({"format_version": FORMAT_VERSION, **state})
    (partial / "state.json").write_bytes(content)
    written["state.json"] = (len(content), xxhash.xxh3_128_hexdigest(content))
    manifest = {name: {"bytes": size, "xxh3_128": digest} for name, (size, digest) in sorted(written.items())}
    (partial / "manifest.json").write_bytes(_json(manifest))
    fsync_tree(partial)
    # `latest` is on the disk before the folder gets its name, and only renamed after: a full disk fails before there is a checkpoint.
    with whole_file(final.with_name("latest")) as text:
        text.write_text(final.name + "\n", encoding="utf-8")
        replace_folder(partial, final)


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()


def _remove_older(folder: Path, step: int, keep: Keep) -> None:
    """Remove checkpoints older than `step`, which stays; what cannot be read counts for nothing and is left alone."""
    kept = 1
    try:
        for old in complete_checkpoints(folder):
            if checkpoint_step(old) >= step:
                continue
            try:
                marker = read_state(old).get("marker")
            except UserError:
                continue
            if kept < keep.newest:
                kept += 1
            elif marker is None or not keep.markers:
                remove_folder(old)
    except OSError as error:
        say(f"warning: {folder}: an old checkpoint could not be removed ({reason(error)})")


def complete_checkpoints(folder: Path) -> list[Path]:
    """`step_N` folders, newest first."""
    found = [path for path in folder.iterdir() if re.fullmatch("step_[0-9]+", path.name)] if folder.exists() else []
    return sorted(found, key=checkpoint_step, reverse=True)


def checkpoint_step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step_"))


def damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint, or None where every file is there with the size and hash it was written with."""
    name = "manifest.json"
    try:
        manifest = json.loads((checkpoint / name).read_text(encoding="utf-8"))
        expected = {name: (entry["bytes"], entry["xxh3_128"]) for name, entry in manifest.items()}
        if "state.json" not in expected:
            return f"{name} is broken"
        for name, (size, digest) in expected.items():
            found = (checkpoint / name).stat().st_size
            if found != size:
                return f"{name} has {found} bytes, expected {size}"
            if file_hash(checkpoint / name) != digest:
                return f"{name} is not what was written"
    except FileNotFoundError:
        return f"{name} is missing"
    except OSError as error:
        return f"{name} cannot be read ({reason(error)})"
    except (ValueError, AttributeError, TypeError, KeyError):
        return "manifest.json is broken"
    return None


def find_checkpoint(folder: Path, name: str | None = None, ours: bool = True) -> tuple[Path | None, list[str]]:
    """(the checkpoint to go on from or None, a line for every damaged one that was passed over).

    `folder` is a run's or its checkpoints folder. Without `name` it is the newest undamaged one, and UserError where there are
    checkpoints and all of them are damaged: starting afresh would lose them. A name of NEWEST means the same but needs one, `step_N` means
    exactly that one, else UserError. `ours` says that the run's lock is held; only then what a killed process left is given its name.
    """
    nested, warnings = folder / "checkpoints", []
    try:
        folder = nested if nested.is_dir() else folder
        if ours:
            _adopt_unrenamed(folder)
        candidates = complete_checkpoints(folder)
    except OSError as error:
        raise UserError(f"{folder}: cannot be searched for checkpoints ({reason(error)}); mend that, or give another folder") from None
    if not candidates:
        _refuse_others(folder)
    if name is not None and not (name in NEWEST and candidates):
        return _named(folder, name, candidates), warnings
    problems = []
    for checkpoint in candidates:
        problem = damage(checkpoint)
        if problem is None:
            return checkpoint, warnings
        problems.append(f"{checkpoint.name}: {problem}")
        warnings.append(f"checkpoint {checkpoint} is damaged ({problem}); going back to the one before")
    if candidates:
        raise UserError(f"{folder}: every checkpoint is damaged ({'; '.join(problems[:_SHOWN])}); --overwrite moves the run aside and "
                        "starts afresh")
    return None, warnings


def _named(folder: Path, name: str, candidates: list[Path]) -> Path:
    chosen = next((path for path in candidates if path.name == name), None)
    others = [path.name for path in candidates if path != chosen]
    there = ", ".join(others[:_SHOWN]) + (f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else "")
    if chosen is None:
        raise UserError(f"{folder}: no checkpoint {name} in it; there are {there or 'none'}")
    problem = damage(chosen)
    if problem is not None:
        raise UserError(f"checkpoint {chosen} is damaged ({problem}); beside it there are {there or 'none'}")
    return chosen


def _refuse_others(folder: Path) -> None:
    """UserError where `folder` holds checkpoints of another kind, or is one itself."""
    if (folder / "manifest.json").is_file():
        raise UserError(f"{folder} is itself a checkpoint; give its folder {folder.parent} and the name {folder.name}")
    found = next((path for pattern in _FOREIGN for path in folder.glob(pattern)), None)
    if found is not None:
        raise UserError(f"{folder}: {found.relative_to(folder)} is a checkpoint of another program, such as academic-budget-bert; "
                        "python -m pretraining.convert_budget_bert makes a student of the weights it exported (config.json with "
                        "pytorch_model.bin) for --student_initialize")


def _adopt_unrenamed(folder: Path) -> None:
    """Finish the renames of a run that was killed amid them; the manifest, written last, vouches for the checkpoint.

    What was to be replaced gets its name back where the new one is not whole.
    """
    adopted = False
    for prefix in (PARTIAL_PREFIX, REPLACED_PREFIX):
        for left in folder.glob(f"{prefix}step_*"):
            final = left.with_name(left.name.removeprefix(prefix))
            if damage(left) is None and (not final.exists() or damage(final) is not None):
                if final.exists():
                    remove_folder(final)
                os.replace(left, final)
                adopted = True
    if adopted:
        write_text(folder / "latest", complete_checkpoints(folder)[0].name + "\n")


def supersede_later(folder: Path, step: int) -> None:
    """Move everything newer than the checkpoint that a run goes on from to `superseded/`, damaged or not; step -1: all there is."""
    later = [path for path in complete_checkpoints(folder) if checkpoint_step(path) > step]
    if not later:
        return
    aside = folder / "superseded"
    aside.mkdir(exist_ok=True)
    if (folder / f"step_{step}").exists():
        write_text(folder / "latest", f"step_{step}\n")
    else:
        (folder / "latest").unlink(missing_ok=True)
    for path in later:
        replace_folder(path, aside / path.name)
    fsync_path(aside)
    fsync_path(folder)


def clean_partials(run: Path) -> None:
    """Remove what killed processes left half done in a run's folder, whose lock is held; other programs' files stay."""
    checkpoints, finetune = run / "checkpoints", run / "finetune"
    _adopt_unrenamed(checkpoints)
    for replaced in finetune.glob(f"{REPLACED_PREFIX}*"):
        final = replaced.with_name(replaced.name.removeprefix(REPLACED_PREFIX))
        if not final.exists():
            os.replace(replaced, final)
    latest, newest = checkpoints / "latest", complete_checkpoints(checkpoints)[:1]
    if newest and not (latest.is_file() and latest.read_text(encoding="utf-8").strip() == newest[0].name):
        write_text(latest, newest[0].name + "\n")
    for folder in (checkpoints, finetune, run):
        for leftover in folder.glob(f"{PARTIAL_PREFIX}*"):
            if folder != run or _RUN_FILES.fullmatch(leftover.name):
                remove_path(leftover)


def read_state(checkpoint: Path) -> dict[str, Any]:
    """A checkpoint's state.json; UserError where it cannot be read or is of another version."""
    path = checkpoint / "state.json"
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({reason(error)}); mend that, or go on from another checkpoint") from None
    except ValueError:
        raise UserError(f"{path}: not JSON; go on from another checkpoint") from None
    version = state.get("format_version") if isinstance(state, dict) else None
    if version != FORMAT_VERSION:
        raise UserError(f"{path}: of format_version {version}, and this program reads {FORMAT_VERSION}; go on with the version of the "
                        "program that wrote it, or start another run")
    return state
