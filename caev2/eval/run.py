"""Stage three: from frozen features to a number one can trust."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from caev2.errors import Caev2Error, SourceError
from caev2.eval.checks import check_several_classes
from caev2.eval.entrants import Entrant, RunFacts
from caev2.eval.features import LabelledFeatures, check_labelled, extract_features
from caev2.eval.interval import wilson
from caev2.eval.knn import knn_predict
from caev2.eval.linear import hold_out, linear_probe
from caev2.eval.result import Judged, ProbeResult
from caev2.progress import Progress, Silent
from caev2.store.images import ImageSource, Place, open_images
from caev2.store.pixels.decode import Orientation

RESIZE_RATIO = 256 / 224
"""Short side over crop, as in the published evaluation."""

KINDS = ("knn", "linear")
_ROLES = ("pixels", "random start", "student", "teacher")  # from the least to the most that one may hope for


def probe(
    entrants: Sequence[Entrant],
    images: Place,
    *,
    kinds: Sequence[str] = KINDS,
    resize_px: int | None = None,
    orientation: Orientation = "exif",
    seed: int = 0,
    device: str = "cpu",
    progress: Progress | None = None,
    run: RunFacts | None = None,
) -> ProbeResult:
    """Judge frozen features by k nearest neighbours and by a linear head, everybody on the same images.

    Whatever can be refused is refused before the first image is read: the classes, then everybody's weights. One
    subject at a time is in memory.

    Args:
        entrants: Who is judged.
        images: Labelled images in two parts: a folder with `train/CLASS/` and `val/CLASS/`, or tars or tables with
            these words in their names.
        kinds: Which probes.
        resize_px: Short side before the centre crop; none: 8/7 of the crop.
        orientation: Whether the EXIF orientation is applied.
        seed: Of the held-out tenth and the heads.
        device: Where to compute.
        progress: Who is told.
        run: Which weights the student is; becomes part of the result.

    Raises:
        SourceError: No such split, no classes, other classes in `val` than in `train`, or an undecodable image.
        Caev2Error: Somebody cannot be opened, and may not be missing.
    """
    train, val = open_splits(images)
    _refuse_hopeless(train, kinds)
    ordered = sorted(entrants, key=lambda entrant: _ROLES.index(entrant.role))
    reasons = [_reason_missing(entrant, device) for entrant in ordered]
    judged = [
        Judged(role=entrant.role, name=entrant.name, not_available=reason)
        if reason is not None
        else judge(
            entrant,
            train,
            val,
            kinds=kinds,
            resize_px=resize_px,
            orientation=orientation,
            seed=seed,
            device=device,
            progress=progress or Silent(),
        )
        for entrant, reason in zip(ordered, reasons, strict=True)
    ]
    return ProbeResult(
        subjects=tuple(judged),
        classes=train.classes,
        train_images=len(train),
        val_images=len(val),
        train_digest=train.digest(),
        val_digest=val.digest(),
        orientation=orientation,
        seed=seed,
        run=run,
    )


def judge(
    entrant: Entrant,
    train: ImageSource,
    val: ImageSource,
    *,
    kinds: Sequence[str],
    resize_px: int | None,
    orientation: Orientation,
    seed: int,
    device: str,
    workers: int = 1,
    progress: Progress,
) -> Judged:
    """What one subject's features are worth; see `probe`."""
    subject = entrant.open(device)
    resize_px = resize_px or round(subject.size_px * RESIZE_RATIO)
    train_features, val_features = (
        extract_features(
            subject,
            source,
            resize_px=resize_px,
            device=device,
            progress=progress,
            orientation=orientation,
            workers=workers,
        )
        for source in (train, val)
    )
    accuracy, protocol = {}, {}
    for kind in kinds:
        predicted, protocol[kind] = _PROBES[kind](train_features, val_features, len(train.classes), seed)
        accuracy[kind] = wilson(int((predicted == val_features.labels).sum()), len(val))
    return Judged(
        role=entrant.role,
        name=entrant.name,
        sha256=subject.sha256,
        accuracy=accuracy,
        protocol=protocol,
        resize_px=resize_px,
        crop_px=subject.size_px,
    )


def _reason_missing(entrant: Entrant, device: str) -> str | None:
    """Open somebody and let go again: weights that cannot be used are found before time is spent on others."""
    try:
        entrant.open(device)
    except Caev2Error as problem:
        if not entrant.may_be_missing:
            raise
        return str(problem)
    return None


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
    for source in (train, val):
        check_labelled(source)
    train, val = _count_as_far(train, val), _count_as_far(val, train)
    if train.classes != val.classes:
        only = sorted(set(train.classes) ^ set(val.classes))
        raise SourceError(
            f"{images}: train has {len(train.classes)} classes and val {len(val.classes)}; {only[0]!r} is in one of "
            "them only. Give both the same folders."
        )
    return train, val


def _count_as_far(source: ImageSource, other: ImageSource) -> ImageSource:
    """Classes that are mere numbers go as far as the largest label: in one part, it may be that of no image."""
    longer = tuple(map(str, range(max(len(source.classes), len(other.classes)))))
    if {source.classes, other.classes} <= {longer[: len(source.classes)], longer[: len(other.classes)]}:
        return dataclasses.replace(source, classes=longer)
    return source


def _refuse_hopeless(train: ImageSource, kinds: Sequence[str]) -> None:
    """Refuse labels that no features could help, while nothing has been spent."""
    labels = torch.tensor(train.labels)
    check_several_classes(labels, "train")
    if "linear" in kinds:
        hold_out(labels, share=0.1, seed=0)


def _probe_knn(train: LabelledFeatures, val: LabelledFeatures, classes: int, seed: int) -> tuple[Any, dict]:
    del seed  # nothing is drawn
    pooling = "class" if "class" in train.pooled else next(iter(train.pooled))
    k = min(20, len(train.labels))
    predicted = knn_predict(train.pooled[pooling], train.labels, val.pooled[pooling], classes=classes, k=k)
    return predicted, {"pooling": pooling, "k": k, "temperature": 0.07}


def _probe_linear(train: LabelledFeatures, val: LabelledFeatures, classes: int, seed: int) -> tuple[Any, dict]:
    found = linear_probe(train.pooled, train.labels, val.pooled, classes=classes, seed=seed)
    setting = {name: value for name, value in dataclasses.asdict(found).items() if name != "predictions"}
    return found.predictions, {"protocol": "fast", **setting}


_PROBES: dict[str, Any] = {"knn": _probe_knn, "linear": _probe_linear}
