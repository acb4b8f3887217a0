"""What every test relies on: fixed threads, and properties that are the same examples on every CI run."""

import os

import torch
from hypothesis import settings

# one thread a process, those that tests start included: models are small, and equal bits need equal threads
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"

settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, database=None, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")
