"""Whether a run's folder can be written and its disk has room, found before anything is trained."""

import shutil
import tempfile

from dataset.errors import UserError
from pretraining.args.resolve_run import Resolved
from pretraining.run_folder import RunFolder


def check_writable(folder: RunFolder) -> None:
    """UserError where nothing can be written at the run's place."""
    try:
        with tempfile.TemporaryDirectory(dir=folder.existing_ancestor, prefix=".write_test_"):
            pass
    except OSError as error:
        raise UserError(f"--output_dir {folder.path}: cannot write there ({error.strerror}); choose a folder you may write to") from None


def check_disk(resolved: Resolved, folder: RunFolder, parameters: int) -> None:
    """Weights and two Adam moments in fp32 for one checkpoint, weights again for one export; a note where all that is kept will not fit."""
    weights = parameters * 4
    needed, flags, markers = 4 * weights, resolved.args.checkpoints, len(resolved.markers)
    # The new one is written before the oldest goes.
    kept = flags.keep_checkpoints + 1 + (markers if flags.keep_marker_checkpoints else 0)
    whole_run = 3 * weights * kept + weights * (markers + 1)
    free = shutil.disk_usage(folder.existing_ancestor).free
    if needed <= free < whole_run:
        resolved.notes.append(f"--output_dir: {free / 1e9:.1f} GB free, up to {kept} checkpoints and {markers + 1} exports need about "
                              f"{whole_run / 1e9:.1f} GB; --no_keep_marker_checkpoints or --keep_checkpoints 1 need less")
    if free < needed:
        raise UserError(f"--output_dir: {free / 1e9:.1f} GB free at {folder.existing_ancestor}, one checkpoint and one export need "
                        f"about {needed / 1e9:.1f} GB; free some, or choose another disk")
