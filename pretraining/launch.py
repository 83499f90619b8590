"""Which process of how many this is, whoever launched it: torchrun, torch.distributed.launch, deepspeed, mpirun or nobody.

Imports no torch, so that batch arithmetic can be checked before it.
"""

import os
import socket
from dataclasses import dataclass

from dataset.errors import UserError


@dataclass(frozen=True)
class Launch:
    """`launched` is False for plain `python`, a world of one."""

    rank: int
    world_size: int
    local_rank: int
    launched: bool


_OPEN_MPI = {"RANK": "OMPI_COMM_WORLD_RANK", "WORLD_SIZE": "OMPI_COMM_WORLD_SIZE", "LOCAL_RANK": "OMPI_COMM_WORLD_LOCAL_RANK"}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def read_launch(local_rank_flag: int) -> Launch:
    """The launch as the environment tells it.

    `local_rank_flag` is --local_rank, which old launchers pass (-1: not passed). The environment is completed, because
    DeepSpeed would otherwise look for mpi4py: after this call RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT are set.
    """
    environment = os.environ
    for name, source in _OPEN_MPI.items():
        if name not in environment and source in environment:
            environment[name] = environment[source]
    launched = "RANK" in environment and "WORLD_SIZE" in environment
    if not launched:
        environment.update(RANK="0", WORLD_SIZE="1")
    try:
        rank, world_size = int(environment["RANK"]), int(environment["WORLD_SIZE"])
        local_rank = int(environment.get("LOCAL_RANK", local_rank_flag if local_rank_flag >= 0 else rank if launched else 0))
        port = int(environment.get("MASTER_PORT", 0))
    except ValueError as error:
        # Only a rank that can be read says who prints; without it every process has to.
        environment.pop("RANK", None)
        raise UserError(f"the launcher's RANK, WORLD_SIZE, LOCAL_RANK or MASTER_PORT is not a number ({error}); unset it") from None
    if not 0 <= rank < world_size or local_rank < 0 or not 0 <= port < 65536:
        environment.pop("RANK", None)
        raise UserError(f"the launcher's RANK {rank}, WORLD_SIZE {world_size}, LOCAL_RANK {local_rank}, MASTER_PORT {port} cannot be; "
                        "ranks count from 0 to below WORLD_SIZE, ports up to 65535; unset what is wrong")
    environment["LOCAL_RANK"] = str(local_rank)
    if world_size > 1 and "MASTER_ADDR" not in environment and "OMPI_COMM_WORLD_SIZE" not in environment:
        raise UserError(f"WORLD_SIZE is {world_size} but MASTER_ADDR is not set; launch with torchrun or deepspeed")
    environment.setdefault("MASTER_ADDR", "127.0.0.1")
    # Several mpirun processes must agree on a port without talking; one process takes any free one.
    environment.setdefault("MASTER_PORT", "29500" if world_size > 1 else str(_free_port()))
    return Launch(rank, world_size, local_rank, launched)
