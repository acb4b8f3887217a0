"""A worker process: one run after another, as long as its pipe brings some."""

import contextlib
import multiprocessing
import signal
import time
from collections.abc import Collection
from multiprocessing.connection import Connection
from typing import Any

from caev2.ablate.engines.cores import keep_to
from caev2.ablate.engines.engine import Relay
from caev2.ablate.one_run import Work, perform
from caev2.errors import Caev2Error
from caev2.pretrain.together.signals import Interrupted

TELL_S = 0.5
"""Between two words about steps that are done."""


class _Parent:
    """Whoever leads, as a worker sees it; steps are told now and then."""

    def __init__(self, connection: Connection):
        self._connection, self._steps, self._told_at = connection, 0, time.monotonic()

    def trained(self, work: Work, steps: int) -> None:
        """Count steps."""
        del work
        self._steps += steps
        if time.monotonic() - self._told_at > TELL_S:
            self.tell_steps()

    def tell_steps(self) -> None:
        """Tell how many there were since the last time."""
        steps, self._steps, self._told_at = self._steps, 0, time.monotonic()
        if steps:
            self.send("trained", steps)

    def warn(self, message: str) -> None:
        """Pass it on."""
        self.send("warn", message)

    def send(self, what: str, said: Any = None) -> None:
        """Say something; nobody may be left to hear it."""
        with contextlib.suppress(OSError):
            self._connection.send((what, said))

    def finished(self, work: Work) -> None:
        """Said where it is known."""

    def failed(self, work: Work, why: str) -> None:
        """Said where it is known."""


def serve(connection: Connection, device: str, threads: int, cores: Collection[int]) -> None:
    """The body of a worker: one run after another, until the pipe ends."""
    keep_to(cores)  # before any thread begins, for each begins with those of this one
    import torch

    from caev2.pretrain.learning.heap import keep_freed_memory
    from caev2.workers import end_with

    parent_process = multiprocessing.parent_process()
    if parent_process is not None and parent_process.pid is not None:
        end_with(parent_process.pid)
    multiprocessing.set_start_method("fork", force=True)  # for data workers: not an interpreter of their own for each
    torch.set_num_threads(threads)
    if device == "cpu":
        keep_freed_memory()
    parent = _Parent(connection)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    while True:
        try:
            work = connection.recv()
        except (EOFError, OSError):
            return
        what, said = _do(work, device, parent)
        parent.tell_steps()
        parent.send(what, said)
        if what == "interrupted":
            return


def _do(work: Work, device: str, parent: _Parent) -> tuple[str, Any]:
    try:
        return ("finished" if perform(work, device, Relay(work, parent)) else "busy"), None
    except Caev2Error as problem:
        return "failed", str(problem)
    except Interrupted as left:
        return "interrupted", left.signal_number
