"""The two parts of a labelled data set, whose labels have to mean the same."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from caev2.errors import SourceError
from caev2.eval.features import check_labelled
from caev2.store.images import ImageSource, Place, open_images


def open_splits(images: Place) -> tuple[ImageSource, ImageSource]:
    """The labelled train and val images of a data set.

    Raises:
        SourceError: One is missing, they do not have the same classes, or an image has none.
    """
    train, val = open_images(images, "train"), open_images(images, "val")
    if train.split is None:
        folders = [f"{images}/{split}" for split in ("train", "val")]
        missing = next((folder for folder in folders if not Path(folder).is_dir()), folders[0])
        raise SourceError(
            f"A probe needs {folders[0]}/CLASS and {folders[1]}/CLASS, or tars or tables that have train and val in "
            f"their names, but there is no {missing}, nor such a pair of tars or tables."
        )
    return match_parts(images, train, val)


def match_parts(place: Place, train: ImageSource, val: ImageSource) -> tuple[ImageSource, ImageSource]:
    """Two parts whose labels mean the same.

    Raises:
        SourceError: They do not have the same classes, or an image has none.
    """
    for source in (train, val):
        check_labelled(source)
    train, val = _count_as_far(train, val), _count_as_far(val, train)
    check_same_classes(place, train.classes, val.classes)
    return train, val


def check_same_classes(place: Place, train: Sequence[str], val: Sequence[str]) -> None:
    """Refuse parts whose labels do not mean the same: labels are numbers, and the order of the names is what they mean.

    Raises:
        SourceError: They do not.
    """
    if only := sorted(set(train) ^ set(val)):
        raise SourceError(
            f"{place}: train has {len(train)} classes and val {len(val)}; {only[0]!r} is in one of them only. Give "
            "both the same folders."
        )
    if odd := [number for number, names in enumerate(zip(train, val, strict=True)) if len(set(names)) > 1]:
        raise SourceError(
            f"{place}: train and val have the same classes in another order: number {odd[0]} is {train[odd[0]]!r} in "
            f"train and {val[odd[0]]!r} in val. Write both with one list of classes."
        )


def _count_as_far(source: ImageSource, other: ImageSource) -> ImageSource:
    """Classes that are mere numbers go as far as the largest label: in one part, it may be that of no image."""
    longer = tuple(map(str, range(max(len(source.classes), len(other.classes)))))
    if {source.classes, other.classes} <= {longer[: len(source.classes)], longer[: len(other.classes)]}:
        return dataclasses.replace(source, classes=longer)
    return source


def check_seekable(source: ImageSource) -> None:
    """Refuse images that can be read in one order only, for whoever wants them in another.

    Raises:
        SourceError: They lie in a compressed tar.
    """
    if not source.seekable:
        raise SourceError(
            f"The images in {source.root} lie in a compressed tar, which can be read from its beginning only, and they "
            "are wanted in another order. Decompress it."
        )
