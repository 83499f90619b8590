"""Training checkpoints: when they are made, which are kept, what a run goes on from, and when it must have stopped."""

from dataclasses import dataclass

from pretraining.args.flags import flag


@dataclass
class CheckpointFlags:
    minutes_between_checkpoints: float = flag(
        30.0, "training checkpoint every so many minutes of budget; -1: never for that reason", metavar="MINUTES")
    steps_between_checkpoints: int = flag(
        -1, "training checkpoint every so many optimizer steps; -1: never for that reason", metavar="STEPS")
    num_epochs_between_checkpoints: int = flag(
        -1, "training checkpoint every so many shards, an epoch being one pass over one shard; -1: never for that reason")
    keep_checkpoints: int = flag(2, "keep the newest so many training checkpoints")
    keep_marker_checkpoints: bool = flag(True, "keep the training checkpoint of every fine-tune marker besides")
    load_training_checkpoint: str = flag(
        None, "run folder (or its checkpoints folder) to go on from, in a run folder of its own; default: --resume's own folder", str,
        metavar="DIR")
    load_checkpoint_id: str = flag(None, "checkpoint in --load_training_checkpoint, such as step_400; default: the newest undamaged", str,
                                   metavar="TAG")
    allow_changes: bool = flag(
        False, "go on although flags that change the mathematics differ from the saved run's, or the run was finished")
    deadline: str = flag(
        None, "local time such as 2026-12-01T08:00 by which the run must have saved and stopped; default: Slurm's SLURM_JOB_END_TIME; "
              "none: neither", str, metavar="TIME")
