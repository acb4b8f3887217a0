"""Images at URLs: whole files are fetched when they are first read, and kept in a cache that keeps to its limit.

What is at a URL is looked up once, when the source is opened. From then on every file is the one that was found there:
copies are kept by URL, size and whatever the server gives to tell a changed file, an ETag or a date, and one that is
another by the time it is fetched is refused.
"""

import errno
import functools
import hashlib
import itertools
import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from caev2.errors import SourceError, SourceUnreachable
from caev2.store.remote.cache import Cache, CacheSettings
from caev2.store.remote.fetching import RemoteFolder
from caev2.store.remote.paths import DEFAULT_CACHE, in_background, use_copy

_ASKING = 16
"""Files that a server is asked about at once."""

# in the words of fsspec's file systems; what tells contents comes before dates
_TELLING = (
    *("ETag", "etag", "md5Hash", "crc32c", "blob_id", "Content-MD5", "content_md5", "Digest", "generation"),
    *("LastModified", "last_modified", "Last-Modified", "updated", "modified", "mtime"),
)

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class ImagesUrl:
    """The URL of images, or a pattern of URLs, before anything is looked up."""

    text: str
    cache: CacheSettings = DEFAULT_CACHE
    """Where copies are kept."""

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Found:
    """What a server says of a file."""

    bytes: int | None
    """Its size; none: the server does not say."""
    mark: str
    """Another one when the file has changed."""


class RemoteImages(RemoteFolder):
    """Files of images at a URL, as they were when they were looked up.

    Args:
        url: Of their folder.
        settings: Of the cache.
        files: What was found, by path below the folder.
    """

    unreachable = SourceUnreachable

    def __init__(self, url: str, settings: CacheSettings, files: Mapping[str, Found]):
        super().__init__(url, settings)
        self.files = files
        self._copies = Cache(settings, prefix=f"images-{_short_hash(url)}")

    def identity_of(self, name: str) -> str:
        """A text that is another one when the file is."""
        return f"{self.url}/{name}\0{self.files[name].bytes}\0{self.files[name].mark}"

    def copy_of(self, name: str) -> Path:
        """The copy of a file, fetched unless it is there.

        Raises:
            FileNotFoundError: There was no such file.
            SourceError: There is none any more, or another one.
            SourceUnreachable: The server does not answer.
        """
        return self._copies.get(self._copy_name(name), functools.partial(self._bring, name))

    def begin_copy(self, name: str) -> None:
        """Fetch a file, unless it is there or another process fetches it."""
        self._copies.get_unless_begun(self._copy_name(name), functools.partial(self._bring, name))

    def _copy_name(self, name: str) -> str:
        if name not in self.files:
            raise FileNotFoundError(errno.ENOENT, "there is no such file", f"{self.url}/{name}")
        hashed = _short_hash(self.identity_of(name))
        return f"{hashed[:2]}/{hashed[2:]}"

    def _bring(self, name: str, part: Path) -> None:
        wanted = self.files[name]
        try:
            self.attempt(name, functools.partial(_fetch, part=part, wanted_bytes=wanted.bytes))
            now = self.look_up(name)
        except FileNotFoundError:
            raise SourceError(
                f"cannot read {self.url}/{name}: it is not there any more. Restore it and run the same command again: "
                "it goes on with what was finished."
            ) from None
        if now.bytes != wanted.bytes or (now.mark != wanted.mark and not wanted.mark.startswith(_UNTOLD)):
            raise SourceError(
                f"{self.url}/{name} has changed since its images were listed: it is {_say(now)}, and was "
                f"{_say(wanted)}. Run the same command again when nobody writes to it."
            )

    def look_up(self, name: str) -> Found:
        """What the server says of a file now."""
        return self.attempt(name, _ask)


_UNTOLD = "untold "


def _found(told: Mapping[str, Any]) -> Found:
    mark = next((f"{word} {told[word]}" for word in _TELLING if told.get(word)), None)
    return Found(told.get("size"), mark or _UNTOLD + uuid.uuid4().hex)  # no copy of it serves another time


def _ask(fs: Any, path: str) -> Found:
    fs.invalidate_cache()
    return _found(fs.info(path))


def _say(found: Found) -> str:
    return f"{'?' if found.bytes is None else found.bytes} bytes, {found.mark}"


