"""Worker processes: order, errors as they were raised, and workers that are killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from caev2.errors import SourceError, WorkerDied
from caev2.workers import in_order


def double(number: int) -> torch.Tensor:
    return torch.tensor(2 * number)


def refuse_three(number: int) -> int:
    if number == 3:
        raise SourceError("image 3 cannot be read")
    return number


def die_at_three(number: int) -> int:
    if number == 3:
        time.sleep(1)  # until what was made before has been handed over
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.parametrize("workers", [0, 1, 2, 5])  # 5: more than cores, which is nobody else's business
def test_items_come_in_the_order_of_their_keys(workers):
    assert [int(item) for item in in_order(double, range(20), workers=workers)] == list(range(0, 40, 2))
    assert list(in_order(double, [], workers=workers)) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_arrives_as_it_was_raised_after_the_items_before_it(workers):
    got = []
    with pytest.raises(SourceError, match=r"^image 3 cannot be read$"):
        got.extend(in_order(refuse_three, range(20), workers=workers))
    assert list(in_order(refuse_three, range(3), workers=workers)) == [0, 1, 2]


@pytest.mark.parametrize("workers", [0, 2])
def test_keys_are_taken_as_items_are(workers):
    taken = []

    def keys():
        for number in range(100):
            taken.append(number)
            yield number

    items = in_order(double, keys(), workers=workers, ahead=2)
    next(items)
    assert len(taken) <= 1 + 2 * workers + 1
    items.close()


def test_a_killed_worker_is_one_clear_error_where_its_item_is_waited_for():
    items = in_order(die_at_three, range(20), workers=1, ahead=8)
    assert next(items) == 0  # the worker dies while we are busy: nothing is raised here
    time.sleep(2)
    with pytest.raises(WorkerDied, match=r"One of 1 data workers .*Killed.*--set workers=1, or 0"):
        list(items)


def test_the_global_generator_is_left_alone():
    before = torch.random.get_rng_state()
    list(in_order(double, range(4), workers=1))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_process_ends_though_its_workers_are_still_at_work():
    script = "from caev2.workers import in_order; items = in_order(int, range(100), workers=2); print(next(items))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "0\n"


def test_workers_end_with_a_parent_that_is_killed_while_nobody_reads_what_they_made():
    code = (
        "import numpy, os, signal, multiprocessing\n"
        "from caev2.workers import in_order\n"
        "from tests.test_workers import much\n"
        "items = in_order(much, range(1000), workers=2, ahead=8)\n"
        "next(items)\n"
        "import time; time.sleep(1)\n"
        "print(*[child.pid for child in multiprocessing.active_children()], flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL  # and its output has ended: nobody holds it any more
    workers = killed.stdout.split()
    assert len(workers) == 2
    deadline = time.monotonic() + 20
    while any(is_running(worker) for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def much(number: int) -> bytes:
    return bytes(1_000_000)


def is_running(process: str) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
