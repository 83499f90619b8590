"""Devices that share one kind of work, each in a process of its own, so that who is first with a chunk changes none of its bits."""

from collections.abc import Iterator
from contextlib import contextmanager

from dataset.errors import UserError
from dataset.jobs import core_count
from evaluation.scoring.jobs import select_devices


def devices_of(text: str, most: int | None = None) -> list[str]:
    """Device names of `--devices`, one for each process: `auto` is every GPU, or the CPU once for each core, but no more than `most`.

    UserError for one that is not here, and for several kinds, whose results would differ in their last bits.
    """
    names = select_devices(text)
    if text == "auto":
        return (names * core_count() if names == ["cpu"] else names)[: None if most is None else max(1, most)]
    if len(kinds := sorted({name.partition(":")[0] for name in names})) > 1:
        raise UserError(f"--devices {text}: {' and '.join(kinds)} round differently; one kind would work")
    return names


@contextmanager
def one_thread() -> Iterator[None]:
    """torch with one thread for an operation, and as it was afterwards: a product's last bit may depend on the number of threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
