"""A Dask cluster as an executor for `dataset.jobs`: the scheduler's workers do the jobs, wherever on a shared file system they run.

Workers need no more than the same packages and the project's folder at the same place: what is sent is a small function by value that
finds the folder and imports the work by name, and pickled bytes.
"""

import asyncio
import logging
import pickle
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from pathlib import Path
from typing import Any

from dataset.errors import UserError, one_line

CONNECT_SECONDS = 8
LOOK_SECONDS = 2.0
PATIENCE_SECONDS = 60.0  # without any worker: a cluster may be replacing them
ROOT = str(Path(__file__).resolve().parents[1])
START = "`dask scheduler` and `dask worker {}` start one"


class DaskExecutor:
    """Jobs on the workers of the scheduler at `address`. UserError where it does not answer or has no worker."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._client = _connect(address)
        self._lost: str | None = None
        self.workers = sum(self._client.nthreads().values())
        if not self.workers:
            self._client.close()
            raise UserError(f"the Dask scheduler at {address} has no worker; `dask worker {address}` starts one")
        self._executor = self._client.get_executor(pure=False)
        self._call = _make_call(ROOT)
        self._closing = threading.Event()
        self._watch = threading.Thread(target=self._watch_workers, daemon=True)
        self._watch.start()

    def submit(self, work: Callable[..., Any], *arguments: Any) -> Future:
        return self._executor.submit(self._call, f"{work.__module__}", pickle.dumps((work, arguments)))

    def value(self, future: Future) -> Any:
        """The result of a submitted job."""
        return pickle.loads(future.result())

    def reason(self, error: BaseException) -> str | None:
        """What this executor knows of an error."""
        from distributed import KilledWorker

        if isinstance(error, KilledWorker):
            return f"the {error.allowed_failures + 1} Dask workers that tried it died (out of memory?); more memory for each may work"
        if isinstance(error, CancelledError):
            return self._lost or f"the Dask scheduler at {self._address} gave it up"
        return None

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Close the connection; after an error jobs that have not begun are given up, and results of those that run."""
        interrupted = self._lost is not None or kind is not None
        self._closing.set()
        self._watch.join()
        self._executor.shutdown(wait=not interrupted)
        self._client.close(timeout=CONNECT_SECONDS)

    def _watch_workers(self) -> None:
        """Give all jobs up when the scheduler, or for long every worker, is gone: Dask itself would wait for ever."""
        last = time.monotonic()
        while not self._closing.wait(LOOK_SECONDS):
            try:
                alive = bool(self._client.nthreads())
            except Exception as error:
                self._lost = f"the Dask scheduler at {self._address} is gone ({one_line(error)})"
                break
            last = time.monotonic() if alive else last
            if time.monotonic() - last > PATIENCE_SECONDS:
                self._lost = f"no Dask worker was left for {PATIENCE_SECONDS:.0f} s; `dask worker {self._address}` starts one"
                break
        else:
            return
        self._executor.shutdown(wait=False)


def _connect(address: str) -> Any:
    """A `distributed.Client` that keeps its log to itself."""
    try:
        import distributed
    except ImportError as error:
        raise UserError(f"--dask_address {address} needs a package ({one_line(error)}); `pip install distributed` would work") from error
    for name in [name for name in logging.root.manager.loggerDict if name.split(".")[0] in ("distributed", "tornado")]:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    warnings.filterwarnings("ignore", module=r"(distributed|dask)(\.|$)")
    advice = START.format("tcp://HOST:8786")
    try:
        # A Client that fails to connect waits and complains again when it is collected, so somebody must be there first.
        kind = asyncio.run(_ask_kind(address))
        if kind == "Scheduler":
            return distributed.Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        why = f"within {CONNECT_SECONDS} s" if isinstance(error, TimeoutError) else f"({one_line(error)})"
        raise UserError(f"--dask_address {address}: no Dask scheduler answers {why}; {advice}") from error
    raise UserError(f"--dask_address {address} is a Dask {kind.lower()}; the scheduler's address would work ({advice})")


async def _ask_kind(address: str) -> str:
    """What the Dask server at `address` is: "Scheduler", "Worker" or "Nanny". OSError or ValueError where none answers."""
    from distributed.core import rpc

    async with asyncio.timeout(CONNECT_SECONDS), rpc(address, timeout=CONNECT_SECONDS) as server:
        return (await server.identity())["type"]


def _make_call(root: str) -> Callable[[str, bytes], bytes]:
    """A function that no worker can import, so that it travels by value."""

    def call(module: str, job: bytes) -> bytes:
        import os
        import pickle
        import sys

        from distributed import get_worker

        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        if root not in sys.path:
            sys.path.insert(0, root)
        try:
            work, arguments = pickle.loads(job)
            from dataset.jobs import call as call_here
        except ImportError as error:
            where = get_worker().address
            raise ImportError(
                f"the Dask worker {where} cannot import {module} ({error}); it needs {root} and the same packages as here"
            ) from None
        return pickle.dumps(call_here(work, arguments))

    return call
