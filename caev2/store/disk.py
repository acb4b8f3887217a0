"""Writing files so that a killed machine leaves either the old file or the new one."""

import contextlib
import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from caev2.errors import OutputError


@contextlib.contextmanager
def writing(place: Path) -> Iterator[None]:
    """Turn an operating-system error while writing below `place` into an `OutputError` that says what to do."""
    try:
        yield
    except OSError as problem:
        raise OutputError(
            f"Cannot write {problem.filename or place}: {problem.strerror}. "
            "Make space or choose another place, then run the same command again: finished work is kept."
        ) from problem


def replace_file(temporary: Path, final: Path) -> None:
    """Move a finished, flushed file to its place, durably."""
    final.parent.mkdir(parents=True, exist_ok=True)
    os.replace(temporary, final)  # noqa: PTH105 - looked up in `os` so that a test can stop a writer right here
    flush_folder(final.parent)


def write_whole(final: Path, data: bytes, scratch: Path) -> None:
    """Write a file so that it is there whole or not at all; `scratch` is a folder on the same disk."""
    temporary = scratch / uuid.uuid4().hex
    with temporary.open("xb") as file:
        file.write(data)
        file.flush()
        flush_file(file.fileno())
    replace_file(temporary, final)


def flush_file(descriptor: int) -> None:
    """Wait until a file's bytes are on disk."""
    os.fsync(descriptor)


def flush_folder(folder: Path) -> None:
    """Wait until a folder's names are on disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Scratch:
    """A folder of one writer's unfinished files, below a folder that writers share.

    The writer holds a lock that the operating system drops when its process ends, however it ends: whatever scratch
    folder can be locked by somebody else is rubbish of a killed writer, and is removed by the next one.
    """

    def __init__(self, shared: Path):
        shared.mkdir(parents=True, exist_ok=True)
        self._remove_abandoned(shared)
        self.folder = shared / uuid.uuid4().hex
        self.folder.mkdir()
        self._lock = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    @staticmethod
    def _remove_abandoned(shared: Path) -> None:
        for folder in shared.iterdir():
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            except BlockingIOError:
                pass  # its writer lives
            finally:
                os.close(descriptor)

    def close(self) -> None:
        """Remove the folder and let go of it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._lock)


def free_bytes(place: Path) -> int:
    """Free space of the disk that `place`, which need not exist yet, will lie on."""
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free
