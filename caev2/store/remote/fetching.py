"""Fetching the files of a store at a URL through fsspec, with patience, into a cache."""

import errno
import functools
import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import xxhash

from caev2.errors import Caev2Error, ConfigError, OutputError, StoreCorrupt, StoreMismatch, StoreUnreachable
from caev2.store.remote.cache import Cache, CacheSettings

_MANIFEST = "manifest.json"
_WAITS_S = (0.25, 1.0, 4.0, 10.0)
"""Before each further attempt; a fetch that fails then is given up."""

Result = TypeVar("Result")

Described = tuple[int, str]
"""Size in bytes and xxh3-128 of a file."""


class RemoteFolder:
    """A folder at a URL.

    Args:
        url: Of the folder.
        settings: Of the cache.
    """

    unreachable: type[Caev2Error] = StoreUnreachable
    """What is raised when the server does not answer, or refuses."""

    def __init__(self, url: str, settings: CacheSettings):
        self.url, self.settings = url, settings

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
            return fsspec.url_to_fs(self.url, **_options(self.url))
        except ImportError as problem:
            extra = 'pip install "caev2[s3]"' if self.url.startswith("s3") else "the package that it names"
            raise ConfigError(f"{self.url} cannot be opened: {problem}. Install {extra}.") from None
        except (ValueError, TypeError, OSError) as problem:
            raise ConfigError(
                f"{self.url} cannot be opened: {problem}. Give a URL of a kind that fsspec knows."
            ) from None

    def attempt(self, name: str, action: Callable[[Any, str], Result], verb: str = "read") -> Result:
        """Do something with a file at the URL, several times if need be.

        Args:
            name: Which file.
            action: Is given fsspec's file system and the path there.
            verb: What is done, for messages.

        Raises:
            FileNotFoundError: There is no such file.
            StoreCorrupt: Time and again it is another one than it should be.
            StoreUnreachable: Or what this kind of folder has in place of it.
        """
        problem: Exception | None = None
        for wait_s in (0.0, *_WAITS_S):
            time.sleep(wait_s)
            try:
                fs, folder = self.file_system()
                return action(fs, f"{folder}/{name}")
            except Caev2Error:
                raise
            except Exception as failure:  # noqa: BLE001 - drivers raise classes of their own: aiohttp's, httpx's, botocore's
                problem = _meant(failure)
            if isinstance(problem, FileNotFoundError):
                raise problem
            if isinstance(problem, PermissionError):
                raise self.unreachable(
                    f"{self.url}/{name} may not be {verb}: {problem}. Look at the credentials and at what they allow."
                )
        if isinstance(problem, _Differs):
            raise StoreCorrupt(f"{self.url}/{name} is not what was written: {problem}. Copy it there again.")
        raise self.unreachable(
            f"{self.url}/{name} could not be {verb}, {len(_WAITS_S) + 1} times: {problem}. When the server answers "
            "again, run the same command again."
        )


class RemoteStore(RemoteFolder):
    """A store at a URL, and the copies of its files.

    Args:
        url: Of its folder.
        settings: Of the cache.
    """

    def __init__(self, url: str, settings: CacheSettings):
        super().__init__(url, settings)
        self._copies: Cache | None = None
        self._manifest = b""

    @property
    def cache(self) -> Cache:
        """The copies of the store as its manifest is now.

        Raises:
            StoreMismatch: There is no manifest.
            StoreUnreachable: The server does not answer.
        """
        if self._copies is None:
            try:
                manifest = self.attempt(_MANIFEST, lambda fs, path: fs.cat_file(path))
            except FileNotFoundError:
                raise StoreMismatch(
                    f"There is no store at {self.url}: it has no {_MANIFEST}. Look at the URL; or put a store there "
                    f"with `caev2 store copy STORE {self.url}`."
                ) from None
            version = hashlib.sha256(f"{self.url}\0".encode() + manifest).hexdigest()[:32]
            self._copies, self._manifest = Cache(self.settings, prefix=version), manifest
            self._copies.forget(_MANIFEST)  # a copy of it may be damaged; this one is not
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
        self.attempt(name, lambda fs, path: _fetch_once(fs, path, part, described))
        if name.startswith("units/"):
            self._refuse_change()

    def _refuse_change(self) -> None:
        """Records name the digests that all else is compared with: they must be of the manifest that was read.

        Raises:
            StoreMismatch: Another store lies at the URL by now.
        """
        if self.read_afresh(_MANIFEST) != self._manifest:
            raise StoreMismatch(
                f"{self.url} is not the store that it was when it was opened: its {_MANIFEST} has changed. Run the "
                "same command again, with the store as it is now."
            )

    def read_afresh(self, name: str) -> bytes | None:
        """The content of a file as it is now, past the cache; none if there is no such file."""
        try:
            return self.attempt(name, lambda fs, path: fs.cat_file(path))
        except FileNotFoundError:
            return None

    def send(self, file: Path, name: str) -> None:
        """Put a local file into the store.

        Raises:
            StoreUnreachable: The server does not take it.
        """

        def put(fs: Any, path: str) -> None:
            if not file.is_file():
                raise StoreCorrupt(f"{file} is missing. Run `caev2 store verify`.")
            fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            fs.put_file(str(file), path)

        self.attempt(name, put, "written")

    def sizes(self) -> dict[str, int]:
        """The size of every file at the URL, by its path in the store."""

        def find(fs: Any, path: str) -> dict[str, int]:
            fs.invalidate_cache()
            found = fs.find(path.rstrip("/"), detail=True)
            return {os.path.relpath(name, path): facts["size"] for name, facts in found.items()}

        try:
            return self.attempt("", find)
        except FileNotFoundError:
            return {}

    def names_below(self, inside: PurePosixPath) -> list[PurePosixPath]:
        """The files below a folder."""

        def find(fs: Any, path: str) -> list[str]:
            fs.invalidate_cache()
            return sorted(os.path.relpath(found, path) for found in fs.find(path.rstrip("/")))

        name = "" if inside == PurePosixPath() else str(inside)
        return [inside / found for found in self.attempt(name, find)]

    def forget(self, inside: PurePosixPath) -> None:
        """Remove the copy of a file."""
        self.cache.forget(str(inside))


class _Differs(Exception):
    """A fetched file is not the one that was recorded."""


def _options(url: str) -> dict[str, Any]:
    """What a kind of URL needs beside fsspec's own choices."""
    if not url.startswith(("http://", "https://")):
        return {}
    import aiohttp

    # aiohttp gives every request five minutes in all, which is little for a large file: silence alone is limited here
    return {"client_kwargs": {"timeout": aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)}}


def _meant(failure: Exception) -> Exception:
    """What a failure means. Over HTTP fsspec says of any that there is no such file, and what happened is its cause."""
    cause = failure.__cause__
    over_http = isinstance(cause, TimeoutError) or type(cause).__module__.startswith("aiohttp")
    if isinstance(failure, FileNotFoundError) and isinstance(cause, Exception) and over_http:
        failure = cause
    status = getattr(failure, "status", None)
    if status in (404, 410):
        return FileNotFoundError(errno.ENOENT, f"the server says {status}")
    if status in (401, 403):
        return PermissionError(f"the server says {status}")
    return failure


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
