"""Disks that are full: what was saved stays, and the same command goes on once there is room."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.pretrain.training import assert_equal_runs, files_of, train

ROOT = Path(__file__).parents[2]

SMALL_DISK = """
set -e
mount -t tmpfs -o size={size} none {place}
exec {python} -c "$SCRIPT" "$@"
"""
"""A file system of so many bytes that nobody else sees, and that is gone with its process."""


def on_a_small_disk(script: str, place: Path, size: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    place.mkdir()
    shell = SMALL_DISK.format(size=size, place=place, python=sys.executable)
    return subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", shell, "sh", str(place), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "OMP_NUM_THREADS": "1", "SCRIPT": script},
        check=False,
    )


def namespaces_work() -> bool:
    command = ["unshare", "--user", "--map-root-user", "--mount", "true"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


needs_a_small_disk = pytest.mark.skipif(not namespaces_work(), reason="this system lets nobody mount a file system")

FILL = """
import errno, os, shutil, sys
from pathlib import Path
from caev2.errors import OutputError
from caev2.pretrain.weights.checkpoint import list_checkpoints
from tests.pretrain.training import train

place, data, kept = map(Path, sys.argv[1:4])
run = place / "run"

def fill(spare: int) -> None:
    (place / "filler").unlink(missing_ok=True)
    free = shutil.disk_usage(place).free
    with (place / "filler").open("wb") as file:
        file.write(bytes(max(0, free - spare)))

def refused(stage, stop_after=None) -> None:
    before = [one.path.read_bytes() for one in list_checkpoints(run / "checkpoints")]
    try:
        train(data, run, stop_after=stop_after)
    except OutputError as problem:
        print(stage, problem)
    assert before
    assert [one.path.read_bytes() for one in list_checkpoints(run / "checkpoints")] == before
    assert not list((run / "checkpoints").glob(".*"))

train(data, run, stop_after=2)
fill(spare=60_000)
refused("checkpoint:")
fill(spare=0)
refused("nothing:")
(place / "filler").unlink()
assert train(data, run).steps == 9
shutil.copytree(run, kept)
"""


@needs_a_small_disk
def test_a_disk_that_is_full_keeps_the_old_checkpoints_and_the_same_command_goes_on(data, tmp_path):
    done = on_a_small_disk(FILL, tmp_path / "disk", 2_000_000, data, tmp_path / "run")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(f"checkpoint: Cannot write {tmp_path}/disk/run/checkpoints/step-00000000")
    assert "No space left on device. Checkpoints written before are untouched; make space and" in lines[0]
    assert lines[1].startswith("nothing: Cannot write ")
    assert "No space left on device" in lines[1]
    train(data, tmp_path / "whole")
    assert_equal_runs(tmp_path / "run", tmp_path / "whole")


LOG = """
import resource, sys
from pathlib import Path
from caev2.errors import OutputError
from tests.pretrain.training import train

data, run = map(Path, sys.argv[1:3])
train(data, run, stop_after=2)
limit = (run / "log.jsonl").stat().st_size + 100  # less than a line
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
try:
    train(data, run)
except OutputError as problem:
    print(problem)
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
assert (run / "log.jsonl").stat().st_size == limit
assert train(data, run).steps == 9
"""


def test_a_log_that_cannot_grow_stops_the_run_with_one_message_and_is_whole_again_later(data, tmp_path):
    command = [sys.executable, "-c", LOG, str(data), str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    (said,) = done.stdout.splitlines()
    assert said.startswith(f"Cannot write {tmp_path}/run/log.jsonl: File too large. Make space")
    train(data, tmp_path / "whole")
    assert_equal_runs(tmp_path / "run", tmp_path / "whole")


DIVERGED = """
import dataclasses, resource, sys
from pathlib import Path
from caev2.errors import TrainingDiverged
from tests.pretrain.test_not_finite import HOT
from tests.pretrain.training import train

data, run = map(Path, sys.argv[1:3])
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
try:
    train(data, run, dataclasses.replace(HOT, checkpoint_epochs=100))
except TrainingDiverged as problem:
    print(problem)
"""


def test_a_step_that_cannot_be_kept_does_not_hide_why_the_run_stopped(data, tmp_path):
    command = [sys.executable, "-c", DIVERGED, str(data), str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    (said,) = done.stdout.splitlines()
    assert "not finite in 3 steps in a row, up to step" in said
    assert "The last one is not kept for a replay. Cannot write" in said
    assert "File too large" in said
    assert not [name for name in files_of(tmp_path / "run") if "diverged" in name]
