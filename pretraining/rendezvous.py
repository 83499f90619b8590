"""Where restarted workers meet: a part of torchrun's store that no worker of an earlier attempt has written to.

With `--max_restarts` torchrun (seen with torch 2.13) gives the workers of every attempt the same store and clears nothing, so ranks that
start again may find the addresses of ranks that are dead and wait for them until the time limit. Its count of restarts cannot tell the
attempts apart, because every node's agent keeps its own. Here rank 0 draws a name and tells it to each rank under a nonce of that rank's
own, which nobody before can have used.
"""

import os
import secrets
import time
from datetime import timedelta

import torch.distributed as dist

POLL_SECONDS = 0.02


def shares_launchers_store() -> bool:
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def fresh_store(rank: int, world_size: int, timeout: timedelta) -> dist.Store:
    """A store for `init_process_group`; all ranks of an attempt call it together."""
    store = dist.PrefixStore("attempts", dist.TCPStore(
        os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), world_size, is_master=False, timeout=timeout))
    if rank == 0:
        name = secrets.token_hex(8)
        _tell(store, name, world_size, time.monotonic() + timeout.total_seconds())
    else:
        nonce = secrets.token_hex(8)
        store.set(f"asks_{rank}", nonce)
        name = store.get(f"answer_{nonce}").decode()
        store.set(f"heard_{name}_{rank}", "")
    return dist.PrefixStore(name, store)


def _tell(store: dist.Store, name: str, world_size: int, until: float) -> None:
    """Answer everybody who asks until all ranks have heard; a rank that was killed before may have asked, too."""
    waiting = list(range(1, world_size))
    while waiting:
        if time.monotonic() > until:
            raise TimeoutError(f"ranks {', '.join(map(str, waiting))} did not join")
        for rank in waiting:
            if store.check([f"asks_{rank}"]):
                store.set(f"answer_{store.get(f'asks_{rank}').decode()}", name)
        waiting = [rank for rank in waiting if not store.check([f"heard_{name}_{rank}"])]
        time.sleep(POLL_SECONDS)
