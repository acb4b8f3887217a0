"""Folders of images: `ImageFolder` trees, one folder a class, and flat ones."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from caev2.errors import SourceError
from caev2.store.sources.keys import key_of, refuse_equal_keys
from caev2.store.sources.labels import label_by_folder
from caev2.store.sources.source import ImageSource, Split

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""What torchvision's `ImageFolder` takes for an image, in any case of letters."""


@dataclass(frozen=True, slots=True)
class FileReader:
    """Images that have a file each."""

    root: Path
    paths: tuple[str, ...]

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


def open_folder(root: Path, names: Sequence[str], split: Split | None) -> ImageSource:
    """The source of the images with these paths below a folder.

    Raises:
        SourceError: Two have the same key.
    """
    found = sorted((key_of(name), name) for name in names)
    keys, paths = tuple(key for key, _ in found), tuple(name for _, name in found)
    refuse_equal_keys(root, keys)
    labels, classes = label_by_folder(keys)
    return ImageSource(
        root=root, keys=keys, paths=paths, labels=labels, classes=classes, reader=FileReader(root, paths), split=split
    )


def files_below(root: Path) -> list[str]:
    """Files below a folder by relative path; links are followed but not upwards, hidden names passed over.

    Raises:
        SourceError: A folder cannot be read.
    """
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
        visible = [name for name in files if not name.startswith(".")]
        names += visible if relative == "." else [f"{relative}/{name}" for name in visible]
    return names


def _refuse_unreadable(problem: OSError) -> None:
    raise SourceError(
        f"The folder {problem.filename} cannot be read: {problem.strerror}. Its images would be left out."
    )
