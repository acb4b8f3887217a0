"""One trainer a run, whatever became of the one before."""

import errno
import fcntl
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from caev2.errors import CheckpointError, OutputError
from caev2.pretrain.together.lock import FILE_NAME, hold_run
from caev2.progress import Silent
from caev2.recipe import override
from tests.made_up_pretrain import PRETRAIN
from tests.pretrain.training import STEPS, assert_equal_runs, files_of, train

ROOT = Path(__file__).parents[3]
STOP_AND_WAIT = """
import sys, time
from caev2.pretrain import run as stage
from caev2.pretrain.learning.step import TrainStep
from tests.made_up_pretrain import PRETRAIN
class Step(TrainStep):
    def __call__(self, batch, lr):
        if batch.step == 4:
            print("at step 4", flush=True)
            sys.stdin.read()
        return super().__call__(batch, lr)
stage.TrainStep = Step
stage.pretrain(sys.argv[1] + "/store", sys.argv[2], PRETRAIN, images=sys.argv[1] + "/images")
"""


def start(script: str, *arguments: object) -> subprocess.Popen:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def test_a_second_process_is_refused_and_the_first_ends_as_if_nobody_had_asked(data, tmp_path):
    run = tmp_path / "run"
    with start(STOP_AND_WAIT, data, run) as first:
        assert first.stdout.readline() == "at step 4\n"
        before = files_of(run)
        with pytest.raises(OutputError, match=rf"is being trained by another process \(process {first.pid} on \S+\)"):
            train(data, run)
        assert files_of(run) == before
        first.communicate("", timeout=60)
    assert first.returncode == 0
    assert train(data, run).steps_computed == 0
    train(data, tmp_path / "alone")
    assert_equal_runs(run, tmp_path / "alone")


KILLED = """
import os, signal, sys
from caev2.pretrain import run as stage
from caev2.pretrain.learning.step import TrainStep
from caev2.recipe import override
from tests.made_up_pretrain import PRETRAIN
class Step(TrainStep):
    def __call__(self, batch, lr):
        if batch.step == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(batch, lr)
stage.TrainStep = Step
recipe = override(PRETRAIN, ["workers=2"])
stage.pretrain(sys.argv[1] + "/store", sys.argv[2], recipe, images=sys.argv[1] + "/images")
"""


def test_a_killed_trainer_leaves_no_lock_though_its_workers_live_on_for_a_while(data, tmp_path):
    run = tmp_path / "run"
    with start(KILLED, data, run) as killed:
        assert killed.wait(60) == -signal.SIGKILL
        assert train(data, run).steps_computed == STEPS - 3  # one epoch was saved
    train(data, tmp_path / "alone")
    assert_equal_runs(run, tmp_path / "alone")


def test_a_run_that_was_refused_or_stopped_by_an_error_is_free_again(data, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(ZeroDivisionError), hold_run(run, Silent()):
        raise ZeroDivisionError
    with hold_run(run, Silent()), pytest.raises(OutputError, match="is being trained"):
        train(data, run)
    assert train(data, run).steps == STEPS


def test_another_run_is_called_so_even_while_it_is_trained(data, tmp_path):
    run = tmp_path / "run"
    train(data, run, stop_after=1)
    before = files_of(run)
    with (
        hold_run(run, Silent()),
        pytest.raises(CheckpointError, match=r"its recipe.seed is 0, this command asks for 1"),
    ):
        train(data, run, override(PRETRAIN, ["seed=1"]))
    assert files_of(run) == before


def damage_bytes(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"seed": 0', b'"seed": 1'))


def make_foreign(path: Path) -> None:
    path.write_bytes(b"[1, 2]")


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_bytes, "is damaged or was edited"),
        (make_foreign, "is damaged or was edited"),
        (make_folder, "cannot be read: Is a directory"),
    ],
)
def test_a_damaged_or_foreign_run_file_is_refused_and_nothing_is_written(data, tmp_path, damage, message):
    run = tmp_path / "run"
    train(data, run, stop_after=1)
    damage(run / "run.json")
    (run / FILE_NAME).unlink()
    before = files_of(run)
    with pytest.raises(CheckpointError, match=rf"run.json {message}"):
        train(data, run)
    assert files_of(run) == before


class Listener(Silent):
    def __init__(self):
        self.heard: list[str] = []

    def warn(self, message: str) -> None:
        self.heard.append(message)


def test_a_file_system_without_locks_is_trained_on_with_a_warning(data, tmp_path, monkeypatch):
    def refuse(descriptor, operation):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    progress = Listener()
    assert train(data, tmp_path / "run", progress=progress).steps == STEPS
    assert len(progress.heard) == 1
    assert "keeps no locks (Function not implemented)" in progress.heard[0]
