"""How long a run may take, and what happens on the way."""

from dataclasses import dataclass

from pretraining.args.flags import UNLIMITED_STEPS, flag, parse_int


@dataclass
class BudgetFlags:
    total_training_time: float = flag(24.0, "budget in hours; progress, markers and the time schedule are fractions of it")
    early_exit_time_marker: float = flag(
        None, "hours after which training stops earlier than the budget; default: --total_training_time", float,
    )
    finetune_time_markers: str = flag(
        None, "fractions of --total_training_time at which the student is exported, such as 0.25,0.5,0.75", str,
    )
    finetune_checkpoint_at_end: bool = flag(True, "export the student when training ends")
    max_steps: int = flag(UNLIMITED_STEPS, "optimizer steps; stop, and total of the step schedules")
    max_steps_per_epoch: int = flag(UNLIMITED_STEPS, "the originals' cut through every shard")
    num_epochs: int = flag(1_000_000, "stop after so many epochs, an epoch being one shard")
    clock: str = flag("monotonic", "monotonic, or simulated:SECONDS_PER_STEP for tests and proofs")


@dataclass
class ValidationFlags:
    do_validation: bool = flag(False, "measure the held-out loss on the test shards")
    validation_epochs: int = flag(10, "validate every so many shards in the middle of the budget")
    validation_epochs_begin: int = flag(1, "the same at the beginning")
    validation_epochs_end: int = flag(1, "the same at the end")
    validation_begin_proportion: float = flag(0.1, "share of the budget that counts as beginning")
    validation_end_proportion: float = flag(0.1, "share of the budget that counts as end")
    validation_micro_batch: int = flag(16, "samples per forward pass and rank in validation")
    validation_samples: int = flag(None, "size of the fixed held-out set; default: all rows of the test shards", parse_int)
    use_early_stopping: bool = flag(False, "stop when the held-out loss says that the run has failed")
    early_stop_time: int = flag(720, "minutes of budget before --early_stop_eval_loss counts")
    early_stop_eval_loss: float = flag(2.1, "stop when the held-out loss is above this after --early_stop_time")
    scale_cnt_limit: int = flag(100, "fp16: stop after so many optimizer steps with a loss scale of 1 within one shard")
