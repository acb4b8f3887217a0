"""Killed at any moment, again and again, a run ends in the weights of one that nobody disturbed."""

import dataclasses
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from caev2.pretrain.recipes import PretrainRecipe
from caev2.pretrain.weights.checkpoint import latest_checkpoint
from tests.made_up_pretrain import PRETRAIN
from tests.pretrain.training import assert_equal_runs, files_of, train

ROOT = Path(__file__).parents[2]
TRAINERS = """
import os, sys
from pathlib import Path
from tests.pretrain.test_kills import saving_each_step
from tests.pretrain.training import train

# each trainer is a fork of this process, which has imported everything once; its number is told
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        train(Path(sys.argv[1]), Path(sys.argv[2]), saving_each_step(int(sys.argv[3])))
        os._exit(0)
    print(child, flush=True)
    os.waitpid(child, 0)
    print("gone", flush=True)
"""


def saving_each_step(epochs: int) -> PretrainRecipe:
    """Three steps an epoch, of some 20 ms each."""
    return dataclasses.replace(PRETRAIN, epochs=epochs, checkpoint_steps=1)


def wait_for_lines(log: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    while not log.is_file() or log.read_bytes().count(b"\n") < count:
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.parametrize(("kills", "epochs"), [(4, 8), pytest.param(50, 80, marks=pytest.mark.slow)])
def test_kills_at_random_moments_leave_the_weights_as_they_would_have_been(data, tmp_path, kills, epochs):
    run, chance = tmp_path / "run", random.Random(kills)
    command = [sys.executable, "-c", TRAINERS, str(data), str(run), str(epochs)]
    steps = [0]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as trainers:
        for _ in range(kills):
            trainers.stdin.write("train\n")
            trainers.stdin.flush()
            child = int(trainers.stdout.readline())
            if more := chance.randrange(5):  # else it is killed while it starts
                wait_for_lines(run / "log.jsonl", min(steps[-1] + more, 3 * epochs - 5))
            time.sleep(chance.uniform(0, 0.04))
            os.kill(child, signal.SIGKILL)
            assert trainers.stdout.readline() == "gone\n"
            found = latest_checkpoint(run / "checkpoints")
            steps.append(found.step if found else 0)
        trainers.stdin.close()
    assert steps == sorted(steps)
    assert 0 < steps[-1] < 3 * epochs, steps
    for place in (run, tmp_path / "whole"):
        train(data, place, saving_each_step(epochs))
    assert_equal_runs(run, tmp_path / "whole")
    assert files_of(run).keys() == files_of(tmp_path / "whole").keys()
