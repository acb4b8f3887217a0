"""Stores at URLs: whole files are fetched through fsspec when they are first read, and kept in a cache.

    store = Store(open_remote("s3://bucket/imagenet.caev2", CacheSettings(folder=..., limit_bytes=50 << 30)))

A `RemotePath` stands where a local store's `Path` stands, and offers the little of it that reading a store takes; what
it gives the operating system is the path of the copy. Where the digest of a file is known beforehand, a copy counts
only if it has it. The manifest is fetched whenever a store is opened, and the copies of one manifest lie by themselves:
a store that was changed at its URL is never mixed with what was read of it before.
"""

import contextlib
import fnmatch
import functools
import io
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any, TypeVar

from caev2.errors import ConfigError, OutputError, StoreError
from caev2.store.remote.cache import CacheSettings
from caev2.store.remote.fetching import Described, RemoteStore

_PREFETCHING = 8
"""Files that a process fetches at once ahead of their use."""

_VANISHING = 20
"""How often a copy may be gone before it is opened, because other processes make room."""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class RemotePath:
    """A file or folder of a store at a URL."""

    root: RemoteStore
    inside: PurePosixPath = field(default_factory=PurePosixPath)

    def __str__(self) -> str:
        return self.root.url_of(self.inside)

    def __fspath__(self) -> str:
        return os.fspath(self.root.copy_of(self.inside))

    def _with_copy(self, action: Callable[[Path], Result], described: Described | None = None) -> Result:
        """Do something with the copy, which has to be what was described."""
        return use_copy(lambda: self.root.copy_of(self.inside, described), action, self)

    def __truediv__(self, other: str) -> "RemotePath":
        return RemotePath(self.root, self.inside / other)

    def joinpath(self, *others: str) -> "RemotePath":
        """The path of something below."""
        return RemotePath(self.root, self.inside.joinpath(*others))

    def __lt__(self, other: "RemotePath") -> bool:
        return self.inside < other.inside

    @property
    def name(self) -> str:
        """The last part."""
        return self.inside.name or PurePosixPath(self.root.url).name

    @property
    def parent(self) -> "RemotePath":
        """The folder it lies in."""
        return RemotePath(self.root, self.inside.parent)

    def relative_to(self, other: "StorePath") -> PurePosixPath:
        """The path below a folder of the same store."""
        assert isinstance(other, RemotePath), f"{other} lies elsewhere"
        return self.inside.relative_to(other.inside)

    def read_bytes(self) -> bytes:
        """The content of the file."""
        return self._with_copy(Path.read_bytes)

    def descriptor(self, described: Described) -> int:
        """A descriptor of the copy, which must be of this size and xxh3-128."""
        return self._with_copy(lambda copy: os.open(copy, os.O_RDONLY), described)

    def open(self, mode: str = "rb") -> IO[Any]:
        """Open the copy of the file, for reading only."""
        if mode != "rb":
            raise io.UnsupportedOperation(f"{self} can only be read")
        return self._with_copy(lambda copy: copy.open("rb"))

    def stat(self) -> os.stat_result:
        """Of the copy."""
        return self._with_copy(Path.stat)

    def is_file(self) -> bool:
        """Whether there is such a file."""
        try:
            self.root.copy_of(self.inside)
        except FileNotFoundError:
            return False
        return True

    def exists(self) -> bool:
        """Whether there is such a file, or anything below such a folder."""
        return self.is_file() or any(True for _ in self.rglob("*"))

    def is_dir(self) -> bool:
        """Whether there is anything below."""
        return any(True for _ in self.rglob("*"))

    def rglob(self, pattern: str) -> Iterator["RemotePath"]:
        """The files below whose names fit; folders are none of them."""
        for inside in self.root.names_below(self.inside):
            if fnmatch.fnmatch(inside.name, pattern):
                yield RemotePath(self.root, inside)

    def glob(self, pattern: str) -> Iterator["RemotePath"]:
        """The files below whose paths fit, part by part."""
        parts = PurePosixPath(pattern).parts
        for path in self.rglob("*"):
            below = path.relative_to(self).parts
            if len(below) == len(parts) and all(map(fnmatch.fnmatch, below, parts)):
                yield path


