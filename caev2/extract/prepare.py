"""From an image's file to its rendered views, in worker processes: one decode for all views."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch.utils.data import DataLoader, Dataset

from caev2.errors import ImageUndecodable, SourceError
from caev2.store.decode import decode_rgb
from caev2.store.images import ImageSource
from caev2.store.records import ImageFacts, describe_file
from caev2.store.views import View, ViewSettings, draw_view, render_view
from caev2.store.writer import RenderedView


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """What a worker hands over about one image; without views if it could not be decoded."""

    facts: ImageFacts
    views: tuple[View, ...]
    crops: UInt8[torch.Tensor, "view size size 3"]

    def rendered(self) -> list[RenderedView]:
        """The views with their pixels."""
        return [RenderedView(view, crop) for view, crop in zip(self.views, self.crops.numpy(), strict=True)]


class _PreparedImages(Dataset):
    def __init__(self, source: ImageSource, settings: ViewSettings, view_count: int):
        self._source, self._settings, self._view_count = source, settings, view_count

    def __getitem__(self, image: int) -> PreparedImage | SourceError:
        try:
            return prepare(self._source, image, self._settings, self._view_count)
        except SourceError as problem:  # handed over, so that it arrives from a worker as it is
            return problem


def prepare(source: ImageSource, image: int, settings: ViewSettings, view_count: int) -> PreparedImage:
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
        return PreparedImage(describe_file(data, reason=str(problem)), (), none)
    facts = describe_file(data, height=pixels.height, width=pixels.width)
    views = tuple(draw_view(settings, source.keys[image], index, pixels) for index in range(view_count))
    crops = np.stack([render_view(pixels, view, size, settings.interpolation) for view in views])
    return PreparedImage(facts, views, torch.from_numpy(crops))


def prepare_images(
    source: ImageSource, images: Sequence[int], settings: ViewSettings, view_count: int, workers: int
) -> Iterator[PreparedImage]:
    """Prepare images in the given order, ahead of their use if there are workers.

    Raises:
        SourceError: A file cannot be read.
    """
    loader = DataLoader(
        _PreparedImages(source, settings, view_count),
        batch_size=None,
        sampler=images,  # type: ignore[arg-type]
        num_workers=workers,
        prefetch_factor=16 if workers else None,
        collate_fn=_as_is,
    )
    for image in loader:
        if isinstance(image, SourceError):
            raise image
        yield image


def _as_is(item: Any) -> Any:
    return item
