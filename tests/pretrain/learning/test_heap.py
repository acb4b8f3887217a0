"""Memory that is freed and asked for again."""

import subprocess
import sys

import pytest

AGAIN = """
import resource, sys, torch
from caev2.pretrain.learning.heap import keep_freed_memory
kept = sys.argv[1] == "kept" and keep_freed_memory()
def work():
    for _ in range(4):
        tensors = [torch.ones(10_000_000) for _ in range(2)]  # 40 MB each
for _ in range(8):
    work()  # until there is a place for everything
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> tuple[str, int]:
    said = subprocess.run([sys.executable, "-c", AGAIN, how], capture_output=True, text=True, check=True).stdout.split()
    return said[0], int(said[1])


def test_pages_are_not_cleared_again_for_what_a_step_gave_back():
    kept, few = faults("kept")
    if kept == "False":
        pytest.skip("another C library than glibc")
    _, many = faults("plain")
    assert many > 20_000  # else this test could not see anything
    assert few < many / 20
