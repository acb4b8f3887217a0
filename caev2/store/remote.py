"""Stores at URLs: whole files are fetched through fsspec when they are first read, and kept in a cache.

    store = Store(open_remote("s3://bucket/imagenet.caev2", CacheSettings(folder=..., limit_bytes=50 << 30)))

A `RemotePath` stands where a local store's `Path` stands, and offers the little of it that reading a store takes; what
it gives the operating system is the path of the copy. Where the digest of a file is known beforehand, a copy counts
only if it has it. The manifest is fetched whenever a store is opened, and the copies of one manifest lie by themselves:
a store that was changed at its URL is never mixed with what was read of it before.
"""

import contextlib
import errno
import fnmatch
import functools
import hashlib
import io
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any, TypeVar

import xxhash

from caev2.errors import ConfigError, OutputError, StoreCorrupt, StoreError, StoreMismatch, StoreUnreachable
from caev2.store.cache import Cache, CacheSettings

_MANIFEST = "manifest.json"
_WAITS_S = (0.25, 1.0, 4.0, 10.0)
"""Before each further attempt; a fetch that fails then is given up."""

_PREFETCHING = 8
"""Files that a process fetches at once ahead of their use."""

_VANISHING = 20
"""How often a copy may be gone before it is opened, because other processes make room."""

Result = TypeVar("Result")

Described = tuple[int, str]
"""Size in bytes and xxh3-128 of a file."""


@dataclass(frozen=True, slots=True)
class RemotePath:
    """A file or folder of a store at a URL."""

    root: "RemoteStore"
    inside: PurePosixPath = field(default_factory=PurePosixPath)

    def __str__(self) -> str:
        return self.root.url_of(self.inside)

    def __fspath__(self) -> str:
        return os.fspath(self.root.copy_of(self.inside))

    def _with_copy(self, action: Callable[[Path], Result], described: Described | None = None) -> Result:
        """Do something with the copy, fetched again if another process makes room at this very moment."""
        for _ in range(_VANISHING):
            copy = self.root.copy_of(self.inside, described)
            with contextlib.suppress(FileNotFoundError):
                return action(copy)
        raise StoreUnreachable(
            f"Copies of {self} vanish as soon as they are fetched. Let the cache hold more, or give it a folder of its "
            "own."
        )

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
    root = RemoteStore(url.rstrip("/"), cache)
    root.file_system()
    return RemotePath(root)