def use_copy(copy_of: Callable[[], Path], action: Callable[[Path], Result], place: object) -> Result:
    """Do something with a copy, fetched again if another process makes room at this very moment.

    Args:
        copy_of: Fetches the copy, unless it is there.
        action: What is done.
        place: What it is a copy of, for messages.

    Raises:
        OutputError: It vanishes time and again.
    """
    for _ in range(_VANISHING):
        copy = copy_of()
        with contextlib.suppress(FileNotFoundError):
            return action(copy)
    raise OutputError(
        f"Copies of {place} vanish as soon as they are fetched. Let the cache hold more, or give it a folder of its "
        "own."
    )


StorePath = Path | RemotePath
"""Where a store that is read may lie."""


def open_remote(url: str, cache: CacheSettings) -> RemotePath:
    """The path of a store at a URL; nothing is fetched yet.

    Args:
        url: As fsspec spells it: `s3://bucket/store`, `gs://...`, `hf://...`, `https://...`.
        cache: Where copies are kept.

    Raises:
        ConfigError: There is no such kind of URL, or what it needs is not installed.
    """
    if not url.partition("://")[2].strip("/"):
        raise ConfigError(f"{url} names no place. Give the URL of a store's folder, such as s3://bucket/store.")
    root = RemoteStore(url.rstrip("/"), cache)
    root.file_system()
    return RemotePath(root)


DEFAULT_CACHE = CacheSettings(folder=Path("~/.cache/caev2/stores").expanduser(), limit_bytes=50 << 30)
"""Where copies are kept unless it is said otherwise."""


def store_path(place: StorePath | str, cache: CacheSettings = DEFAULT_CACHE) -> StorePath:
    """Where a store lies: a local path, or a URL if that is what is written."""
    if isinstance(place, str):
        return open_remote(place, cache) if "://" in place else Path(place)
    return place


@contextlib.contextmanager
def without_copies(path: StorePath) -> Iterator[StorePath]:
    """The path for a while of which nothing is in a cache: what is read is what lies at the URL."""
    if isinstance(path, RemotePath):
        with tempfile.TemporaryDirectory(prefix="caev2-") as folder:
            settings = path.root.settings
            yield open_remote(path.root.url, CacheSettings(folder=Path(folder), limit_bytes=settings.limit_bytes))
    else:
        yield path


def open_file(path: StorePath, described: Described) -> int:
    """A descriptor of a file for reading.

    Args:
        path: Where it lies.
        described: What a remote one must be; a local one is not looked at.

    Raises:
        OSError: It cannot be opened.
    """
    if isinstance(path, RemotePath):
        return path.descriptor(described)
    return os.open(path, os.O_RDONLY)


def read_file(path: StorePath, described: Described) -> bytes:
    """The content of a file, of which the same holds."""
    if isinstance(path, RemotePath):
        with os.fdopen(path.descriptor(described), "rb") as file:
            return file.read()
    return path.read_bytes()


def forget(path: StorePath) -> str:
    """Remove the copy of a remote file; what to say of it in a message."""
    if not isinstance(path, RemotePath):
        return ""
    path.root.forget(path.inside)
    return " Its copy in the cache was removed, so that it is fetched again next time."


def prefetch(action: Callable[[], Iterable[tuple[RemotePath, Described]]]) -> None:
    """Begin to fetch files that will be needed; what fails will be met again, and told, when they are read.

    Args:
        action: Names the files, which may need other files; it runs in a thread, too.
    """
    in_background(lambda: _prefetch_all(action))


def in_background(action: Callable[[], None]) -> None:
    """Do something in a thread that fetches; what fails there will be met again when it is wanted."""
    _pool().submit(action)


def _prefetch_all(action: Callable[[], Iterable[tuple[RemotePath, Described]]]) -> None:
    with contextlib.suppress(OSError, StoreError):
        for path, described in action():
            path.root.begin_copy(path.inside, described)


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_PREFETCHING, thread_name_prefix="caev2-prefetch")


os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not follow into a child
