"""The engine for this machine: worker processes side by side, each of which does one run after another.

A worker has its share of the cores, or a GPU of its own. One that is killed from outside costs the run that it was at,
which is told as a failure; another worker takes its place.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from caev2.ablate.engines.engine import WAIT_S, Told
from caev2.ablate.engines.worker import TELL_S, serve
from caev2.ablate.one_run import Work
from caev2.pretrain.together.signals import Interrupted

LEAVE_S = 60.0
"""How long workers that were asked to leave may take to save what they trained."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SideBySide:
    """Runs side by side, a process for each device; see `engine.Engine`."""

    devices: tuple[str, ...] = ("cpu",)
    """One for each worker; two may share one."""
    threads: int = 1
    """Of each worker. On a CPU the last bits of weights depend on it."""

    @property
    def device(self) -> str:
        """The first: all are of one kind."""
        return self.devices[0]

    def work_off(self, works: Sequence[Work], told: Told) -> None:
        """Give each worker one run after another."""
        crew = _Crew(self.threads)
        try:
            _lead(crew, self.devices[: len(works)], deque(works), told)
        except BaseException:
            crew.interrupt()
            raise
        finally:
            crew.dismiss()


@dataclass(slots=True)
class _Worker:
    """A process, and what it is at."""

    process: BaseProcess
    device: str
    work: Work | None = None


class _Crew:
    """The workers there are, by their pipes.

    Args:
        threads: Of each.
    """

    def __init__(self, threads: int):
        self._threads = threads
        self.workers: dict[Connection, _Worker] = {}

    def hire(self, device: str) -> Connection:
        """Start a worker. How many threads it has, torch has to be told before it is loaded."""
        context = multiprocessing.get_context("spawn")  # a process that has used CUDA cannot be forked into another
        ours, theirs = context.Pipe()
        process = context.Process(target=serve, args=(theirs, device, self._threads), name=device)
        with _signals_ignored(), _threads_in_environment(self._threads):
            process.start()
        theirs.close()
        self.workers[ours] = _Worker(process, device)
        return ours

    def give(self, connection: Connection, work: Work) -> None:
        """Give a worker something to do; one that is gone is found when its pipe is read."""
        self.workers[connection].work = work
        with contextlib.suppress(OSError):
            connection.send(work)

    def bury(self, connection: Connection) -> str:
        """Forget a worker that is gone, and say why."""
        process = self.workers.pop(connection).process
        connection.close()
        return _say_death(process)

    def interrupt(self) -> None:
        """Ask those that train to save and leave, and wait until they have."""
        for worker in self.workers.values():
            if worker.work is not None and worker.process.pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker.process.pid, signal.SIGTERM)
        deadline = time.monotonic() + LEAVE_S
        for worker in self.workers.values():
            if worker.work is not None:
                worker.process.join(max(0.0, deadline - time.monotonic()))

    def dismiss(self) -> None:
        """Leave no worker behind."""
        for connection in self.workers:
            connection.close()
        for worker in self.workers.values():
            if worker.work is None:
                worker.process.join(TELL_S)
            if worker.process.is_alive():
                worker.process.kill()
            worker.process.join()


def _lead(crew: _Crew, devices: Sequence[str], left: deque[Work], told: Told) -> None:
    """Have all the work done."""
    resting: list[Work] = []  # another command is at them
    for device in devices:
        crew.give(crew.hire(device), left.popleft())
    while at_work := [one for one, worker in crew.workers.items() if worker.work is not None]:
        for connection in wait(at_work):
            assert isinstance(connection, Connection)
            worker = crew.workers[connection]
            work, message = worker.work, _receive(connection)
            assert work is not None
            if message is None:
                told.failed(work, crew.bury(connection))
                free = crew.hire(worker.device) if left or resting else None
            elif _hear(message, work, told, resting):
                free, worker.work = connection, None
            else:
                continue
            if not left and resting:
                time.sleep(WAIT_S)
                left.extend(resting)
                resting.clear()
            if left and free is not None:
                crew.give(free, left.popleft())


def _receive(connection: Connection) -> tuple[str, Any] | None:
    """What a worker says; none: it is gone."""
    try:
        return connection.recv()
    except (EOFError, OSError):
        return None


def _hear(message: tuple[str, Any], work: Work, told: Told, resting: list[Work]) -> bool:
    """Pass on what a worker says; whether it is free now.

    Raises:
        Interrupted: Somebody asked the worker to leave.
    """
    what, said = message
    if what == "trained":
        told.trained(work, said)
    elif what == "warn":
        told.warn(said)
    elif what == "interrupted":
        raise Interrupted(said, None)
    elif what == "failed":
        told.failed(work, said)
    elif what == "busy":
        resting.append(work)
    else:
        told.finished(work)
    return what not in ("trained", "warn")


def _say_death(process: BaseProcess) -> str:
    process.join(TELL_S)
    if process.exitcode is not None and process.exitcode > 0:
        return f"Its process ended with an error (exit status {process.exitcode}), which it has printed: a bug."
    return (
        f"Its process was ended from outside (exit status {process.exitcode}). Most often memory was short: let fewer "
        "runs be side by side. The same command goes on from the last checkpoint."
    )


@contextlib.contextmanager
def _signals_ignored() -> Iterator[None]:
    """A process that begins now ignores Ctrl-C and SIGTERM from its first moment, until it is asked to train."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _threads_in_environment(threads: int) -> Iterator[None]:
    """What a process that begins now finds there: libraries read it when they are loaded."""
    name = "OMP_NUM_THREADS"
    before = os.environ.get(name)
    os.environ[name] = str(threads)
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
