"""Writing files so that a killed machine leaves either the old file or the new one."""

import contextlib
import errno
import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from caev2.errors import OutputError

CLAIM_ATTEMPTS = 1000
"""How often a writer tries to make its scratch folder while others remove the folder around it."""


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
    with _flushed(data, scratch) as temporary:
        replace_file(temporary, final)


def create_whole(final: Path, data: bytes, scratch: Path) -> None:
    """Write a file as `write_whole` does, unless somebody else has written it, be it at the same moment.

    Raises:
        FileExistsError: The file exists; it is left alone.
    """
    with _flushed(data, scratch) as temporary:
        try:
            os.link(temporary, final)
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links
            _move_unless_there(temporary, final)
        flush_folder(final.parent)


def _move_unless_there(temporary: Path, final: Path) -> None:
    """Move a file to its place, one writer at a time."""
    with locked(final.parent):
        if final.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(final))
        os.replace(temporary, final)  # noqa: PTH105


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Be the only one here for a moment; the operating system ends the lock with its process."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _flushed(data: bytes, scratch: Path) -> Iterator[Path]:
    """A file that is whole on disk under a name of no meaning, and is gone afterwards if it was not moved."""
    temporary = scratch / uuid.uuid4().hex
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            flush_file(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


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
        self._shared = shared
        remove_abandoned(shared)
        self.folder, self._lock = _claim_folder(shared)

    def is_alone(self) -> bool:
        """Whether there is no other writer. Of several that ask at one moment, at most one is told so."""
        return all(folder == self.folder for folder in self._shared.iterdir())

    def close(self) -> None:
        """Remove the folder and let go of it; the last writer to leave removes the shared folder as well."""
        os.close(self._lock)  # first: on NFS an open file keeps its folder
        shutil.rmtree(self.folder, ignore_errors=True)
        remove_abandoned(self._shared)


def _claim_folder(shared: Path) -> tuple[Path, int]:
    """A new folder and the descriptor that holds its lock."""
    attempts = 0
    while True:
        folder = shared / uuid.uuid4().hex
        try:
            shared.mkdir(parents=True, exist_ok=True)
            folder.mkdir()
            lock = _open_lock(folder)
        except (FileNotFoundError, FileExistsError):  # another writer left and tidied up behind itself
            attempts += 1
            if attempts == CLAIM_ATTEMPTS:
                raise
            continue
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _is_still(folder / _LOCK, lock):
            return folder, lock
        os.close(lock)  # another writer took the folder for rubbish before it was locked


_LOCK = "lock"


def _open_lock(folder: Path) -> int:
    """The file whose lock says that the writer of a scratch folder lives.

    It is a file open for writing, and no folder: of such a file NFS tells other machines that it is locked.
    """
    return os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)


def _is_still(path: Path, descriptor: int) -> bool:
    """Whether a path is the file that a descriptor was opened on."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def remove_abandoned(shared: Path) -> None:
    """Remove the scratch folders of killed writers, and the shared folder once it is empty."""
    for folder in entries(shared):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # another writer may remove it meanwhile
            descriptor = _open_lock(folder)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            except BlockingIOError:
                pass  # its writer lives
            finally:
                os.close(descriptor)
    remove_if_empty(shared)


def remove_if_empty(folder: Path) -> None:
    """Remove a folder that holds nothing."""
    with contextlib.suppress(OSError):  # not empty, or not there
        folder.rmdir()


def entries(folder: Path) -> list[Path]:
    """What lies in a folder; nothing if it is not there, or goes while one looks."""
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def try_writing(place: Path, shared: Path) -> None:
    """Find out whether a folder can be made and written at `place`; nothing is left of the trial.

    Args:
        place: The folder.
        shared: The folder below it that writers share.

    Raises:
        OutputError: It cannot.
    """
    missing = [folder for folder in (place, *place.parents) if not folder.exists()]
    with writing(place):
        Scratch(shared).close()
        for folder in missing:
            remove_if_empty(folder)  # unless somebody else began to use it


def free_bytes(place: Path) -> int:
    """Free space of the disk that `place`, which need not exist yet, will lie on."""
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def say_bytes(count: int) -> str:
    """A size in words, in powers of ten."""
    size = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
