"""The folder of one run: its paths, and whether a new run may start in it."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import yaml

from dataset.errors import UserError
from pretraining.args.resolve_run import Resolved
from pretraining.args.run_values import RunValues

ASIDE = ".old_"
"""In the name of a run's folder that --overwrite moved aside."""
UNFINISHED_REASONS = ("signal", "deadline", "rank_failure")
_LIMITS = ("total_training_time", "early_exit_time_marker", "max_steps", "num_epochs")


@dataclass(frozen=True)
class RunFolder:
    """Paths below OUTPUT_DIR/JOB_NAME/CURRENT_RUN_ID. `occupied` means that an earlier run must be moved aside first."""

    path: Path
    occupied: bool = False

    @property
    def existing_ancestor(self) -> Path:
        """The nearest folder at or above `path` that exists."""
        folder = self.path.absolute()
        while not folder.exists():
            folder = folder.parent
        return folder

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def finetune(self) -> Path:
        return self.path / "finetune"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def summary(self) -> Path:
        return self.path / "summary.json"

    def move_aside(self) -> Path:
        """Rename the folder to NAME.old_N and return that path."""
        number = 1
        while (aside := self.path.with_name(f"{self.path.name}{ASIDE}{number}")).exists():
            number += 1
        self.path.rename(aside)
        return aside


@dataclass(kw_only=True)
class RunPlan:
    """A run of the trainer that has passed every check of flags and files: what the flags say, and where it goes."""

    resolved: Resolved
    folder: RunFolder


def run_path(args: RunValues) -> Path:
    """OUTPUT_DIR/JOB_NAME/CURRENT_RUN_ID, with ~ expanded."""
    return Path(args.run.output_dir).expanduser() / args.run.job_name / args.run.current_run_id


def check_run_folder(args: RunValues) -> RunFolder:
    """The run's folder; UserError where it holds a run that --resume or --overwrite must decide about."""
    path = run_path(args)
    folder = RunFolder(path)
    try:
        ancestor = folder.existing_ancestor
    except OSError as error:
        raise UserError(f"--output_dir {path}: {error.strerror}; choose another folder") from None
    if not ancestor.is_dir():
        raise UserError(f"--output_dir {path}: {ancestor} is a file; choose a folder")
    if not os.access(ancestor, os.W_OK | os.X_OK):
        raise UserError(f"--output_dir {path}: no permission to write in {ancestor}; choose another folder")
    source = source_checkpoints(args)
    if source is not None and not _has_checkpoint(source):
        raise UserError(f"--load_training_checkpoint {args.checkpoints.load_training_checkpoint}: no checkpoint in {source}; give the "
                        "folder of a run, or its checkpoints folder")
    named = args.checkpoints.load_checkpoint_id
    if named is not None and args.run.resume and loads_own(args):
        raise UserError(f"--resume goes on from the newest checkpoint; to go back to {named}, once, leave --resume out")
    if not path.exists() or args.run.dry_run:
        return folder
    if args.run.overwrite:
        nested = sorted(child.name for child in path.iterdir() if child.is_dir() and _holds_run(child))
        if nested:
            raise UserError(f"--overwrite: {path} holds other runs ({', '.join(nested[:3])}); --current_run_id NAME gives this one a place")
        if loads_own(args):
            raise UserError("--overwrite would move the checkpoints of --load_training_checkpoint aside; leave it out")
        return RunFolder(path, occupied=_holds_run(path))
    finished, has_checkpoint = finished_reason(folder), _has_checkpoint(folder.checkpoints)
    if finished and not args.checkpoints.allow_changes:
        raise UserError(f"{path} holds a finished run ({finished}); --overwrite moves it aside, --current_run_id NAME starts another "
                        "beside it, --resume --allow_changes goes on with it under a longer budget")
    if has_checkpoint and not goes_on_here(args):
        what = f"a finished run ({finished})" if finished else "an unfinished run with checkpoints"
        raise UserError(f"{path} holds {what}; --resume goes on with it, --overwrite moves it aside")
    # A run that was killed before its first checkpoint and export left nothing that --resume could lose.
    empty = args.run.resume and not finished and not any(folder.finetune.glob("progress_*"))
    return RunFolder(path, occupied=not has_checkpoint and not empty and _holds_run(path))


def check_limits(folder: RunFolder, args: RunValues, finished: str) -> None:
    """UserError where the flags would let a finished run train on: doing nothing is then not what is meant."""
    old = yaml.safe_load((folder.path / "args.yaml").read_text(encoding="utf-8")) if (folder.path / "args.yaml").is_file() else {}
    others = [f"{name}: {old[name]} -> {args.get(name)}" for name in _LIMITS if name in old and old[name] != args.get(name)]
    if others:
        raise UserError(f"--resume: {folder.path} holds a finished run ({finished}) of other limits ({'; '.join(others)}); --allow_changes "
                        "goes on with it under the new ones")


def source_checkpoints(args: RunValues) -> Path | None:
    """The checkpoints folder that --load_training_checkpoint names, or None."""
    if args.checkpoints.load_training_checkpoint is None:
        return None
    path = Path(args.checkpoints.load_training_checkpoint).expanduser()
    return path / "checkpoints" if (path / "checkpoints").is_dir() else path


def goes_on_here(args: RunValues) -> bool:
    """Whether the run goes on from checkpoints of its own folder, if there are any."""
    return args.run.resume or loads_own(args)


def loads_own(args: RunValues) -> bool:
    """Whether --load_training_checkpoint names the run's own folder."""
    source = source_checkpoints(args)
    return source is not None and source.resolve() == RunFolder(run_path(args)).checkpoints.resolve()


def _has_checkpoint(checkpoints: Path) -> bool:
    # `.partial_step_N` may be complete but for its last rename. Other programs' checkpoints get their own line later.
    return checkpoints.is_dir() and (any(checkpoints.glob("*step_*")) or any(checkpoints.glob("*checkpoint*/*.pt")))


def _holds_run(path: Path) -> bool:
    """Whether something of a run lies directly in `path`; a folder of other runs is none."""
    return any((path / name).exists() for name in ("args.yaml", "metrics.jsonl", "checkpoints", "finetune", "summary.json"))


def finished_reason(folder: RunFolder) -> str | None:
    """The exit reason of a finished run, or None."""
    if not folder.summary.is_file():
        return None
    try:
        reason = json.loads(folder.summary.read_text(encoding="utf-8"))["exit_reason"]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{folder.summary}: not a summary of a run; --overwrite moves the folder aside") from None
    return None if reason in UNFINISHED_REASONS else reason
