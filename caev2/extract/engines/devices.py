"""The engine for several devices of this machine: a process for each, which asks this one for block after block.

Parent and child share one pipe. When either dies the other reads the end of it, so nothing is left behind.
"""

import multiprocessing
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import torch

from caev2.errors import Caev2Error, WorkerDied
from caev2.extract.engines.engine import decode_workers
from caev2.extract.engines.foreman import Foreman
from caev2.extract.job import Job
from caev2.extract.tally import Tally
from caev2.extract.teachers.teacher import Teacher
from caev2.extract.units import ImageDone
from caev2.progress import Progress, Silent
from caev2.store.writer import StoreWriter

_TELL_SECONDS = 0.2
_LEAVE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class ManyDevices:
    """Computes on each of some devices; see `engine.Engine`."""

    devices: tuple[str, ...]

    @property
    def device(self) -> str:
        """The first of them: all are of one kind."""
        return self.devices[0]

    @property
    def own_device(self) -> str:
        """The first, to calibrate on."""
        return self.devices[0]

    def workers(self, wanted: int | None) -> int:
        """See `engine.decode_workers`."""
        return decode_workers(wanted, self.device, len(self.devices))

    def calibrate(self, job: Job, writer: StoreWriter, teacher: Teacher, progress: Progress) -> None:
        """Here."""
        job.calibrate(writer, teacher, self.device, progress)

    def compute(
        self,
        job: Job,
        writer: StoreWriter,
        teacher: Teacher,
        blocks: Sequence[int],
        tally: Tally,
        progress: Progress,
    ) -> None:
        """In processes of their own."""
        del writer, teacher
        foreman, context = Foreman(blocks), multiprocessing.get_context("spawn")  # a CUDA device cannot be forked
        crew: dict[Connection, BaseProcess] = {}
        try:
            for device in self.devices[: len(blocks)]:
                ours, theirs = context.Pipe()
                process = context.Process(target=_work, args=(job, device, theirs), name=device)
                process.start()
                theirs.close()
                crew[ours] = process
            _lead(crew, foreman, tally, progress)
        finally:
            _dismiss(crew)


def _lead(crew: dict[Connection, BaseProcess], foreman: Foreman, tally: Tally, progress: Progress) -> None:
    """Answer the workers until all have left."""
    at_work = set(crew)
    while at_work:
        for connection in wait(list(at_work)):
            assert isinstance(connection, Connection)
            process = crew[connection]
            try:
                message = connection.recv()
            except EOFError:
                at_work.discard(connection)
                process.join()
                if process.exitcode:
                    raise WorkerDied(
                        f"The process that extracts on {process.name} was ended from outside (exit status "
                        f"{process.exitcode}). Most often memory was short. Run the same command again: finished work "
                        "is kept."
                    ) from None
                continue
            if isinstance(message, Caev2Error):
                raise message
            if message is _ASK:
                connection.send(foreman.ask(process.name))
            elif isinstance(message, str):
                progress.warn(message)
            else:
                for done in message:
                    tally.image_done(done)


def _dismiss(crew: dict[Connection, BaseProcess]) -> None:
    """End all workers: they leave when their pipe ends, and clean up behind themselves."""
    for connection in crew:
        connection.close()
    for process in crew.values():
        process.join(_LEAVE_SECONDS)
        if process.is_alive():
            process.kill()
            process.join()


_ASK = None
"""What a worker sends when it wants the next block."""


class _Parent(Silent):
    """The parent, as a worker sees it: answers, and is told."""

    def __init__(self, connection: Connection):
        self._connection, self._lock = connection, threading.Lock()
        self._done: list[ImageDone] = []
        self._told = time.monotonic()

    def ask(self) -> Iterator[int]:
        """Block after block, until there is none left."""
        while True:
            self._send(_ASK)
            block = self._connection.recv()
            if block is None:
                return
            yield block

    def image_done(self, done: ImageDone) -> None:
        """Tell of an image, together with others."""
        self._done.append(done)
        if time.monotonic() - self._told > _TELL_SECONDS:
            self.tell()

    def tell(self) -> None:
        """Tell of all images that are through."""
        done, self._done, self._told = self._done, [], time.monotonic()
        self._send(done)

    def warn(self, message: str) -> None:
        """Pass it on."""
        self._send(message)

    def fail(self, problem: Caev2Error) -> None:
        """Pass it on."""
        self._send(problem)

    def _send(self, message: object) -> None:
        with self._lock:
            self._connection.send(message)


def _work(job: Job, device: str, connection: Connection) -> None:
    """The body of a worker process."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # sent to the whole group: the parent ends first, and this pipe with it
    torch.set_num_threads(job.threads)
    parent = _Parent(connection)
    with suppress(BrokenPipeError, EOFError, ConnectionResetError):  # the parent is gone, or wants no more
        try:
            teacher = job.load_teacher(device)
            writer = job.join_store(teacher)
            try:
                job.compute(writer, teacher, device, parent.ask(), parent.image_done, parent)
            finally:
                writer.close()
            parent.tell()
        except Caev2Error as problem:
            parent.fail(problem)
    connection.close()
