"""Where images come from: a key, a label and the bytes of the file for each."""

import itertools
import os
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from caev2.errors import SourceError
from caev2.store.index import Listing, digest_listing

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""What torchvision's `ImageFolder` takes for an image, in any case of letters."""

NO_LABEL = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSource:
    """A folder of images in a fixed order, that of their keys.

    Keys are paths relative to the folder, `/`-separated and in Unicode's NFC, so that the same images have the same
    keys on every file system.
    """

    root: Path
    keys: tuple[str, ...]
    """One a image, sorted by code point."""
    paths: tuple[str, ...]
    """Where each lies below `root`, as the file system spells it."""
    labels: tuple[int, ...]
    """Index into `classes`, or -1."""
    classes: tuple[str, ...]
    """Sorted names of the classes; empty where images lie flat."""

    def __len__(self) -> int:
        return len(self.keys)

    def read(self, index: int) -> bytes:
        """The bytes of one image's file.

        Raises:
            SourceError: The file has vanished or may not be read.
        """
        path = self.root / self.paths[index]
        try:
            return path.read_bytes()
        except OSError as problem:
            raise SourceError(f"cannot read {path}: {problem.strerror}") from None

    def listing(self) -> Listing:
        """What an index says of the images before they are read."""
        return Listing(keys=self.keys, paths=self.paths, labels=self.labels)

    def digest(self) -> str:
        """Equal for equal keys, labels and classes, wherever the images lie."""
        return digest_listing(self.listing(), self.classes)


def open_images(path: Path | str, split: Literal["train", "val"] = "train") -> ImageSource:
    """List a folder of images: an `ImageFolder` tree (one folder a class) or a flat folder.

    With folders `train` and `val` below it, `path` stands for a data set and `split` chooses the part.

    Raises:
        SourceError: There is no such folder, or no image in it.
    """
    root = Path(path)
    if not root.exists():
        raise SourceError(f"There are no images at {root}: the path does not exist. Give a folder of images.")
    if not root.is_dir():
        raise SourceError(f"{root} is a file. Give the folder that the images lie in.")
    if (root / "train").is_dir() and (root / "val").is_dir():
        root = root / split
    found = sorted((_key_of(name), name) for name in _walk(root))
    if not found:
        raise SourceError(
            f"There is no image in {root}: no file there ends in {', '.join(IMAGE_SUFFIXES)}. "
            "Give the folder that the images lie in."
        )
    keys = tuple(key for key, _ in found)
    _refuse_equal_keys(root, keys)
    labels, classes = _label(keys)
    return ImageSource(root=root, keys=keys, paths=tuple(name for _, name in found), labels=labels, classes=classes)


def _walk(root: Path) -> list[str]:
    """Image files below `root` by relative path; links are followed but not upwards, hidden names passed over."""
    names: list[str] = []
    top = Path(os.path.realpath(root))
    above = {os.path.dirname(root): frozenset(map(str, top.parents))}  # noqa: PTH120 - as os.walk spells it
    for folder, folders, files in os.walk(root, followlinks=True, onerror=_refuse_unreadable):
        real, ancestors = os.path.realpath(folder), above[os.path.dirname(folder)]  # noqa: PTH120
        if real in ancestors:  # a link that leads back up; one that leads to a sibling is a folder like any other
            folders.clear()
            continue
        above[folder] = ancestors | {real}
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        relative = os.path.relpath(folder, root)
        for name in files:
            if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith("."):
                names.append(name if relative == "." else f"{relative}/{name}")
    return names


def _refuse_unreadable(problem: OSError) -> None:
    raise SourceError(
        f"The folder {problem.filename} cannot be read: {problem.strerror}. Its images would be left out."
    )


def _key_of(name: str) -> str:
    r"""The key of a path: NFC; bytes that are no UTF-8 become `\\xNN`."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return unicodedata.normalize("NFC", text)


def _refuse_equal_keys(root: Path, keys: tuple[str, ...]) -> None:
    for one, other in itertools.pairwise(keys):
        if one == other:
            raise SourceError(
                f"Two files below {root} have the same key {one!r} once Unicode is normalised. Rename one."
            )


def _label(keys: tuple[str, ...]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Class of each key: its first folder, as in `ImageFolder`; none where any image lies at the top."""
    folders = [key.partition("/")[0] if "/" in key else None for key in keys]
    if None in folders:
        return (NO_LABEL,) * len(keys), ()
    classes = tuple(sorted(set(folders)))  # type: ignore[type-var]
    place = {name: index for index, name in enumerate(classes)}
    return tuple(place[name] for name in folders), classes  # type: ignore[index]