def _fetch(fs: Any, path: str, part: Path, wanted_bytes: int | None) -> None:
    fs.get_file(path, str(part))
    size = part.stat().st_size
    if wanted_bytes is not None and size < wanted_bytes and _ask(fs, path).bytes == wanted_bytes:
        raise ConnectionError(f"it ended after {size} of {wanted_bytes} bytes")


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class ImagePath:
    """A file or folder of images at a URL; it offers what reading images takes of a local path."""

    root: RemoteImages
    inside: str = ""

    def __str__(self) -> str:
        return f"{self.root.url}/{self.inside}" if self.inside else self.root.url

    def __truediv__(self, other: str) -> "ImagePath":
        return ImagePath(self.root, f"{self.inside}/{other}" if self.inside else other)

    @property
    def name(self) -> str:
        """The last part."""
        return PurePosixPath(self.inside or self.root.url).name

    @property
    def parent(self) -> "ImagePath":
        """The folder it lies in."""
        return ImagePath(self.root, self.inside.rpartition("/")[0])

    def is_file(self) -> bool:
        """Whether there was such a file when the source was opened."""
        return self.inside in self.root.files

    def is_dir(self) -> bool:
        """Whether there was anything below."""
        return any(True for _ in self.names_below())

    def names_below(self) -> Iterable[str]:
        """The paths of the files below."""
        before = f"{self.inside}/" if self.inside else ""
        return (name.removeprefix(before) for name in self.root.files if name.startswith(before))

    def read_bytes(self) -> bytes:
        """The content of the file."""
        return self.use_copy(Path.read_bytes)

    def use_copy(self, action: Callable[[Path], Result]) -> Result:
        """Do something with a copy of the file."""
        return use_copy(lambda: self.root.copy_of(self.inside), action, self)


SourcePath = Path | ImagePath
"""Where images may lie."""


def on_disk(path: SourcePath, action: Callable[[Path], Result]) -> Result:
    """Do something with a file, or with a copy of one that lies at a URL."""
    return action(path) if isinstance(path, Path) else path.use_copy(action)


def look_up_files(url: str, names: Iterable[str], settings: CacheSettings) -> ImagePath:
    """The folder of some files at a URL.

    Args:
        url: Of the folder.
        names: The files; each has to be there.
        settings: Of the cache.

    Raises:
        SourceError: One is missing.
        SourceUnreachable: The server does not answer.
        ConfigError: There is no such kind of URL, or what it needs is not installed.
    """
    folder, wanted = RemoteImages(url, settings, {}), list(names)

    def ask(name: str) -> Found:
        try:
            return folder.look_up(name)
        except FileNotFoundError:
            raise SourceError(
                f"There is no file at {url}/{name}. Give the URL of files that are there; of one that should be, "
                "restore it: its images would be left out."
            ) from None

    folder.file_system()
    found = dict(zip(wanted, in_threads(ask, wanted, at_once=_ASKING), strict=True))
    return ImagePath(RemoteImages(url, settings, found))


def in_threads(action: Callable[[str], Result], names: Iterable[str], *, at_once: int) -> list[Result]:
    """What an action returns for each name; the first that fails ends it."""
    pool = ThreadPoolExecutor(at_once)
    try:
        return list(pool.map(action, names))
    finally:
        pool.shutdown(cancel_futures=True)


def look_up_folder(url: str, settings: CacheSettings) -> ImagePath:
    """A folder at a URL with all that lies below it; hidden names are passed over.

    Raises:
        SourceError: The server lists no folders, or there is nothing.
        SourceUnreachable: The server does not answer.
        ConfigError: There is no such kind of URL, or what it needs is not installed.
    """
    if url.startswith(("http://", "https://")):
        raise SourceError(
            f"{url} is no tar and no table, and web servers do not list folders. Name the files: {url}/{{000..012}}.tar"
        )
    folder = RemoteImages(url, settings, {})

    def find(fs: Any, path: str) -> dict[str, Found]:
        fs.invalidate_cache()
        top = path.rstrip("/") + "/"
        told = fs.find(top.rstrip("/"), detail=True)
        return {name.removeprefix(top): _found(one) for name, one in told.items() if name.startswith(top)}

    try:
        found = folder.attempt("", find)
    except FileNotFoundError:
        found = {}
    if not found:
        raise SourceError(f"There are no images at {url}: nothing lies there. Look at the URL.")
    hidden = {name for name in found if any(part.startswith(".") for part in name.split("/"))}
    return ImagePath(RemoteImages(url, settings, {name: found[name] for name in found if name not in hidden}))


class ReadAhead:
    """Fetches the next file while one is read, as long as files are opened in their order.

    Args:
        root: Where they lie; there is nothing to do for a local folder.
        paths: The file of each image, in the order of the images.
    """

    def __init__(self, root: SourcePath, paths: Iterable[str]):
        self._root = root
        self._next = {} if isinstance(root, Path) else dict(itertools.pairwise([None, *dict.fromkeys(paths)]))
        self._last: str | None = None

    def opened(self, name: str) -> None:
        """Take notice that a file is being read."""
        following = self._next.get(name)
        if not isinstance(self._root, Path) and following is not None and self._next.get(self._last) == name:
            path = self._root / following
            in_background(functools.partial(path.root.begin_copy, path.inside))
        self._last = name
