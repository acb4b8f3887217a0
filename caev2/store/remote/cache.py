"""Copies of files that lie elsewhere, in a folder that many processes share and that keeps to a size.

Only what lies below its folder `caev2-copies` counts as a copy: whatever else the folder holds is left alone.

A file is there whole or not at all: it is fetched under another name and renamed. Of several processes that want one
file, one fetches it and the others wait; the lock ends with its process, so what a killed one left is fetched anew. The
files that were used longest ago make room. A file that is open stays readable when it has to go.
"""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from caev2.errors import ConfigError, OutputError

COPIES = "caev2-copies"
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

    @property
    def _copies(self) -> Path:
        return self.settings.folder / COPIES

    def _path(self, name: str) -> Path:
        return self._copies / self._prefix / name

    def get(self, name: str, fetch: Callable[[Path], None]) -> Path:
        """The copy of a file, fetched unless it is there or another process brings it.

        Args:
            name: What it is called.
            fetch: Writes the file to a path; what it raises is raised here.

        Raises:
            OutputError: The folder cannot be written.
        """
        self._have(self._path(name), fetch, wait=True)
        return self._path(name)

    def get_unless_begun(self, name: str, fetch: Callable[[Path], None]) -> None:
        """The same, but where another process fetches the file already, this one goes its way."""
        self._have(self._path(name), fetch, wait=False)

    def _have(self, final: Path, fetch: Callable[[Path], None], *, wait: bool) -> None:
        if self._use(final):
            return
        with self._claim(final, wait=wait) as part:
            fetched = part is not None and self._bring(final, part, fetch)
        if fetched:
            self._make_room(final)  # without the lock, which is for one file

    def _use(self, path: Path) -> bool:
        """Take notice that a copy is used, if there is one."""
        try:
            os.utime(path)
        except OSError:  # it is not there, or belongs to somebody else
            return path.is_file()
        return True

    @contextlib.contextmanager
    def _claim(self, final: Path, *, wait: bool) -> Iterator[Path | None]:
        """The path to write a file at, as the only one who does; none if another one does and nobody waits."""
        part = final.with_name(final.name + _PART)
        with self._blaming_the_folder():
            final.parent.mkdir(parents=True, exist_ok=True)
            descriptor = _lock(part, wait=wait)
        if descriptor is None:
            yield None
            return
        try:
            yield part
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # a forked child may hold the descriptor for as long as it lives
            os.close(descriptor)

    def _bring(self, final: Path, part: Path, fetch: Callable[[Path], None]) -> bool:
        """Fetch a file, unless another process has brought it meanwhile; whether it was fetched."""
        if self._use(final):
            part.unlink(missing_ok=True)
            return False
        try:
            fetch(part)
            with self._blaming_the_folder(), part.open("rb") as file:
                os.fsync(file.fileno())
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        with self._blaming_the_folder():
            part.replace(final)
        return True

    @contextlib.contextmanager
    def _blaming_the_folder(self) -> Iterator[None]:
        try:
            yield
        except OSError as problem:
            raise OutputError(
                f"The cache cannot be written: {problem.filename or self._copies}: {problem.strerror}. Make space, or "
                "choose another folder with CAEV2_CACHE."
            ) from None

    def forget(self, name: str) -> None:
        """Remove a copy, or those of a folder, so that they are fetched again."""
        path = self._path(name)
        with self._blaming_the_folder():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def _make_room(self, added: Path) -> None:
        """Remove what was used longest ago, if there is too much."""
        limit = self.settings.limit_bytes
        with contextlib.suppress(FileNotFoundError):  # another process made room
            self._added_bytes += added.stat().st_size
        if (
            self._known_bytes is not None
            and self._added_bytes < _SCANNED_SHARE * limit
            and self._known_bytes + self._added_bytes <= limit
        ):
            return
        files = sorted(_scan(self._copies))
        total = sum(size for _, size, _ in files)
        for _, size, path in files:
            if total <= limit:
                break
            if path != str(added):
                with contextlib.suppress(OSError):  # another process made room as well, or it is not ours
                    os.unlink(path)  # noqa: PTH108
                total -= size
        self._known_bytes, self._added_bytes = total, 0


def _scan(folder: Path) -> Iterator[tuple[float, int, str]]:
    """When each copy was last used, its size, its path."""
    for inside, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(inside, name)  # noqa: PTH118
            if not name.endswith(_PART):
                with contextlib.suppress(FileNotFoundError):
                    found = os.stat(path)  # noqa: PTH116
                    yield found.st_mtime, found.st_size, path


def _lock(path: Path, *, wait: bool) -> int | None:
    """The descriptor of a locked file, which is made if need be; none: another one holds it, and nobody waits."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(descriptor)
            return None
        if _is_at(path, descriptor):
            return descriptor
        os.close(descriptor)  # it was renamed or removed while this one waited


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))  # noqa: PTH116
    except FileNotFoundError:
        return False
