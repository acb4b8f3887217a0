"""Being asked to leave: between steps, while waiting for a batch, and before training."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from caev2.pretrain.together import signals
from caev2.pretrain.together.signals import SIGNALS, Interrupted, catching_signals, leaving_early
from caev2.pretrain.weights.checkpoint import latest_checkpoint
from tests.pretrain.training import STEPS, assert_equal_runs, train

STUCK = """
import os, sys, time
from caev2.pretrain.plan import row_order
from caev2.pretrain.run import pretrain
from caev2.pretrain.together.signals import Interrupted
from caev2.recipe import override
from caev2.store.reader import Store
from tests.made_up_pretrain import PRETRAIN

class StuckStore(Store):
    # serves the batches of the first four steps

    def read_into(self, rows, target, view, images):
        order = row_order(PRETRAIN, self)
        if not any(view == order.view_of(step) and list(images) == list(order.rows_of(step)) for step in range(4)):
            os.write(1, b"stuck\\n")
            time.sleep(600)
        super().read_into(rows, target, view, images)

recipe = override(PRETRAIN, ["workers=" + sys.argv[3]])
try:
    pretrain(StuckStore(sys.argv[1] + "/store"), sys.argv[2], recipe, images=sys.argv[1] + "/images")
except Interrupted as left:
    print(left)
    sys.exit(128 + left.signal_number)
"""


@pytest.mark.parametrize("workers", [0, 4])
def test_a_run_whose_batch_does_not_come_saves_and_leaves_all_the_same(data, tmp_path, workers):
    run = tmp_path / "run"
    command = [sys.executable, "-c", STUCK, str(data), str(run), str(workers)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3]) as process:
        assert process.stdout.readline() == "stuck\n"
        time.sleep(2)  # workers are ahead: the steps before the one that is stuck are trained
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=60)
        seconds = time.monotonic() - begun
    assert process.returncode == 143
    assert (
        out.replace("stuck\n", "")
        == "Stopped at step 4; a checkpoint was saved. The same command goes on from there.\n"
    )
    assert seconds < 20  # of the 30 that batch systems leave; workers are not waited for one after another
    assert latest_checkpoint(run / "checkpoints").step == 4
    assert train(data, run).steps_computed == STEPS - 4
    train(data, tmp_path / "whole")
    assert_equal_runs(run, tmp_path / "whole")


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.fixture
def in_foreground():
    """The tests themselves may run as a background job, for which a shell has Ctrl-C ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("in_foreground")
@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_ends_the_items_after_the_current_one_and_the_old_handlers_come_back(number):
    before = {one: signal.getsignal(one) for one in (*SIGNALS, signal.SIGALRM)}
    seen = []
    with catching_signals() as leaving:
        for item in leaving.until_asked(iter(range(9))):
            if item == 3:
                send(number)
                send(signal.SIGTERM)
            seen.append(item)
        assert leaving.number == number
    assert seen == [0, 1, 2, 3]
    assert {one: signal.getsignal(one) for one in before} == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_what_is_ignored_stays_so_as_ctrl_c_is_for_a_background_job_of_a_shell():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with catching_signals() as leaving:
            send(signal.SIGINT)
            assert list(leaving.until_asked(iter(range(3)))) == [0, 1, 2]
            assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_ctrl_c_once_more_leaves_at_once_and_the_same_one_sent_twice_does_not(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(signals.time, "monotonic", lambda: now[0])
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell ignores it
    try:
        with catching_signals() as leaving:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGINT, signal.SIGTERM):
                signal.raise_signal(number)
                now[0] += 0.3
            now[0] += 0.5
            signal.raise_signal(signal.SIGTERM)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert leaving.number == signal.SIGTERM


def test_a_signal_before_the_first_item_leaves_none():
    with catching_signals() as leaving:
        send(signal.SIGUSR1)
        assert list(leaving.until_asked(iter(range(9)))) == []


def test_without_a_signal_all_items_come():
    with catching_signals() as leaving:
        assert list(leaving.until_asked(iter(range(9)))) == list(range(9))
        assert leaving.number is None


def test_a_signal_before_training_leaves_at_once_and_the_old_handler_comes_back():
    before = signal.getsignal(signal.SIGUSR1)
    with pytest.raises(Interrupted, match=r"Stopped before training began\. The same command goes on"), leaving_early():
        send(signal.SIGUSR1)
    assert signal.getsignal(signal.SIGUSR1) == before


def test_outside_the_main_thread_nothing_is_caught():
    seen = []

    def work():
        with leaving_early(), catching_signals() as leaving:
            seen.extend(leaving.until_asked(iter(range(3))))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [0, 1, 2]
