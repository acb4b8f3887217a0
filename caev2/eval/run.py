"""Stage three: from frozen features to a number one can trust."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from caev2.errors import SourceError
from caev2.eval.features import LabelledFeatures, Subject, extract_features
from caev2.eval.interval import Accuracy, wilson
from caev2.eval.knn import knn_predict
from caev2.eval.linear import linear_probe
from caev2.progress import Progress, Silent
from caev2.store.disk import write_whole, writing
from caev2.store.images import ImageSource, open_images
from caev2.terminal import print_json, print_table

Kind = Literal["knn", "linear"]
RESIZE_RATIO = 256 / 224
"""Short side over crop, as in the published evaluation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """What a subject's frozen features are worth on a data set."""

    subject: str
    classes: int
    train_images: int
    val_images: int
    accuracy: dict[str, Accuracy]
    """By kind of probe: share of right answers on `val`, with a 95 % Wilson interval."""
    protocol: dict[str, Any]
    """By kind of probe: pooling and settings, as chosen on a held-out tenth of `train`."""
    resize_px: int
    crop_px: int
    seed: int


def probe(
    subject: Subject,
    images: Path | str,
    *,
    kinds: Sequence[str] = ("knn", "linear"),
    resize_px: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    progress: Progress | None = None,
) -> ProbeResult:
    """Judge frozen features by k nearest neighbours and by a linear head.

    Args:
        subject: What is judged; see `open_subject`.
        images: A folder with `train/CLASS/` and `val/CLASS/`.
        kinds: Which probes.
        resize_px: Short side before the centre crop; none: 8/7 of the crop.
        seed: Of the held-out tenth and the heads.
        device: Where to compute.
        progress: Who is told.

    Raises:
        SourceError: No such split, no classes, other classes in `val` than in `train`, or an undecodable image.
    """
    train_source, val_source = open_splits(Path(images))
    resize_px = resize_px or round(subject.size_px * RESIZE_RATIO)
    train, val = (
        extract_features(subject, source, resize_px=resize_px, device=device, progress=progress or Silent())
        for source in (train_source, val_source)
    )
    classes = len(train_source.classes)
    accuracy, protocol = {}, {}
    for kind in kinds:
        predicted, protocol[kind] = _PROBES[kind](train, val, classes, seed)
        accuracy[kind] = wilson(int((predicted == val.labels).sum()), len(val.labels))
    return ProbeResult(
        subject=subject.name,
        classes=classes,
        train_images=len(train_source),
        val_images=len(val_source),
        accuracy=accuracy,
        protocol=protocol,
        resize_px=resize_px,
        crop_px=subject.size_px,
        seed=seed,
    )


def open_splits(images: Path) -> tuple[ImageSource, ImageSource]:
    """The labelled train and val images of a data set.

    Raises:
        SourceError: One is missing, or they do not have the same classes.
    """
    for split in ("train", "val"):
        if not (images / split).is_dir():
            raise SourceError(
                f"A probe needs {images}/train/CLASS and {images}/val/CLASS, but there is no {images / split}."
            )
    train, val = open_images(images, "train"), open_images(images, "val")
    if train.classes != val.classes:
        only = sorted(set(train.classes) ^ set(val.classes))
        raise SourceError(
            f"{images}: train has {len(train.classes)} classes and val {len(val.classes)}; {only[0]!r} is in one of "
            "them only. Give both the same folders."
        )
    return train, val


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


_PROBES = {"knn": _probe_knn, "linear": _probe_linear}


def save_result(result: ProbeResult, run: Path) -> Path:
    """Write `result.json` into the folder of the run it judges."""
    path = run / "result.json"
    content = json.dumps(dataclasses.asdict(result), indent=1, ensure_ascii=False) + "\n"
    with writing(run):
        write_whole(path, content.encode(), scratch=run)
    return path


def print_result(result: ProbeResult, as_json: bool) -> None:
    """Print a result as a table, or as JSON."""
    if as_json:
        print_json(dataclasses.asdict(result))
        return
    title = (
        f"{result.subject}: {result.train_images} train and {result.val_images} val images, {result.classes} classes"
    )
    rows = [
        (kind, str(accuracy), result.protocol[kind].get("pooling", "")) for kind, accuracy in result.accuracy.items()
    ]
    print_table(title, ("probe", "accuracy % (95 % interval)", "pooling"), rows)
