"""A Ray cluster of this machine: workers are killed, machines join and leave, and the bytes are those of one process."""

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from caev2.cluster import device_of_tasks
from caev2.errors import SourceError
from caev2.extract.engines.cluster import RayCluster
from caev2.extract.run import extract
from caev2.progress import Silent
from caev2.store.codecs.quality import QualityFloor
from tests.extract.engines.conftest import IMAGES, RECIPE, UNITS, files_of
from tests.made_up import make_photographs

pytestmark = [
    pytest.mark.slow,  # it takes Ray seconds to start
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def cluster():
    """A cluster whose head has room for no task, so that all tasks run on machines that can be taken away."""
    import ray
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture
def machine(cluster):
    node = cluster.add_node(num_cpus=2)
    cluster.wait_for_nodes()
    yield node
    if node in cluster.worker_nodes:
        cluster.remove_node(node)


class Told(Silent):
    def __init__(self):
        self.rows, self.warnings = 0, []

    def advance(self, items, **figures):
        self.rows += items

    def warn(self, message):
        self.warnings.append(message)


def tasks_at_work() -> list[int]:
    """The processes that Ray has at work on an extraction."""
    return [
        int(process.name)
        for process in Path("/proc").iterdir()
        if process.name.isdigit() and b"ray::_work" in read_if_there(process / "cmdline")
    ]


def read_if_there(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def units_of(store: Path) -> int:
    return len(list((store / "units").glob("*.json"))) if (store / "units").is_dir() else 0


def wait_for(condition, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.usefixtures("machine")
def test_a_cluster_with_a_worker_killed_midway_leaves_the_bytes_of_one_process(photographs, undisturbed, tmp_path):
    store, killed = tmp_path / "store", []

    def kill_one() -> None:
        wait_for(lambda: 1 <= units_of(store) < UNITS and tasks_at_work())
        killed.append(tasks_at_work()[0])
        os.kill(killed[0], signal.SIGKILL)

    killer, told = threading.Thread(target=kill_one), Told()
    killer.start()
    result = extract(photographs, store, RECIPE, engine=RayCluster(), progress=told)
    killer.join()
    assert killed
    assert files_of(store) == undisturbed
    assert told.rows == IMAGES * RECIPE.view_count
    assert result.rows_computed >= IMAGES * RECIPE.view_count - RECIPE.block_images * RECIPE.view_count
    assert any("was lost" in warning for warning in told.warnings) or result.rows_computed == told.rows
    assert not tasks_at_work()


def test_machines_join_and_leave(cluster, photographs, undisturbed, tmp_path):
    store = tmp_path / "store"
    running = threading.Thread(
        target=extract, args=(photographs, store, RECIPE), kwargs={"engine": RayCluster()}, daemon=True
    )
    running.start()  # on a cluster without room
    first = cluster.add_node(num_cpus=1)
    wait_for(lambda: units_of(store) >= 2)
    second = cluster.add_node(num_cpus=1)
    cluster.remove_node(first)
    running.join(timeout=120)
    assert not running.is_alive()
    assert files_of(store) == undisturbed
    cluster.remove_node(second)


@pytest.mark.usefixtures("machine")
def test_what_a_worker_refuses_arrives_as_it_is(tmp_path):
    images = make_photographs(tmp_path / "images", 20)
    for path in sorted(images.rglob("*.png"))[:10]:
        path.write_bytes(b"no image")
    with pytest.raises(SourceError, match="images cannot be used"):
        extract(images, tmp_path / "store", RECIPE, engine=RayCluster())
    wait_for(lambda: not tasks_at_work())


@pytest.mark.usefixtures("machine")
def test_a_codec_is_calibrated_on_the_cluster(photographs, tmp_path):
    floor = QualityFloor(relative_error=0.1, centred_cosine_p1=0.5)  # a few images calibrate it
    recipe = dataclasses.replace(RECIPE, codec="int8", floor=floor)
    extract(photographs, tmp_path / "whole", recipe)
    extract(photographs, tmp_path / "store", recipe, engine=RayCluster())
    assert files_of(tmp_path / "store") == files_of(tmp_path / "whole")


@pytest.mark.usefixtures("cluster")
def test_a_cluster_without_gpus_computes_on_cpus():
    assert device_of_tasks(None, "auto") == "cpu"


def test_without_a_cluster_the_message_says_how_to_start_one():
    code = (
        "from caev2.cluster import device_of_tasks\n"
        "from caev2.errors import ConfigError\n"
        "try:\n    device_of_tasks(None, '127.0.0.1:1')\nexcept ConfigError as problem:\n    print(problem)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert "There is no Ray cluster at '127.0.0.1:1'" in done.stdout
    assert "ray start --head" in done.stdout
