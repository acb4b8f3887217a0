"""Which images of a folder look most like some others, to a student."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from caev2.eval.cache import cut_in_parts
from caev2.eval.crops import Cropping
from caev2.eval.features import Subject
from caev2.progress import Progress
from caev2.store.images import ImageSource
from caev2.store.pixels.decode import Orientation
from caev2.store.sources.folder import read_file
from caev2.workers import in_order

_BATCH = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """An image of the folder."""

    image: int
    """Its number in the source."""
    key: str
    cosine: float
    """Of its class token and the other image's."""


def class_tokens(
    subject: Subject,
    source: ImageSource,
    *,
    resize_px: int,
    orientation: Orientation,
    device: str,
    workers: int,
    progress: Progress,
) -> Float[Tensor, "image width"]:
    """The class tokens of every image of a source; labels are not looked at.

    Raises:
        SourceError: An image cannot be decoded.
    """
    cropping = Cropping(source=source, size_px=subject.size_px, resize_px=resize_px, orientation=orientation)
    parts = cut_in_parts(len(source), _BATCH)
    progress.start("images of the folder", len(source))
    found = []
    with torch.inference_mode():
        for crops in in_order(cropping.crops_of, parts, workers=workers):
            found.append(subject.pool(crops.to(device))["class"].float().cpu())
            progress.advance(len(crops))
    progress.finish()
    return torch.cat(found)


def rank(
    queries: Float[Tensor, "query width"], features: Float[Tensor, "image width"]
) -> tuple[Int[Tensor, "query image"], Float[Tensor, "query image"]]:
    """All images by falling cosine, and the cosines; of equal ones the first comes first."""
    cosine = normalize(queries, dim=1) @ normalize(features, dim=1).T
    ordered = cosine.sort(dim=1, descending=True, stable=True)
    return ordered.indices, ordered.values


def find_neighbours(
    paths: Sequence[Path],
    queries: Float[Tensor, "query width"],
    source: ImageSource,
    features: Float[Tensor, "image width"],
    count: int,
) -> list[list[Neighbour]]:
    """The nearest images of each query; files that are the query itself, byte for byte, are passed over."""
    order, cosines = rank(queries, features)
    found = []
    for path, images, values in zip(paths, order.tolist(), cosines.tolist(), strict=True):
        data, nearest = read_file(path), []
        for image, cosine in zip(images, values, strict=True):
            if len(nearest) == count:
                break
            if source.read(image) != data:
                nearest.append(Neighbour(image=image, key=source.keys[image], cosine=round(cosine, 6)))
        found.append(nearest)
    return found
