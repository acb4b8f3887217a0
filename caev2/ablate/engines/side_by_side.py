"""The engine for this machine: worker processes side by side, each of which does one run after another.

A worker has its share of the cores, or a GPU of its own. One that is killed from outside costs the run that it was at,
which is told as a failure; another worker takes its place.
"""

import contextlib
import multiprocessing
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from caev2.ablate.engines.cores import own_cores, share_of
from caev2.ablate.engines.engine import LEAVE_S, WAIT_S, Told
from caev2.ablate.engines.worker import TELL_S, serve
from caev2.ablate.one_run import Work
from caev2.pretrain.together.signals import Interrupted
from caev2.workers import signals_ignored

ASK_S = 1.0
"""Between two requests to leave."""
DIE_S = 30.0
"""How long a process may take from the end of its pipe to its own: the machine may be busy."""


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
            _lead(crew, _seats(self.devices[: len(works)]), deque(works), told)
        except BaseException:
            crew.interrupt()
            raise
        finally:
            crew.dismiss()


@dataclass(frozen=True, slots=True)
class _Seat:
    """What a worker computes with."""

    device: str
    cores: frozenset[int]
    """Its share, where it has a GPU; none: those of all, of which it uses as many as it has threads."""


def _seats(devices: Sequence[str]) -> list[_Seat]:
    """Each with as many cores as any other, so that data workers of one run leave those of others alone."""
    return [
        _Seat(device, share_of(own_cores(), place, len(devices)) if device.startswith("cuda") else frozenset())
        for place, device in enumerate(devices)
    ]


@dataclass(slots=True)
class _Worker:
    """A process, and what it is at."""

    process: BaseProcess
    seat: _Seat
    work: Work | None = None


class _Crew:
    """The workers there are, by their pipes.

    Args:
        threads: Of each.
    """

    def __init__(self, threads: int):
        self._threads = threads
        self.workers: dict[Connection, _Worker] = {}

    def hire(self, seat: _Seat) -> Connection:
        """Start a worker. How many threads it has, torch has to be told before it is loaded."""
        context = multiprocessing.get_context("spawn")  # a process that has used CUDA cannot be forked into another
        ours, theirs = context.Pipe()
        words = (theirs, seat.device, self._threads, seat.cores)
        process = context.Process(target=serve, args=words, name=seat.device)
        with signals_ignored(), _threads_in_environment(self._threads):
            process.start()
        theirs.close()
        self.workers[ours] = _Worker(process, seat)
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
        """Ask those that train to save and leave, and wait until they have.

        They are asked again and again: one that is just starting hears nothing until torch is loaded. To one that is
        saving it is the same request.
        """
        at_work = [worker.process for worker in self.workers.values() if worker.work is not None]
        deadline = time.monotonic() + LEAVE_S
        while at_work and time.monotonic() < deadline:
            for process in at_work:
                process.terminate()
            wait([process.sentinel for process in at_work], timeout=ASK_S)
            at_work = [process for process in at_work if process.is_alive()]

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


def _lead(crew: _Crew, seats: Sequence[_Seat], left: deque[Work], told: Told) -> None:
    """Have all the work done."""
    resting: list[Work] = []  # another command is at them
    for seat in seats:
        crew.give(crew.hire(seat), left.popleft())
    while at_work := [one for one, worker in crew.workers.items() if worker.work is not None]:
        for connection in wait(at_work):
            assert isinstance(connection, Connection)
            worker = crew.workers[connection]
            work, message = worker.work, _receive(connection)
            assert work is not None
            if message is None:
                told.failed(work, crew.bury(connection))
                free = crew.hire(worker.seat) if left or resting else None
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
    process.join(DIE_S)
    if process.exitcode is not None and process.exitcode > 0:
        return f"Its process ended with an error (exit status {process.exitcode}), which it has printed: a bug."
    return (
        f"Its process was ended from outside (exit status {process.exitcode}). Most often memory was short: let fewer "
        "runs be side by side. The same command goes on from the last checkpoint."
    )


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
