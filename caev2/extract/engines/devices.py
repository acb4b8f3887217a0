"""The engine for several devices of this machine: a process for each, which asks this one for block after block.

Parent and child share one pipe. When either dies the other reads the end of it, so nothing is left behind; a child that
has nothing left to do says so before it leaves.
"""

import contextlib
import multiprocessing
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Literal

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
from caev2.workers import signals_ignored

_TELL_SECONDS = 0.2
_LEAVE_SECONDS = 10.0

Duty = Literal["calibrate", "compute"]


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
        """This process only needs to know the teacher; the devices' memory is theirs."""
        return "cpu"

    def workers(self, wanted: int | None) -> int:
        """See `engine.decode_workers`."""
        return decode_workers(wanted, self.device, len(self.devices))

    def calibrate(self, job: Job, writer: StoreWriter, teacher: Teacher, progress: Progress) -> None:
        """On the first device."""
        del teacher
        if writer.uncalibrated():
            progress.say(f"extract: calibrating on {self.device}")
            _employ(job, self.devices[:1], "calibrate", Foreman(()), None, progress)
            writer.uncalibrated()  # takes over what was learned

    def compute(
        self,
        job: Job,
        writer: StoreWriter,
        teacher: Teacher,
        blocks: Sequence[int],
        tally: Tally,
        progress: Progress,
    ) -> None:
        """In a process for each."""
        del writer, teacher
        _employ(job, self.devices[: len(blocks)], "compute", Foreman(blocks), tally, progress)


def _employ(
    job: Job, devices: Sequence[str], duty: Duty, foreman: Foreman, tally: Tally | None, progress: Progress
) -> None:
    """Have a process work on each of some devices."""
    context = multiprocessing.get_context("spawn")  # a process that has used CUDA cannot be forked into another
    crew: dict[Connection, BaseProcess] = {}
    try:
        for device in devices:
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(job, device, duty, theirs), name=device)
            with signals_ignored():
                process.start()
            theirs.close()
            crew[ours] = process
        _lead(crew, foreman, tally, progress)
    finally:
        _dismiss(crew)


def _lead(crew: dict[Connection, BaseProcess], foreman: Foreman, tally: Tally | None, progress: Progress) -> None:
    """Answer the workers until all have said that they leave.

    Raises:
        Caev2Error: A worker raised it.
        WorkerDied: One is gone without a word.
    """
    at_work = set(crew)
    while at_work:
        for connection in wait(list(at_work)):
            assert isinstance(connection, Connection)
            try:
                message = connection.recv()
                if message == _ASK:
                    connection.send(foreman.ask(crew[connection].name))
            except (EOFError, OSError):
                raise _died(crew[connection]) from None
            if message == _LEAVE:
                at_work.discard(connection)
            elif isinstance(message, Caev2Error):
                raise message
            elif isinstance(message, _Warning):
                progress.warn(message.text)
            elif isinstance(message, list) and tally is not None:
                for done in message:
                    tally.image_done(done)


def _died(process: BaseProcess) -> WorkerDied:
    process.join(_LEAVE_SECONDS)
    return WorkerDied(
        f"The process that extracts on {process.name} was ended from outside (exit status {process.exitcode}). Most "
        "often memory was short. Run the same command again: finished work is kept."
    )


def _dismiss(crew: dict[Connection, BaseProcess]) -> None:
    """End all workers: they leave when their pipe ends, and clean up behind themselves."""
    for connection in crew:
        connection.close()
    for process in crew.values():
        process.join(_LEAVE_SECONDS)
        if process.is_alive():
            process.kill()
            process.join()


_ASK, _LEAVE = "ask", "leave"


@dataclass(frozen=True, slots=True)
class _Warning:
    text: str


class _ParentGone(Exception):
    """The parent is gone, or wants no more."""


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
            try:
                block = self._connection.recv()
            except (EOFError, OSError):
                raise _ParentGone from None
            if block is None:
                return
            yield block

    def image_done(self, done: ImageDone) -> None:
        """Tell of an image, together with others; in any thread."""
        with self._lock:
            self._done.append(done)
            if time.monotonic() - self._told > _TELL_SECONDS:
                self._tell()

    def leave(self) -> None:
        """There is nothing left to do."""
        with self._lock:
            self._tell()
        self._send(_LEAVE)

    def warn(self, message: str) -> None:
        """Pass it on."""
        self._send(_Warning(message))

    def fail(self, problem: Caev2Error) -> None:
        """Pass it on."""
        self._send(problem)

    def _tell(self) -> None:
        done, self._done, self._told = self._done, [], time.monotonic()
        self._put(done)

    def _send(self, message: object) -> None:
        with self._lock:
            self._put(message)

    def _put(self, message: object) -> None:
        try:
            self._connection.send(message)
        except OSError:
            raise _ParentGone from None


def _work(job: Job, device: str, duty: Duty, connection: Connection) -> None:
    """The body of a worker process."""
    multiprocessing.set_start_method("fork", force=True)  # for the decoders: not an interpreter of their own for each
    torch.set_num_threads(job.threads)
    parent = _Parent(connection)
    with contextlib.suppress(_ParentGone):
        try:
            _do(job, device, duty, parent)
            parent.leave()
        except Caev2Error as problem:
            parent.fail(problem)
    connection.close()


def _do(job: Job, device: str, duty: Duty, parent: _Parent) -> None:
    teacher = job.load_teacher(device)
    writer = job.join_store(teacher)
    try:
        if duty == "calibrate":
            job.calibrate(writer, teacher, device, parent)
        else:
            job.compute(writer, teacher, device, parent.ask(), parent.image_done, parent)
    finally:
        writer.close()
