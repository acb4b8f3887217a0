"""Folders of images: `ImageFolder` trees, one folder a class, and flat ones."""

import errno
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from caev2.errors import ImageUndecodable, SourceError
from caev2.store.sources.at_url import SourcePath, on_disk
from caev2.store.sources.keys import key_of, refuse_equal_keys
from caev2.store.sources.labels import label_by_folder
from caev2.store.sources.source import ImageSource, Split, cannot_read

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""What torchvision's `ImageFolder` takes for an image, in any case of letters."""

_MOST_BYTES = 2 << 30  # no image within Pillow's limit on pixels has more
_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


@dataclass(frozen=True, slots=True)
class FileReader:
    """Images that have a file each."""

    root: SourcePath
    paths: tuple[str, ...]
    strange: Mapping[str, str] = field(default_factory=dict)
    """What is no file, by its path, and why."""

    def read(self, index: int) -> bytes:
        """The bytes of one image's file.

        Raises:
            ImageUndecodable: There has never been a file.
            SourceError: The file has vanished or may not be read.
        """
        name = self.paths[index]
        if name in self.strange:
            raise ImageUndecodable(self.strange[name])
        return read_file(self.root / name)


def read_file(path: SourcePath) -> bytes:
    """The bytes of a file. Nothing is read of pipes and the like: they may never end.

    Raises:
        ImageUndecodable: It is no file, or larger than any image.
        SourceError: It has vanished or may not be read.
    """
    try:
        return on_disk(path, _read)
    except OSError as problem:
        raise cannot_read(path, problem) from None


def _read(path: Path) -> bytes:
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise ImageUndecodable(_say_kind(found.st_mode))
    if found.st_size > _MOST_BYTES:
        raise ImageUndecodable(f"the file has {found.st_size:,} bytes, more than any image that is decoded")
    return path.read_bytes()


def open_folder(
    root: SourcePath, names: Sequence[str], split: Split | None, strange: Mapping[str, str] | None = None
) -> ImageSource:
    """The source of the images with these paths below a folder.

    Args:
        root: The folder.
        names: The paths.
        split: Which part of a data set this is.
        strange: What is no file, and why; among the images it counts as one that cannot be decoded.

    Raises:
        SourceError: Two have the same key.
    """
    found = sorted((key_of(name), name) for name in names)
    keys, paths = tuple(key for key, _ in found), tuple(name for _, name in found)
    refuse_equal_keys(root, keys)
    labels, classes = label_by_folder(keys)
    reader = FileReader(root, paths, strange or {})
    return ImageSource(root=root, keys=keys, paths=paths, labels=labels, classes=classes, reader=reader, split=split)


def files_below(root: SourcePath) -> tuple[list[str], dict[str, str]]:
    """What lies below a folder and is no folder, by relative path; and of what is no file, why it is none.

    Links are followed but not upwards, hidden names passed over.

    Raises:
        SourceError: A folder cannot be read.
    """
    if not isinstance(root, Path):
        return list(root.names_below()), {}
    names: list[str] = []
    strange: dict[str, str] = {}
    top = os.path.realpath(root)
    waiting = [("", frozenset(map(str, Path(top).parents)))]
    while waiting:
        folder, above = waiting.pop()
        real = os.path.realpath(root / folder)
        if real in above:  # a link that leads back up; one that leads to a sibling is a folder like any other
            continue
        for entry in _entries(root / folder):
            name = folder + entry.name
            if (kind := _kind_of(entry)) is _FOLDER:
                waiting.append((name + "/", above | {real}))
                continue
            names.append(name)
            if kind:
                strange[name] = kind
    return names, strange


_FOLDER = "a folder"


def _entries(folder: Path) -> Iterator[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            yield from (entry for entry in entries if not entry.name.startswith("."))
    except OSError as problem:
        raise SourceError(
            f"The folder {problem.filename} cannot be read: {problem.strerror}. Its images would be left out."
        ) from None


def _kind_of(entry: os.DirEntry) -> str | None:
    """None for a file; links count as what they lead to. Only links and what is no file cost a look at the disk."""
    try:
        if entry.is_dir():
            return _FOLDER
        return None if entry.is_file() else _say_kind(entry.stat().st_mode)
    except OSError as problem:
        if problem.errno == errno.ELOOP:
            return "no file but a link that leads back to itself"
        if problem.errno == errno.ENOENT and entry.is_symlink():
            return "no file but a link to something that is not there"
        return None  # reading it will tell


def _say_kind(mode: int) -> str:
    return f"no file but {_KINDS.get(stat.S_IFMT(mode), 'something else')}"
