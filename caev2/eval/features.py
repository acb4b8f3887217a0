"""Frozen features: what is judged, and how images become features.

A subject is anything that turns crops into features: a student of a run, a random start, a teacher, the pixels
themselves. Each offers one or more poolings; heads are chosen among them on held-out training images.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from PIL import Image
from torch import Tensor

from caev2.errors import ImageUndecodable, SourceError
from caev2.eval.checks import check_informative
from caev2.eval.trunk import Pooled, Trunk
from caev2.progress import Progress
from caev2.store.images import ImageSource
from caev2.store.pixels.decode import Orientation, decode_rgb
from caev2.workers import in_order


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Something whose features are judged."""

    name: str
    """What it is, in a few words."""
    size_px: int
    """Side of the crops it takes."""
    pool: Callable[[UInt8[Tensor, "image size size 3"]], Pooled]
    """Features of some crops, by pooling."""
    trunk: Trunk | None = None
    """Where features are pooled tokens: the tokens."""
    sha256: str | None = None
    """Identity of a teacher's weights."""
    identity: str | None = None
    """Equal for subjects with equal features; none: unknown, so features are not kept for another time."""

    @property
    def poolings(self) -> dict[str, tuple[str, ...]] | None:
        """What a linear head may look at, by name; none: each pooling by itself."""
        return None if self.trunk is None else self.trunk.poolings()


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledFeatures:
    """Features of all images of a split, by pooling, and their classes."""

    pooled: Pooled
    labels: Int64[Tensor, " image"]


def evaluation_crop(
    data: bytes, size_px: int, resize_px: int, orientation: Orientation = "exif"
) -> UInt8[np.ndarray, "size size 3"]:
    """Resize the short side, bicubic, then crop the centre: the evaluation transform of the published protocols."""
    image = decode_rgb(data, orientation)
    width, height = image.size
    short = min(width, height)
    if short != resize_px:  # as torchvision's Resize: the long side is cut down to an integer
        image = image.resize(
            (int(resize_px * width / short), int(resize_px * height / short)), Image.Resampling.BICUBIC
        )
    left, top = round((image.width - size_px) / 2), round((image.height - size_px) / 2)
    return np.array(image.crop((left, top, left + size_px, top + size_px)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cropping:
    """How a worker turns a range of images into a batch."""

    source: ImageSource
    size_px: int
    resize_px: int
    orientation: Orientation

    def crops_of(self, images: range) -> UInt8[Tensor, "image size size 3"]:
        return torch.from_numpy(np.stack([self._crop(image) for image in images]))

    def _crop(self, image: int) -> UInt8[np.ndarray, "size size 3"]:
        try:
            return evaluation_crop(self.source.read(image), self.size_px, self.resize_px, self.orientation)
        except ImageUndecodable as problem:
            raise SourceError(
                f"{self.source.place(image)} cannot be decoded: {problem}. Every image of an "
                "evaluation counts; repair or remove it."
            ) from None


def check_labelled(source: ImageSource) -> None:
    """Check that every image has a class.

    Raises:
        SourceError: One has none.
    """
    if not source.classes:
        raise SourceError(
            f"{source.root} has no classes: put each image into a folder called like its class, or give labels as "
            "docs/images.md says for tars, tables and lists."
        )
    if (bare := next((image for image, label in enumerate(source.labels) if label < 0), None)) is not None:
        raise SourceError(f"{source.place(bare)} has no label. Give it one, or leave it out.")


def extract_features(
    subject: Subject,
    source: ImageSource,
    *,
    resize_px: int,
    device: str,
    progress: Progress,
    orientation: Orientation = "exif",
    batch: int = 128,
    workers: int = 1,
) -> LabelledFeatures:
    """Features of every image of a source, in its order.

    Args:
        subject: What is judged.
        source: Images with classes.
        resize_px: Short side before the centre crop.
        device: Where the subject is.
        progress: Who is told.
        orientation: Whether the EXIF orientation is applied; features mean most under the rule they were learnt by.
        batch: Images at a time.
        workers: Processes that decode.

    Raises:
        SourceError: An image cannot be decoded, or images have no classes.
        CheckpointError: The first features are not finite, or the same for different images.
    """
    check_labelled(source)
    progress.start(f"features of {subject.name}", len(source))
    cropping = _Cropping(source=source, size_px=subject.size_px, resize_px=resize_px, orientation=orientation)
    batches = [range(first, min(first + batch, len(source))) for first in range(0, len(source), batch)]
    parts: dict[str, list[Tensor]] = {}
    for crops in in_order(cropping.crops_of, batches, workers=workers):
        with torch.inference_mode():
            pooled = {name: features.float().cpu() for name, features in subject.pool(crops.to(device)).items()}
        if not parts:
            check_informative(pooled, crops, subject.name)
        for name, features in pooled.items():
            parts.setdefault(name, []).append(features)
        progress.advance(len(crops))
    progress.finish()
    whole = {name: torch.cat(pieces).clone() for name, pieces in parts.items()}
    return LabelledFeatures(pooled=whole, labels=torch.tensor(source.labels))
