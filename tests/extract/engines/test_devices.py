"""Several devices of one machine, which on a machine without any is the CPU several times."""

import dataclasses
import multiprocessing
import os
import signal
import threading
import time

import pytest

from caev2.errors import SourceError, WorkerDied
from caev2.extract.engines.devices import ManyDevices
from caev2.extract.run import extract
from caev2.progress import Silent
from tests.extract.engines.conftest import IMAGES, RECIPE, files_of
from tests.made_up import EXTRACT, PatchMeans, make_photographs

TWO = ManyDevices(("cpu", "cpu"))


class Rows(Silent):
    """Counts what it is told."""

    def __init__(self):
        self.rows = 0

    def advance(self, items, **figures):
        self.rows += items


def at_work() -> list[multiprocessing.process.BaseProcess]:
    """The processes of devices, and not the data workers that another test may have left to be collected."""
    return [process for process in multiprocessing.active_children() if process.name in TWO.devices]


def test_two_devices_leave_the_bytes_of_one(photographs, undisturbed, tmp_path):
    told = Rows()
    result = extract(photographs, tmp_path / "store", RECIPE, engine=TWO, progress=told)
    assert result.rows_computed == told.rows == IMAGES * RECIPE.view_count
    assert files_of(tmp_path / "store") == undisturbed


def test_too_many_undecodable_images_stop_every_device(tmp_path):
    images = make_photographs(tmp_path / "images", 40)
    for path in sorted(images.rglob("*.png"))[:20]:
        path.write_bytes(b"no image")
    with pytest.raises(SourceError, match="images cannot be used"):
        extract(images, tmp_path / "store", RECIPE, engine=TWO)
    assert at_work() == []
    assert not (tmp_path / "store" / ".tmp").exists()


class Flaky(PatchMeans):
    """Its device is reached over a network of its own."""

    def tokens(self, images, taps):
        raise ConnectionResetError("the device's, not the pipe's")


def test_a_failure_of_the_teacher_is_not_taken_for_the_end_of_the_work(tmp_path, capfd):
    images = make_photographs(tmp_path / "images", 20)
    with pytest.raises(WorkerDied, match="exit status 1"):
        extract(images, tmp_path / "store", EXTRACT, teacher=Flaky(), engine=TWO)
    assert "the device's, not the pipe's" in capfd.readouterr().err  # a bug's traceback


class Slow(PatchMeans):
    """Takes its time, so that there is something to be killed in."""

    def tokens(self, images, taps):
        time.sleep(0.05)
        return super().tokens(images, taps)


@pytest.mark.parametrize("wait_s", [None, 0.0, 0.02, 0.1, 0.3])
def test_a_device_process_that_is_killed_is_named_and_the_same_command_goes_on(photographs, tmp_path, wait_s):
    def kill_one() -> None:
        while not (at_work() if wait_s is None else (store / "units").is_dir()):
            time.sleep(0.01)
        time.sleep(wait_s or 0)
        victim = at_work()[0]
        assert victim.pid is not None
        os.kill(victim.pid, signal.SIGKILL)

    recipe, store = dataclasses.replace(EXTRACT, workers=0), tmp_path / "store"  # two seconds for both devices
    extract(photographs, tmp_path / "whole", recipe, teacher=PatchMeans())
    killer = threading.Thread(target=kill_one)
    killer.start()
    with pytest.raises(WorkerDied, match="extracts on cpu was ended from outside"):
        extract(photographs, store, recipe, teacher=Slow(), engine=TWO)
    killer.join()
    assert at_work() == []
    extract(photographs, store, recipe, teacher=PatchMeans(), engine=TWO)
    assert files_of(store) == files_of(tmp_path / "whole")