class RemoteStore:
    """A store at a URL, and the copies of its files.

    Args:
        url: Of its folder.
        settings: Of the cache.
    """

    def __init__(self, url: str, settings: CacheSettings):
        self.url, self._settings = url, settings
        self._copies: Cache | None = None
        self._manifest = b""

    def __getstate__(self) -> dict[str, Any]:
        """What travels to a worker process: no connection."""
        return {**self.__dict__, "_copies": None}

    def url_of(self, inside: PurePosixPath) -> str:
        """The URL of a file."""
        return self.url if inside == PurePosixPath() else f"{self.url}/{inside}"

    def file_system(self) -> tuple[Any, str]:
        """Fsspec's file system and the path in it; it keeps one for each process.

        Raises:
            ConfigError: There is no such kind of URL, or what it needs is not installed.
        """
        import fsspec

        try:
            return fsspec.url_to_fs(self.url)
        except ImportError as problem:
            extra = 'pip install "caev2[s3]"' if self.url.startswith("s3") else "the package that it names"
            raise ConfigError(f"{self.url} cannot be opened: {problem}. Install {extra}.") from None
        except ValueError as problem:
            raise ConfigError(
                f"{self.url} cannot be opened: {problem}. Give a URL of a kind that fsspec knows."
            ) from None

    @property
    def cache(self) -> Cache:
        """The copies of the store as its manifest is now.

        Raises:
            StoreMismatch: There is no manifest.
            StoreUnreachable: The server does not answer.
        """
        if self._copies is None:
            try:
                manifest = self._attempt(_MANIFEST, lambda fs, path: fs.cat_file(path))
            except FileNotFoundError:
                raise StoreMismatch(
                    f"There is no store at {self.url}: it has no {_MANIFEST}. Look at the URL; or put a store there "
                    f"with `caev2 store copy STORE {self.url}`."
                ) from None
            version = hashlib.sha256(f"{self.url}\0".encode() + manifest).hexdigest()[:32]
            self._copies, self._manifest = Cache(self._settings, prefix=version), manifest
        return self._copies

    def copy_of(self, inside: PurePosixPath, described: Described | None = None) -> Path:
        """The copy of a file, fetched unless it is there.

        Args:
            inside: Which file.
            described: Where they are known, its size and xxh3-128: a fetched copy has to have them.

        Raises:
            FileNotFoundError: There is no such file.
            StoreCorrupt: The file at the URL is not what was written.
            StoreUnreachable: The server does not answer.
        """
        return self.cache.get(str(inside), functools.partial(self._bring, str(inside), described))

    def begin_copy(self, inside: PurePosixPath, described: Described) -> None:
        """Fetch a file unless it is there, or another process fetches it."""
        self.cache.get_unless_begun(str(inside), functools.partial(self._bring, str(inside), described))

    def _bring(self, name: str, described: Described | None, part: Path) -> None:
        if name == _MANIFEST:  # the very one that was read first, whatever lies at the URL now
            part.write_bytes(self._manifest)
        else:
            self.fetch(name, part, described)

    def fetch(self, name: str, part: Path, described: Described | None) -> None:
        """Write a file of the store to a local path; raises what `copy_of` does."""
        self._attempt(name, lambda fs, path: _fetch_once(fs, path, part, described))

    def _attempt(self, name: str, action: Callable[[Any, str], Result], verb: str = "read") -> Result:
        """Do something with a file at the URL, several times if need be."""
        problem: Exception | None = None
        for wait_s in (0.0, *_WAITS_S):
            time.sleep(wait_s)
            try:
                fs, folder = self.file_system()
                return action(fs, f"{folder}/{name}")
            except FileNotFoundError:
                raise
            except PermissionError as refused:
                raise StoreUnreachable(
                    f"{self.url}/{name} may not be {verb}: {refused}. Look at the credentials and at what they allow."
                ) from None
            except _Differs as differs:
                problem = differs
            except _passing_failures() as failure:
                problem = failure
        if isinstance(problem, _Differs):
            raise StoreCorrupt(f"{self.url}/{name} is not what was written: {problem}. Copy it there again.")
        raise StoreUnreachable(
            f"{self.url}/{name} could not be {verb}, {len(_WAITS_S) + 1} times: {problem}. When the server answers "
            "again, run the same command again."
        )

    def read_afresh(self, name: str) -> bytes | None:
        """The content of a file as it is now, past the cache; none if there is no such file."""
        try:
            return self._attempt(name, lambda fs, path: fs.cat_file(path))
        except FileNotFoundError:
            return None

    def send(self, file: Path, name: str) -> None:
        """Put a local file into the store.

        Raises:
            StoreUnreachable: The server does not take it.
        """

        def put(fs: Any, path: str) -> None:
            fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            fs.put_file(str(file), path)

        self._attempt(name, put, "written")

    def names_below(self, inside: PurePosixPath) -> list[PurePosixPath]:
        """The files below a folder."""

        def find(fs: Any, path: str) -> list[str]:
            fs.invalidate_cache()
            return sorted(os.path.relpath(found, path) for found in fs.find(path.rstrip("/")))

        name = "" if inside == PurePosixPath() else str(inside)
        return [inside / found for found in self._attempt(name, find)]

    def forget(self, inside: PurePosixPath) -> None:
        """Remove the copy of a file."""
        self.cache.forget(str(inside))


class _Differs(Exception):
    """A fetched file is not the one that was recorded."""


def _fetch_once(fs: Any, path: str, part: Path, described: Described | None) -> None:
    try:
        fs.get_file(path, str(part))
    except OSError as problem:
        if problem.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise
        raise OutputError(
            f"The cache cannot be written: {part}: {problem.strerror}. Make space, choose another folder with "
            "CAEV2_CACHE, or let it hold less with CAEV2_CACHE_GB."
        ) from None
    if described is None:
        return
    size, digest = described
    if (now := part.stat().st_size) != size:
        raise _Differs(f"it holds {now} bytes, {size} were written")
    if (found := xxhash.xxh3_128_hexdigest(part.read_bytes())) != digest:
        raise _Differs(f"its xxh3-128 is {found}, {digest} was written")


def _passing_failures() -> tuple[type[Exception], ...]:
    """What a driver may raise for a failure that another attempt may not meet."""
    classes: list[type[Exception]] = [OSError]
    for module, name in (("aiohttp", "ClientError"), ("botocore.exceptions", "BotoCoreError")):
        if module in sys.modules:
            classes.append(getattr(sys.modules[module], name))
    return tuple(classes)


DEFAULT_CACHE = CacheSettings(folder=Path("~/.cache/caev2/stores").expanduser(), limit_bytes=50 << 30)
"""Where copies are kept unless it is said otherwise."""


def store_path(place: StorePath | str, cache: CacheSettings = DEFAULT_CACHE) -> StorePath:
    """Where a store lies: a local path, or a URL if that is what is written."""
    if isinstance(place, str):
        return open_remote(place, cache) if "://" in place else Path(place)
    return place


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
    _pool().submit(_prefetch_all, action)


def _prefetch_all(action: Callable[[], Iterable[tuple[RemotePath, Described]]]) -> None:
    with contextlib.suppress(OSError, StoreError):
        for path, described in action():
            path.root.begin_copy(path.inside, described)


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_PREFETCHING, thread_name_prefix="caev2-prefetch")


os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not follow into a child
