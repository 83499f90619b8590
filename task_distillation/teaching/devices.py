"""Chunks over devices: one after another in this process, or a process for each of several devices. Results do not depend on how many."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from contextlib import ExitStack
from pathlib import Path

from dataset.errors import UserError
from dataset.jobs import ProcessExecutor
from task_distillation.teaching.parts import Chunk
from task_distillation.teaching.teacher import Teacher, forget, label_chunk

AHEAD = 2
"""Chunks that wait or run for each device: the next one is read while one is computed."""


def label_chunks(teachers: Sequence[Teacher], chunks: Iterator[Chunk], part: Callable[[int], Path]) -> Iterator[int]:
    """Write `part(chunk.first)` for every chunk, with the same teacher on one or several devices; yields rows that are done.

    UserError as from `label_chunk`, and where a process was killed; parts that were written stay.
    """
    if len(teachers) == 1:
        try:
            for chunk in chunks:
                yield label_chunk(teachers[0], chunk, part(chunk.first))
        finally:
            forget()
        return
    with ExitStack() as stack:
        executors = [stack.enter_context(ProcessExecutor(1)) for _ in teachers]
        load = [0] * len(teachers)
        flying: dict[Future, int] = {}
        while True:
            while min(load) < AHEAD and (chunk := next(chunks, None)) is not None:
                at = load.index(min(load))
                load[at] += 1
                flying[executors[at].submit(label_chunk, teachers[at], chunk, part(chunk.first))] = at
            if not flying:
                return
            ready, _ = wait(flying, return_when=FIRST_COMPLETED)
            for future in ready:
                at = flying.pop(future)
                load[at] -= 1
                try:
                    yield future.result()
                except BrokenExecutor:
                    raise UserError(f"the process on {teachers[at].device} was killed (out of memory?); what is done is kept, and the same "
                                    f"command with fewer --devices goes on") from None
