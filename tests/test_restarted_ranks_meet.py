"""Ranks that torchrun starts again find one another in its old store, whatever the dead ones left there."""

import socket
import threading
from datetime import timedelta

import torch
import torch.distributed as dist

from pretraining.engine import start_ranks, stop_ranks
from pretraining.rendezvous import fresh_store

LIMIT = timedelta(seconds=20)


def join(ranks, world_size, found):
    """Every rank of `ranks` in a thread of its own: what each reads under `rank 0 was here`."""
    def one(rank):
        store = fresh_store(rank, world_size, LIMIT)
        assert not store.check(["attempt"]), "a part of the store that nobody wrote to"
        if rank == 0:
            store.set("from 0", f"{len(found)}")
        found.append((rank, store.get("from 0").decode()))

    threads = [threading.Thread(target=one, args=(rank,), daemon=True) for rank in ranks]
    for thread in threads:
        thread.start()
    return threads


def test_every_attempt_has_a_store_of_its_own(monkeypatch):
    server = dist.TCPStore("127.0.0.1", 0, is_master=True, timeout=LIMIT)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(server.port))
    left = dist.PrefixStore("attempts", server)
    for rank in (1, 2):
        left.set(f"asks_{rank}", f"nonce of a rank {rank} that died waiting")
    for _ in range(3):
        found = []
        for thread in join([2, 0, 1], 3, found):
            thread.join(timeout=20)
            assert not thread.is_alive()
        assert sorted(rank for rank, _ in found) == [0, 1, 2] and {text for _, text in found} == {"0"}


def test_one_process_needs_no_port(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        for name, value in {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1",
                            "MASTER_PORT": str(taken.getsockname()[1])}.items():
            monkeypatch.setenv(name, value)
        start_ranks(torch.device("cpu"))
        assert dist.is_initialized()
        stop_ranks()
