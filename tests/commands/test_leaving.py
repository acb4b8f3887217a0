"""Training is left as batch systems and terminals do it: with a signal to every process of it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from caev2.pretrain.checkpoint import latest_checkpoint, read_checkpoint
from tests.commands.invoking import caev2, refusal, train

LONG = ("epochs=60", "log_steps=1", "checkpoint_epochs=1000")  # 120 steps of some 20 ms
SETTINGS = tuple(part for text in LONG for part in ("--set", text))


def last_tensors(run: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(latest_checkpoint(run / "checkpoints").path)[0]


@pytest.fixture(scope="module")
def undisturbed(made, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    assert caev2(*train(made / "store", run, made / "images", *SETTINGS)).exit_code == 0
    return run


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_to_all_processes_saves_a_checkpoint_and_the_run_ends_as_if_undisturbed(
    made, images, tmp_path, undisturbed, number, status
):
    run = tmp_path / "run"
    words = [str(word) for word in train(made / "store", run, images, *SETTINGS, "--set", "workers=2")]
    process = subprocess.Popen(
        [Path(sys.executable).with_name("caev2"), *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # as this process has: other sums would be other bits
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job inherits it ignored
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not (run / "log.jsonl").is_file() or (run / "log.jsonl").read_bytes().count(b"\n") < 3:
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    os.killpg(process.pid, number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == status, err
    assert out == ""
    step = latest_checkpoint(run / "checkpoints").step
    assert 3 <= step < 120
    assert err.strip() == f"caev2: Stopped at step {step}; a checkpoint was saved. The same command goes on from there."
    done = caev2(*words)
    assert done.exit_code == 0, done.output
    expected, found = last_tensors(undisturbed), last_tensors(run)
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_start_from_another_run_and_refuse_what_is_none(made, images, run, tmp_path):
    said = refusal(*train(made / "store", tmp_path / "new", images, "--init-from", images))
    assert "There is no run at" in said
    assert not (tmp_path / "new").exists()
    done = caev2(*train(made / "store", tmp_path / "new", images, "--init-from", run))
    assert done.exit_code == 0, done.output
    assert not torch.equal(
        last_tensors(tmp_path / "new")["model/head.linear.weight"], last_tensors(run)["model/head.linear.weight"]
    )
