"""From an image's file to its rendered views, in worker processes: one decode for all views."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import UInt8

from caev2.errors import ImageUndecodable
from caev2.store.images import ImageSource
from caev2.store.pixels.crops import CropEncoding, as_kept
from caev2.store.pixels.decode import decode_rgb
from caev2.store.pixels.views import View, ViewSettings, draw_view, render_view
from caev2.store.records import ImageFacts, describe_file
from caev2.store.unit_writer import RenderedView
from caev2.workers import in_order


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """What a worker hands over about one image; without views if it could not be decoded."""

    number: int
    """Of the image in its source."""
    facts: ImageFacts
    views: tuple[View, ...]
    crops: UInt8[torch.Tensor, "view size size 3"]
    kept: tuple[bytes, ...]
    """The crops as the store keeps them; empty texts where it does not."""

    def rendered(self) -> list[RenderedView]:
        """The views with their pixels."""
        return [RenderedView(*parts) for parts in zip(self.views, self.crops.numpy(), self.kept, strict=True)]


@dataclass(frozen=True, slots=True)
class _Preparation:
    """Prepares images of a source by their numbers."""

    source: ImageSource
    settings: ViewSettings
    views: range
    crops: CropEncoding | None

    def prepare(self, image: int) -> PreparedImage:
        return prepare(self.source, image, self.settings, self.views, self.crops)


def prepare(
    source: ImageSource, image: int, settings: ViewSettings, chosen: range, crops: CropEncoding | None = None
) -> PreparedImage:
    """Read, decode and crop one image. What cannot be decoded becomes facts with a reason.

    Raises:
        SourceError: The file cannot be read now; another time it may, so it is not marked as undecodable.
    """
    size = settings.size_px
    none = torch.empty((0, size, size, 3), dtype=torch.uint8)
    data = source.read(image)
    try:
        pixels = decode_rgb(data, settings.orientation)
    except ImageUndecodable as problem:
        return PreparedImage(image, describe_file(data, reason=str(problem)), (), none, ())
    facts = describe_file(data, height=pixels.height, width=pixels.width)
    views = tuple(draw_view(settings, source.keys[image], index, pixels) for index in chosen)
    rendered = [as_kept(crops, render_view(pixels, view, size, settings.interpolation)) for view in views]
    pixels, kept = np.stack([crop for crop, _ in rendered]), tuple(data for _, data in rendered)
    return PreparedImage(image, facts, views, torch.from_numpy(pixels), kept)


def prepare_images(
    source: ImageSource,
    images: Iterable[int],
    settings: ViewSettings,
    chosen: range,
    workers: int,
    crops: CropEncoding | None = None,
) -> Iterator[PreparedImage]:
    """Prepare images in the given order, ahead of their use if there are workers.

    Args:
        source: Where they come from.
        images: Their numbers; asked for as images are used, at most sixteen a worker ahead.
        settings: How views are drawn.
        chosen: Which views of each image.
        workers: Processes; 0: none but this one.
        crops: How the store keeps crops; the teacher sees them as they are kept.

    Raises:
        SourceError: A file cannot be read.
        WorkerDied: A worker was killed.
    """
    return in_order(_Preparation(source, settings, chosen, crops).prepare, images, workers=workers, ahead=16)
