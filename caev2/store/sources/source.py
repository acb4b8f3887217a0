"""What a source of images is, whatever its kind: a key, a label and the bytes of a file for each image, in order."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, runtime_checkable

from caev2.errors import SourceError
from caev2.store.index import Listing, digest_listing
from caev2.store.sources.at_url import SourcePath

Split = Literal["train", "val"]


@runtime_checkable
class Reader(Protocol):
    """Gets the bytes of images by their numbers; travels to worker processes."""

    def read(self, index: int) -> bytes:
        """The bytes of one image's file.

        Raises:
            ImageUndecodable: There is no file to read, and never was.
            SourceError: They cannot be read.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSource:
    """Images in a fixed order, that of their keys.

    Keys are `/`-separated and in Unicode's NFC. They are a function of what the source holds, and not of where it lies,
    so that the same images have the same keys everywhere.
    """

    root: SourcePath
    """Where all of it lies."""
    keys: tuple[str, ...]
    """One an image, sorted by code point."""
    paths: tuple[str, ...]
    """The file that each lies in, below `root`, as the file system spells it."""
    offsets: tuple[int, ...] | None = None
    """Where each begins in its file: a byte of a tar, a row of a table; none: each has a file of its own."""
    labels: tuple[int, ...]
    """Index into `classes`, or -1."""
    classes: tuple[str, ...]
    """Names of the classes, in the order of their labels; empty where there are none."""
    reader: Reader
    """Gets the bytes."""
    split: Split | None = None
    """Which part of a data set this is; none: it has no parts, and this is all of it."""
    seekable: bool = True
    """Whether an image can be read without what lies before it."""

    def __len__(self) -> int:
        return len(self.keys)

    def read(self, index: int) -> bytes:
        """The bytes of one image's file.

        Raises:
            ImageUndecodable: What the source calls an image is no file.
            SourceError: The file has vanished or may not be read.
        """
        return self.reader.read(index)

    def place(self, index: int) -> str:
        """Where one image lies, for people."""
        file = self.root / self.paths[index]
        return str(file) if self.offsets is None else f"{self.keys[index]!r} in {file}"

    def listing(self) -> Listing:
        """What an index says of the images before they are read."""
        return Listing(keys=self.keys, paths=self.paths, labels=self.labels, offsets=self.offsets)

    def digest(self) -> str:
        """Equal for equal keys, labels and classes, wherever the images lie."""
        return digest_listing(self.listing(), self.classes)

    def take(self, numbers: Sequence[int]) -> "ImageSource":
        """The source of some of these images, in the order of their keys, with all classes."""
        chosen = tuple(sorted(numbers))
        return replace(
            self,
            keys=tuple(self.keys[number] for number in chosen),
            paths=tuple(self.paths[number] for number in chosen),
            offsets=None if self.offsets is None else tuple(self.offsets[number] for number in chosen),
            labels=tuple(self.labels[number] for number in chosen),
            reader=_Some(self.reader, chosen),
        )


@dataclass(frozen=True, slots=True)
class _Some:
    """Reads some of the images of a source."""

    reader: Reader
    numbers: tuple[int, ...]

    def read(self, index: int) -> bytes:
        return self.reader.read(self.numbers[index])


def cannot_read(place: object, problem: OSError | str) -> SourceError:
    """The error for what was there and cannot be read now."""
    why = (problem.strerror or str(problem)) if isinstance(problem, OSError) else problem
    return SourceError(
        f"cannot read {place}: {why}. Restore it and run the same command again: it goes on with what was finished."
    )
