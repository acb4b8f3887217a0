"""Copies of files that lie elsewhere, in a folder that many processes share and that keeps to a size.

A file is there whole or not at all: it is fetched under another name and renamed. Of several processes that want one
file, one fetches it and the others wait; the lock ends with its process, so what a killed one left is fetched anew. The
files that were used longest ago make room. A file that is open stays readable when it has to go.
"""

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from caev2.errors import ConfigError

_PART = ".part"
_SCANNED_SHARE = 0.05  # of the limit that may be added before the folder is looked through again: others add, too


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSettings:
    """Where copies are kept, and how many."""

    folder: Path
    limit_bytes: int
    """Above it, files make room. Files that are open or being fetched come on top."""

    def __post_init__(self):
        """Check the limit.

        Raises:
            ConfigError: It is not positive.
        """
        if self.limit_bytes <= 0:
            raise ConfigError(f"The cache may hold {self.limit_bytes} bytes; give it at least one.")


class Cache:
    """A folder of copies.

    Args:
        settings: Where it is, and how large it may grow.
        prefix: Put before the names of files; others of the same folder have others, and share its limit.
    """

    def __init__(self, settings: CacheSettings, prefix: str):
        self.settings, self._prefix = settings, prefix
        self._known_bytes: int | None = None
        self._added_bytes = 0

    def get(self, name: str, fetch: Callable[[Path], None]) -> Path:
        """The copy of a file, fetched unless it is there or another process brings it.

        Args:
            name: What it is called.
            fetch: Writes the file to a path.

        Raises:
            OSError: It cannot be written.
        """
        final = self._path(name)
        if not self._use(final):
            with _locked(_part_of(final), wait=True):
                self._bring(final, fetch)
        return final

    def get_unless_begun(self, name: str, fetch: Callable[[Path], None]) -> None:
        """The same, but where another process fetches the file already, this one goes its way."""
        final = self._path(name)
        if not self._use(final):
            with _locked(_part_of(final), wait=False) as mine:
                if mine:
                    self._bring(final, fetch)

    def _bring(self, final: Path, fetch: Callable[[Path], None]) -> None:
        """Fetch a file, as the only one who does."""
        part = _part_of(final)
        try:
            if not self._use(final):  # else another process has brought it meanwhile
                fetch(part)
                part.replace(final)
                self._make_room(final)
        finally:
            part.unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self.settings.folder / self._prefix / name

    def _use(self, path: Path) -> bool:
        """Take notice that a copy is used, if there is one."""
        try:
            os.utime(path)
        except FileNotFoundError:
            return False
        return True

    def forget(self, name: str) -> None:
        """Remove a copy, so that it is fetched again."""
        self._path(name).unlink(missing_ok=True)

    def _make_room(self, added: Path) -> None:
        """Remove what was used longest ago, if there is too much."""
        limit = self.settings.limit_bytes
        self._added_bytes += added.stat().st_size
        if (
            self._known_bytes is not None
            and self._added_bytes < _SCANNED_SHARE * limit
            and self._known_bytes + self._added_bytes <= limit
        ):
            return
        files = sorted(_scan(self.settings.folder))
        total = sum(size for _, size, _ in files)
        for _, size, path in files:
            if total <= limit:
                break
            if path != str(added):
                with contextlib.suppress(FileNotFoundError):  # another process made room as well
                    os.unlink(path)  # noqa: PTH108
                total -= size
        self._known_bytes, self._added_bytes = total, 0


def _part_of(final: Path) -> Path:
    final.parent.mkdir(parents=True, exist_ok=True)
    return final.with_name(final.name + _PART)


def _scan(folder: Path) -> Iterator[tuple[float, int, str]]:
    """When each copy was last used, its size, its path."""
    for inside, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(inside, name)  # noqa: PTH118
            if not name.endswith(_PART):
                with contextlib.suppress(FileNotFoundError):
                    found = os.stat(path)  # noqa: PTH116
                    yield found.st_mtime, found.st_size, path


@contextlib.contextmanager
def _locked(path: Path, *, wait: bool) -> Iterator[bool]:
    """Be the only one that writes a file, which is made if need be; false: another one does, and nobody waits."""
    descriptor = None
    try:
        while descriptor is None:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if not _is_at(path, descriptor):  # it was renamed or removed while this one waited
                os.close(descriptor)
                descriptor = None
        yield True
    except BlockingIOError:
        yield False
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))  # noqa: PTH116
    except FileNotFoundError:
        return False
