"""A rank as Open MPI's mpirun starts it: its variables and no others, but for the port that several runs of one machine need."""

import os

from launching import LAUNCHER_VARIABLES

import run_pretraining


def main() -> None:
    for theirs, ours in (("RANK", "RANK"), ("SIZE", "WORLD_SIZE"), ("LOCAL_RANK", "LOCAL_RANK")):
        os.environ[f"OMPI_COMM_WORLD_{theirs}"] = os.environ[ours]
    for name in LAUNCHER_VARIABLES:
        if name != "MASTER_PORT":
            os.environ.pop(name, None)
    run_pretraining.main()
