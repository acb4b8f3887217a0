"""One run, several processes: the same training, the same ways to leave it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from caev2.pretrain.telling.log import read_log
from caev2.pretrain.weights.checkpoint import latest_checkpoint
from tests.commands.invoking import caev2, train
from tests.commands.test_leaving import PROGRAM, SETTINGS, start, wait_for_steps

STEPS = 120
TOLERANCE = 1e-5
"""Of a loss, relative: sums over ranks are added up in another order."""


def losses(run: Path) -> list[float]:
    return [record["loss"] for record in read_log(run)]


def run_ranks(count: int, words, **more) -> subprocess.CompletedProcess:
    process = start([PROGRAM, *words, "--gpus", count], **more)
    out, err = process.communicate(timeout=300)
    return subprocess.CompletedProcess(words, process.returncode, out, err)


def ranks_of(process: subprocess.Popen) -> list[int]:
    """The processes of the ranks, in their order."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(child) for child in children]


@pytest.fixture(scope="module")
def alone(made, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("alone") / "run"
    done = caev2(*train(made / "store", run, made / "images", *SETTINGS))
    assert done.exit_code == 0, done.output
    return run


def test_two_ranks_train_as_one_does_and_one_of_them_speaks(made, images, tmp_path, alone):
    run = tmp_path / "run"
    done = run_ranks(2, [*train(made / "store", run, images, *SETTINGS), "--json"])
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps_computed"] == STEPS
    assert losses(run)[:50] == pytest.approx(losses(alone)[:50], rel=TOLERANCE)


@pytest.mark.slow
def test_what_is_refused_is_said_once(made, images, tmp_path):
    run = tmp_path / "run"
    run.write_text("no folder")
    done = run_ranks(2, train(made / "store", run, images, *SETTINGS))
    assert done.returncode == 2
    assert done.stderr.count("caev2:") == 1, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--gpus", "2", "--device", "cuda:1"], "--gpus 2 takes the first 2 GPUs, and --device names cuda:1"),
        (["--gpus", "99"], "--gpus 99 was asked for, and there are"),
        (["--gpus", "0"], "Invalid value for '--gpus'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_gpus_that_cannot_be_had_are_refused(made, tmp_path, words, said):
    plain = [
        word for word in train(made / "store", tmp_path / "run", made / "images") if word not in ("--device", "cpu")
    ]
    done = caev2(*plain, *words)
    assert done.exit_code == 2
    assert said in done.output
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_batch_that_ranks_cannot_share_is_refused(made, images, tmp_path):
    done = run_ranks(2, train(made / "store", tmp_path / "run", images, "--set", "batch_size=5"))
    assert done.returncode == 2
    assert "A batch of 5 images is not cut into 2" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_runs_go_on_with_other_ranks_and_see_the_same_batches(made, images, tmp_path, alone):
    run, words = tmp_path / "run", train(made / "store", tmp_path / "run", images, *SETTINGS, "--set", "workers=1")
    for count in (1, 2, 1):
        process, before = start([PROGRAM, *words, "--gpus", count]), len(read_log(run))
        while len(read_log(run)) < before + 3:
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 143, err
    assert run_ranks(2, words).returncode == 0
    assert [record["step"] for record in read_log(run)] == list(range(STEPS))
    assert losses(run)[:50] == pytest.approx(losses(alone)[:50], rel=TOLERANCE)


@pytest.mark.slow
def test_four_ranks_train_as_one_does(made, images, tmp_path, alone):
    run = tmp_path / "run"
    done = run_ranks(4, train(made / "store", run, images, *SETTINGS))
    assert done.returncode == 0, done.stderr
    assert losses(run)[:50] == pytest.approx(losses(alone)[:50], rel=TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1], ids=str)
def test_ranks_that_are_asked_to_leave_save_and_leave_together(made, images, tmp_path, alone, number):
    run, words = tmp_path / "run", train(made / "store", tmp_path / "run", images, *SETTINGS)
    process = start([PROGRAM, *words, "--gpus", 2])
    wait_for_steps(process, run)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, err
    assert out == ""
    assert err.count("a checkpoint was saved") == 1, err
    assert 3 <= latest_checkpoint(run / "checkpoints").step < STEPS
    assert run_ranks(2, words).returncode == 0
    assert losses(run)[:50] == pytest.approx(losses(alone)[:50], rel=TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_rank_that_is_killed_brings_the_other_down_and_the_run_goes_on(made, images, tmp_path, alone, victim):
    run = tmp_path / "run"
    words = train(made / "store", run, images, *SETTINGS, "--set", "checkpoint_steps=2")
    process = start([PROGRAM, *words, "--gpus", 2])
    wait_for_steps(process, run)
    ranks = ranks_of(process)
    os.kill(ranks[victim], signal.SIGKILL)
    killed = time.monotonic()
    out, err = process.communicate(timeout=60)
    assert time.monotonic() - killed < 60
    assert process.returncode == 2, err
    assert out == ""
    assert f"Rank {victim} of 2 was ended by SIGKILL" in err
    assert "Traceback" not in err
    assert not any(Path(f"/proc/{rank}").exists() for rank in ranks)
    assert run_ranks(2, words).returncode == 0
    assert losses(run)[:50] == pytest.approx(losses(alone)[:50], rel=TOLERANCE)


@pytest.mark.slow
def test_ranks_end_with_a_launcher_that_is_killed(made, images, tmp_path):
    run = tmp_path / "run"
    process = start([PROGRAM, *train(made / "store", run, images, *SETTINGS, "--set", "epochs=10000"), "--gpus", 2])
    wait_for_steps(process, run)
    ranks = ranks_of(process)
    process.kill()
    process.communicate(timeout=60)
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{rank}").exists() for rank in ranks):
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.slow
def test_torchrun_starts_ranks_as_well(made, images, tmp_path, alone):
    run = tmp_path / "run"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2]
    process = start([*torchrun, "-m", "caev2.cli", *train(made / "store", run, images, *SETTINGS)])
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert losses(run)[:50] == pytest.approx(losses(alone)[:50], rel=TOLERANCE)
