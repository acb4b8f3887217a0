"""Where images come from: telling the kinds of sources apart."""

from pathlib import Path

from caev2.errors import SourceError
from caev2.store.sources.folder import IMAGE_SUFFIXES, files_below, open_folder
from caev2.store.sources.labels import NO_LABEL
from caev2.store.sources.source import ImageSource, Split

__all__ = ["IMAGE_SUFFIXES", "NO_LABEL", "ImageSource", "open_images"]


def open_images(path: Path | str, split: Split = "train") -> ImageSource:
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
    part = None
    if (root / "train").is_dir() and (root / "val").is_dir():
        root, part = root / split, split
    names = [name for name in files_below(root) if name.lower().endswith(IMAGE_SUFFIXES)]
    if not names:
        raise SourceError(
            f"There is no image in {root}: no file there ends in {', '.join(IMAGE_SUFFIXES)}. "
            "Give the folder that the images lie in."
        )
    return open_folder(root, names, part)
