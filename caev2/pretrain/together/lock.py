"""One process at a time trains a run."""

import contextlib
import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from caev2.errors import OutputError
from caev2.progress import Progress
from caev2.store.disk import writing

FILE_NAME = ".lock"
_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)
"""What a file system answers that keeps no locks, such as Lustre mounted without them."""

_held: set[int] = set()


@contextlib.contextmanager
def hold_run(run: Path, progress: Progress) -> Iterator[None]:
    """Make the folder of a run if need be, and keep other processes from training it meanwhile.

    The operating system drops the lock with the process, however it ends. The file stays: removing it would let two
    processes lock two files of one name. It says who locked it last, for the message alone.

    Raises:
        OutputError: Another process trains the run, or the folder cannot be written.
    """
    with writing(run):
        run.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(run / FILE_NAME, os.O_RDWR | os.O_CREAT, 0o666)
    _held.add(descriptor)
    try:
        with writing(run):
            _lock(run, descriptor, progress)
        yield
    finally:
        if descriptor in _held:  # not in a forked process, which has closed it
            _held.remove(descriptor)
            os.close(descriptor)


def _lock(run: Path, descriptor: int, progress: Progress) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "its number is not known yet"
        raise OutputError(
            f"{run} is being trained by another process ({holder}). Wait until it ends, or stop it: it saves a "
            "checkpoint, and this command goes on from there. Give another path for a run beside it."
        ) from None
    except OSError as problem:
        if problem.errno not in _NO_LOCKS:
            raise
        progress.warn(
            f"The file system of {run} keeps no locks ({problem.strerror}), so nothing stops a second process from "
            "training the same run. Start it once only."
        )
    else:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)


def _let_go() -> None:
    """Close what a forked worker inherited: it outlives a killed parent for some seconds and would keep the lock."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_let_go)
