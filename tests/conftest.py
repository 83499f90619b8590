"""One thread per process: tiny tensors gain nothing from more, and on a busy machine threads that wait for one another cost most."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
