"""Training is left as batch systems and terminals do it: with a signal, to every process of it or to one."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from caev2 import cli
from caev2.pretrain.weights.checkpoint import latest_checkpoint, read_checkpoint
from tests.commands.invoking import caev2, refusal, train

PAGE = Path(__file__).parents[2] / "docs" / "reproduce.md"
LONG = ("epochs=60", "log_steps=1", "checkpoint_epochs=1000")  # 120 steps of some 20 ms
SETTINGS = tuple(part for text in LONG for part in ("--set", text))
PROGRAM = Path(sys.executable).with_name("caev2")


def last_tensors(run: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(latest_checkpoint(run / "checkpoints").path)[0]


def assert_equal_weights(one: Path, other: Path) -> None:
    expected, found = last_tensors(one), last_tensors(other)
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def start(words, **more) -> subprocess.Popen:
    return subprocess.Popen(
        [str(word) for word in words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **more},  # as this process has: other sums would be other bits
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job inherits it ignored
    )  # fmt: skip


def wait_for_steps(process: subprocess.Popen, run: Path) -> None:
    deadline = time.monotonic() + 60
    while not (run / "log.jsonl").is_file() or (run / "log.jsonl").read_bytes().count(b"\n") < 3:
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


@pytest.fixture(scope="module")
def undisturbed(made, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    assert caev2(*train(made / "store", run, made / "images", *SETTINGS)).exit_code == 0
    return run


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 138)],
    ids=lambda value: str(value),
)
def test_a_signal_to_all_processes_saves_a_checkpoint_and_the_run_ends_as_if_undisturbed(
    made, images, tmp_path, undisturbed, number, status
):
    run = tmp_path / "run"
    words = train(made / "store", run, images, *SETTINGS, "--set", "workers=2")
    process = start([PROGRAM, *words])
    wait_for_steps(process, run)
    os.killpg(process.pid, number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == status, err
    assert out == ""
    step = latest_checkpoint(run / "checkpoints").step
    assert 3 <= step < 120
    assert err.strip() == f"caev2: Stopped at step {step}; a checkpoint was saved. The same command goes on from there."
    done = caev2(*words)
    assert done.exit_code == 0, done.output
    assert_equal_weights(undisturbed, run)


def test_the_demo_is_left_as_training_is(tmp_path):
    process = start([PROGRAM, "demo", "--quick", "--quiet", "--device", "cpu", "--out", tmp_path])
    deadline = time.monotonic() + 120
    log = tmp_path / "run" / "log.jsonl"
    while not log.exists() or b"\n" not in log.read_bytes():
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 143, err
    assert re.fullmatch(r"caev2: Stopped at step \d+; a checkpoint was saved\. The same .*", err.strip())


def batch_script() -> str:
    """The one of the page that asks for a signal."""
    blocks = re.findall(r"^```bash\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    (script,) = [block for block in blocks if "--signal=B:USR1@" in block]
    return script


def test_the_batch_script_of_the_page_trains_with_words_that_exist():
    (line,) = re.findall(r"^train=\(caev2 pretrain (.*)\)$", batch_script(), re.MULTILINE)
    values = cli.main.commands["pretrain"].make_context("pretrain", shlex.split(line)).params
    assert values["recipe"] == "tiny-300e"


def test_the_batch_script_of_the_page_puts_the_job_back_and_the_next_one_ends_it(made, images, tmp_path, undisturbed):
    run, queue = tmp_path / "run", tmp_path / "queue"
    words = [str(word) for word in (PROGRAM, *train(made / "store", run, images, *SETTINGS))]
    script = tmp_path / "job.sh"
    script.write_text(re.sub(r"train=\(.*\)", f"train=({shlex.join(words)})", batch_script()))
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {queue}\n')
    scontrol.chmod(0o755)
    environment = {"PATH": f"{scontrol.parent}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"}

    first = start(["bash", script], **environment)
    wait_for_steps(first, run)
    os.kill(first.pid, signal.SIGUSR1)  # to the script alone, as `B:` says
    _, err = first.communicate(timeout=30)
    assert first.returncode == 138, err
    assert "a checkpoint was saved" in err
    assert queue.read_text() == "requeue 7\n"

    second = start(["bash", script], **environment)
    _, err = second.communicate(timeout=60)
    assert second.returncode == 0, err
    assert queue.read_text() == "requeue 7\n"
    assert_equal_weights(undisturbed, run)


def test_start_from_another_run_and_refuse_what_is_none(made, images, run, tmp_path):
    said = refusal(*train(made / "store", tmp_path / "new", images, "--init-from", images))
    assert "There is no run at" in said
    assert not (tmp_path / "new").exists()
    done = caev2(*train(made / "store", tmp_path / "new", images, "--init-from", run))
    assert done.exit_code == 0, done.output
    assert not torch.equal(
        last_tensors(tmp_path / "new")["model/head.linear.weight"], last_tensors(run)["model/head.linear.weight"]
    )
