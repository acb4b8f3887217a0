"""Frozen features: what is judged, and how images become features.

A subject is anything that turns crops into features: a student of a run, a random start, a teacher, the pixels
themselves. Each offers one or more poolings; heads are chosen among them on held-out training images.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from caev2.errors import ImageUndecodable, SourceError
from caev2.progress import Progress
from caev2.store.decode import decode_rgb
from caev2.store.images import ImageSource

Pooled = dict[str, Float[Tensor, "image width"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Something whose features are judged."""

    name: str
    """What it is, in a few words."""
    size_px: int
    """Side of the crops it takes."""
    pool: Callable[[UInt8[Tensor, "image size size 3"]], Pooled]
    """Features of some crops, by pooling."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledFeatures:
    """Features of all images of a split, by pooling, and their classes."""

    pooled: Pooled
    labels: Int64[Tensor, " image"]


def evaluation_crop(data: bytes, size_px: int, resize_px: int) -> UInt8[np.ndarray, "size size 3"]:
    """Resize the short side, bicubic, then crop the centre: the evaluation transform of the published protocols."""
    image = decode_rgb(data)
    width, height = image.size
    short = min(width, height)
    if short != resize_px:  # as torchvision's Resize: the long side is cut down to an integer
        image = image.resize(
            (int(resize_px * width / short), int(resize_px * height / short)), Image.Resampling.BICUBIC
        )
    left, top = round((image.width - size_px) / 2), round((image.height - size_px) / 2)
    return np.array(image.crop((left, top, left + size_px, top + size_px)))


class _Crops(Dataset):
    def __init__(self, source: ImageSource, size_px: int, resize_px: int):
        self._source, self._size_px, self._resize_px = source, size_px, resize_px

    def __getitem__(self, image: int) -> Tensor | SourceError:
        """A crop, or why there is none: torch would bury a worker's error in its traceback."""
        try:
            return self._crop(image)
        except SourceError as problem:
            return problem

    def _crop(self, image: int) -> Tensor:
        try:
            return torch.from_numpy(evaluation_crop(self._source.read(image), self._size_px, self._resize_px))
        except ImageUndecodable as problem:
            raise SourceError(
                f"{self._source.root / self._source.paths[image]} cannot be decoded: {problem}. Every image of an "
                "evaluation counts; repair or remove it."
            ) from None

    def __len__(self) -> int:
        return len(self._source)


def extract_features(
    subject: Subject,
    source: ImageSource,
    *,
    resize_px: int,
    device: str,
    progress: Progress,
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
        batch: Images at a time.
        workers: Processes that decode.

    Raises:
        SourceError: An image cannot be decoded, or images have no classes.
    """
    if not source.classes:
        raise SourceError(f"{source.root} has no classes: put each image into a folder called like its class.")
    progress.start(f"features of {subject.name}", len(source))
    parts: dict[str, list[Tensor]] = {}
    for crops in _batches(source, subject.size_px, resize_px, batch, workers):
        with torch.inference_mode():
            for name, features in subject.pool(crops.to(device)).items():
                parts.setdefault(name, []).append(features.float().cpu())
        progress.advance(len(crops))
    progress.finish()
    pooled = {name: torch.cat(pieces).clone() for name, pieces in parts.items()}
    return LabelledFeatures(pooled=pooled, labels=torch.tensor(source.labels))


def _batches(source: ImageSource, size_px: int, resize_px: int, batch: int, workers: int) -> Iterator[Tensor]:
    crops = _Crops(source, size_px, resize_px)
    for images in DataLoader(crops, batch_size=batch, num_workers=workers, collate_fn=_as_is):
        for image in images:
            if isinstance(image, SourceError):
                raise image
        yield torch.stack(images)


def _as_is(items: Any) -> Any:
    return items
