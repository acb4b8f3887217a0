"""SIGKILLs at random moments, of whoever computes a store: the bytes are those of an undisturbed run.

What a kill may cost is what was in flight: units that have a record are never computed again, which their records
(never written twice) and the teacher's own count of rows show.
"""

import dataclasses
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch

from caev2.errors import WorkerDied
from caev2.extract.engines.cluster import RayCluster
from caev2.extract.engines.devices import ManyDevices
from caev2.extract.engines.engine import Engine
from caev2.extract.engines.one_device import OneDevice
from caev2.extract.parts import Part
from caev2.extract.run import extract
from tests.extract.engines.conftest import files_of
from tests.extract.engines.test_cluster import tasks_at_work, wait_for
from tests.made_up import EXTRACT, PatchMeans, make_photographs

RECIPE = dataclasses.replace(EXTRACT, codec="float16", block_images=32, teacher_batch=16)
IMAGES, VIEWS, UNITS = 1280, 2, 40
SECONDS_OF_A_BATCH = 0.1  # a unit takes half a second: long enough to be killed in

ONE, DEVICES, CLUSTER = "one process", "two devices", "Ray cluster"
KILLS = {ONE: 8, DEVICES: 6, CLUSTER: 6}
"""Fifty with the thirty of tests/extract/test_kills.py. Twenty, fifteen and fifteen have passed, too."""


class Slow(PatchMeans):
    def tokens(self, images, taps):
        time.sleep(SECONDS_OF_A_BATCH)
        return super().tokens(images, taps)


def compute(images: Path, store: Path, calls: Path, engine: Engine, part: Part | None) -> None:
    """The body of a command's process."""
    os.setpgid(0, 0)
    torch.set_num_threads(1)
    try:
        extract(images, store, RECIPE, teacher=Slow(calls), engine=engine, part=part)
    except WorkerDied:
        os._exit(2)


def records_of(store: Path) -> dict[str, tuple[int, int]]:
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in (store / "units").glob("*.json")}


def children_of(process: int) -> list[int]:
    """The processes that a process has started, and that have not ended."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(parent) == process and state != "Z" and b"spawn_main" in (folder / "cmdline").read_bytes():
            found.append(int(folder.name))
    return found


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_kills_over_all_engines_leave_the_bytes_of_an_undisturbed_run(tmp_path):
    from ray.cluster_utils import Cluster

    images = make_photographs(tmp_path / "images", IMAGES)
    extract(images, tmp_path / "whole", RECIPE, teacher=PatchMeans())
    assert len(records_of(tmp_path / "whole")) == UNITS
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    engines = {
        ONE: OneDevice(),
        DEVICES: ManyDevices(("cpu", "cpu")),
        CLUSTER: RayCluster(address=cluster.address),
    }
    commands = multiprocessing.get_context("forkserver")
    commands.set_forkserver_preload([__name__])  # a command starts at once, without threads of this process
    store, calls, chance = tmp_path / "store", tmp_path / "calls", random.Random(0)
    order = [name for name, count in KILLS.items() for _ in range(count)]
    chance.shuffle(order)
    try:
        done, kills, killed_in = {}, 0, set()
        for number, name in enumerate(order):
            part = Part(1 + number % 2, 2) if name == ONE and number % 3 else None
            command = commands.Process(target=compute, args=(images, store, calls, engines[name], part))
            before = calls.stat().st_size if calls.exists() else 0
            command.start()
            wait_for(lambda: not command.is_alive() or (calls.exists() and calls.stat().st_size > before), seconds=180)  # noqa: B023
            time.sleep(chance.uniform(0, 0.7))
            victim, is_command = command.pid, True
            if name == DEVICES and number % 2 and (workers := children_of(command.pid)):
                victim, is_command = chance.choice(workers), False
            if name == CLUSTER and number % 2 and (workers := tasks_at_work()):
                victim, is_command = chance.choice(workers), False
            assert command.is_alive()
            os.kill(victim, signal.SIGKILL)
            kills += 1
            if not is_command and name == DEVICES:
                command.join(30)
                assert command.exitcode == 2
            elif not is_command:
                time.sleep(chance.uniform(0, 1.5))  # others go on with what the killed one had
                command.kill()
            command.join(30)
            now = records_of(store)
            assert {unit: now[unit] for unit in done} == done  # whatever has a record is not written again
            done = now
            killed_in.add(len(done))
        assert kills == sum(KILLS.values())
        assert len(done) < UNITS  # there was work left for every kill
        assert len(killed_in) >= 8
        extract(images, store, RECIPE, teacher=PatchMeans(calls))
    finally:
        cluster.shutdown()
    assert {unit: records_of(store)[unit] for unit in done} == done
    assert files_of(store) == files_of(tmp_path / "whole")
    assert not (store / ".tmp").exists()
    rows = sum(map(int, calls.read_text().split()))
    in_flight = RECIPE.block_images * VIEWS * (KILLS[ONE] + 2 * KILLS[DEVICES] + 3 * KILLS[CLUSTER])
    assert IMAGES * VIEWS <= rows <= IMAGES * VIEWS + in_flight
