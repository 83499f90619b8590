"""One thread per process: tiny tensors gain nothing from more, and on a busy machine threads that wait for one another cost most."""

import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def zygote():
    """Forks ranks of the trainer; one for all tests."""
    from quick import shared_zygote  # imports torch, which reads the variable above

    return shared_zygote()
