"""What a rank of some tests does instead of `run_pretraining.main` alone: a clock that is wrong, a small disk, a batch that cannot be read.
"""

import os
import resource
import signal
import time

import pretraining.preflight
import run_pretraining
from dataset.errors import UserError
from pretraining.batches.loader import StepLoader
from pretraining.trainer import Trainer


def late_rank() -> int:
    """Rank 1's clocks are an hour ahead."""
    if os.environ.get("RANK") == "1":
        monotonic, wall = time.monotonic, time.time
        time.monotonic = lambda: monotonic() + (3600 if started(monotonic()) else 0)
        time.time = lambda: wall() + 3600
    return run_pretraining.main()


_BEGAN: list[float] = []


def started(now: float) -> bool:
    """Whether a second has passed: the jump then lies inside the run, where the clock already runs."""
    _BEGAN.append(now)
    return now - _BEGAN[0] > 1.0


def small_disk_for_ever() -> int:
    """No file can be larger than 30 kB: metrics and args.yaml fit, a checkpoint or an export does not."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, resource.RLIM_INFINITY))
    return run_pretraining.main()


def small_disk_for_a_while() -> int:
    """The same from step 5 on, up to step 13."""
    _limit_between(5, 13, 30_000)
    return run_pretraining.main()


def no_disk_for_a_while() -> int:
    """From step 5 to step 13 not even a line of metrics.jsonl."""
    _limit_between(5, 13, 300)
    return run_pretraining.main()


def board_on_a_small_disk() -> int:
    """From step 5 on no file can grow past 300 bytes, and TensorBoard writes at once what it is given."""
    from torch.utils.tensorboard import SummaryWriter

    plain = SummaryWriter.add_scalar

    def add_scalar(self: SummaryWriter, *inputs: object) -> None:
        plain(self, *inputs)
        self.flush()

    SummaryWriter.add_scalar = add_scalar
    _limit_between(5, 13, 300)
    return run_pretraining.main()


def signalled_at_once() -> int:
    """SIGTERM while the plan is made, before torch would be imported."""
    plain = pretraining.preflight.make_plan

    def make_plan(resolved: object) -> object:
        os.kill(os.getpid(), signal.SIGTERM)
        return plain(resolved)

    pretraining.preflight.make_plan = make_plan
    return run_pretraining.main()


def no_batch_after_step_20() -> int:
    _break_batches(20)
    return run_pretraining.main()


def no_batch_for_rank_1_after_step_6() -> int:
    if os.environ["RANK"] == "1":
        _break_batches(6)
    return run_pretraining.main()


def _break_batches(last: int) -> None:
    """The batch of the step after `last` cannot be read."""
    plain = StepLoader._build_next

    def build_next(self: StepLoader) -> list:
        if self._position >= last * self.share.global_batch:
            raise UserError("train_shard_0.hdf5: cannot be read any more; copy it again")
        return plain(self)

    StepLoader._build_next = build_next


def _limit_between(first: int, last: int, size: int) -> None:
    plain = Trainer.step

    def step(self: Trainer, *inputs: object) -> None:
        plain(self, *inputs)
        if self.progress.step in (first, last):
            limit = size if self.progress.step == first else resource.RLIM_INFINITY
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    Trainer.step = step
